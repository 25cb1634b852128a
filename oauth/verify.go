package oauth

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/portcullis-id/portcullis/problem"
)

// maxToken bounds a token, in bytes.
const maxToken = 16 << 10

// Claims are what a verified access token says.
type Claims struct {
	Subject  string
	ClientID string
	Scopes   []string
	Audience []string
	IssuedAt time.Time
	Expiry   time.Time
}

func invalidToken(format string, args ...any) *problem.Error {
	return problem.New(problem.Unauthorized, "invalid_token", format, args...)
}

var accessAlgs = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// VerifyAccessToken checks a JWT access token that this server made: signed with
// a key of the tenant, by an algorithm of that key's type, for this audience, and
// not expired. The header's alg, kid, jku, x5u and jwk decide nothing else, and
// nothing is fetched. It fails with problem.Unauthorized and "invalid_token".
func (p *Provider) VerifyAccessToken(ctx context.Context, tenantID, raw, audience string) (*Claims, error) {
	c, err := p.verify(ctx, tenantID, raw)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(c.Audience, audience) {
		return nil, invalidToken("Bad audience: %s", clip(strings.Join(c.Audience, ", "), 256))
	}
	return c, nil
}

// verify is VerifyAccessToken for any audience.
func (p *Provider) verify(ctx context.Context, tenantID, raw string) (*Claims, error) {
	if len(raw) > maxToken {
		return nil, invalidToken("The token is too long")
	}
	token, err := jwt.ParseSigned(raw, accessAlgs)
	if err != nil || len(token.Headers) != 1 {
		return nil, invalidToken("Invalid token")
	}
	set, err := p.keys.Public(ctx, tenantID)
	if err != nil {
		return nil, err
	}
	keys := set.Key(token.Headers[0].KeyID)
	if token.Headers[0].KeyID == "" || len(keys) != 1 {
		return nil, invalidToken("Invalid signature received for JSON Web Token validation")
	}
	var c struct {
		jwt.Claims
		Scope    string `json:"scope"`
		Party    string `json:"azp"`
		ClientID string `json:"client_id"`
		Nonce    string `json:"nonce"`
	}
	if err := token.Claims(keys[0].Key, &c); err != nil {
		return nil, invalidToken("Invalid signature received for JSON Web Token validation")
	}
	now := p.now()
	switch {
	case c.Issuer != p.dir.URL(tenantID):
		return nil, invalidToken("The token was issued by another server")
	case c.Expiry == nil || !now.Before(c.Expiry.Time().Add(clockSkew)):
		return nil, invalidToken("Expired token received for JSON Web Token validation")
	case c.NotBefore != nil && c.NotBefore.Time().After(now.Add(clockSkew)):
		return nil, invalidToken("The token is not valid yet")
	}
	out := &Claims{Subject: c.Subject, ClientID: c.Party, Scopes: strings.Fields(c.Scope), Audience: c.Audience, Expiry: c.Expiry.Time()}
	if c.IssuedAt != nil {
		out.IssuedAt = c.IssuedAt.Time()
	}
	if out.ClientID == "" {
		out.ClientID = c.ClientID
	}
	return out, nil
}

// openOpaque reads a token for /userinfo.
func (p *Provider) openOpaque(ctx context.Context, tenantID, raw string) (*opaque, error) {
	obj, err := jose.ParseEncryptedCompact(raw, []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return nil, invalidToken("Invalid token")
	}
	keys, err := p.keys.Secrets(ctx, tenantID)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		plain, err := obj.Decrypt(key[:])
		if err != nil {
			continue
		}
		var o opaque
		if err := json.Unmarshal(plain, &o); err != nil {
			return nil, invalidToken("Invalid token")
		}
		if p.now().Unix() >= o.Expiry {
			return nil, invalidToken("The token has expired")
		}
		return &o, nil
	}
	return nil, invalidToken("Invalid token")
}
