package oauth

import (
	"context"
	"crypto/subtle"
	"net/http"
	"slices"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// exchangeCode serves RFC 6749 section 4.1.3 with RFC 7636 section 4.6.
func (p *Provider) exchangeCode(r *http.Request, f form, client *tenant.Client) (*tokenResponse, error) {
	resp, userID, err := p.redeem(r.Context(), f, client)
	if err != nil {
		return nil, p.failed(r, tenant.LogFailedCodeExchange, client, userID, err)
	}
	ev := p.event(r, tenant.LogCodeExchange, client)
	ev.UserID, ev.Scope = userID, resp.Scope
	p.log.Append(tenantOf(r.Context()), ev)
	return resp, nil
}

func (p *Provider) redeem(ctx context.Context, f form, client *tenant.Client) (*tokenResponse, string, error) {
	code := f.get("code")
	if code == "" {
		return nil, "", problem.New(problem.Invalid, "invalid_request", "Missing required parameter: code")
	}
	t := tenantOf(ctx)
	invalid := invalidGrant("Invalid authorization code")
	var g grantOf
	var refused error
	err := p.docs.Write(ctx, t, func(tx tenant.Tx) error {
		g, refused = grantOf{}, nil
		err := once.Take(tx, once.AuthorizationCode, code, &g)
		switch problem.From(err).Code {
		case once.CodeUsed:
			// Whoever comes second, one of the two stole the code: what the first got ends
			// (RFC 6749 section 4.1.2). That has to be committed, so it is no error here.
			refused = invalid
			if g.ClientID == client.ID {
				return revokeFamily(tx, g.Family)
			}
			return nil
		case once.CodeUnknown:
			refused = invalid
			return nil
		}
		if err != nil {
			return err
		}
		// A code that comes with a wrong proof is used up all the same.
		refused = check(g, f, client)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	if refused != nil {
		return nil, g.UserID, refused
	}
	u, err := p.activeUser(ctx, t, g.UserID)
	if err != nil {
		return nil, g.UserID, err
	}
	api, err := p.api(ctx, t, g.Audience)
	if err != nil {
		return nil, g.UserID, err
	}
	resp, err := p.tokensFor(ctx, t, client, api, u, g, "")
	return resp, g.UserID, err
}

// check proves that a code is redeemed by whom it was made for.
func check(g grantOf, f form, client *tenant.Client) error {
	verifier := f.get("code_verifier")
	switch {
	case g.ClientID != client.ID:
		return invalidGrant("Invalid authorization code")
	case g.RedirectURI != "" && f.get("redirect_uri") != g.RedirectURI:
		return invalidGrant("The redirect URI is wrong. You sent %s, and we expected %s", clip(f.get("redirect_uri"), 256), g.RedirectURI)
	case g.CodeChallenge == "" && verifier != "":
		return invalidGrant("code_verifier was sent, but the authorization request had no code_challenge")
	case g.CodeChallenge != "" && verifier == "":
		return invalidGrant("Missing required parameter: code_verifier")
	case g.CodeChallenge == "":
		return nil
	case len(verifier) < 43 || len(verifier) > 128 || subtle.ConstantTimeCompare([]byte(s256(verifier)), []byte(g.CodeChallenge)) != 1:
		return invalidGrant("Failed to verify code verifier")
	}
	return nil
}

// activeUser returns a user who may have tokens.
func (p *Provider) activeUser(ctx context.Context, tenantID, id string) (*tenant.User, error) {
	u, err := tenant.Get[tenant.User](ctx, p.docs, tenantID, tenant.KindUser, id)
	if problem.Is(err, problem.NotFound) {
		return nil, invalidGrant("The user does not exist any more")
	}
	if err != nil {
		return nil, err
	}
	if u.IsBlocked() {
		return nil, invalidGrant("user is blocked")
	}
	return u, nil
}

// tokensFor makes the tokens of a user's grant, with a refresh token when
// offline_access was granted.
func (p *Provider) tokensFor(ctx context.Context, tenantID string, client *tenant.Client, api *tenant.ResourceServer, u *tenant.User, g grantOf, gty string) (*tokenResponse, error) {
	granted, permissions, err := p.grantScopes(ctx, tenantID, g.Scope, api, client, u.ID)
	if err != nil {
		return nil, err
	}
	to := grantedTo{Client: client, API: api, User: u, Scope: granted, Permissions: permissions, GrantType: gty, Family: g.Family, SessionID: g.SessionID}
	resp := &tokenResponse{TokenType: "Bearer", Scope: scopeOf(granted)}
	if resp.AccessToken, resp.ExpiresIn, err = p.accessToken(ctx, tenantID, to); err != nil {
		return nil, err
	}
	if slices.Contains(granted, "openid") {
		if resp.IDToken, err = p.idToken(ctx, tenantID, to, g.Nonce, g.AuthTime, g.Methods); err != nil {
			return nil, err
		}
	}
	if slices.Contains(granted, "offline_access") {
		token := newRefreshToken()
		err = p.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
			// The code may have been used a second time since it was taken.
			revoked, err := once.Claimed(tx, once.RevokedFamily, g.Family)
			if err != nil {
				return err
			}
			if revoked {
				return invalidGrant("Invalid authorization code")
			}
			rt := refreshToken{Family: g.Family, UserID: u.ID, ClientID: client.ID, Audience: g.Audience, Scope: granted, SessionID: g.SessionID,
				AuthTime: g.AuthTime, Methods: g.Methods, CreatedAt: tx.Now()}
			rt.expire(policyOf(client), tx.Now())
			return tenant.Add(tx, tenant.KindRefreshToken, hashed(token), rt)
		})
		if err != nil {
			return nil, err
		}
		resp.RefreshToken = token
	}
	return resp, nil
}

// revokedTTL is how long a family stays on the list of revoked ones: as long as
// the longest access token for /userinfo.
const revokedTTL = userinfoTTL + time.Hour

// revokeFamily ends everything that came of one login: its refresh tokens, and
// access tokens at /userinfo.
func revokeFamily(tx tenant.Tx, family string) error {
	if family == "" {
		return nil
	}
	if _, err := tx.DeleteWhere(tenant.KindRefreshToken, []tenant.Cond{{Column: "family", Value: family}}); err != nil {
		return err
	}
	err := once.Claim(tx, once.RevokedFamily, family, revokedTTL)
	if problem.From(err).Code == once.CodeUsed {
		return nil
	}
	return err
}
