package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// maxParam bounds each parameter of an authorization request but scope; maxRequest
// bounds what of them travels through the pages, so that a state opens again.
const (
	maxParam   = 2048
	maxRequest = 10 << 10
)

// authorize serves RFC 6749 section 4.1.1 and OpenID Connect Core section 3.1.2.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) error {
	values := r.URL.Query()
	if r.Method == http.MethodPost {
		if err := r.ParseForm(); err != nil {
			return problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read")
		}
		values = r.Form
	}
	req, client, err := p.trust(r.Context(), values)
	if err != nil {
		return err // a page: nothing here may send the browser anywhere
	}
	if err := p.validate(r.Context(), &req, client, values); err != nil {
		return p.sendError(w, r, req, err)
	}
	return p.resume(w, r, req, client)
}

// trust checks what has to hold before an answer may go to the redirect URI.
func (p *Provider) trust(ctx context.Context, v url.Values) (Request, *tenant.Client, error) {
	bad := func(format string, args ...any) (Request, *tenant.Client, error) {
		return Request{}, nil, problem.New(problem.Invalid, "invalid_request", format, args...)
	}
	for name, list := range v {
		if len(list) > 1 {
			return bad("The parameter %q stands more than once; allowed is once (RFC 6749 section 3.1)", clip(name, 64))
		}
		if name != "scope" && len(list[0]) > maxParam {
			return bad("The parameter %q is longer than the %d characters that are allowed", clip(name, 64), maxParam)
		}
		if !storable(name) || !storable(list[0]) {
			return Request{}, nil, notText(name)
		}
	}
	id := v.Get("client_id")
	if id == "" {
		return bad("Missing required parameter: client_id")
	}
	t := tenantOf(ctx)
	client, err := p.dir.Client(ctx, t, id)
	if problem.Is(err, problem.NotFound) || err == nil && client.Global {
		return Request{}, nil, problem.New(problem.Invalid, "invalid_request", "Unknown client: %s", clip(id, 64))
	}
	if err != nil {
		return Request{}, nil, err
	}
	settings, err := p.dir.Settings(ctx, t)
	if err != nil {
		return Request{}, nil, err
	}
	req := Request{ClientID: client.ID, RedirectURI: v.Get("redirect_uri"), RedirectSent: v.Get("redirect_uri") != "", State: v.Get("state"), ResponseMode: "query"}
	if !req.RedirectSent {
		// RFC 6749 section 3.1.2.3: it may be left out when there is only one.
		if len(client.Callbacks) != 1 || strings.Contains(client.Callbacks[0], "*") {
			return bad("Missing required parameter: redirect_uri")
		}
		req.RedirectURI = client.Callbacks[0]
	}
	if !matchRedirect(client.Callbacks, req.RedirectURI, settings.Flags.AllowWildcardRedirects) {
		return Request{}, nil, problem.New(problem.Invalid, "invalid_request",
			"Callback URL mismatch: the application %s has not registered the redirect_uri of this request. It has to be on its list of allowed callback URLs, character for character.", client.Name)
	}
	return req, client, nil
}

