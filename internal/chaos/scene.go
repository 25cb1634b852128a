package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const (
	password   = "Correct-horse-7"
	connection = "Username-Password-Authentication"
	callback   = "https://app.example.com/cb"
	audience   = "https://api.example.com"
	// giveUp is how long a client waits for an answer.
	giveUp = 10 * time.Second
)

// Scene is what a load works with: applications, an API and users of one tenant,
// reached at one address.
type Scene struct {
	base      string // https://HOST
	transport *http.Transport
	token     string // of the Management API
	balanced  bool   // says that it is the balancer, and not a client of it

	search bool // there is a search engine

	web   application
	probe application // for client_credentials; nobody changes its secret
	users []user
}

type application struct{ id, secret string }

type user struct{ id, email string }

// NewScene makes applications and users at a base URL. The token is for its
// Management API.
func NewScene(ctx context.Context, base string, transport *http.Transport, token string, users int) (*Scene, error) {
	s := &Scene{base: base, transport: transport, token: token}
	_, err := s.api(ctx, "POST", "/resource-servers", map[string]any{"name": "api", "identifier": audience, "signing_alg": "ES256", "allow_offline_access": true,
		"skip_consent_for_verifiable_first_party_clients": true, "scopes": []map[string]string{{"value": "read:things"}}}, nil)
	if err != nil {
		return nil, err
	}
	s.web, err = s.application(ctx, map[string]any{"name": "web", "app_type": "regular_web", "callbacks": []string{callback}, "oidc_conformant": true,
		"grant_types":   []string{"authorization_code", "refresh_token"},
		"refresh_token": map[string]any{"rotation_type": "rotating", "expiration_type": "expiring", "leeway": 0, "token_lifetime": 2592000, "idle_token_lifetime": 1296000}})
	if err != nil {
		return nil, err
	}
	if s.probe, err = s.machine(ctx, "probe"); err != nil {
		return nil, err
	}
	var found []struct{ ID string }
	if _, err := s.api(ctx, "GET", "/connections?name="+connection, nil, &found); err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d connections are named %s", len(found), connection)
	}
	if _, err := s.api(ctx, "PATCH", "/connections/"+found[0].ID+"/clients", []map[string]any{{"client_id": s.web.id, "status": true}}, nil); err != nil {
		return nil, err
	}
	for i := range users {
		u, err := s.user(ctx, fmt.Sprintf("user-%d@example.com", i))
		if err != nil {
			return nil, err
		}
		s.users = append(s.users, u)
	}
	return s, nil
}

func (s *Scene) user(ctx context.Context, email string) (user, error) {
	var made struct {
		ID string `json:"user_id"`
	}
	_, err := s.api(ctx, "POST", "/users", map[string]any{"connection": connection, "email": email, "password": password, "email_verified": true}, &made)
	return user{made.ID, email}, err
}

func (s *Scene) application(ctx context.Context, in map[string]any) (application, error) {
	var made struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	_, err := s.api(ctx, "POST", "/clients", in, &made)
	return application{made.ID, made.Secret}, err
}

// machine makes an application that gets tokens for itself.
func (s *Scene) machine(ctx context.Context, name string) (application, error) {
	a, err := s.application(ctx, map[string]any{"name": name, "app_type": "non_interactive", "grant_types": []string{"client_credentials"}})
	if err != nil {
		return a, err
	}
	_, err = s.api(ctx, "POST", "/client-grants", map[string]any{"client_id": a.id, "audience": audience, "scope": []string{"read:things"}}, nil)
	return a, err
}

// answer is what came back; status 0 means nothing.
type answer struct {
	status   int
	location string
	body     []byte
	err      error
}

// fault says in a few words why an answer is none of those that were wanted.
func (a answer) fault() string {
	if a.err != nil {
		var netErr interface{ Timeout() bool }
		switch {
		case errors.As(a.err, &netErr) && netErr.Timeout():
			return "no answer in time"
		case errors.Is(a.err, io.EOF), errors.Is(a.err, io.ErrUnexpectedEOF):
			return "the connection was closed"
		}
		return a.err.Error()
	}
	text := strings.Join(strings.Fields(tags.ReplaceAllString(string(a.body), " ")), " ")
	return text[:min(len(text), 110)]
}

var tags = regexp.MustCompile(`<style>[^<]*</style>|<[^>]*>`)

// do asks once; nothing is repeated behind the back of the checker.
func (s *Scene) do(ctx context.Context, jar http.CookieJar, method, path, contentType, body string, headers ...string) answer {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	if !strings.HasPrefix(path, "https://") {
		path = s.base + path
	}
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{err: err}
	}
	req.GetBody = nil // so that net/http does not send it again
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if s.balanced {
		req.Header.Set("X-Forwarded-Proto", "https")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	c := http.Client{Transport: s.transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{err: err}
	}
	return answer{resp.StatusCode, resp.Header.Get("Location"), raw, nil}
}

const formType = "application/x-www-form-urlencoded"

func (s *Scene) form(ctx context.Context, path string, v url.Values) answer {
	return s.do(ctx, nil, "POST", path, formType, v.Encode())
}

// api calls the Management API, and decodes what it answers to a success.
func (s *Scene) api(ctx context.Context, method, path string, in, out any) (answer, error) {
	body := ""
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return answer{}, err
		}
		body = string(raw)
	}
	a := s.do(ctx, nil, method, "/api/v2"+path, "application/json", body, "Authorization", "Bearer "+s.token)
	if a.status/100 != 2 {
		return a, fmt.Errorf("%s %s: %d %s", method, path, a.status, a.fault())
	}
	if out == nil || len(a.body) == 0 {
		return a, nil
	}
	return a, json.Unmarshal(a.body, out)
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// refusal reports whether the token endpoint said no to what it was asked.
func (a answer) refusal(codes ...string) bool {
	var e struct {
		Error string `json:"error"`
	}
	if a.status/100 != 4 || json.Unmarshal(a.body, &e) != nil {
		return false
	}
	for _, c := range codes {
		if e.Error == c {
			return true
		}
	}
	return false
}

var stateField = regexp.MustCompile(`name="state" value="([^"]+)"`)

// authorize is what a browser does for a code; with a password when it is asked
// for one and has it.
func (s *Scene) authorize(ctx context.Context, jar http.CookieJar, email, password string) (code string, asked bool, a answer) {
	q := url.Values{"client_id": {s.web.id}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid offline_access"}, "state": {"s"}, "nonce": {"n"}}
	a = s.do(ctx, jar, "GET", "/authorize?"+q.Encode(), "", "")
	for hops := 0; hops < 6; hops++ {
		switch {
		case a.status/100 == 3 && strings.HasPrefix(a.location, callback):
			to, err := url.Parse(a.location)
			if err != nil {
				return "", asked, answer{err: err}
			}
			return to.Query().Get("code"), asked, a
		case a.status/100 == 3 && a.location != "":
			a = s.do(ctx, jar, "GET", a.location, "", "")
		case a.status == http.StatusOK:
			m := stateField.FindSubmatch(a.body)
			if asked || m == nil || password == "" {
				return "", true, a
			}
			asked = true
			v := url.Values{"state": {html.UnescapeString(string(m[1]))}, "username": {email}, "password": {password}}
			a = s.do(ctx, jar, "POST", "/u/login", formType, v.Encode())
		default:
			return "", asked, a
		}
	}
	return "", asked, a
}

func newJar() http.CookieJar {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // without options it cannot fail
	}
	return jar
}
