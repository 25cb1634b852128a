package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/cascadia"
	jwtmiddleware "github.com/auth0/go-jwt-middleware/v2"
	"github.com/auth0/go-jwt-middleware/v2/jwks"
	"github.com/auth0/go-jwt-middleware/v2/validator"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/tenant"
)

type node struct {
	issuer string
	client *http.Client // trusts the local root, resolves the test's names
	token  string       // of the Management API
}

func start(t *testing.T) *node {
	t.Helper()
	if os.Getenv("PORTCULLIS_E2E") == "" {
		t.Skip("PORTCULLIS_E2E is not set: scripts/e2e starts the node and sets it")
	}
	pem, err := os.ReadFile(os.Getenv("E2E_CA"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err == nil && strings.HasSuffix(host, "portcullis.test") {
				address = net.JoinHostPort(os.Getenv("E2E_ADDRESS"), port)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}
	n := &node{issuer: "https://" + os.Getenv("E2E_DOMAIN") + "/", client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	raw, err := os.ReadFile(os.Getenv("E2E_TENANT"))
	if err != nil {
		t.Fatal(err)
	}
	var own struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	}
	if err := json.Unmarshal(raw, &own); err != nil {
		t.Fatal(err)
	}
	var token struct {
		AccessToken string `json:"access_token"`
	}
	n.post(t, "oauth/token", map[string]any{"grant_type": "client_credentials", "client_id": own.ClientID, "client_secret": own.ClientSecret,
		"audience": n.issuer + "api/v2/"}, &token)
	n.token = token.AccessToken
	return n
}

// call speaks to the Management API.
func (n *node) call(t *testing.T, method, path string, body, into any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, n.issuer+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if n.token != "" {
		req.Header.Set("Authorization", "Bearer "+n.token)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, answer, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) post(t *testing.T, path string, body, into any) {
	n.call(t, http.MethodPost, path, body, into)
}

// application registers a client that the database's users log in at.
func (n *node) application(t *testing.T, properties map[string]any) (id, secret string) {
	t.Helper()
	var made struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	n.post(t, "api/v2/clients", properties, &made)
	var found []struct{ ID string }
	n.call(t, http.MethodGet, "api/v2/connections?name=Username-Password-Authentication", nil, &found)
	n.call(t, http.MethodPatch, "api/v2/connections/"+found[0].ID+"/clients", []map[string]any{{"client_id": made.ID, "status": true}}, nil)
	return made.ID, made.Secret
}

// submit fills in the form of a page and follows where it leads, up to a URL that
// begins with stop.
func submit(t *testing.T, client *http.Client, page *http.Response, fields map[string]string) *http.Response {
	t.Helper()
	doc, err := html.Parse(page.Body)
	page.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	form := cascadia.Query(doc, cascadia.MustCompile("form"))
	if form == nil {
		t.Fatalf("%s has no form (status %d)", page.Request.URL, page.StatusCode)
	}
	values := url.Values{}
	for _, input := range cascadia.QueryAll(form, cascadia.MustCompile("input[name]")) {
		values.Set(attr(input, "name"), attr(input, "value"))
	}
	for k, v := range fields {
		values.Set(k, v)
	}
	action, err := page.Request.URL.Parse(attr(form, "action"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.PostForm(action.String(), values)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// TestLogin logs a user in with golang.org/x/oauth2 and coreos/go-oidc, and calls
// an API behind auth0/go-jwt-middleware with the token.
func TestLogin(t *testing.T) {
	n := start(t)
	ctx := oidc.ClientContext(t.Context(), n.client)
	identifier := "https://" + tenant.RandomString(8) + ".api.example.com/"
	n.post(t, "api/v2/resource-servers", map[string]any{"name": "api", "identifier": identifier, "allow_offline_access": true,
		"scopes": []map[string]any{{"value": "read:things"}}}, nil)
	id, secret := n.application(t, map[string]any{"name": "go rp", "app_type": "regular_web", "callbacks": []string{"http://127.0.0.1/callback"},
		"grant_types": []string{"authorization_code", "refresh_token"}})
	email := strings.ToLower(tenant.RandomString(10)) + "@example.com"
	n.post(t, "api/v2/users", map[string]any{"connection": "Username-Password-Authentication", "email": email, "password": "Correct-horse-7", "email_verified": true}, nil)

	provider, err := oidc.NewProvider(ctx, n.issuer)
	if err != nil {
		t.Fatal(err)
	}
	// The registered loopback URI may come with any port (RFC 8252 section 7.3).
	config := oauth2.Config{ClientID: id, ClientSecret: secret, Endpoint: provider.Endpoint(), RedirectURL: "http://127.0.0.1:53999/callback",
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", "offline_access", "read:things"}}
	verifier, state := oauth2.GenerateVerifier(), tenant.RandomString(20)

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: n.client.Transport, Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Host == "127.0.0.1:53999" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	page, err := browser.Get(config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier), oidc.Nonce("n-1"), oauth2.SetAuthURLParam("audience", identifier)))
	if err != nil {
		t.Fatal(err)
	}
	back := submit(t, browser, page, map[string]string{"username": email, "password": "Correct-horse-7"})
	back.Body.Close()
	location, err := back.Location()
	if err != nil {
		t.Fatalf("the login did not lead back: %d %s", back.StatusCode, back.Request.URL)
	}
	q := location.Query()
	if q.Get("state") != state || q.Get("iss") != n.issuer {
		t.Errorf("got state %q and iss %q", q.Get("state"), q.Get("iss"))
	}
	tokens, err := config.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	idToken, err := provider.Verifier(&oidc.Config{ClientID: id}).Verify(ctx, raw)
	if err != nil || idToken.Nonce != "n-1" {
		t.Fatalf("the ID token: %v", err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	if err != nil || info.Email != email || !info.EmailVerified {
		t.Errorf("userinfo: %+v, %v", info, err)
	}
	// A refresh by the library itself.
	expired := *tokens
	expired.Expiry = time.Now().Add(-time.Hour)
	fresh, err := config.TokenSource(ctx, &expired).Token()
	if err != nil || fresh.AccessToken == tokens.AccessToken {
		t.Fatalf("refresh: %v", err)
	}

	api := protected(t, n, identifier)
	for name, tt := range map[string]struct {
		token string
		want  int
	}{"the token": {fresh.AccessToken, 200}, "an ID token": {raw, 401}, "none": {"", 401}, "a forged one": {fresh.AccessToken[:len(fresh.AccessToken)-6] + "AAAAAA", 401}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.token != "" {
			req.Header.Set("Authorization", "Bearer "+tt.token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want && !(tt.want == 401 && resp.StatusCode == 400) {
			t.Errorf("%s: the API answers %d, want %d", name, resp.StatusCode, tt.want)
		}
	}
}

type scopes struct {
	Scope string `json:"scope"`
}

// Validate implements validator.CustomClaims.
func (s scopes) Validate(context.Context) error {
	if !strings.Contains(s.Scope, "read:things") {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// protected is an API that takes the tenant's tokens alone.
func protected(t *testing.T, n *node, identifier string) string {
	t.Helper()
	issuer, err := url.Parse(n.issuer)
	if err != nil {
		t.Fatal(err)
	}
	keys := jwks.NewCachingProvider(issuer, time.Minute, jwks.WithCustomClient(n.client))
	v, err := validator.New(keys.KeyFunc, validator.RS256, n.issuer, []string{identifier}, validator.WithCustomClaims(func() validator.CustomClaims { return &scopes{} }))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(jwtmiddleware.New(v.ValidateToken).CheckJWT(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})))
	t.Cleanup(server.Close)
	return server.URL
}
