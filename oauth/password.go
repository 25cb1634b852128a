package oauth

import (
	"context"
	"net/http"
	"slices"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// password serves RFC 6749 section 4.3, and Auth0's form of it that names the
// connection (realm).
func (p *Provider) password(r *http.Request, f form, client *tenant.Client) (*tokenResponse, error) {
	resp, userID, err := p.passwordToken(r.Context(), f, client)
	if err != nil {
		return nil, p.failed(r, tenant.LogFailedPasswordExchange, client, userID, err)
	}
	ev := p.event(r, tenant.LogPasswordExchange, client)
	ev.UserID, ev.Scope = userID, resp.Scope
	p.log.Append(tenantOf(r.Context()), ev)
	return resp, nil
}

func (p *Provider) passwordToken(ctx context.Context, f form, client *tenant.Client) (*tokenResponse, string, error) {
	for _, name := range []string{"username", "password"} {
		if f.get(name) == "" {
			return nil, "", problem.New(problem.Invalid, "invalid_request", "Missing required parameter: %s", name)
		}
	}
	t := tenantOf(ctx)
	c, err := p.realm(ctx, t, f, client)
	if err != nil {
		return nil, "", err
	}
	asked, err := parseScope(f.get("scope"))
	if err != nil {
		return nil, "", err
	}
	audience := f.get("audience")
	if audience == "" {
		settings, err := p.dir.Settings(ctx, t)
		if err != nil {
			return nil, "", err
		}
		audience = settings.DefaultAudience
	}
	api, err := p.api(ctx, t, audience)
	if err != nil {
		return nil, "", err
	}
	u, err := p.users.Authenticate(ctx, Credentials{Tenant: t, Client: client, Connection: c, Username: f.get("username"), Password: f.get("password")})
	if err != nil {
		return nil, "", err
	}
	g := grantOf{ClientID: client.ID, UserID: u.ID, Audience: audience, Scope: asked, AuthTime: p.now().UTC(), Methods: []string{"pwd"},
		Family: tenant.RandomString(22), Connection: c.Name}
	resp, err := p.tokensFor(ctx, t, client, api, u, g, "password")
	return resp, u.ID, err
}

// realm is the database connection that a password is for.
func (p *Provider) realm(ctx context.Context, tenantID string, f form, client *tenant.Client) (*tenant.Connection, error) {
	name := f.get("realm")
	if f.get("grant_type") == grantPasswordRealm {
		if name == "" {
			return nil, problem.New(problem.Invalid, "invalid_request", "Missing required parameter: realm")
		}
	} else {
		settings, err := p.dir.Settings(ctx, tenantID)
		if err != nil {
			return nil, err
		}
		if name = settings.DefaultDirectory; name == "" {
			return nil, problem.New(problem.Invalid, "invalid_request", "Authorization server not configured with default connection.")
		}
	}
	all, err := p.dir.ConnectionsFor(ctx, tenantID, client.ID)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(c *tenant.Connection) bool {
		return c.Database() && (c.Name == name || slices.Contains(c.Realms, name))
	})
	if i < 0 {
		return nil, problem.New(problem.Forbidden, "unauthorized_client", "The connection %s is not a database or is not enabled for the client", clip(name, 128))
	}
	return all[i], nil
}
