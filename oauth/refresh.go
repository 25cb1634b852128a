package oauth

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// refreshToken is what the store keeps of a refresh token: everything but the
// token itself, whose hash is the id.
type refreshToken struct {
	Family    string    `json:"family"`
	UserID    string    `json:"user_id"`
	ClientID  string    `json:"client_id"`
	Audience  string    `json:"audience,omitempty"`
	Scope     []string  `json:"scope"`
	SessionID string    `json:"session_id,omitempty"`
	AuthTime  time.Time `json:"auth_time,omitzero"`
	Methods   []string  `json:"amr,omitempty"`
	CreatedAt time.Time `json:"created_at"` // of the first token of the family
	UsedAt    time.Time `json:"used_at,omitzero"`
	// RotatedAt is when another took this one's place; it works no more after the
	// leeway.
	RotatedAt *time.Time `json:"rotated_at,omitempty"`
	ExpiresAt time.Time  `json:"expires_at"`
}

// newRefreshToken makes a value with 256 bits of entropy.
func newRefreshToken() string { return "v1." + tenant.RandomString(43) }

// policyOf is how a client's refresh tokens live. A client without a setting
// rotates when it has no secret (RFC 9700 section 2.2.2).
func policyOf(c *tenant.Client) tenant.RefreshPolicy {
	if c.RefreshToken != nil {
		return *c.RefreshToken
	}
	p := tenant.RefreshPolicy{RotationType: "non-rotating", ExpirationType: "expiring", TokenLifetime: 2592000, IdleTokenLifetime: 1296000}
	if public(c) {
		p.RotationType = "rotating"
	}
	return p
}

// forever is the end of tokens that do not expire by setting: far, so that even
// they are purged one day when nobody has used them.
const forever = 10 * 365 * 24 * time.Hour

// expire sets the end: the absolute one counts from the first token of the
// family, the idle one from now.
func (rt *refreshToken) expire(p tenant.RefreshPolicy, now time.Time) {
	end := now.Add(forever)
	if p.ExpirationType == "expiring" || p.RotationType == "rotating" {
		if !p.InfiniteTokenLifetime && p.TokenLifetime > 0 {
			end = earlier(end, rt.CreatedAt.Add(time.Duration(p.TokenLifetime)*time.Second))
		}
		if !p.InfiniteIdleLifetime && p.IdleTokenLifetime > 0 {
			end = earlier(end, now.Add(time.Duration(p.IdleTokenLifetime)*time.Second))
		}
	}
	rt.ExpiresAt = end
}

// refresh serves RFC 6749 section 6 with rotation (RFC 9700 section 4.14).
func (p *Provider) refresh(r *http.Request, f form, client *tenant.Client) (*tokenResponse, error) {
	resp, rt, err := p.useRefreshToken(r.Context(), f, client)
	if err != nil {
		typ, user := tenant.LogFailedRefresh, ""
		if rt != nil {
			if user = rt.UserID; rt.RotatedAt != nil {
				typ = tenant.LogReusedRefresh
			}
		}
		return nil, p.failed(r, typ, client, user, err)
	}
	ev := p.event(r, tenant.LogRefresh, client)
	ev.UserID, ev.Scope = rt.UserID, resp.Scope
	p.log.Append(tenantOf(r.Context()), ev)
	return resp, nil
}

func (p *Provider) useRefreshToken(ctx context.Context, f form, client *tenant.Client) (*tokenResponse, *refreshToken, error) {
	token := f.get("refresh_token")
	if token == "" {
		return nil, nil, problem.New(problem.Invalid, "invalid_request", "Missing required parameter: refresh_token")
	}
	asked, err := parseScope(f.get("scope"))
	if err != nil {
		return nil, nil, err
	}
	t, policy := tenantOf(ctx), policyOf(client)
	unknown := invalidGrant("Unknown or invalid refresh token.")
	next := newRefreshToken()
	var rt *refreshToken
	var user *tenant.User
	var refused error
	rotated := false
	// One transaction: of any number of parallel uses one rotates.
	err = p.docs.Write(ctx, t, func(tx tenant.Tx) error {
		rt, user, refused, rotated = nil, nil, nil, false
		now := tx.Now()
		found, err := tenant.Load[refreshToken](tx, tenant.KindRefreshToken, hashed(token))
		if problem.Is(err, problem.NotFound) {
			refused = unknown
			return nil
		}
		if err != nil {
			return err
		}
		if found.ClientID != client.ID {
			refused = unknown
			return nil
		}
		rt = found
		if !now.Before(rt.ExpiresAt) {
			refused = unknown
			return nil
		}
		if aud := f.get("audience"); aud != "" && aud != rt.Audience {
			refused = problem.New(problem.Invalid, "invalid_scope", "audience differs from the one that the refresh token was made for")
			return nil
		}
		for _, s := range asked {
			if !slices.Contains(rt.Scope, s) {
				refused = problem.New(problem.Invalid, "invalid_scope", "The scope %s was not granted to the refresh token (RFC 6749 section 6)", clip(s, 128))
				return nil
			}
		}
		if rt.RotatedAt != nil && !inLeeway(now.Sub(*rt.RotatedAt), policy) {
			// An old token came back: either its owner or a thief has the new one. Both lose
			// theirs.
			refused = unknown
			return revokeFamily(tx, rt.Family)
		}
		if user, err = tenant.Load[tenant.User](tx, tenant.KindUser, rt.UserID); problem.Is(err, problem.NotFound) || err == nil && user.IsBlocked() {
			refused = unknown
			return nil
		}
		if err != nil {
			return err
		}
		if policy.RotationType != "rotating" {
			return touch(tx, token, rt, policy, now)
		}
		if rt.RotatedAt == nil {
			if _, err := tenant.Change(tx, tenant.KindRefreshToken, hashed(token), func(old *refreshToken) error {
				old.RotatedAt = &now
				// It has to be known for as long as its children live, to notice a reuse.
				return nil
			}); err != nil {
				return err
			}
		}
		rotated = true
		child := *rt
		child.RotatedAt, child.UsedAt = nil, now
		child.expire(policy, now)
		return tenant.Add(tx, tenant.KindRefreshToken, hashed(next), child)
	})
	if err != nil {
		return nil, rt, err
	}
	if refused != nil {
		return nil, rt, refused
	}
	resp, err := p.refreshed(ctx, t, client, rt, user, asked)
	if err == nil && rotated {
		resp.RefreshToken = next
	}
	return resp, rt, err
}

