package dashboard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// redirectURI is where the test login comes back to: the host that the set-up is
// on.
func (s *Setup) redirectURI(r *http.Request) string {
	return strings.TrimSuffix(s.deps.Directory.URL(tenant.FromContext(r.Context()).Name), "/") + callbackPath
}

// try begins a login as the new application would: authorization code with PKCE
// (RFC 7636). The callback of the set-up is on the application's list only until
// the login has come back.
func (s *Setup) try(w http.ResponseWriter, r *http.Request, value string, t ticket) error {
	if t.ClientID == "" {
		return seeOther(w, r, applicationPath)
	}
	c, err := s.deps.Directory.Client(r.Context(), t.Tenant, t.ClientID)
	if err != nil {
		return err
	}
	redirect := s.redirectURI(r)
	own := slices.DeleteFunc(slices.Clone(c.Callbacks), func(u string) bool { return u == redirect })
	if err := s.deps.Appliance.SetCallbacks(r.Context(), t.Tenant, t.ClientID, append(slices.Clone(own), redirect)); err != nil {
		return fmt.Errorf("add the callback of the test login: %w", err)
	}
	state := once.New()
	l := ticket{Use: useLogin, Tenant: t.Tenant, ClientID: t.ClientID, Session: hashed(value), Nonce: tenant.RandomString(22), Verifier: tenant.NewSecret(), Callbacks: own}
	err = s.deps.Docs.Write(r.Context(), s.cfg.Root, func(tx tenant.Tx) error {
		return once.Put(tx, once.Setup, state, useLogin, l, loginTTL)
	})
	if err != nil {
		return err
	}
	challenge := sha256.Sum256([]byte(l.Verifier))
	q := url.Values{"client_id": {t.ClientID}, "response_type": {"code"}, "scope": {"openid profile email"}, "redirect_uri": {redirect},
		"state": {state}, "nonce": {l.Nonce}, "prompt": {"login"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"}}
	return seeOther(w, r, s.deps.Directory.URL(t.Tenant)+"authorize?"+q.Encode())
}

type claim struct{ Name, Value, Note string }

// callback is where the test login comes back to.
func (s *Setup) callback(w http.ResponseWriter, r *http.Request, value string, t ticket) error {
	q := r.URL.Query()
	var l ticket
	err := s.deps.Docs.Write(r.Context(), s.cfg.Root, func(tx tenant.Tx) error {
		l = ticket{}
		return once.Take(tx, once.Setup, q.Get("state"), &l)
	})
	if c := problem.From(err).Code; c == once.CodeUnknown || c == once.CodeUsed || err == nil && (l.Use != useLogin || l.Session != hashed(value)) {
		return problem.Wrap(problem.Invalid, "invalid_state", err, "This test login was finished before, took too long, or was begun in another browser. Go back to the set-up and try again.")
	}
	if err != nil {
		return err
	}
	if err := s.deps.Appliance.SetCallbacks(r.Context(), l.Tenant, l.ClientID, l.Callbacks); err != nil {
		return fmt.Errorf("take the callback of the test login off the list: %w", err)
	}
	client, err := s.deps.Directory.Client(r.Context(), l.Tenant, l.ClientID)
	if err != nil {
		return err
	}
	d := &data{Title: "The login works", Step: 3, Application: client.Name, Form: formToken(value, tryPath)}
	if code := q.Get("error"); code != "" {
		d.Title, d.Problem = "The login did not end well", clip(code+": "+q.Get("error_description"))
		return s.show(w, http.StatusOK, "claims", d)
	}
	// RFC 9207: an answer of another server would name another issuer.
	if iss := q.Get("iss"); iss != "" && iss != s.deps.Directory.URL(l.Tenant) {
		return problem.New(problem.Invalid, "invalid_issuer", "The answer came from another issuer")
	}
	raw, err := s.redeem(r.Context(), client, l, q.Get("code"), s.redirectURI(r))
	if err != nil {
		return err
	}
	if d.Claims, err = s.claims(r.Context(), client, l, raw); err != nil {
		return err
	}
	return s.show(w, http.StatusOK, "claims", d)
}

func clip(s string) string {
	if len(s) > 500 {
		return strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}

// redeem exchanges the code at the token endpoint, as the application's server
// would (RFC 6749 section 4.1.3).
func (s *Setup) redeem(ctx context.Context, c *tenant.Client, l ticket, code, redirect string) (idToken string, err error) {
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "client_id": {c.ID}, "code_verifier": {l.Verifier}}
	basic := c.TokenEndpointAuthMethod == "client_secret_basic"
	if c.TokenEndpointAuthMethod != "none" && !basic {
		form.Set("client_secret", c.Secret)
	}
	if basic {
		form.Del("client_id")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.deps.Directory.URL(l.Tenant)+"oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic {
		req.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.Secret))
	}
	// The request stays inside the process: it is as safe as one over TLS.
	req.RequestURI, req.RemoteAddr, req.TLS = req.URL.RequestURI(), "127.0.0.1:0", &tls.ConnectionState{HandshakeComplete: true}
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	s.deps.Front.ServeHTTP(answer, req)
	var body struct {
		IDToken     string `json:"id_token"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(answer.body.Bytes(), &body); err != nil {
		return "", fmt.Errorf("the token endpoint answered %d with no JSON: %w", answer.status, err)
	}
	if answer.status != http.StatusOK || body.IDToken == "" {
		return "", problem.New(problem.Invalid, "token_exchange_failed", "The token endpoint refused the code (%d %s): %s", answer.status, clip(body.Error), clip(body.Description))
	}
	return body.IDToken, nil
}

// recorder keeps the answer of the front door.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// claims verifies an ID token (OpenID Connect Core section 3.1.3.7) and lists
// what it says.
func (s *Setup) claims(ctx context.Context, c *tenant.Client, l ticket, raw string) ([]claim, error) {
	bad := func(err error) error {
		return problem.Wrap(problem.Invalid, "invalid_id_token", err, "The ID token of the test login cannot be verified")
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA, jose.HS256})
	if err != nil {
		return nil, bad(err)
	}
	var key any = []byte(c.Secret)
	if token.Headers[0].Algorithm != string(jose.HS256) {
		if key, err = s.deps.Keys.Public(ctx, l.Tenant); err != nil {
			return nil, err
		}
	}
	var std jwt.Claims
	var all map[string]json.RawMessage
	if err := token.Claims(key, &std, &all); err != nil {
		return nil, bad(err)
	}
	if err := std.ValidateWithLeeway(jwt.Expected{Issuer: s.deps.Directory.URL(l.Tenant), AnyAudience: jwt.Audience{c.ID}, Time: s.deps.Now()}, time.Minute); err != nil {
		return nil, bad(err)
	}
	var nonce string
	if err := json.Unmarshal(all["nonce"], &nonce); err != nil || nonce != l.Nonce {
		return nil, bad(fmt.Errorf("the nonce is not that of the request"))
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	out := make([]claim, 0, len(names))
	for _, name := range names {
		v := claim{Name: name, Value: string(all[name])}
		var text string
		if json.Unmarshal(all[name], &text) == nil {
			v.Value = text
		}
		if n, err := strconv.ParseInt(string(all[name]), 10, 64); err == nil && (name == "iat" || name == "exp" || name == "auth_time") {
			v.Note = time.Unix(n, 0).UTC().Format("2006-01-02 15:04:05 UTC")
		}
		out = append(out, v)
	}
	return out, nil
}
