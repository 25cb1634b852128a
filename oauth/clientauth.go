package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// unauthorized is Auth0's answer to a client that could not prove itself.
func unauthorized() *problem.Error {
	return problem.New(problem.Unauthorized, "access_denied", "Unauthorized")
}

func invalidClient(format string, args ...any) *problem.Error {
	return problem.New(problem.Unauthorized, "invalid_client", format, args...)
}

// authenticateClient finds the client of a request and checks its proof: Basic,
// form, private_key_jwt, or none for a public client (RFC 6749 section 2.3, RFC
// 7523 section 2.2).
func (p *Provider) authenticateClient(r *http.Request, f form) (*tenant.Client, error) {
	client, err := p.provenClient(r, f)
	if e := problem.From(err); err != nil && e.Kind == problem.Unauthorized {
		ev := p.event(r, tenant.LogFailedClientAuth, client)
		ev.Description = e.Message
		if client == nil {
			ev.ClientID = clip(f.get("client_id"), 64)
		}
		p.log.Append(tenantOf(r.Context()), ev)
		return nil, err
	}
	return client, err
}

func (p *Provider) provenClient(r *http.Request, f form) (*tenant.Client, error) {
	t := tenantOf(r.Context())
	id, secret, basic := basicAuth(r)
	assertion := f.get("client_assertion")
	methods := 0
	for _, used := range []bool{basic, f.get("client_secret") != "", assertion != ""} {
		if used {
			methods++
		}
	}
	if methods > 1 {
		return nil, problem.New(problem.Invalid, "invalid_request", "The client authenticated in more than one way; allowed is one (RFC 6749 section 2.3)")
	}
	if !basic {
		id, secret = f.get("client_id"), f.get("client_secret")
	}
	if assertion != "" {
		return p.assertedClient(r, f, assertion)
	}
	if id == "" {
		return nil, problem.New(problem.Unauthorized, "access_denied", "Unauthorized")
	}
	if basic && f.get("client_id") != "" && f.get("client_id") != id {
		return nil, problem.New(problem.Invalid, "invalid_request", "client_id differs from the one in the Authorization header")
	}
	client, err := p.dir.Client(r.Context(), t, id)
	if problem.Is(err, problem.NotFound) || err == nil && client.Global {
		return nil, unauthorized()
	}
	if err != nil {
		return nil, err
	}
	if client.AuthMethods != nil && client.AuthMethods.PrivateKeyJWT != nil {
		return client, invalidClient("The client has to authenticate with private_key_jwt")
	}
	if public(client) {
		if secret != "" && !equal(secret, client.Secret) {
			return client, unauthorized()
		}
		return client, nil
	}
	if secret == "" || client.Secret == "" || !equal(secret, client.Secret) {
		return client, unauthorized()
	}
	return client, nil
}

// equal compares secrets in a time that tells neither their contents nor their
// lengths.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// basicAuth reads RFC 6749 section 2.3.1: both parts are form-encoded.
func basicAuth(r *http.Request) (id, secret string, ok bool) {
	id, secret, ok = r.BasicAuth()
	if !ok {
		return "", "", false
	}
	if s, err := url.QueryUnescape(id); err == nil {
		id = s
	}
	if s, err := url.QueryUnescape(secret); err == nil {
		secret = s
	}
	return id, secret, true
}

var assertionAlgs = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.PS256, jose.ES256}

