package appliance_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/tenant"
)

// TestNegative holds the cases of bad input by their numbers, against one whole
// node: what must not work does not, says so in the right form, and leaves its
// event in the tenant's log.
func TestNegative(t *testing.T) { engines(t, negative) }

func negative(t *testing.T, n *node) {
	app := n.application(map[string]any{"callbacks": []string{callback, "http://127.0.0.1/cb"}, "allowed_logout_urls": []string{"https://app.test/bye"},
		"refresh_token": map[string]any{"rotation_type": "rotating", "expiration_type": "expiring", "leeway": 0, "token_lifetime": 3600, "idle_token_lifetime": 1800}})
	_, email := n.user()
	v := oauth2.GenerateVerifier()
	with := func(changes url.Values) url.Values {
		q := app.request(v)
		for k, val := range changes {
			if q[k] = val; val[0] == "" {
				q.Del(k)
			}
		}
		return q
	}

	t.Run("N1-N7 redirect URIs", func(t *testing.T) {
		for _, uri := range []string{
			"https://app.test.evil.test/cb", "https://evil.test/cb", "https://app.test/cbx", "https://app.test/", "https://app.test", // N1
			"https://app@a@evil.test/cb", "https://user@app.test/cb", // N2
			"https://app.test/cb/..;/x", "https://app.test/%2e%2e/cb", "https://app.test\\@evil.test/cb", "https://app.test/cb%23x", "https://app.test/cb#x", // N3
			"http://127.0.0.1:5000/cb?x=1", "http://127.0.0.1:5000/other", "http://localhost:5000/cb", "http://127.0.0.1:5000:1/cb", "http://127.0.0.1.evil.test/cb", // N4
			"http://[::1]/cb", "https://127.0.0.1:5000/cb", // N5
			"https://APP.test/cb", "https://app.test/CB", "https://app.test/cb/", "HTTPS://app.test/cb", // N6
			"https://appxtest/cb", "https://app-test/cb", // N7
			"javascript:alert(1)", "data:text/html,x", "//evil.test/cb", "https:app.test/cb", "",
		} {
			q := with(nil)
			q.Set("redirect_uri", uri)
			wantPage(t, n.get(n.browser(), "/authorize", q), 400)
		}
		q := with(url.Values{"redirect_uri": {"http://127.0.0.1:5000/cb"}})
		if a := n.get(n.browser(), "/authorize", q); a.StatusCode != 200 {
			t.Errorf("another port of the loopback: %d", a.StatusCode)
		}
		if a := n.get(n.browser(), "/authorize", with(url.Values{"client_id": {"nobody"}})); a.StatusCode != 400 {
			t.Errorf("an unknown client: %d", a.StatusCode)
		}
	})
	t.Run("N8 repeated parameters", func(t *testing.T) {
		for _, name := range []string{"client_id", "redirect_uri", "state", "scope"} {
			q := with(nil)
			q.Add(name, q.Get(name))
			wantPage(t, n.get(n.browser(), "/authorize", q), 400)
		}
		wantError(t, n.do(n.browser(), "POST", "/oauth/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
			strings.NewReader("grant_type=client_credentials&client_id=a&client_id=b")), 400, "invalid_request")
	})
	t.Run("N9 a code works once, and its tokens end", func(t *testing.T) {
		code := n.login(n.browser(), with(nil), email).Get("code")
		first := n.exchange(app, code, v, nil)
		if first.StatusCode != 200 {
			t.Fatal(first.body)
		}
		wantError(t, n.exchange(app, code, v, nil), 403, "invalid_grant")
		wantError(t, n.refresh(app, first.json()["refresh_token"].(string), nil), 403, "invalid_grant")
		h := http.Header{"Authorization": {"Bearer " + first.json()["access_token"].(string)}}
		if a := n.do(n.browser(), "GET", "/userinfo", h, nil); a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("userinfo answers %d to a token of a code that was used twice", a.StatusCode)
		}
		n.logged(tenant.LogFailedCodeExchange)
	})
	t.Run("N10 another client, an altered code", func(t *testing.T) {
		other := n.application(nil)
		code := n.login(n.browser(), with(nil), email).Get("code")
		wantError(t, n.exchange(other, code, v, nil), 403, "invalid_grant")
		code = n.login(n.browser(), with(nil), email).Get("code")
		wantError(t, n.exchange(app, code[:len(code)-1]+"_", v, nil), 403, "invalid_grant")
	})
	t.Run("N11 N12 PKCE", func(t *testing.T) {
		code := func(q url.Values) string { return n.login(n.browser(), q, email).Get("code") }
		wantError(t, n.exchange(app, code(with(nil)), "", url.Values{"code_verifier": {""}}), 403, "invalid_grant")
		wantError(t, n.exchange(app, code(with(nil)), oauth2.GenerateVerifier(), nil), 403, "invalid_grant")
		wantError(t, n.exchange(app, code(with(url.Values{"code_challenge": {""}, "code_challenge_method": {""}})), v, nil), 403, "invalid_grant")
		for _, q := range []url.Values{with(url.Values{"code_challenge_method": {"plain"}}), with(url.Values{"code_challenge_method": {""}}), with(url.Values{"code_challenge": {"short"}})} {
			if back := n.back(n.get(n.browser(), "/authorize", q)); back.Get("error") != "invalid_request" || back.Get("state") != "st" || back.Get("iss") != n.issuer {
				t.Errorf("got %v", back)
			}
		}
		spa := n.application(map[string]any{"app_type": "spa", "token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code"}})
		q := spa.request(v)
		q.Del("code_challenge")
		q.Del("code_challenge_method")
		if back := n.back(n.get(n.browser(), "/authorize", q)); back.Get("error") != "invalid_request" {
			t.Errorf("a public client without PKCE: %v", back)
		}
		wantError(t, n.exchange(app, code(with(nil)), v, url.Values{"redirect_uri": {"https://app.test/other"}}), 403, "invalid_grant")
	})
	t.Run("N13 fifty uses of one refresh token", func(t *testing.T) {
		tokens := n.tokens(app, email, nil)
		var won atomic.Int32
		var next atomic.Value
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if a := n.refresh(app, tokens["refresh_token"].(string), nil); a.StatusCode == 200 {
					won.Add(1)
					next.Store(a.json()["refresh_token"])
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of 50 succeeded, want 1", won.Load())
		}
		wantError(t, n.refresh(app, next.Load().(string), nil), 403, "invalid_grant")
		n.logged(tenant.LogReusedRefresh)
	})
	t.Run("N14 blocked and deleted users", func(t *testing.T) {
		for _, end := range []func(id string){
			func(id string) { n.api("PATCH", "users/"+url.PathEscape(id), map[string]any{"blocked": true}) },
			func(id string) { n.api("DELETE", "users/"+url.PathEscape(id), nil) },
		} {
			id, mail := n.user()
			tokens := n.tokens(app, mail, nil)
			end(id)
			wantError(t, n.refresh(app, tokens["refresh_token"].(string), nil), 403, "invalid_grant")
			if a := n.do(n.browser(), "GET", "/userinfo", http.Header{"Authorization": {"Bearer " + tokens["access_token"].(string)}}, nil); a.StatusCode != 401 {
				t.Errorf("userinfo: %d", a.StatusCode)
			}
		}
	})
	t.Run("N15 a refresh never widens", func(t *testing.T) {
		tokens := n.tokens(app, email, url.Values{"scope": {"openid offline_access"}})
		wantError(t, n.refresh(app, tokens["refresh_token"].(string), url.Values{"scope": {"openid email"}}), 400, "invalid_scope")
		wantError(t, n.refresh(app, tokens["refresh_token"].(string), url.Values{"audience": {n.issuer + "api/v2/"}}), 400, "invalid_scope")
		if a := n.refresh(app, tokens["refresh_token"].(string), url.Values{"scope": {"openid"}}); a.StatusCode != 200 || a.json()["scope"] != "openid" {
			t.Errorf("a narrower scope: %d %s", a.StatusCode, a.body)
		}
	})
	t.Run("N16 client assertions", func(t *testing.T) { assertions(t, n) })
	t.Run("N17 N18 N19 foreign tokens", func(t *testing.T) { foreignTokens(t, n, app, email) })
	t.Run("N22 prompt=none without a session", func(t *testing.T) {
		if back := n.back(n.get(n.browser(), "/authorize", with(url.Values{"prompt": {"none"}}))); back.Get("error") != "login_required" || back.Get("state") != "st" {
			t.Errorf("got %v", back)
		}
		n.logged(tenant.LogFailedSilentAuth)
	})
	t.Run("N24 a link that an attacker made", func(t *testing.T) {
		attacker, victim := n.browser(), n.browser()
		page := n.get(attacker, "/authorize", with(nil))
		n.login(victim, with(nil), email)
		wantPage(t, n.get(victim, page.Request.URL.String(), nil), 400)
		// A login makes a new session, and a finished login cannot be gone through again.
		home, _ := url.Parse(n.issuer)
		cookie := func() string {
			for _, c := range victim.Jar.Cookies(home) {
				if c.Name == "__Host-portcullis" {
					return c.Value
				}
			}
			return ""
		}
		before := cookie()
		again := n.get(victim, "/authorize", with(url.Values{"prompt": {"login"}}))
		n.back(n.submit(victim, again, map[string]string{"username": email, "password": userPassword}))
		if before == "" || cookie() == before {
			t.Error("the session id is the same after a login")
		}
		wantPage(t, n.submit(victim, again, map[string]string{"username": email, "password": userPassword}), 400)
	})
	t.Run("N25 logout goes to listed URLs alone", func(t *testing.T) {
		for _, uri := range []string{"https://evil.test/", "https://app.test/bye/", "https://app.test/bye?x", "https://app.test.evil.test/bye"} {
			wantPage(t, n.get(n.browser(), "/v2/logout", url.Values{"client_id": {app.id}, "returnTo": {uri}}), 400)
			wantPage(t, n.get(n.browser(), "/oidc/logout", url.Values{"client_id": {app.id}, "post_logout_redirect_uri": {uri}}), 400)
		}
		if a := n.get(n.browser(), "/v2/logout", url.Values{"client_id": {app.id}, "returnTo": {"https://app.test/bye"}}); a.Header.Get("Location") != "https://app.test/bye" {
			t.Errorf("a listed URL: %d", a.StatusCode)
		}
	})
	t.Run("N26 N27 hosts and addresses that a request claims", func(t *testing.T) {
		_, mail := n.user()
		h := http.Header{"Content-Type": {"application/json"}, "X-Forwarded-Host": {"evil.test"}, "Forwarded": {"host=evil.test"}, "X-Forwarded-Proto": {"javascript"},
			"X-Forwarded-For": {"6.6.6.6, not-an-address"}}
		body, _ := json.Marshal(map[string]string{"client_id": app.id, "connection": database, "email": mail})
		if a := n.do(n.browser(), "POST", "/dbconnections/change_password", h, bytes.NewReader(body)); a.StatusCode != 200 {
			t.Fatal(a.body)
		}
		if link := n.mail(mail); !strings.HasPrefix(link, n.issuer) {
			t.Errorf("the mail's link is %s", link)
		}
		n.logged(tenant.LogPasswordChangeRequest)
		if a := n.apiAs(n.token, "GET", `logs?q=ip:"6.6.6.6"`, nil); strings.Contains(a.body, "6.6.6.6") {
			t.Error("an address that a stranger claimed is in the log")
		}
		for _, host := range []string{"evil.test", "a.b.localhost", "nobody.localhost"} {
			if a := n.do(n.browser(), "GET", "/.well-known/openid-configuration", http.Header{"Host": {host}}, nil); a.StatusCode != 404 || strings.Contains(a.body, `"issuer"`) {
				t.Errorf("host %s: %d", host, a.StatusCode)
			}
		}
	})
	t.Run("N28 reset tickets", func(t *testing.T) {
		id, mail := n.user()
		ticket := func() string {
			u, err := url.Parse(n.api("POST", "tickets/password-change", map[string]any{"user_id": id})["ticket"].(string))
			if err != nil {
				t.Fatal(err)
			}
			return u.Query().Get("ticket")
		}
		reset := func(value string) answer {
			return n.form(n.browser(), "/u/reset-password", url.Values{"ticket": {value}, "password": {"Another-horse-8"}, "repeat": {"Another-horse-8"}})
		}
		first, second := ticket(), ticket()
		wantError(t, n.exchange(app, first, v, nil), 403, "invalid_grant") // no code
		wantPage(t, n.get(n.browser(), "/u/email-verification", url.Values{"ticket": {first}}), 400)
		if a := reset(first); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		wantPage(t, reset(first), 400)
		wantPage(t, reset(second), 400) // a reset ends the others
		third := ticket()
		n.api("PATCH", "users/"+url.PathEscape(id), map[string]any{"email": "new-" + mail})
		wantPage(t, reset(third), 400)
	})
	t.Run("N29 unknown users look like known ones", func(t *testing.T) {
		page := func(mail string) string {
			c := n.browser()
			a := n.get(c, "/authorize", with(nil))
			doc := strings.Replace(n.submit(c, a, map[string]string{"username": mail, "password": "wrong"}).body, mail, "", -1)
			return doc[strings.Index(doc, "<form"):][:10] + doc[strings.Index(doc, `role="alert"`):][:80]
		}
		_, fresh := n.user()
		if a, b := page(fresh), page("nobody@example.com"); a != b {
			t.Errorf("the answers differ:\n%s\n%s", a, b)
		}
	})
	t.Run("N30 nobody gives themselves anything", func(t *testing.T) {
		mail := strings.ToLower(tenant.RandomString(10)) + "@example.com"
		body, _ := json.Marshal(map[string]any{"client_id": app.id, "connection": database, "email": mail, "password": userPassword,
			"app_metadata": map[string]any{"admin": true}, "email_verified": true, "roles": []string{"admin"}, "blocked": false, "user_id": "chosen"})
		a := n.do(n.browser(), "POST", "/dbconnections/signup", http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(body))
		if a.StatusCode != 200 && a.StatusCode != 400 {
			t.Fatal(a.body)
		}
		all := n.apiAs(n.token, "GET", "users-by-email?email="+mail, nil).body
		for _, bad := range []string{"app_metadata", `"email_verified":true`, "chosen", "roles"} {
			if strings.Contains(all, bad) {
				t.Errorf("%s was set by the user: %s", bad, all)
			}
		}
	})
	t.Run("N31 the eleventh guess", func(t *testing.T) {
		_, mail := n.user()
		guess := func(secret string) answer {
			return n.form(n.browser(), "/oauth/token", url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database},
				"client_id": {app.id}, "client_secret": {app.secret}, "username": {mail}, "password": {secret}})
		}
		for range 5 {
			wantError(t, guess("wrong"), 403, "invalid_grant")
			c := n.browser()
			n.submit(c, n.get(c, "/authorize", with(nil)), map[string]string{"username": mail, "password": "wrong"})
		}
		wantError(t, guess(userPassword), 429, "too_many_attempts")
		c := n.browser()
		if a := n.submit(c, n.get(c, "/authorize", with(nil)), map[string]string{"username": mail, "password": userPassword}); a.StatusCode != 429 {
			t.Errorf("the page: %d", a.StatusCode)
		}
		n.logged(tenant.LogUserBlocked)
		link := n.mail(mail)
		if !strings.HasPrefix(link, n.issuer+"u/unblock?ticket=") {
			t.Fatalf("the mail's link is %s", link)
		}
		c = n.browser()
		n.submit(c, n.get(c, link, nil), nil)
		if a := guess(userPassword); a.StatusCode != 200 {
			t.Errorf("after the unblock: %d %s", a.StatusCode, a.body)
		}
	})
	t.Run("N38 connections to the inside", func(t *testing.T) {
		for _, to := range []string{"https://169.254.169.254/", "https://10.0.0.1/", "https://[::ffff:10.0.0.1]/", "http://example.com/", "https://192.168.1.1:22/"} {
			a := n.apiAs(n.token, "POST", "connections", map[string]any{"name": "c" + strings.ToLower(tenant.RandomString(6)), "strategy": "oidc",
				"options": map[string]any{"issuer": to, "client_id": "x"}})
			if a.StatusCode != 400 {
				t.Errorf("%s: %d %s", to, a.StatusCode, a.body)
			}
		}
	})
	t.Run("N40 queries", func(t *testing.T) {
		for _, q := range []string{"per_page=1000000000", "per_page=-1", "page=x", "sort=doc:1", "sort=email;DROP", "q=" + url.QueryEscape("email:*@x"),
			"q=" + url.QueryEscape(strings.Repeat("(", 5000)), "fields=" + url.QueryEscape("a;b"), "include_totals=maybe"} {
			began := time.Now()
			a := n.apiAs(n.token, "GET", "users?"+q, nil)
			if a.StatusCode != 400 || a.json()["statusCode"] != 400.0 {
				t.Errorf("%.60s: %d %s", q, a.StatusCode, a.body)
			}
			if time.Since(began) > 10*time.Second {
				t.Errorf("%.60s took %s", q, time.Since(began))
			}
		}
	})
	t.Run("N41 posts of other sites", func(t *testing.T) {
		c := n.browser()
		page := n.get(c, "/authorize", with(nil))
		state := page.Request.URL.Query().Get("state")
		for _, h := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Origin": {"https://evil.test"}}} {
			h.Set("Content-Type", "application/x-www-form-urlencoded")
			a := n.do(c, "POST", "/u/login", h, strings.NewReader(url.Values{"state": {state}, "username": {email}, "password": {userPassword}}.Encode()))
			wantPage(t, a, 403)
		}
	})
	t.Run("N46 requests out of form", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", n.issuer+"userinfo", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", "a="+strings.Repeat("x", 1<<20))
		resp, err := n.browser().Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("a cookie of 1 MB: %d", resp.StatusCode)
			}
		}
		big := n.do(n.browser(), "POST", "/oauth/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, strings.NewReader("grant_type="+strings.Repeat("x", 2<<20)))
		if big.StatusCode/100 != 4 {
			t.Errorf("a body of 2 MB: %d", big.StatusCode)
		}
	})
}

