package oauth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// accessClaims are the claims of an access token, in their order on the wire.
type accessClaims struct {
	Issuer      string   `json:"iss"`
	Subject     string   `json:"sub"`
	Audience    any      `json:"aud"` // text, or a list with /userinfo in it
	IssuedAt    int64    `json:"iat"`
	Expiry      int64    `json:"exp"`
	Scope       string   `json:"scope,omitempty"`
	GrantType   string   `json:"gty,omitempty"`
	Party       string   `json:"azp,omitempty"`
	ClientID    string   `json:"client_id,omitempty"` // RFC 9068
	ID          string   `json:"jti,omitempty"`
	Permissions []string `json:"permissions,omitzero"`
}

// idClaims are the claims of an ID token beside those of the user.
type idClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	IssuedAt int64    `json:"iat"`
	Expiry   int64    `json:"exp"`
	Session  string   `json:"sid,omitempty"`
	Nonce    string   `json:"nonce,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`
	Methods  []string `json:"amr,omitempty"`
}

// sign makes a JWT in compact form (RFC 7519).
func (p *Provider) sign(ctx context.Context, tenantID, alg, typ string, claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signer, err := p.keys.Signer(ctx, tenantID, alg)
	if err != nil {
		return "", err
	}
	input := signingInput(`{"alg":"`+signer.Alg+`","typ":"`+typ+`","kid":"`+signer.KeyID+`"}`, payload)
	sig, err := signer.Sign(input)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return string(input) + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

func signingInput(header string, payload []byte) []byte {
	enc := base64.RawURLEncoding
	out := make([]byte, 0, enc.EncodedLen(len(header))+1+enc.EncodedLen(len(payload)))
	out = enc.AppendEncode(out, []byte(header))
	out = append(out, '.')
	return enc.AppendEncode(out, payload)
}

// signHS256 signs with a secret that client and server share.
func signHS256(secret, typ string, claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := signingInput(`{"alg":"HS256","typ":"`+typ+`"}`, payload)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(input)
	return string(input) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}

// grantedTo is what a token says.
type grantedTo struct {
	Client      *tenant.Client
	API         *tenant.ResourceServer // nil: a token for /userinfo alone
	User        *tenant.User           // nil: the client itself
	Scope       []string
	Permissions []string
	GrantType   string // claim gty
	Family      string
	SessionID   string
}

// accessToken makes an access token and says how long it lives, in seconds.
func (p *Provider) accessToken(ctx context.Context, tenantID string, g grantedTo) (string, int, error) {
	issuer := p.dir.URL(tenantID)
	now := p.now()
	if g.API == nil {
		token, err := p.opaqueToken(ctx, tenantID, g, now.Add(userinfoTTL))
		return token, int(userinfoTTL / time.Second), err
	}
	ttl := g.API.TokenLifetime
	if ttl <= 0 {
		ttl = 86400
	}
	if g.User != nil && g.Client.AppType == "spa" {
		if ttl = g.API.TokenLifetimeForWeb; ttl <= 0 {
			ttl = 7200
		}
	}
	c := accessClaims{Issuer: issuer, Audience: g.API.Identifier, IssuedAt: now.Unix(), Expiry: now.Unix() + int64(ttl),
		Scope: scopeOf(g.Scope), Party: g.Client.ID, GrantType: g.GrantType, Permissions: g.Permissions, ID: tenant.RandomString(22)}
	if g.User == nil {
		c.Subject = g.Client.ID + "@clients"
	} else {
		c.Subject = g.User.ID
		for _, s := range g.Scope {
			if s == "openid" {
				c.Audience = []string{g.API.Identifier, issuer + "userinfo"}
			}
		}
	}
	typ := "JWT"
	if d := g.API.TokenDialect; d == "rfc9068_profile" || d == "rfc9068_profile_authz" {
		typ = "at+jwt"
		c.ClientID = g.Client.ID
	}
	if g.API.SigningAlg == "HS256" {
		if g.API.SigningSecret == "" {
			return "", 0, problem.New(problem.Invalid, "invalid_request", "The API %s signs with HS256 but has no secret", g.API.Identifier)
		}
		token, err := signHS256(g.API.SigningSecret, typ, c)
		return token, ttl, err
	}
	alg, err := p.alg(ctx, tenantID, g.API.SigningAlg)
	if err != nil {
		return "", 0, err
	}
	token, err := p.sign(ctx, tenantID, alg, typ, c)
	return token, ttl, err
}

// alg is an algorithm that was named, or the tenant's.
func (p *Provider) alg(ctx context.Context, tenantID, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	settings, err := p.dir.Settings(ctx, tenantID)
	if err != nil {
		return "", err
	}
	if settings.SigningAlg != "" {
		return settings.SigningAlg, nil
	}
	return "RS256", nil
}

// userinfoTTL is how long a token for /userinfo alone lives.
const userinfoTTL = 24 * time.Hour

// opaque is what is sealed in a token for /userinfo. Nobody but this server reads
// it.
type opaque struct {
	UserID   string   `json:"sub"`
	ClientID string   `json:"azp"`
	Scope    []string `json:"scope"`
	Family   string   `json:"fam,omitempty"`
	Expiry   int64    `json:"exp"`
}

// opaqueToken is a JWE (RFC 7516), direct encryption with the tenant's own key.
func (p *Provider) opaqueToken(ctx context.Context, tenantID string, g grantedTo, expiry time.Time) (string, error) {
	keys, err := p.keys.Secrets(ctx, tenantID)
	if err != nil {
		return "", err
	}
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: keys[0][:]},
		(&jose.EncrypterOptions{}).WithHeader("iss", p.dir.URL(tenantID)))
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(opaque{UserID: g.User.ID, ClientID: g.Client.ID, Scope: g.Scope, Family: g.Family, Expiry: expiry.Unix()})
	if err != nil {
		return "", err
	}
	obj, err := enc.Encrypt(payload)
	if err != nil {
		return "", err
	}
	return obj.CompactSerialize()
}

