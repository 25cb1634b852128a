package oauth

import (
	"context"
	"net/http"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// introspection is RFC 7662 section 2.2.
type introspection struct {
	Active    bool     `json:"active"`
	Scope     string   `json:"scope,omitempty"`
	ClientID  string   `json:"client_id,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	Expiry    int64    `json:"exp,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
}

// introspect serves RFC 7662. It is for clients that have a secret or a key: who
// asks without could try tokens out. A token that is unknown, expired, revoked or
// of another tenant is inactive, and nothing says which. A refresh token is shown
// to its own client alone.
func (p *Provider) introspect(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	client, err := p.authenticateClient(r, f)
	if err != nil {
		return err
	}
	if public(client) {
		return problem.New(problem.Forbidden, "unauthorized_client", "Introspection is for clients that authenticate (RFC 7662 section 2.1)")
	}
	token := f.get("token")
	if token == "" {
		return problem.New(problem.Invalid, "invalid_request", "Missing required parameter: token")
	}
	found, err := p.introspected(r.Context(), tenantOf(r.Context()), client, token)
	if e := problem.From(err); err != nil && (e.Kind == problem.Unauthorized || e.Kind == problem.NotFound) {
		found, err = introspection{}, nil
	}
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, found)
}

// introspected fails with problem.Unauthorized or problem.NotFound for a token that
// is not active.
func (p *Provider) introspected(ctx context.Context, t string, client *tenant.Client, raw string) (introspection, error) {
	switch {
	case len(raw) > maxToken:
		return introspection{}, invalidToken("The token is too long")
	case strings.Count(raw, ".") == 4:
		o, err := p.liveOpaque(ctx, t, raw)
		if err != nil {
			return introspection{}, err
		}
		return introspection{Active: true, Scope: scopeOf(o.Scope), ClientID: o.ClientID, TokenType: "Bearer", Expiry: o.Expiry,
			Subject: o.UserID, Audience: []string{p.dir.URL(t) + "userinfo"}, Issuer: p.dir.URL(t)}, nil
	case strings.Count(raw, ".") == 2:
		c, err := p.verify(ctx, t, raw)
		if err != nil {
			return introspection{}, err
		}
		return introspection{Active: true, Scope: scopeOf(c.Scopes), ClientID: c.ClientID, TokenType: "Bearer", Expiry: c.Expiry.Unix(),
			IssuedAt: c.IssuedAt.Unix(), Subject: c.Subject, Audience: c.Audience, Issuer: p.dir.URL(t)}, nil
	}
	rt, err := tenant.Get[refreshToken](ctx, p.docs, t, tenant.KindRefreshToken, hashed(raw))
	if err != nil {
		return introspection{}, err
	}
	if rt.ClientID != client.ID || rt.RotatedAt != nil || !p.now().Before(rt.ExpiresAt) {
		return introspection{}, invalidToken("The refresh token is not active")
	}
	return introspection{Active: true, Scope: scopeOf(rt.Scope), ClientID: rt.ClientID, Expiry: rt.ExpiresAt.Unix(), IssuedAt: rt.CreatedAt.Unix(),
		Subject: rt.UserID, Issuer: p.dir.URL(t)}, nil
}