// validate reads the rest of a request. Its errors go to the redirect URI.
func (p *Provider) validate(ctx context.Context, req *Request, client *tenant.Client, v url.Values) error {
	bad := func(code, format string, args ...any) error {
		return problem.New(problem.Invalid, code, format, args...)
	}
	switch mode := v.Get("response_mode"); mode {
	case "", "query", "fragment", "form_post":
		if mode != "" {
			req.ResponseMode = mode
		}
	case "web_message":
		origin := originOf(req.RedirectURI)
		if !slices.Contains(client.WebOrigins, origin) && !slices.Contains(client.AllowedOrigins, origin) {
			return bad("access_denied", "response_mode=web_message wants %s on the application's list of allowed web origins", origin)
		}
		req.ResponseMode = mode
	default:
		return bad("invalid_request", "response_mode %q is not known; allowed are query, fragment, form_post, web_message", clip(mode, 64))
	}
	req.ResponseType = v.Get("response_type")
	switch req.ResponseType {
	case "code":
	case "":
		return bad("invalid_request", "Missing required parameter: response_type")
	default:
		return bad("unsupported_response_type", "response_type %q is not offered; allowed is code (RFC 9700 section 2.1.2)", clip(req.ResponseType, 64))
	}
	if !client.Grants("authorization_code") {
		return problem.New(problem.Forbidden, "unauthorized_client", "Grant type 'authorization_code' not allowed for the client.")
	}
	for _, unsupported := range []string{"request", "request_uri", "registration"} {
		if v.Get(unsupported) != "" {
			return bad(unsupported+"_not_supported", "The parameter %s is not supported", unsupported)
		}
	}
	var err error
	if req.Scope, err = parseScope(v.Get("scope")); err != nil {
		return err
	}
	req.Nonce, req.Connection, req.LoginHint, req.ScreenHint = v.Get("nonce"), v.Get("connection"), v.Get("login_hint"), v.Get("screen_hint")
	req.UILocales = strings.Fields(v.Get("ui_locales"))
	if len(req.UILocales) > 10 {
		req.UILocales = req.UILocales[:10]
	}
	prompts := strings.Fields(v.Get("prompt"))
	for _, one := range prompts {
		switch one {
		case "none":
			if len(prompts) > 1 {
				return bad("invalid_request", "prompt=none cannot be combined with other values")
			}
			req.Prompt = one
		case "login", "select_account":
			req.Prompt = "login"
		case "consent":
			if req.Prompt == "" {
				req.Prompt = one
			}
		default:
			return bad("invalid_request", "prompt %q is not known; allowed are none, login, consent, select_account", clip(one, 64))
		}
	}
	if s := v.Get("max_age"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return bad("invalid_request", "max_age wants a number of seconds, 0 or more")
		}
		req.MaxAge = &n
	}
	if err := challengeOf(req, client, v); err != nil {
		return err
	}
	if v.Get("organization") != "" || v.Get("invitation") != "" {
		return bad("invalid_request", "organizations are not available on this server yet: leave the parameter organization out")
	}
	req.Audience = v.Get("audience")
	if req.Audience == "" {
		settings, err := p.dir.Settings(ctx, tenantOf(ctx))
		if err != nil {
			return err
		}
		req.Audience = settings.DefaultAudience
	}
	// SDKs send the audience of /userinfo for a token of no API.
	if req.Audience == p.dir.URL(tenantOf(ctx))+"userinfo" {
		req.Audience = ""
	}
	api, err := p.api(ctx, tenantOf(ctx), req.Audience)
	if err != nil {
		return err
	}
	if api != nil && api.SubjectAuthorization.User.Policy == "deny_all" {
		return problem.New(problem.Forbidden, "access_denied", "Users cannot get tokens of the API %s", api.Identifier)
	}
	raw, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if len(raw) > maxRequest {
		return bad("invalid_request", "The parameters together are longer than the %d bytes that are allowed", maxRequest)
	}
	return nil
}

