package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
)

const (
	database     = "Username-Password-Authentication"
	userPassword = "Correct-horse-7"
	callback     = "https://app.example.com/cb"
)

// scene is what the loads work with: applications, APIs and users of a node.
type scene struct {
	n       *node
	machine app // client_credentials for an API of each algorithm
	web     app // code flow, refresh with rotation
	users   []string
}

type app struct{ id, secret string }

var algorithms = []string{"RS256", "ES256", "EdDSA"}

func audience(alg string) string { return "https://api.example.com/" + strings.ToLower(alg) }

// setUp makes applications, APIs and a number of users.
func setUp(n *node, users int) (*scene, error) {
	s := &scene{n: n}
	type made struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	var m made
	if err := n.api("POST", "/clients", map[string]any{"name": "machine", "app_type": "non_interactive", "grant_types": []string{"client_credentials"}}, &m); err != nil {
		return nil, err
	}
	s.machine = app{m.ID, m.Secret}
	for _, alg := range algorithms {
		if err := n.api("POST", "/resource-servers", map[string]any{"name": alg, "identifier": audience(alg), "signing_alg": alg, "allow_offline_access": true,
			"skip_consent_for_verifiable_first_party_clients": true, "scopes": []map[string]string{{"value": "read:things"}}}, nil); err != nil && !strings.Contains(err.Error(), "409") { // there from an earlier run
			return nil, err
		}
		if err := n.api("POST", "/client-grants", map[string]any{"client_id": m.ID, "audience": audience(alg), "scope": []string{"read:things"}}, nil); err != nil {
			return nil, err
		}
	}
	if err := n.api("POST", "/clients", map[string]any{"name": "web", "app_type": "regular_web", "callbacks": []string{callback}, "oidc_conformant": true,
		"grant_types":   []string{"authorization_code", "refresh_token", "password", "http://auth0.com/oauth/grant-type/password-realm"},
		"refresh_token": map[string]any{"rotation_type": "rotating", "expiration_type": "expiring", "leeway": 0, "token_lifetime": 2592000, "idle_token_lifetime": 1296000}}, &m); err != nil {
		return nil, err
	}
	s.web = app{m.ID, m.Secret}
	var found []struct{ ID string }
	if err := n.api("GET", "/connections?name="+database, nil, &found); err != nil {
		return nil, err
	}
	if err := n.api("PATCH", "/connections/"+found[0].ID+"/clients", []map[string]any{{"client_id": m.ID, "status": true}}, nil); err != nil {
		return nil, err
	}
	for i := range users {
		email := fmt.Sprintf("bench-%d@example.com", i)
		if err := n.api("POST", "/users", map[string]any{"connection": database, "email": email, "password": userPassword, "email_verified": true}, nil); err != nil {
			return nil, err
		}
		s.users = append(s.users, email)
	}
	return s, nil
}

func (s *scene) form(path string, v url.Values) []byte {
	return request("POST", s.n.host, path, formType, []byte(v.Encode()))
}

func (s *scene) clientCredentialsRequest(alg string) []byte {
	return s.form("/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {s.machine.id}, "client_secret": {s.machine.secret},
		"audience": {audience(alg)}})
}

func (s *scene) clientCredentials(alg string) operation {
	return expect(s.clientCredentialsRequest(alg), http.StatusOK)
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// password logs a user in through the password-realm grant.
func (s *scene) password(c *conn, user, aud, scope string) (t tokens, err error) {
	v := url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database}, "username": {user}, "password": {userPassword},
		"client_id": {s.web.id}, "client_secret": {s.web.secret}, "scope": {scope}}
	if aud != "" {
		v.Set("audience", aud)
	}
	a, err := c.do(s.form("/oauth/token", v))
	if err != nil {
		return t, err
	}
	if a.status != http.StatusOK {
		return t, fmt.Errorf("login answered %d: %.300s", a.status, a.body)
	}
	return t, json.Unmarshal(a.body, &t)
}