// idToken makes an ID token (OpenID Connect Core section 2).
func (p *Provider) idToken(ctx context.Context, tenantID string, g grantedTo, nonce string, authTime time.Time, methods []string) (string, error) {
	ttl := g.Client.JWT.Lifetime
	if ttl <= 0 {
		ttl = 36000
	}
	now := p.now()
	c := idClaims{Issuer: p.dir.URL(tenantID), Subject: g.User.ID, Audience: g.Client.ID, IssuedAt: now.Unix(), Expiry: now.Unix() + int64(ttl),
		Session: g.SessionID, Nonce: nonce, Methods: methods}
	if !authTime.IsZero() {
		c.AuthTime = authTime.Unix()
	}
	own, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	user, err := json.Marshal(userClaims(g.User, g.Scope))
	if err != nil {
		return "", err
	}
	merged := json.RawMessage(own)
	if len(user) > 2 {
		merged = append(append(append([]byte{}, user[:len(user)-1]...), ','), own[1:]...)
	}
	if g.Client.JWT.Alg == "HS256" && g.Client.Secret != "" && !public(g.Client) {
		return signHS256(g.Client.Secret, "JWT", merged)
	}
	named := g.Client.JWT.Alg
	if named == "HS256" {
		named = "" // a client without a secret cannot check it
	}
	alg, err := p.alg(ctx, tenantID, named)
	if err != nil {
		return "", err
	}
	return p.sign(ctx, tenantID, alg, "JWT", merged)
}

// claims of a user (OpenID Connect Core section 5.1).
type claims struct {
	Nickname      string     `json:"nickname,omitempty"`
	Name          string     `json:"name,omitempty"`
	GivenName     string     `json:"given_name,omitempty"`
	FamilyName    string     `json:"family_name,omitempty"`
	Username      string     `json:"preferred_username,omitempty"`
	Picture       string     `json:"picture,omitempty"`
	UpdatedAt     *time.Time `json:"updated_at,omitempty"`
	Email         string     `json:"email,omitempty"`
	EmailVerified *bool      `json:"email_verified,omitempty"`
	Phone         string     `json:"phone_number,omitempty"`
	PhoneVerified *bool      `json:"phone_number_verified,omitempty"`
}

// userClaims are what the scopes open of a user (OpenID Connect Core section 5.4).
func userClaims(u *tenant.User, scope []string) claims {
	var c claims
	for _, s := range scope {
		switch s {
		case "profile":
			updated := u.UpdatedAt.UTC().Truncate(time.Millisecond)
			c.Nickname, c.Name, c.GivenName, c.FamilyName, c.Username, c.Picture, c.UpdatedAt = u.Nickname, u.Name, u.GivenName, u.FamilyName, u.Username, u.Picture, &updated
		case "email":
			if u.Email != "" {
				verified := u.EmailVerified
				c.Email, c.EmailVerified = u.Email, &verified
			}
		case "phone":
			if u.PhoneNumber != "" {
				verified := u.PhoneVerified != nil && *u.PhoneVerified
				c.Phone, c.PhoneVerified = u.PhoneNumber, &verified
			}
		}
	}
	return c
}

// MintManagementToken makes a token of a tenant's Management API for the node's
// own administrator.
func (p *Provider) MintManagementToken(ctx context.Context, tenantID, subject string, scopes []string, ttl time.Duration) (string, error) {
	alg, err := p.alg(ctx, tenantID, "")
	if err != nil {
		return "", err
	}
	now := p.now()
	return p.sign(ctx, tenantID, alg, "JWT", accessClaims{Issuer: p.dir.URL(tenantID), Subject: subject, Audience: p.dir.ManagementAudience(tenantID),
		IssuedAt: now.Unix(), Expiry: now.Add(ttl).Unix(), Scope: scopeOf(scopes)})
}
