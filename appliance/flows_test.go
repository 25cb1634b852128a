package appliance_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/tenant"
)

func header(t *testing.T, token string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	var h map[string]any
	if err := json.Unmarshal(raw, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestFlows goes the ways of a login that the SDKs' tests do not.
func TestFlows(t *testing.T) { engines(t, flows) }

func flows(t *testing.T, n *node) {
	app := n.application(nil)
	_, email := n.user()
	v := oauth2.GenerateVerifier()

	t.Run("consent for an application of somebody else", func(t *testing.T) {
		theirs := n.application(map[string]any{"name": "Theirs", "is_first_party": false})
		c := n.browser()
		page := n.get(c, "/authorize", theirs.request(v))
		page = n.submit(c, page, map[string]string{"username": email, "password": userPassword})
		if page.Request.URL.Path != "/u/consent" || !strings.Contains(page.body, "Theirs") {
			t.Fatalf("no consent page: %s", page.Request.URL)
		}
		if back := n.back(n.submit(c, page, map[string]string{"action": "deny"})); back.Get("error") != "access_denied" || back.Get("state") != "st" {
			t.Errorf("after a refusal: %v", back)
		}
		if back := n.back(n.get(c, "/authorize", func() url.Values { q := theirs.request(v); q.Set("prompt", "none"); return q }())); back.Get("error") != "consent_required" {
			t.Errorf("prompt=none before consent: %v", back)
		}
		page = n.get(c, "/authorize", theirs.request(v))
		if back := n.back(n.submit(c, page, map[string]string{"action": "accept"})); back.Get("code") == "" {
			t.Errorf("after consent: %v", back)
		}
		// Once given, it is not asked for again; more is.
		if back := n.back(n.get(c, "/authorize", theirs.request(v))); back.Get("code") == "" {
			t.Errorf("the second time: %v", back)
		}
		q := theirs.request(v)
		q.Set("scope", "openid phone")
		if a := n.get(c, "/authorize", q); a.Request.URL.Path != "/u/consent" {
			t.Errorf("another scope: %s", a.Request.URL.Path)
		}
		n.logged(tenant.LogConsent)
	})
	t.Run("response modes", func(t *testing.T) {
		c := n.browser()
		n.login(c, app.request(v), email)
		q := app.request(v)
		q.Set("response_mode", "fragment")
		if to, err := n.get(c, "/authorize", q).Location(); err != nil || !strings.Contains(to.Fragment, "code=") || to.RawQuery != "" {
			t.Errorf("fragment: %v, %v", to, err)
		}
		q.Set("response_mode", "form_post")
		if a := n.get(c, "/authorize", q); !strings.Contains(a.body, `action="`+callback+`"`) || !strings.Contains(a.body, `name="code"`) || !strings.Contains(a.Header.Get("Content-Security-Policy"), "nonce-") {
			t.Errorf("form_post: %s", a.body)
		}
		q.Set("response_mode", "web_message")
		if back := n.back(n.get(c, "/authorize", q)); back.Get("error") != "access_denied" {
			t.Errorf("web_message to an origin that is not registered: %v", back)
		}
	})
	t.Run("prompt and max_age", func(t *testing.T) {
		c := n.browser()
		n.login(c, app.request(v), email)
		for name, q := range map[string]url.Values{"prompt": {"prompt": {"login"}}, "max_age": {"max_age": {"0"}}} {
			req := app.request(v)
			for k, val := range q {
				req[k] = val
			}
			if a := n.get(c, "/authorize", req); a.StatusCode != 200 || a.Request.URL.Path != "/u/login" {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.Request.URL.Path)
			}
		}
	})
	t.Run("algorithms are a setting", func(t *testing.T) {
		defer n.api("PATCH", "tenants/settings", map[string]any{"signing_alg": "RS256"})
		own := n.application(map[string]any{"jwt_configuration": map[string]any{"alg": "ES256"}})
		if h := header(t, n.tokens(own, email, nil)["id_token"].(string)); h["alg"] != "ES256" {
			t.Errorf("got %v", h)
		}
		for _, alg := range tenant.Algorithms {
			id := "https://api.test/" + alg
			n.api("POST", "resource-servers", map[string]any{"name": alg, "identifier": id, "signing_alg": alg, "scopes": []map[string]any{{"value": "read:x"}}})
			got := n.tokens(app, email, url.Values{"audience": {id}, "scope": {"openid read:x write:y"}})
			if h := header(t, got["access_token"].(string)); h["alg"] != alg {
				t.Errorf("%s: got %v", alg, h)
			}
			if got["scope"] != "openid read:x" {
				t.Errorf("the scope is %v: what the API does not have was granted", got["scope"])
			}
		}
	})
	t.Run("permissions of roles bound what is granted", func(t *testing.T) {
		id, mail := n.user()
		n.api("POST", "resource-servers", map[string]any{"name": "rbac", "identifier": "https://rbac.test/", "enforce_policies": true, "token_dialect": "access_token_authz",
			"scopes": []map[string]any{{"value": "read:x"}, {"value": "write:x"}}})
		role := n.api("POST", "roles", map[string]any{"name": "reader"})["id"].(string)
		n.api("POST", "roles/"+role+"/permissions", map[string]any{"permissions": []map[string]any{{"resource_server_identifier": "https://rbac.test/", "permission_name": "read:x"}}})
		ask := func() map[string]any {
			return payload(t, n.tokens(app, mail, url.Values{"audience": {"https://rbac.test/"}, "scope": {"openid read:x write:x"}})["access_token"].(string))
		}
		if c := ask(); c["scope"] != "openid" || len(c["permissions"].([]any)) != 0 {
			t.Errorf("without a role: %v", c)
		}
		n.api("POST", "users/"+url.PathEscape(id)+"/roles", map[string]any{"roles": []string{role}})
		if c := ask(); c["scope"] != "openid read:x" || len(c["permissions"].([]any)) != 1 {
			t.Errorf("with the role: %v", c)
		}
	})
	t.Run("a rotated key signs, and what was signed before still holds", func(t *testing.T) {
		before := n.token
		n.api("POST", "keys/signing/rotate", nil)
		if a := n.apiAs(before, "GET", "roles", nil); a.StatusCode != 200 {
			t.Errorf("a token of before the rotation: %d", a.StatusCode)
		}
		kid := header(t, before)["kid"].(string)
		n.api("PUT", "keys/signing/"+kid+"/revoke", nil)
		if a := n.apiAs(before, "GET", "roles", nil); a.StatusCode != 401 {
			t.Errorf("a token of a revoked key: %d", a.StatusCode)
		}
	})
}

// TestTraces sends a request and wants its span at the collector.
func TestTraces(t *testing.T) {
	got := make(chan string, 16)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case got <- r.URL.Path:
		default:
		}
	}))
	defer collector.Close()
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	n := startWith(t, "", func(c *configuration) { c.Traces.Endpoint = collector.URL })
	n.get(n.browser(), "/.well-known/jwks.json", nil)
	if path := <-got; path != "/v1/traces" {
		t.Errorf("the collector was asked for %s", path)
	}
}

// TestMetrics reads the metrics that a scrape reads.
func TestMetrics(t *testing.T) {
	n := start(t, "")
	n.get(n.browser(), "/.well-known/jwks.json", nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.health+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("api_keys_health", n.key)
	a := n.do(&http.Client{}, http.MethodGet, n.health+"/metrics", req.Header, nil)
	for _, want := range []string{`portcullis_http_requests_total{method="GET",route="GET /.well-known/jwks.json",status="200"} 1`, "portcullis_build_info", "go_goroutines"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s is missing (status %d)", want, a.StatusCode)
		}
	}
	if a := n.do(&http.Client{}, http.MethodGet, n.health+"/metrics", nil, nil); a.StatusCode != 401 {
		t.Errorf("metrics for everybody: %d", a.StatusCode)
	}
}