// refresh follows a chain of rotating refresh tokens.
func (s *scene) refresh(token string) operation {
	return func(c *conn) error {
		a, err := c.do(s.form("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {s.web.id}, "client_secret": {s.web.secret}}))
		if err != nil {
			return fmt.Errorf("%w: %w", errFatal, err)
		}
		var t tokens
		if err := json.Unmarshal(a.body, &t); err != nil || t.Refresh == "" {
			return fmt.Errorf("%w: refresh answered %d: %.300s", errFatal, a.status, a.body)
		}
		token = t.Refresh
		return nil
	}
}

// forwarded is what a load balancer that ends TLS adds.
const forwarded = "X-Forwarded-Proto: https"

// page goes to a page with cookies, and keeps those that come back.
func (s *scene) page(c *conn, method, path string, body []byte, jar map[string]string) (answer, error) {
	headers := []string{forwarded}
	if len(jar) > 0 {
		var pairs []string
		for k, v := range jar {
			pairs = append(pairs, k+"="+v)
		}
		headers = append(headers, "Cookie: "+strings.Join(pairs, "; "))
	}
	a, err := c.do(request(method, s.n.host, path, formType, body, headers...))
	for _, pair := range a.cookies {
		k, v, _ := strings.Cut(pair, "=")
		jar[k] = v
	}
	return a, err
}

var (
	stateField = regexp.MustCompile(`name="state" value="([^"]+)"`)
	verifier   = strings.Repeat("v", 50)
	challenge  = func() string {
		sum := sha256.Sum256([]byte(verifier))
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}()
)

// codeFlow is a whole login as a browser and its application do it: /authorize,
// and without a session the login page and its form, then the code for tokens.
func (s *scene) codeFlow(c *conn, user string, jar map[string]string) error {
	q := url.Values{"client_id": {s.web.id}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid profile email"}, "state": {"s"},
		"nonce": {"n"}, "audience": {audience("ES256")}, "code_challenge": {challenge}, "code_challenge_method": {"S256"}}
	a, err := s.page(c, "GET", "/authorize?"+q.Encode(), nil, jar)
	if err != nil {
		return err
	}
	if a.status == http.StatusFound && strings.HasPrefix(a.location, "/") {
		if a, err = s.page(c, "GET", a.location, nil, jar); err != nil {
			return err
		}
	}
	if a.status == http.StatusOK {
		m := stateField.FindSubmatch(a.body)
		if m == nil {
			return fmt.Errorf("no login form: %.300s", a.body)
		}
		form := url.Values{"state": {html.UnescapeString(string(m[1]))}, "username": {user}, "password": {userPassword}}
		if a, err = s.page(c, "POST", "/u/login", []byte(form.Encode()), jar); err != nil {
			return err
		}
		for hops := 0; hops < 3 && a.status/100 == 3 && !strings.HasPrefix(a.location, callback); hops++ {
			if a, err = s.page(c, "GET", strings.TrimPrefix(a.location, strings.TrimSuffix(s.n.issuer, "/")), nil, jar); err != nil {
				return err
			}
		}
	}
	to, err := url.Parse(a.location)
	if err != nil || to.Query().Get("code") == "" {
		return fmt.Errorf("no code came back: %d %s %.300s", a.status, a.location, a.body)
	}
	a, err = c.do(s.form("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {s.web.id}, "client_secret": {s.web.secret},
		"code": {to.Query().Get("code")}, "redirect_uri": {callback}, "code_verifier": {verifier}}))
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("the code was answered with %d: %.300s", a.status, a.body)
	}
	return err
}

// login is codeFlow of a browser without a session.
func (s *scene) login() func(i int) operation {
	var next atomic.Int64
	return func(int) operation {
		return func(c *conn) error {
			return s.codeFlow(c, s.users[int(next.Add(1))%len(s.users)], map[string]string{})
		}
	}
}

// sso is codeFlow of browsers that have a session each.
func (s *scene) sso(workers int) (func(i int) operation, error) {
	jars := make([]map[string]string, workers)
	for i := range jars {
		jars[i] = map[string]string{}
		c := &conn{address: s.n.http}
		err := s.codeFlow(c, s.users[i%len(s.users)], jars[i])
		c.close()
		if err != nil {
			return nil, err
		}
	}
	return func(i int) operation {
		return func(c *conn) error { return s.codeFlow(c, s.users[i%len(s.users)], jars[i]) }
	}, nil
}

func (s *scene) bearer(method, path, token string, body any) ([]byte, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	return request(method, s.n.host, path, "application/json", raw, "Authorization: Bearer "+token), nil
}