// challengeOf reads the PKCE parameters (RFC 7636). Public clients must send them
// (RFC 9700 section 2.1.1).
func challengeOf(req *Request, client *tenant.Client, v url.Values) error {
	challenge, method := v.Get("code_challenge"), v.Get("code_challenge_method")
	switch {
	case challenge == "" && method != "":
		return problem.New(problem.Invalid, "invalid_request", "code_challenge_method is there without code_challenge")
	case challenge == "" && public(client):
		return problem.New(problem.Invalid, "invalid_request", "Missing required parameter: code_challenge. Applications without a secret have to use PKCE with S256 (RFC 7636)")
	case challenge == "":
		return nil
	case method != "S256":
		return problem.New(problem.Invalid, "invalid_request", "code_challenge_method has to be S256 (RFC 9700 section 2.1.1)")
	case len(challenge) != 43 || strings.Trim(challenge, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		return problem.New(problem.Invalid, "invalid_request", "code_challenge wants 43 characters: BASE64URL(SHA256(code_verifier))")
	}
	req.CodeChallenge = challenge
	return nil
}

func public(c *tenant.Client) bool { return c.TokenEndpointAuthMethod == "none" }

// api returns the API of an audience, or nil for none. An unknown one is
// access_denied, as Auth0 says it.
func (p *Provider) api(ctx context.Context, tenantID, audience string) (*tenant.ResourceServer, error) {
	if audience == "" {
		return nil, nil
	}
	api, err := p.dir.ResourceServer(ctx, tenantID, audience)
	if problem.Is(err, problem.NotFound) {
		return nil, problem.New(problem.Forbidden, "access_denied", "Service not found: %s", clip(audience, 256))
	}
	return api, err
}

// resume decides whether the browser's session will do.
func (p *Provider) resume(w http.ResponseWriter, r *http.Request, req Request, client *tenant.Client) error {
	s, err := p.usableSession(r, req, client)
	if err != nil {
		return err
	}
	if s == nil {
		if req.Prompt == "none" {
			e := p.event(r, tenant.LogFailedSilentAuth, client)
			e.Description = "Login required"
			p.log.Append(tenantOf(r.Context()), e)
			return p.sendError(w, r, req, problem.New(problem.Invalid, "login_required", "Login required"))
		}
		page := LoginPath
		if req.ScreenHint == "signup" {
			page = SignupPath
		}
		return p.begin(w, r, page, req, "")
	}
	if req.Prompt == "none" {
		e := p.event(r, tenant.LogSilentAuth, client)
		e.UserID, e.Connection, e.ConnectionID, e.Strategy = s.UserID, s.Connection, s.ConnectionID, s.Strategy
		p.log.Append(tenantOf(r.Context()), e)
	}
	return p.proceed(w, r, req, s)
}

// usableSession returns the session if it satisfies the request: not asked for a
// new login, young enough, of the wanted connection, of a connection that the
// client may use, and of a user who may still log in.
func (p *Provider) usableSession(r *http.Request, req Request, client *tenant.Client) (*Session, error) {
	if req.Prompt == "login" {
		return nil, nil
	}
	s, err := p.session(r)
	if s == nil || err != nil {
		return nil, err
	}
	if req.MaxAge != nil && p.now().Sub(s.AuthTime) > time.Duration(*req.MaxAge)*time.Second {
		return nil, nil
	}
	t := tenantOf(r.Context())
	c, err := p.dir.Connection(r.Context(), t, s.ConnectionID)
	if problem.Is(err, problem.NotFound) || err == nil && (!c.EnabledFor(client.ID) || req.Connection != "" && req.Connection != c.Name) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u, err := tenant.Get[tenant.User](r.Context(), p.docs, t, tenant.KindUser, s.UserID)
	if problem.Is(err, problem.NotFound) || err == nil && u.IsBlocked() {
		return nil, nil
	}
	return s, err
}

// grantOf is what an authorization code stands for.
type grantOf struct {
	ClientID      string    `json:"client_id"`
	UserID        string    `json:"user_id"`
	RedirectURI   string    `json:"redirect_uri,omitempty"` // only if the request named it
	Audience      string    `json:"audience,omitempty"`
	Scope         []string  `json:"scope,omitempty"`
	Nonce         string    `json:"nonce,omitempty"`
	CodeChallenge string    `json:"code_challenge,omitempty"`
	SessionID     string    `json:"session_id,omitempty"`
	AuthTime      time.Time `json:"auth_time"`
	Methods       []string  `json:"amr,omitempty"`
	Family        string    `json:"family"` // all tokens that come of this code
	Connection    string    `json:"connection,omitempty"`
}

func (p *Provider) issueCode(w http.ResponseWriter, r *http.Request, req Request, s *Session, client *tenant.Client) error {
	t := tenantOf(r.Context())
	g := grantOf{ClientID: client.ID, UserID: s.UserID, Audience: req.Audience, Scope: req.Scope, Nonce: req.Nonce, CodeChallenge: req.CodeChallenge,
		SessionID: s.ID, AuthTime: s.AuthTime, Methods: s.Methods, Family: tenant.RandomString(22), Connection: s.Connection}
	if req.RedirectSent {
		g.RedirectURI = req.RedirectURI
	}
	code := once.New()
	err := p.docs.Write(r.Context(), t, func(tx tenant.Tx) error {
		return once.Put(tx, once.AuthorizationCode, code, s.UserID, g, codeTTL)
	})
	if err != nil {
		return err
	}
	return p.respond(w, r, req, url.Values{"code": {code}})
}

// sendError sends an error back to the client (RFC 6749 section 4.1.2.1). What
// nobody classified becomes server_error and is logged.
func (p *Provider) sendError(w http.ResponseWriter, r *http.Request, req Request, err error) error {
	e := problem.From(err)
	if e.Kind == problem.Internal || e.Kind == problem.Unavailable {
		return err // an error page with the request id is worth more than a redirect
	}
	if e.Code != "login_required" && e.Code != "consent_required" {
		ev := p.event(r, tenant.LogFailedLogin, nil)
		ev.ClientID, ev.Description = req.ClientID, e.Message
		p.log.Append(tenantOf(r.Context()), ev)
	}
	return p.respond(w, r, req, url.Values{"error": {e.Code}, "error_description": {described(e.Message)}})
}