// assertedClient checks a client assertion (RFC 7523 section 3): signed with a key
// that the client registered, made for this server, short-lived, and used once.
func (p *Provider) assertedClient(r *http.Request, f form, assertion string) (*tenant.Client, error) {
	if f.get("client_assertion_type") != assertionType {
		return nil, problem.New(problem.Invalid, "invalid_request", "client_assertion_type has to be %s", assertionType)
	}
	if len(assertion) > 8192 {
		return nil, invalidClient("client_assertion is too long")
	}
	token, err := jwt.ParseSigned(assertion, assertionAlgs)
	if err != nil || len(token.Headers) != 1 {
		return nil, invalidClient("client_assertion is no JWT that is signed with RS256, RS384, PS256 or ES256")
	}
	var c jwt.Claims
	if err := token.UnsafeClaimsWithoutVerification(&c); err != nil || c.Subject == "" || c.Issuer != c.Subject {
		return nil, invalidClient("client_assertion wants the client's id as iss and sub")
	}
	if id := f.get("client_id"); id != "" && id != c.Subject {
		return nil, invalidClient("client_id differs from the subject of client_assertion")
	}
	ctx, t := r.Context(), tenantOf(r.Context())
	client, err := p.dir.Client(ctx, t, c.Subject)
	if problem.Is(err, problem.NotFound) {
		return nil, unauthorized()
	}
	if err != nil {
		return nil, err
	}
	if client.AuthMethods == nil || client.AuthMethods.PrivateKeyJWT == nil {
		return client, invalidClient("The client is not set up for private_key_jwt")
	}
	if err := p.verifyAssertion(ctx, t, client, token); err != nil {
		return client, err
	}
	now := p.now()
	issuer := p.dir.URL(t)
	switch {
	case c.Expiry == nil || !now.Before(c.Expiry.Time().Add(clockSkew)):
		return client, invalidClient("client_assertion has expired, or has no exp")
	case c.Expiry.Time().After(now.Add(assertionTTL + clockSkew)):
		return client, invalidClient("client_assertion expires too late: allowed are %d seconds from now", int(assertionTTL/time.Second))
	case c.NotBefore != nil && c.NotBefore.Time().After(now.Add(clockSkew)), c.IssuedAt != nil && c.IssuedAt.Time().After(now.Add(clockSkew)):
		return client, invalidClient("client_assertion is not valid yet")
	case !slices.ContainsFunc(c.Audience, func(a string) bool {
		return a == issuer || a == strings.TrimSuffix(issuer, "/") || a == issuer+"oauth/token"
	}):
		return client, invalidClient("client_assertion is made for another server: aud has to be %s", issuer)
	case c.ID == "" || len(c.ID) > 256:
		return client, invalidClient("client_assertion wants a jti of 1 to 256 characters")
	}
	err = p.docs.Write(ctx, t, func(tx tenant.Tx) error {
		return once.Claim(tx, once.ClientAssertion, client.ID+"\x00"+c.ID, c.Expiry.Time().Sub(now)+2*clockSkew+assertionTTL)
	})
	if problem.From(err).Code == once.CodeUsed {
		return client, invalidClient("client_assertion was used before")
	}
	return client, err
}

func (p *Provider) verifyAssertion(ctx context.Context, tenantID string, client *tenant.Client, token *jwt.JSONWebToken) error {
	registered := map[string]bool{}
	for _, c := range client.AuthMethods.PrivateKeyJWT.Credentials {
		registered[c.ID] = true
	}
	creds, err := p.dir.ClientCredentials(ctx, tenantID, client.ID)
	if err != nil {
		return err
	}
	h := token.Headers[0]
	for _, cred := range creds {
		if !registered[cred.ID] || cred.ExpiresAt != nil && !p.now().Before(*cred.ExpiresAt) || h.KeyID != "" && cred.KeyID != "" && h.KeyID != cred.KeyID {
			continue
		}
		if cred.Alg != "" && h.Algorithm != cred.Alg {
			continue // the key says which algorithm, never the header alone
		}
		key, err := publicKey(cred.PublicKey)
		if err != nil {
			continue
		}
		var ignored jwt.Claims
		if token.Claims(key, &ignored) == nil {
			return nil
		}
	}
	return invalidClient("client_assertion is not signed with a key of the client")
}

// publicKey reads a PEM public key or certificate.
func publicKey(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not PEM")
	}
	if block.Type == "CERTIFICATE" {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	if block.Type == "RSA PUBLIC KEY" {
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
