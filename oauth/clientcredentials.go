package oauth

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// clientCredentials serves RFC 6749 section 4.4. It reads nothing but the cache
// and writes nothing but a log event.
func (p *Provider) clientCredentials(r *http.Request, f form, client *tenant.Client) (*tokenResponse, error) {
	resp, audience, err := p.clientToken(r.Context(), f, client)
	if err != nil {
		return nil, p.failed(r, tenant.LogFailedClientCredentials, client, "", err)
	}
	ev := p.event(r, tenant.LogClientCredentials, client)
	ev.Audience, ev.Scope = audience, resp.Scope
	p.log.Append(tenantOf(r.Context()), ev)
	return resp, nil
}

func (p *Provider) clientToken(ctx context.Context, f form, client *tenant.Client) (*tokenResponse, string, error) {
	if public(client) {
		return nil, "", problem.New(problem.Forbidden, "unauthorized_client", "Grant type 'client_credentials' not allowed for the client.")
	}
	t := tenantOf(ctx)
	audience := f.get("audience")
	if audience == "" {
		settings, err := p.dir.Settings(ctx, t)
		if err != nil {
			return nil, "", err
		}
		if audience = settings.DefaultAudience; audience == "" {
			return nil, "", problem.New(problem.Forbidden, "access_denied", "No audience parameter was provided, and no default audience has been configured")
		}
	}
	asked, err := parseScope(f.get("scope"))
	if err != nil {
		return nil, audience, err
	}
	api, err := p.api(ctx, t, audience)
	if err != nil {
		return nil, audience, err
	}
	grants, err := p.dir.ClientGrants(ctx, t, client.ID, api.Identifier)
	if err != nil {
		return nil, audience, err
	}
	i := slices.IndexFunc(grants, func(g *tenant.ClientGrant) bool { return g.SubjectType == "" || g.SubjectType == "client" })
	if i < 0 || api.SubjectAuthorization.Client.Policy == "deny_all" {
		return nil, audience, problem.New(problem.Forbidden, "access_denied",
			`Client is not authorized to access "%s". You need to create a "client-grant" associated to this API.`, clip(api.Identifier, 256))
	}
	allowed := grants[i].Scope
	if grants[i].AllowAllScopes {
		allowed = make([]string, len(api.Scopes))
		for i, s := range api.Scopes {
			allowed[i] = s.Value
		}
	}
	granted := allowed
	if len(asked) > 0 {
		granted = nil
		var missing []string
		for _, s := range asked {
			switch {
			case slices.Contains(allowed, s):
				granted = append(granted, s)
			case !isOIDC(s): // of a user; a client has none
				missing = append(missing, s)
			}
		}
		if len(missing) > 0 {
			return nil, audience, problem.New(problem.Forbidden, "access_denied", "Client has not been granted scopes: %s", clip(strings.Join(missing, ", "), 512))
		}
	}
	to := grantedTo{Client: client, API: api, Scope: granted, GrantType: "client-credentials"}
	if api.EnforcePolicies && strings.HasSuffix(api.TokenDialect, "_authz") {
		if to.Permissions = granted; to.Permissions == nil {
			to.Permissions = []string{}
		}
	}
	resp := &tokenResponse{TokenType: "Bearer", Scope: scopeOf(granted)}
	resp.AccessToken, resp.ExpiresIn, err = p.accessToken(ctx, t, to)
	return resp, audience, err
}
