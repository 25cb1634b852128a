package oauth

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// logoutV2 serves Auth0's /v2/logout: it ends the browser's session and goes to
// returnTo, which has to be on the client's list, or on the tenant's when no
// client is named.
func (p *Provider) logoutV2(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	returnTo, id := q.Get("returnTo"), q.Get("client_id")
	t := tenantOf(r.Context())
	settings, err := p.dir.Settings(r.Context(), t)
	if err != nil {
		return err
	}
	var client *tenant.Client
	allowed := settings.AllowedLogoutURLs
	if id != "" {
		if client, err = p.dir.Client(r.Context(), t, id); err == nil {
			allowed = append(slices.Clone(allowed), client.AllowedLogoutURLs...)
		} else if !problem.Is(err, problem.NotFound) {
			return err
		}
	}
	if returnTo != "" && !matchRedirect(allowed, returnTo, settings.Flags.AllowWildcardRedirects) {
		return p.failed(r, tenant.LogFailedLogout, client, "", problem.New(problem.Invalid, "invalid_request",
			"The URL to return to after the logout is not on the list of allowed logout URLs of the application or the tenant. It has to be there character for character."))
	}
	return p.loggedOut(w, r, client, returnTo, nil)
}

// logoutOIDC serves OpenID Connect RP-Initiated Logout 1.0.
func (p *Provider) logoutOIDC(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read")
	}
	v := r.Form
	t := tenantOf(r.Context())
	id := v.Get("client_id")
	hinted := false
	if hint := v.Get("id_token_hint"); hint != "" {
		audience, err := p.hintedClient(r.Context(), t, hint)
		if err != nil {
			return p.failed(r, tenant.LogFailedLogout, nil, "", err)
		}
		if id != "" && id != audience {
			return p.failed(r, tenant.LogFailedLogout, nil, "", problem.New(problem.Invalid, "invalid_request", "client_id differs from the audience of id_token_hint"))
		}
		id, hinted = audience, true
	}
	settings, err := p.dir.Settings(r.Context(), t)
	if err != nil {
		return err
	}
	var client *tenant.Client
	allowed := settings.AllowedLogoutURLs
	if id != "" {
		if client, err = p.dir.Client(r.Context(), t, id); problem.Is(err, problem.NotFound) {
			return p.failed(r, tenant.LogFailedLogout, nil, "", problem.New(problem.Invalid, "invalid_request", "Unknown client: %s", clip(id, 64)))
		} else if err != nil {
			return err
		}
		allowed = append(slices.Clone(client.AllowedLogoutURLs), allowed...)
	}
	back := v.Get("post_logout_redirect_uri")
	if back != "" && !matchRedirect(allowed, back, settings.Flags.AllowWildcardRedirects) {
		return p.failed(r, tenant.LogFailedLogout, client, "", problem.New(problem.Invalid, "invalid_request",
			"post_logout_redirect_uri is not on the list of allowed logout URLs of the application or the tenant. It has to be there character for character."))
	}
	// Section 2: without proof of who asks, a person confirms. A stranger's link must
	// not log anybody out.
	s, err := p.session(r)
	if err != nil {
		return err
	}
	if s != nil && !hinted && (r.Method != http.MethodPost || v.Get("confirm") != "yes") {
		return p.pages.ConfirmLogout(w, r, v)
	}
	params := url.Values{}
	if state := v.Get("state"); state != "" {
		params.Set("state", clip(state, maxParam))
	}
	return p.loggedOut(w, r, client, back, params)
}

// hintedClient reads whom an ID token was made for. An expired one will do: it is
// a hint, not a proof of a login.
func (p *Provider) hintedClient(ctx context.Context, tenantID, hint string) (string, error) {
	bad := problem.New(problem.Invalid, "invalid_request", "id_token_hint is no ID token of this server")
	if len(hint) > maxToken {
		return "", bad
	}
	token, err := jwt.ParseSigned(hint, append([]jose.SignatureAlgorithm{jose.HS256}, accessAlgs...))
	if err != nil || len(token.Headers) != 1 {
		return "", bad
	}
	var c jwt.Claims
	if token.Headers[0].Algorithm == string(jose.HS256) {
		if err := token.UnsafeClaimsWithoutVerification(&c); err != nil || len(c.Audience) != 1 {
			return "", bad
		}
		client, err := p.dir.Client(ctx, tenantID, c.Audience[0])
		if err != nil || client.Secret == "" || token.Claims([]byte(client.Secret), &c) != nil {
			return "", bad
		}
	} else {
		set, err := p.keys.Public(ctx, tenantID)
		if err != nil {
			return "", err
		}
		keys := set.Key(token.Headers[0].KeyID)
		if len(keys) != 1 || token.Claims(keys[0].Key, &c) != nil {
			return "", bad
		}
	}
	if c.Issuer != p.dir.URL(tenantID) || len(c.Audience) != 1 {
		return "", bad
	}
	return c.Audience[0], nil
}

func (p *Provider) loggedOut(w http.ResponseWriter, r *http.Request, client *tenant.Client, to string, params url.Values) error {
	s, err := p.session(r)
	if err != nil {
		return err
	}
	if err := p.endSession(w, r); err != nil {
		return err
	}
	if s != nil {
		ev := p.event(r, tenant.LogLogout, client)
		ev.UserID = s.UserID
		p.log.Append(tenantOf(r.Context()), ev)
	}
	noStore(w)
	if to == "" {
		p.pages.LoggedOut(w, r)
		return nil
	}
	http.Redirect(w, r, addQuery(to, params), http.StatusFound) // #nosec G710 -- matchRedirect found it on the list
	return nil
}
