package oauth

import (
	"context"
	"net/http"
	"strings"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// userinfo serves OpenID Connect Core section 5.3.
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) error {
	raw, err := bearer(r)
	if err != nil {
		return err
	}
	ctx, t := r.Context(), tenantOf(r.Context())
	userID, scope, err := p.userinfoToken(ctx, t, raw)
	if err != nil {
		return err
	}
	u, err := tenant.Get[tenant.User](ctx, p.docs, t, tenant.KindUser, userID)
	if problem.Is(err, problem.NotFound) || err == nil && u.IsBlocked() {
		return invalidToken("The user does not exist any more, or is blocked")
	}
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, struct {
		Subject string `json:"sub"`
		claims
	}{u.ID, userClaims(u, scope)})
}

// bearer reads RFC 6750 section 2.1, and 2.2 for forms.
func bearer(r *http.Request) (string, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		kind, token, ok := strings.Cut(h, " ")
		if !ok || !strings.EqualFold(kind, "Bearer") || token == "" {
			return "", invalidToken("The Authorization header wants the form: Bearer TOKEN")
		}
		return token, nil
	}
	if r.Method == http.MethodPost {
		f, err := readForm(r)
		if err != nil {
			return "", err
		}
		if token := f.get("access_token"); token != "" {
			return token, nil
		}
	}
	return "", invalidToken("No access token was sent")
}

func (p *Provider) userinfoToken(ctx context.Context, tenantID, raw string) (userID string, scope []string, err error) {
	if len(raw) > maxToken {
		return "", nil, invalidToken("The token is too long")
	}
	if strings.Count(raw, ".") == 4 {
		o, err := p.liveOpaque(ctx, tenantID, raw)
		if err != nil {
			return "", nil, err
		}
		return o.UserID, o.Scope, nil
	}
	c, err := p.VerifyAccessToken(ctx, tenantID, raw, p.dir.URL(tenantID)+"userinfo")
	if err != nil {
		return "", nil, err
	}
	return c.Subject, c.Scopes, nil
}

// liveOpaque reads a token for /userinfo and fails with problem.Unauthorized when
// it expired or was revoked.
func (p *Provider) liveOpaque(ctx context.Context, tenantID, raw string) (*opaque, error) {
	o, err := p.openOpaque(ctx, tenantID, raw)
	if err != nil || o.Family == "" {
		return o, err
	}
	revoked, err := once.ClaimedNow(ctx, p.docs, tenantID, once.RevokedFamily, o.Family, p.now())
	if err != nil {
		return nil, err
	}
	if revoked {
		return nil, invalidToken("The token was revoked")
	}
	return o, nil
}