func b64(v any) string {
	raw, ok := v.([]byte)
	if !ok {
		raw, _ = json.Marshal(v)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func signRS256(t *testing.T, key *rsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	input := b64(header) + "." + b64(claims)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(sig)
}

func assertions(t *testing.T, n *node) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	app := n.application(map[string]any{"app_type": "non_interactive", "grant_types": []string{"client_credentials"}})
	cred := n.api("POST", "clients/"+app.id+"/credentials", map[string]any{"credential_type": "public_key", "name": "k", "alg": "RS256",
		"pem": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	n.api("PATCH", "clients/"+app.id, map[string]any{"client_authentication_methods": map[string]any{"private_key_jwt": map[string]any{
		"credentials": []any{map[string]any{"id": cred["id"]}}}}})
	n.api("POST", "client-grants", map[string]any{"client_id": app.id, "audience": n.issuer + "api/v2/", "scope": []string{"read:users"}})
	ask := func(assertion string, more url.Values) answer {
		v := url.Values{"grant_type": {"client_credentials"}, "audience": {n.issuer + "api/v2/"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}}
		for k, val := range more {
			v[k] = val
		}
		return n.form(n.browser(), "/oauth/token", v)
	}
	claims := func(changes map[string]any) map[string]any {
		c := map[string]any{"iss": app.id, "sub": app.id, "aud": n.issuer, "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(), "jti": tenant.RandomString(20)}
		for k, v := range changes {
			c[k] = v
		}
		return c
	}
	header := map[string]any{"alg": "RS256", "typ": "JWT"}
	good := signRS256(t, key, header, claims(nil))
	if a := ask(good, nil); a.StatusCode != 200 {
		t.Fatalf("a good assertion: %d %s", a.StatusCode, a.body)
	}
	wantError(t, ask(good, nil), 401, "invalid_client") // the same jti
	for name, c := range map[string]map[string]any{
		"made for another server": {"aud": "https://other.test/"}, "far ahead": {"exp": time.Now().Add(time.Hour).Unix()},
		"expired": {"exp": time.Now().Add(-time.Minute).Unix()}, "without jti": {"jti": ""}, "of another issuer": {"iss": "x"},
	} {
		if a := ask(signRS256(t, key, header, claims(c)), nil); a.StatusCode != 401 || a.json()["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, ask(signRS256(t, stranger, header, claims(nil)), nil), 401, "invalid_client")
	wantError(t, n.form(n.browser(), "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {app.id}, "client_secret": {app.secret}}), 401, "invalid_client")
	n.logged(tenant.LogFailedClientAuth)
}

func foreignTokens(t *testing.T, n *node, app application, email string) {
	read := func(token string) answer { return n.apiAs(token, "GET", "users?per_page=1", nil) }
	if a := read(n.token); a.StatusCode != 200 {
		t.Fatalf("a good token: %d %s", a.StatusCode, a.body)
	}
	var jwks struct {
		Keys []struct {
			Kid string   `json:"kid"`
			X5c []string `json:"x5c"`
		} `json:"keys"`
	}
	if err := json.Unmarshal([]byte(n.get(n.browser(), "/.well-known/jwks.json", nil).body), &jwks); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(n.token, ".")
	var own struct {
		Kid string `json:"kid"`
	}
	raw, _ := base64.RawURLEncoding.DecodeString(parts[0])
	_ = json.Unmarshal(raw, &own)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{"iss": n.issuer, "sub": "x", "aud": n.issuer + "api/v2/", "exp": time.Now().Add(time.Hour).Unix(), "scope": "read:users"}
	der, _ := base64.StdEncoding.DecodeString(jwks.Keys[0].X5c[0])
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	spki, _ := x509.MarshalPKIXPublicKey(cert.PublicKey)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	hs := b64(map[string]any{"alg": "HS256", "kid": own.Kid}) + "." + b64(claims)
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(hs))
	jwk := map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": "AQAB", "kid": "mine"}
	for name, token := range map[string]string{
		"alg none":            b64(map[string]any{"alg": "none"}) + "." + parts[1] + ".",
		"HS256 by public key": hs + "." + b64(mac.Sum(nil)),
		"embedded key":        signRS256(t, key, map[string]any{"alg": "RS256", "jwk": jwk, "kid": "mine"}, claims),
		"jku":                 signRS256(t, key, map[string]any{"alg": "RS256", "jku": "https://evil.test/jwks", "kid": "mine"}, claims),
		"known kid, our key":  signRS256(t, key, map[string]any{"alg": "RS256", "kid": own.Kid}, claims),
		"unknown kid":         signRS256(t, key, map[string]any{"alg": "RS256", "kid": "nobody"}, claims),
		"no kid":              signRS256(t, key, map[string]any{"alg": "RS256"}, claims),
		"altered payload":     parts[0] + "." + b64(claims) + "." + parts[2],
		"an ID token":         n.tokens(app, email, nil)["id_token"].(string), // N18
		"an opaque token":     n.tokens(app, email, nil)["access_token"].(string),
		"nonsense":            "x.y.z",
		"endless":             strings.Repeat("a", 40<<10),
	} {
		a := read(token)
		if a.StatusCode != 401 && !(name == "endless" && a.StatusCode == 431) {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	// N19: a token of another tenant, with the same scopes, on this tenant's host.
	if _, err := n.local.CreateTenant(t.Context(), "other", nil); err != nil {
		t.Fatal(err)
	}
	foreign, err := n.local.Token(t.Context(), client.TokenRequest{Tenant: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if a := read(foreign.AccessToken); a.StatusCode != 401 || strings.Contains(a.body, "user_id") {
		t.Errorf("another tenant's token: %d %s", a.StatusCode, a.body)
	}
	n.logged(tenant.LogAPI)
}
