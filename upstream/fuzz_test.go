package upstream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/problem"
)

const fuzzIssuer = "https://idp.test"

// far is another provider: what it answers at each path.
type far map[string]string

func (f far) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := f[r.URL.Path]
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
}

var fuzzNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func speaksTo(f far) *Service {
	onlyHTTPS := func(raw string) error {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return problem.New(problem.Invalid, "x", "not https")
		}
		return nil
	}
	return New(nil, nil, &http.Client{Transport: f}, onlyHTTPS, func() time.Time { return fuzzNow })
}

type signer struct {
	key  *ecdsa.PrivateKey
	jwks string
	jose jose.Signer
}

func newSigner(t testing.TB, kid string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, string(set), s}
}

func (s signer) sign(t testing.TB, claims string) string {
	t.Helper()
	obj, err := s.jose.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	token, err := obj.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const fuzzClaims = `{"iss":"https://idp.test","aud":"us","sub":"ann","exp":1767323105,"iat":1767323000,"nonce":"n0nce","email":"ann@example.com","email_verified":true}`

// FuzzIDToken: nobody is logged in but the subject of a token that the provider
// signed for us, now, for this login; whatever else the token and userinfo say.
func FuzzIDToken(f *testing.F) {
	good, stranger := newSigner(f, "k1"), newSigner(f, "k1")
	for _, c := range []string{fuzzClaims, `{}`, `null`, strings.Replace(fuzzClaims, "n0nce", "other", 1), strings.Replace(fuzzClaims, `"us"`, `["us","them"]`, 1), strings.Replace(fuzzClaims, `"us"`, `"them"`, 1),
		strings.Replace(fuzzClaims, "1767323105", "1e300", 1), strings.Replace(fuzzClaims, "1767323105", "1", 1), strings.Replace(fuzzClaims, `"ann"`, `7`, 1), strings.Replace(fuzzClaims, `"ann"`, `"ann\u0000"`, 1), strings.Replace(fuzzClaims, `"ann"`, `""`, 1),
		strings.Replace(fuzzClaims, `"iat"`, `"user_id":"bob","id":"bob","iat"`, 1), strings.Replace(fuzzClaims, `"iat"`, `"azp":"them","iat"`, 1), strings.Replace(fuzzClaims, `"email":"ann@example.com",`, "", 1),
		strings.Replace(fuzzClaims, `"sub":"ann"`, `"SUB":"ann"`, 1), strings.Replace(fuzzClaims, `"sub":"ann"`, `"sub":"ann","sub":"bob"`, 1)} {
		for _, more := range []string{`{"sub":"ann","email":"ann@example.com","user_id":"bob"}`, `{"sub":"bob"}`, `{}`, `{"sub":{}}`, `[`} {
			f.Add(c, more, false)
		}
	}
	f.Add(fuzzClaims, `{}`, true)
	o := options{ClientID: "us"}
	f.Fuzz(func(t *testing.T, claims, userinfo string, forged bool) {
		s := speaksTo(far{"/jwks": good.jwks, "/userinfo": userinfo})
		p := s.fixed(oidcMetadata{Issuer: fuzzIssuer, JWKSURL: fuzzIssuer + "/jwks", UserinfoURL: fuzzIssuer + "/userinfo", Algorithms: []string{"ES256"}}, o)
		by := good
		if forged {
			by = stranger
		}
		token := (&oauth2.Token{AccessToken: "x"}).WithExtra(map[string]any{"id_token": by.sign(t, claims)})
		got, err := s.idTokenProfile(context.Background(), token, p, o, "n0nce")
		if err != nil {
			if k := problem.From(err).Kind; k != problem.Forbidden && k != problem.Unavailable {
				t.Fatalf("%s: %v", claims, err)
			}
			return
		}
		var want struct {
			Issuer  string      `json:"iss"`
			Subject string      `json:"sub"`
			Nonce   string      `json:"nonce"`
			Expiry  json.Number `json:"exp"`
		}
		if err := json.Unmarshal([]byte(claims), &want); err != nil || forged || want.Issuer != fuzzIssuer || want.Nonce != "n0nce" || want.Subject == "" || got.Subject != want.Subject {
			t.Fatalf("%s, %s: %q was logged in, %v", claims, userinfo, got.Subject, err)
		}
		if exp, err := want.Expiry.Float64(); err != nil || exp < float64(fuzzNow.Unix()) {
			t.Fatalf("%s has expired", claims)
		}
	})
}

// FuzzKeySet: whatever stands where a provider's keys should be, only a token of
// a key that stands there is believed.
func FuzzKeySet(f *testing.F) {
	good, stranger := newSigner(f, "k1"), newSigner(f, "k1")
	token := good.sign(f, fuzzClaims)
	for _, s := range []string{good.jwks, stranger.jwks, `{}`, `{"keys":null}`, `{"keys":[{"kty":"oct","k":"AA","kid":"k1"}]}`, strings.Replace(good.jwks, `"crv":"P-256"`, `"crv":"P-384"`, 1), strings.Replace(good.jwks, `"kid":"k1"`, `"kid":""`, 1),
		strings.Replace(good.jwks, `"alg":"ES256"`, `"alg":"none"`, 1), strings.Replace(good.jwks, `"use":"sig"`, `"use":"enc"`, 1), `{"keys":[{"kty":"RSA","n":"AA","e":"AQAB","kid":"k1"}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"","y":"","kid":"k1"}]}`, `[`} {
		f.Add(s)
	}
	point, err := good.key.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, jwks string) {
		s := speaksTo(far{"/jwks": jwks})
		p := s.fixed(oidcMetadata{Issuer: fuzzIssuer, JWKSURL: fuzzIssuer + "/jwks", Algorithms: []string{"ES256"}}, options{ClientID: "us"})
		if _, err := p.verifier.Verify(context.Background(), token); err != nil {
			if jwks == good.jwks {
				t.Fatal(err)
			}
			return
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal([]byte(jwks), &set); err != nil {
			t.Fatalf("%s was read: %v", jwks, err)
		}
		if !slices.ContainsFunc(set.Keys, func(k jose.JSONWebKey) bool {
			public, ok := k.Key.(*ecdsa.PublicKey)
			if private, isPrivate := k.Key.(*ecdsa.PrivateKey); isPrivate {
				public, ok = &private.PublicKey, true
			}
			if !ok {
				return false
			}
			raw, err := public.Bytes()
			return err == nil && bytes.Equal(raw, point)
		}) {
			t.Fatalf("a token was believed by %s", jwks)
		}
	})
}

