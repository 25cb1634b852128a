package oauth

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// Lifetimes that no setting changes.
const (
	codeTTL        = 5 * time.Minute // RFC 6749 section 4.1.2 allows ten; browsers need seconds
	transactionTTL = time.Hour       // as long as a login page may stay open
	assertionTTL   = 5 * time.Minute // how far ahead the exp of a client assertion may lie
	clockSkew      = 10 * time.Second
)

// Deps are what a Provider works with.
type Deps struct {
	Docs      tenant.Docs
	Directory *tenant.Directory
	Keys      *tenant.Keys
	Users     Authenticator
	Pages     Pages
	Log       tenant.Log
	Logger    *slog.Logger
	Now       func() time.Time
}

// Provider is the OAuth 2 and OpenID Connect side of all tenants.
type Provider struct {
	docs   tenant.Docs
	dir    *tenant.Directory
	keys   *tenant.Keys
	users  Authenticator
	pages  Pages
	log    tenant.Log
	logger *slog.Logger
	now    func() time.Time
}

var _ Flow = (*Provider)(nil)

// New makes a Provider. Pages may be set later with SetPages, as pages need the
// Provider in turn.
func New(d Deps) *Provider {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Provider{docs: d.Docs, dir: d.Directory, keys: d.Keys, users: d.Users, pages: d.Pages, log: d.Log, logger: d.Logger, now: d.Now}
}

// SetPages completes a Provider that was made without pages, before it serves.
func (p *Provider) SetPages(pages Pages) { p.pages = pages }

// Register adds the endpoints to a mux below the host router.
func (p *Provider) Register(mux *http.ServeMux) {
	api := func(pattern string, h web.HandlerFunc) { mux.Handle(pattern, web.Handle(h, renderJSON)) }
	page := func(pattern string, h web.HandlerFunc) { mux.Handle(pattern, web.Handle(h, p.renderPage)) }

	api("GET /.well-known/openid-configuration", p.discovery)
	api("GET /.well-known/oauth-authorization-server", p.discovery)
	api("GET /.well-known/jwks.json", p.jwks)
	page("GET /authorize", p.authorize)
	page("POST /authorize", p.authorize)
	api("POST /oauth/token", p.cors(p.token))
	api("OPTIONS /oauth/token", p.preflight)
	api("POST /oauth/revoke", p.cors(p.revoke))
	api("OPTIONS /oauth/revoke", p.preflight)
	api("POST /oauth/introspect", p.introspect)
	api("GET /userinfo", p.cors(p.userinfo))
	api("POST /userinfo", p.cors(p.userinfo))
	api("OPTIONS /userinfo", p.preflight)
	page("GET /v2/logout", p.logoutV2)
	page("GET /oidc/logout", p.logoutOIDC)
	page("POST /oidc/logout", p.logoutOIDC)
}

// renderPage shows an error on a page of our own: nothing is sent to a redirect
// URI that was not trusted yet.
func (p *Provider) renderPage(w http.ResponseWriter, r *http.Request, e *problem.Error) {
	p.pages.Error(w, r, e)
}

// errorBody is the form of RFC 6749 section 5.2.
type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

func renderJSON(w http.ResponseWriter, r *http.Request, e *problem.Error) {
	body := errorBody{e.Code, described(e.Message)}
	if e.Kind == problem.Internal {
		body = errorBody{"server_error", described(e.Message) + ". Request id: " + web.RequestID(r.Context())}
	}
	if e.Kind == problem.Unavailable {
		body.Error = "temporarily_unavailable" // RFC 6749 section 4.1.2.1
	}
	if body.Error == "" {
		body.Error = "invalid_request"
	}
	if e.HTTPStatus() == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challenge(r, body))
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 section 5.1
	_ = web.JSON(w, e.HTTPStatus(), body)
}

// challenge is RFC 6750 section 3 for resources, and Basic for clients that tried
// it (RFC 6749 section 5.2).
func challenge(r *http.Request, body errorBody) string {
	if r.URL.Path != "/userinfo" {
		return `Basic realm="portcullis"`
	}
	if r.Header.Get("Authorization") == "" {
		return `Bearer realm="userinfo"`
	}
	return `Bearer realm="userinfo", error="` + body.Error + `"`
}

// event begins a log event of a request.
func (p *Provider) event(r *http.Request, typ tenant.LogType, c *tenant.Client) tenant.LogEvent {
	e := tenant.LogEvent{Type: typ, IP: web.ClientIP(r.Context()).String(), UserAgent: clip(r.UserAgent(), 512), Hostname: r.Host}
	if c != nil {
		e.ClientID, e.ClientName = c.ID, c.Name
	}
	return e
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// tenantOf is the tenant that a request is for.
func tenantOf(ctx context.Context) string { return tenant.FromContext(ctx).Name }