// inLeeway reports whether a token may be used once more so long after another took
// its place: its client may not have got the answer. A clock that was set back
// opens no new leeway.
func inLeeway(since time.Duration, policy tenant.RefreshPolicy) bool {
	return policy.Leeway > 0 && since < time.Duration(policy.Leeway)*time.Second && since > -clockSkew
}

// touch moves the idle end of a token that does not rotate, at most once a
// minute.
func touch(tx tenant.Tx, token string, rt *refreshToken, policy tenant.RefreshPolicy, now time.Time) error {
	if now.Sub(rt.UsedAt) < time.Minute {
		return nil
	}
	_, err := tenant.Change(tx, tenant.KindRefreshToken, hashed(token), func(rt *refreshToken) error {
		rt.UsedAt = now
		rt.expire(policy, now)
		return nil
	})
	return err
}

func (p *Provider) refreshed(ctx context.Context, tenantID string, client *tenant.Client, rt *refreshToken, u *tenant.User, asked []string) (*tokenResponse, error) {
	api, err := p.api(ctx, tenantID, rt.Audience)
	if err != nil {
		return nil, err
	}
	if len(asked) == 0 {
		asked = rt.Scope
	}
	// Permissions may have been taken away since: they are judged again.
	granted, permissions, err := p.grantScopes(ctx, tenantID, asked, api, client, u.ID)
	if err != nil {
		return nil, err
	}
	to := grantedTo{Client: client, API: api, User: u, Scope: granted, Permissions: permissions, Family: rt.Family, SessionID: rt.SessionID}
	resp := &tokenResponse{TokenType: "Bearer", Scope: scopeOf(granted)}
	if resp.AccessToken, resp.ExpiresIn, err = p.accessToken(ctx, tenantID, to); err != nil {
		return nil, err
	}
	if slices.Contains(granted, "openid") {
		resp.IDToken, err = p.idToken(ctx, tenantID, to, "", rt.AuthTime, rt.Methods)
	}
	return resp, err
}

// revoke serves RFC 7009: the refresh token and everything of its family end. An
// unknown token is no error.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	client, err := p.authenticateClient(r, f)
	if err != nil {
		return err
	}
	token := f.get("token")
	if token == "" {
		return problem.New(problem.Invalid, "invalid_request", "Missing required parameter: token")
	}
	t := tenantOf(r.Context())
	var gone *refreshToken
	err = p.docs.Write(r.Context(), t, func(tx tenant.Tx) error {
		gone = nil
		rt, err := tenant.Load[refreshToken](tx, tenant.KindRefreshToken, hashed(token))
		if problem.Is(err, problem.NotFound) || err == nil && rt.ClientID != client.ID {
			return nil
		}
		if err != nil {
			return err
		}
		gone = rt
		return revokeFamily(tx, rt.Family)
	})
	if err != nil {
		return err
	}
	if gone != nil {
		ev := p.event(r, tenant.LogRevoke, client)
		ev.UserID = gone.UserID
		p.log.Append(t, ev)
	} else if o, err := p.openOpaque(r.Context(), t, token); err == nil && o.ClientID == client.ID {
		// An access token for /userinfo ends with its family.
		if err := p.docs.Write(r.Context(), t, func(tx tenant.Tx) error { return revokeFamily(tx, o.Family) }); err != nil {
			return err
		}
	}
	noStore(w)
	w.WriteHeader(http.StatusOK)
	return nil
}
