package appliance_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/tenant"
)

// provider plays another OpenID Connect provider, which may misbehave.
type provider struct {
	*httptest.Server
	t      *testing.T
	key    *rsa.PrivateKey
	kid    string
	nonce  string
	header map[string]any // of the ID token, beside alg and kid
	claims map[string]any // changes of the ID token
	forged bool           // signed with a key that is not published
	asked  atomic.Bool    // for its discovery document
}

func newProvider(t *testing.T) *provider {
	p := &provider{t: t, kid: "k1"}
	p.rotate("k1")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		p.asked.Store(true)
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token",
			"jwks_uri": p.URL + "/jwks", "userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
			"authorization_response_iss_parameter_supported": true})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": p.kid, "use": "sig", "alg": "RS256", "n": b64(p.key.N.Bytes()), "e": "AQAB"}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("code_verifier") == "" {
			http.Error(w, "no verifier", 400)
			return
		}
		claims := map[string]any{"iss": p.URL, "aud": "us", "sub": "ann", "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(), "nonce": p.nonce,
			"email": "ann@corp.test", "email_verified": true, "name": "Ann"}
		for k, v := range p.claims {
			claims[k] = v
		}
		header := map[string]any{"alg": "RS256", "kid": p.kid}
		for k, v := range p.header {
			header[k] = v
		}
		key := p.key
		if p.forged {
			var err error
			if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
				p.t.Error(err)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": signRS256(p.t, key, header, claims)})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) rotate(kid string) {
	var err error
	if p.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		p.t.Fatal(err)
	}
	p.kid = kid
}

func TestOtherProviders(t *testing.T) {
	n := start(t, "")
	p := newProvider(t)
	app := n.application(nil)
	name := "corp"
	made := n.api("POST", "connections", map[string]any{"name": name, "strategy": "oidc", "enabled_clients": []string{app.id},
		"options": map[string]any{"issuer": p.URL, "client_id": "us", "client_secret": "s"}})
	verifier := oauth2.GenerateVerifier()

	// away sends a browser to the provider and returns what it would be sent back with.
	away := func(c *http.Client) url.Values {
		q := app.request(verifier)
		q.Set("connection", name)
		a := n.get(c, "/authorize", q)
		to, err := a.Location()
		if err != nil || !strings.HasPrefix(to.String(), p.URL+"/authorize") || to.Query().Get("code_challenge_method") != "S256" {
			t.Fatalf("the browser was not sent to the provider: %d %s", a.StatusCode, a.body)
		}
		p.nonce = to.Query().Get("nonce")
		return url.Values{"state": {to.Query().Get("state")}, "code": {"c"}, "iss": {p.URL}}
	}
	reset := func() { p.header, p.claims, p.forged = nil, nil, false }

	t.Run("a login makes the user", func(t *testing.T) {
		c := n.browser()
		back := n.back(n.get(c, "/login/callback", away(c)))
		if back.Get("code") == "" {
			t.Fatalf("got %v", back)
		}
		u := n.api("GET", "users/"+url.PathEscape("oidc|corp|ann"), nil)
		if u["email"] != "ann@corp.test" || u["email_verified"] != true {
			t.Errorf("got %v", u)
		}
		n.logged(tenant.LogSignup)
	})
	t.Run("a rotated key is fetched", func(t *testing.T) {
		p.rotate("k2")
		c := n.browser()
		if back := n.back(n.get(c, "/login/callback", away(c))); back.Get("code") == "" {
			t.Errorf("got %v", back)
		}
	})
	t.Run("N21 the issuer of the answer", func(t *testing.T) {
		for _, iss := range []string{"", "https://evil.test"} {
			c := n.browser()
			v := away(c)
			v.Set("iss", iss)
			wantPage(t, n.get(c, "/login/callback", v), 400)
		}
	})
	t.Run("N23 the state of the answer", func(t *testing.T) {
		c := n.browser()
		v := away(c)
		wantPage(t, n.get(n.browser(), "/login/callback", v), 400) // another browser
		wantPage(t, n.get(c, "/login/callback", v), 400)           // and now it is used up
		v = away(c)
		v.Del("state")
		wantPage(t, n.get(c, "/login/callback", v), 400)
		v = away(c)
		n.back(n.get(c, "/login/callback", v))
		wantPage(t, n.get(c, "/login/callback", v), 400) // twice
	})
	t.Run("ID tokens that must not be believed", func(t *testing.T) {
		for name, spoil := range map[string]func(){
			"another key":      func() { p.forged = true },
			"alg none":         func() { p.header = map[string]any{"alg": "none"} },
			"HS256":            func() { p.header = map[string]any{"alg": "HS256"} },
			"another audience": func() { p.claims = map[string]any{"aud": "them"} },
			"another issuer":   func() { p.claims = map[string]any{"iss": "https://evil.test"} },
			"another nonce":    func() { p.claims = map[string]any{"nonce": "x"} },
			"expired":          func() { p.claims = map[string]any{"exp": time.Now().Add(-time.Hour).Unix()} },
			"another client":   func() { p.claims = map[string]any{"azp": "them"} },
			"nobody":           func() { p.claims = map[string]any{"sub": ""} },
		} {
			reset()
			spoil()
			c := n.browser()
			a := n.get(c, "/login/callback", away(c))
			if a.StatusCode < 400 || a.Header.Get("Location") != "" {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.Header.Get("Location"))
			}
		}
		reset()
	})
	t.Run("N36 addresses join accounts on request alone, and only verified ones", func(t *testing.T) {
		mail := strings.ToLower(tenant.RandomString(8)) + "@example.com"
		u := n.api("POST", "users", map[string]any{"connection": database, "email": mail, "password": userPassword, "email_verified": true})
		log := func(sub string, verified bool) map[string]any {
			p.claims = map[string]any{"sub": sub, "email": mail, "email_verified": verified}
			defer reset()
			c := n.browser()
			n.back(n.get(c, "/login/callback", away(c)))
			return n.api("GET", "users/"+url.PathEscape(u["user_id"].(string)), nil)
		}
		if got := log("s1", true); len(got["identities"].([]any)) != 1 {
			t.Error("accounts were joined though nobody asked for it")
		}
		n.api("PATCH", "connections/"+made["id"].(string), map[string]any{"options": map[string]any{"issuer": p.URL, "client_id": "us", "client_secret": "s", "account_linking": "verified_email"}})
		if got := log("s2", false); len(got["identities"].([]any)) != 1 {
			t.Error("an address that the provider has not verified joined accounts")
		}
	})
	t.Run("N43 a connection that is not enabled", func(t *testing.T) {
		other := n.application(nil)
		q := other.request(verifier)
		q.Set("connection", name)
		if back := n.back(n.get(n.browser(), "/authorize", q)); back.Get("error") != "unauthorized_client" {
			t.Errorf("got %v", back)
		}
	})
}