// FuzzDiscovery: a provider is taken when it names the issuer that was asked, has
// every endpoint that a login needs at places that the guard lets pass, and signs
// by keys that it alone has.
func FuzzDiscovery(f *testing.F) {
	const doc = `{"issuer":"https://idp.test","authorization_endpoint":"https://idp.test/a","token_endpoint":"https://idp.test/t","jwks_uri":"https://idp.test/jwks","id_token_signing_alg_values_supported":["RS256","HS256","none"]}`
	for _, s := range []string{doc, `{}`, `null`, `[]`, strings.Replace(doc, `"https://idp.test"`, `"https://idp.test/"`, 1), strings.Replace(doc, `"https://idp.test"`, `"https://evil.test"`, 1), strings.Replace(doc, "https://idp.test/a", "javascript:alert(1)", 1),
		strings.Replace(doc, "https://idp.test/a", "http://127.0.0.1/", 1), strings.Replace(doc, "issuer", "ISSUER", 1), strings.Replace(doc, `["RS256","HS256","none"]`, `["HS256"]`, 1), doc + doc} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s := speaksTo(far{"/.well-known/openid-configuration": body})
		p, err := s.discover(context.Background(), fuzzIssuer, fuzzIssuer, options{ClientID: "us"}, nil)
		if err != nil {
			if !problem.Is(err, problem.Unavailable) {
				t.Fatal(err)
			}
			return
		}
		if strings.TrimSuffix(p.Issuer, "/") != fuzzIssuer || !p.openID {
			t.Fatalf("%s was taken for %s", body, fuzzIssuer)
		}
		for _, u := range []string{p.AuthURL, p.TokenURL, p.JWKSURL} {
			if s.check(u) != nil {
				t.Fatalf("%s: %q is an endpoint", body, u)
			}
		}
		algs := algorithms(p.Algorithms)
		if len(algs) == 0 || slices.ContainsFunc(algs, func(a string) bool { return strings.HasPrefix(a, "HS") || strings.EqualFold(a, "none") }) {
			t.Fatalf("%s: %v may sign", body, algs)
		}
	})
}

// FuzzProfile: of what a provider says, a profile has texts alone, which can be
// stored and shown; an id that is taken is the one that was written; an address is
// verified when the provider says so.
func FuzzProfile(f *testing.F) {
	for _, s := range []string{`{"sub":"ann","email":"a@b.test","email_verified":"true"}`, `{"id":9007199254740993}`, `{"id":1e3}`, `{"id":-1}`, `{"id":"a\u0000b"}`, `{"id":" a"}`, `{"contact":{"mail":"a@b.test","id":"7"}}`, `{"sub":{}}`,
		`{"sub":"` + strings.Repeat("a", 300) + `"}`, `{"name":"\u202e\u0007x","email_verified":1}`, `{"user_id":"x","sub":"y"}`, `null`} {
		f.Add(s, "")
		f.Add(s, "contact.id")
		f.Add(s, "sub.")
	}
	f.Fuzz(func(t *testing.T, body, path string) {
		var claims map[string]any
		if decode(strings.NewReader(body), &claims) != nil {
			return
		}
		mapped := map[string]string{}
		if path != "" {
			mapped["user_id"] = path
		}
		p := standard(claims, mapped)
		for _, s := range []string{p.Subject, p.Email, p.Name, p.Nickname, p.GivenName, p.FamilyName, p.Picture, p.Locale, p.Username} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				t.Fatalf("%s: the profile has %q", body, s)
			}
		}
		var at any = claims["user_id"]
		switch {
		case path != "":
			at = dig(claims, path)
		case at == nil && claims["sub"] != nil:
			at = claims["sub"]
		case at == nil:
			at = claims["id"]
		}
		written := ""
		switch v := at.(type) {
		case string:
			written = v
		case json.Number:
			written = v.String()
		}
		if p.Subject != "" && p.Subject != written || len(p.Subject) > 255 {
			t.Fatalf("%s: %q became the id %q", body, written, p.Subject)
		}
		if v := claims["email_verified"]; p.EmailVerified != (v == true || v == "true") {
			t.Fatalf("%s: verified %v", body, p.EmailVerified)
		}
	})
}
