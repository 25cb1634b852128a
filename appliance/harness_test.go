package appliance_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/cascadia"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/internal/ports"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

const (
	userPassword = "Correct-horse-7"
	database     = "Username-Password-Authentication"
)

// node is a whole appliance in this process, with a tenant, as others see it.
type node struct {
	t      *testing.T
	issuer string
	local  *client.Local
	roots  *x509.CertPool
	token  string // of the Management API, with all scopes
	health string
	key    string
	cfg    appliance.Config
	app    *appliance.Node
	dial   func(port string) (net.Conn, error) // how browsers connect; nil: plainly

	stop  context.CancelFunc
	ended chan error
	gone  bool // ended was read
}

// engines runs a test on both.
func engines(t *testing.T, test func(t *testing.T, n *node)) {
	t.Run("sqlite", func(t *testing.T) { test(t, start(t, "")) })
	t.Run("postgres", func(t *testing.T) { test(t, start(t, storetest.PostgresDSN(t))) })
}

func port(t *testing.T) int {
	t.Helper()
	p, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type configuration = appliance.Config

func start(t *testing.T, dsn string) *node {
	t.Helper()
	return startWith(t, dsn, func(*configuration) {})
}

// startWith starts a node whose configuration change has changed.
func startWith(t *testing.T, dsn string, change func(c *configuration)) *node {
	t.Helper()
	return startAt(t, dsn, time.Now, change)
}

// startAt starts a node that has a clock of the test's own.
func startAt(t *testing.T, dsn string, now func() time.Time, change func(c *configuration)) *node {
	t.Helper()
	cfg := appliance.DefaultDev()
	cfg.Data = t.TempDir()
	cfg.Listen.HTTPS, cfg.Listen.HTTP, cfg.Listen.Health = port(t), port(t), port(t)
	cfg.Database.DSN = config.Secret(dsn)
	cfg.Passwords.MemoryKiB, cfg.Passwords.Time = 8192, 1
	cfg.Health.APIKey = "health-key-of-the-test"
	cfg.Log.Level = "warn"
	change(&cfg)
	return startConfig(t, cfg, now)
}

// startConfig starts a node on a configuration as it is.
func startConfig(t *testing.T, cfg configuration, now func() time.Time) *node {
	t.Helper()
	n, err := appliance.New(cfg, appliance.Options{Version: "test", Log: t.Output(), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan appliance.Ready, 1)
	n.OnReady = func(r appliance.Ready) { ready <- r }
	ctx, cancel := context.WithCancel(context.Background())
	out := &node{t: t, ended: make(chan error, 1), stop: cancel}
	go func() { out.ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if out.gone {
			return // the test has seen how it ended
		}
		if err := <-out.ended; err != nil {
			t.Errorf("the node ended with: %v", err)
		}
	})
	select {
	case r := <-ready:
		pem, err := os.ReadFile(filepath.Join(cfg.Data, "root-ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		out.roots = x509.NewCertPool()
		out.roots.AppendCertsFromPEM(pem)
		out.issuer, out.local, out.health, out.key, out.cfg = r.URL, client.NewLocal(cfg.Data), r.Health, cfg.Health.APIKey.Reveal(), cfg
		out.app = n
		tok, err := out.local.Token(t.Context(), client.TokenRequest{Tenant: "main"})
		if err != nil {
			t.Fatal(err)
		}
		out.token = tok.AccessToken
		return out
	case err := <-out.ended:
		out.gone = true
		t.Fatalf("the node did not start: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the node was not ready within a minute")
	}
	return nil
}

// browser has cookies and stops before it would leave the node.
func (n *node) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	home, err := url.Parse(n.issuer)
	if err != nil {
		n.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.roots}, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if n.dial != nil {
			return n.dial(port)
		}
		if port == home.Port() && n.cfg.Listen.HTTPS != 0 { // of a cluster, this node
			port = strconv.Itoa(n.cfg.Listen.HTTPS)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}}
	n.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: transport, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Port() != home.Port() {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// answer is a response with its body.
type answer struct {
	*http.Response
	body string
}

func (a answer) json() map[string]any {
	var m map[string]any
	_ = json.Unmarshal([]byte(a.body), &m)
	return m
}

func (n *node) do(c *http.Client, method, path string, header http.Header, body io.Reader) answer {
	n.t.Helper()
	to := path
	if !strings.HasPrefix(path, "http") {
		to = n.issuer + strings.TrimPrefix(path, "/")
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, to, body)
	if err != nil {
		n.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
		if k == "Host" {
			req.Host = v[0]
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer{resp, string(raw)}
}

func (n *node) get(c *http.Client, path string, q url.Values) answer {
	n.t.Helper()
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return n.do(c, http.MethodGet, path, nil, nil)
}

func (n *node) form(c *http.Client, path string, v url.Values) answer {
	n.t.Helper()
	return n.do(c, http.MethodPost, path, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, strings.NewReader(v.Encode()))
}

// api calls the Management API with the given token.
func (n *node) apiAs(token, method, path string, body any) answer {
	n.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		n.t.Fatal(err)
	}
	h := http.Header{"Content-Type": {"application/json"}}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return n.do(n.browser(), method, "/api/v2/"+path, h, bytes.NewReader(raw))
}

func (n *node) api(method, path string, body any) map[string]any {
	n.t.Helper()
	a := n.apiAs(n.token, method, path, body)
	if a.StatusCode/100 != 2 {
		n.t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.body)
	}
	return a.json()
}

type application struct {
	id, secret, callback string
}

const callback = "https://app.test/cb"

// application registers a client, with what properties change.
func (n *node) application(properties map[string]any) application {
	n.t.Helper()
	d := map[string]any{"name": "app", "app_type": "regular_web", "callbacks": []string{callback}, "oidc_conformant": true,
		"grant_types": []string{"authorization_code", "refresh_token", "password", "http://auth0.com/oauth/grant-type/password-realm"}}
	for k, v := range properties {
		d[k] = v
	}
	made := n.api(http.MethodPost, "clients", d)
	app := application{id: made["client_id"].(string), callback: callback}
	app.secret, _ = made["client_secret"].(string)
	var found []struct{ ID string }
	a := n.apiAs(n.token, http.MethodGet, "connections?name="+database, nil)
	if err := json.Unmarshal([]byte(a.body), &found); err != nil {
		n.t.Fatal(err)
	}
	if a := n.apiAs(n.token, http.MethodPatch, "connections/"+found[0].ID+"/clients", []map[string]any{{"client_id": app.id, "status": true}}); a.StatusCode != 204 {
		n.t.Fatal(a.body)
	}
	return app
}

func (n *node) user() (id, email string) {
	n.t.Helper()
	email = strings.ToLower(tenant.RandomString(10)) + "@example.com"
	u := n.api(http.MethodPost, "users", map[string]any{"connection": database, "email": email, "password": userPassword, "email_verified": true})
	return u["user_id"].(string), email
}

// request is a good authorization request.
func (a application) request(verifier string) url.Values {
	return url.Values{"client_id": {a.id}, "redirect_uri": {a.callback}, "response_type": {"code"}, "scope": {"openid profile email offline_access"},
		"state": {"st"}, "nonce": {"no"}, "code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"}}
}

// submit fills in the form of a page.
func (n *node) submit(c *http.Client, page answer, fields map[string]string) answer {
	n.t.Helper()
	doc, err := html.Parse(strings.NewReader(page.body))
	if err != nil {
		n.t.Fatal(err)
	}
	form := cascadia.Query(doc, cascadia.MustCompile("form"))
	if form == nil {
		n.t.Fatalf("no form on %s: %d", page.Request.URL.Path, page.StatusCode)
	}
	v := url.Values{}
	for _, in := range cascadia.QueryAll(form, cascadia.MustCompile("input[name]")) {
		v.Set(attr(in, "name"), attr(in, "value"))
	}
	for k, val := range fields {
		v.Set(k, val)
	}
	return n.form(c, attr(form, "action"), v)
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// login goes the way of a user and returns what comes back to the application.
func (n *node) login(c *http.Client, q url.Values, email string) url.Values {
	n.t.Helper()
	page := n.get(c, "/authorize", q)
	if page.StatusCode == http.StatusOK {
		page = n.submit(c, page, map[string]string{"username": email, "password": userPassword})
	}
	return n.back(page)
}

func (n *node) back(a answer) url.Values {
	n.t.Helper()
	to, err := a.Location()
	if err != nil || to.Host != "app.test" {
		n.t.Fatalf("nothing came back to the application: %d %s", a.StatusCode, a.body)
	}
	return to.Query()
}

// exchange redeems a code.
func (n *node) exchange(a application, code, verifier string, more url.Values) answer {
	n.t.Helper()
	v := url.Values{"grant_type": {"authorization_code"}, "client_id": {a.id}, "client_secret": {a.secret}, "code": {code}, "redirect_uri": {a.callback}, "code_verifier": {verifier}}
	for k, val := range more {
		v[k] = val
		if val[0] == "" {
			v.Del(k)
		}
	}
	return n.form(n.browser(), "/oauth/token", v)
}

// tokens logs a user in and returns the token response.
func (n *node) tokens(a application, email string, more url.Values) map[string]any {
	n.t.Helper()
	verifier := oauth2.GenerateVerifier()
	q := a.request(verifier)
	for k, v := range more {
		q[k] = v
	}
	resp := n.exchange(a, n.login(n.browser(), q, email).Get("code"), verifier, nil)
	if resp.StatusCode != 200 {
		n.t.Fatalf("%d %s", resp.StatusCode, resp.body)
	}
	return resp.json()
}

func (n *node) refresh(a application, token string, more url.Values) answer {
	n.t.Helper()
	v := url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "client_secret": {a.secret}, "refresh_token": {token}}
	for k, val := range more {
		v[k] = val
	}
	return n.form(n.browser(), "/oauth/token", v)
}

// logged waits for a tenant log event of a type.
func (n *node) logged(typ tenant.LogType) {
	n.t.Helper()
	for range 100 {
		a := n.apiAs(n.token, http.MethodGet, "logs?q=type:"+string(typ), nil)
		if strings.Contains(a.body, `"type":"`+string(typ)+`"`) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.t.Errorf("no event %s is in the tenant's log", typ)
}

// mail waits for the newest mail to an address and returns the link in it.
func (n *node) mail(to string) string {
	n.t.Helper()
	for range 200 {
		var all []struct{ Text string }
		a := n.get(n.browser(), "/mailbox/api/messages", url.Values{"to": {to}})
		if err := json.Unmarshal([]byte(a.body), &all); err != nil {
			n.t.Fatal(err)
		}
		if len(all) > 0 {
			return regexp.MustCompile(`https://\S+`).FindString(all[0].Text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.t.Fatalf("no mail to %s", to)
	return ""
}

// wantPage is an error page of our own that leads nowhere.
func wantPage(t *testing.T, a answer, status int) {
	t.Helper()
	if a.StatusCode != status || a.Header.Get("Location") != "" || !strings.Contains(a.Header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, a.Header.Get("X-Request-Id")) {
		t.Errorf("got %d, Location %q, %s; want the error page with the request id and status %d", a.StatusCode, a.Header.Get("Location"), a.Header.Get("Content-Type"), status)
	}
}

func wantError(t *testing.T, a answer, status int, code string) {
	t.Helper()
	if a.StatusCode != status || a.json()["error"] != code {
		t.Errorf("got %d %s, want %d %s", a.StatusCode, a.body, status, code)
	}
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// importUsers starts a job that imports a file of users.
func (n *node) importUsers(connectionID, users string) string {
	n.t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("connection_id", connectionID); err != nil {
		n.t.Fatal(err)
	}
	part, err := w.CreateFormFile("users", "users.json")
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.WriteString(part, users); err != nil {
		n.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		n.t.Fatal(err)
	}
	a := n.do(n.browser(), "POST", "/api/v2/jobs/users-imports", http.Header{"Content-Type": {w.FormDataContentType()}, "Authorization": {"Bearer " + n.token}}, &b)
	if a.StatusCode != 201 {
		n.t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return a.json()["id"].(string)
}

// jobDone waits for the end of a job.
func (n *node) jobDone(id string) map[string]any {
	n.t.Helper()
	for range 300 {
		j := n.api("GET", "jobs/"+id, nil)
		if j["status"] == "completed" {
			return j
		}
		if j["status"] == "failed" {
			n.t.Fatalf("the job failed: %v", j)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.t.Fatal("the job did not end")
	return nil
}

func (n *node) gunzip(path string) string {
	n.t.Helper()
	a := n.get(n.browser(), path, nil)
	r, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		n.t.Fatalf("%d: %v", a.StatusCode, err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(raw)
}
