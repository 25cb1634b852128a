package dashboard_test

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/andybalholm/cascadia"
	"golang.org/x/net/html"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/dashboard"
	"github.com/portcullis-id/portcullis/login"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/signing"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// rig is a node with a root tenant "config" and a tenant "dev" on the bare
// domain, made of the real rooms.
type rig struct {
	t       testing.TB
	docs    *tenant.Cache
	dir     *tenant.Directory
	users   *authn.Service
	setup   *dashboard.Setup
	handler http.Handler
	tenants []string
}

type logs struct{}

func (logs) Append(string, tenant.LogEvent) {}

type woken struct{}

func (woken) Wake() {}

// The rig is the appliance of the set-up.

func (r *rig) CreateAdministrator(ctx context.Context, email, plain string) (string, error) {
	if err := authn.CheckEmail(email); err != nil {
		return "", err
	}
	c, err := r.dir.Connection(ctx, "config", "Initial-Connection")
	if err != nil {
		return "", err
	}
	u, err := r.users.CreateUser(ctx, "config", c, &tenant.User{Email: email, EmailVerified: true}, plain, "", false)
	if err != nil {
		return "", err
	}
	return u.ID, nil
}

func (r *rig) Tenants(context.Context) ([]string, error) { return r.tenants, nil }

func (r *rig) CreateClient(ctx context.Context, tenantID string, c dashboard.NewClient) (string, error) {
	for _, u := range c.Callbacks {
		if strings.HasPrefix(u, "javascript:") {
			return "", problem.New(problem.Invalid, "invalid_body", "callbacks: %s is no URL that can be called", u)
		}
	}
	id := tenant.NewClientID()
	method, grants := "client_secret_post", []string{"authorization_code", "refresh_token"}
	switch c.AppType {
	case "spa", "native":
		method = "none"
	case "non_interactive":
		grants = []string{"client_credentials"}
	}
	return id, r.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		if err := tenant.Set(tx, tenant.KindConnection, "con_1", map[string]any{"id": "con_1", "name": "Users", "strategy": "auth0", "enabled_clients": []string{id}}); err != nil {
			return err
		}
		return tenant.Add(tx, tenant.KindClient, id, map[string]any{"client_id": id, "name": c.Name, "client_secret": "s3cret-of-the-client", "app_type": c.AppType, "is_first_party": true,
			"callbacks": c.Callbacks, "web_origins": c.WebOrigins, "allowed_logout_urls": c.AllowedLogoutURLs, "grant_types": grants, "token_endpoint_auth_method": method})
	})
}

func (r *rig) SetCallbacks(ctx context.Context, tenantID, clientID string, callbacks []string) error {
	return r.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindClient, clientID, func(m *map[string]any) error { (*m)["callbacks"] = callbacks; return nil })
		return err
	})
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, docs: tenant.NewCache(storetest.New(t), 0), tenants: []string{"dev"}}
	r.dir = tenant.NewDirectory(tenant.Hosts{Domain: "localhost", Port: 8443, Default: "dev"}, r.docs)
	keys := tenant.NewKeys(r.docs, signing.Native)
	for _, name := range []string{"config", "dev"} {
		set, err := keys.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		err = r.docs.Write(t.Context(), name, func(tx tenant.Tx) error {
			if err := tenant.Set(tx, tenant.KindSettings, tenant.SettingsID, map[string]any{}); err != nil {
				return err
			}
			return keys.Ensure(tx, set)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := r.docs.Write(t.Context(), "config", func(tx tenant.Tx) error {
		return tenant.Add(tx, tenant.KindConnection, "con_0", map[string]any{"id": "con_0", "name": "Initial-Connection", "strategy": "auth0", "options": map[string]any{"passwordPolicy": "good"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := password.New(password.Config{MemoryKiB: 8192, Time: 1})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	r.users = authn.New(r.docs, r.dir, hasher, woken{}, logs{}, logger)
	flow := oauth.New(oauth.Deps{Docs: r.docs, Directory: r.dir, Keys: keys, Log: logs{}, Logger: logger})
	pages, err := login.New(login.Deps{Directory: r.dir, Flow: flow, Users: r.users, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	flow.SetPages(pages)
	r.setup, err = dashboard.New(dashboard.Config{Root: "config", Hosts: []string{"dev", "config"}, Connection: "Initial-Connection", CAFile: "/data/my files/root-ca.pem"},
		dashboard.Deps{Docs: r.docs, Directory: r.dir, Keys: keys, Appliance: r, Stylesheet: pages.Stylesheet(), Error: pages.Error, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	flow.Register(mux)
	pages.Register(mux)
	r.setup.Register(mux)
	r.handler = web.Middleware(web.Config{Logger: logger}, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, _ := r.dir.Name(req.Host)
		mux.ServeHTTP(w, req.WithContext(tenant.WithTenant(req.Context(), &tenant.Tenant{Name: name})))
	}))
	r.setup.SetFront(r.handler)
	return r
}

func (r *rig) link() string {
	r.t.Helper()
	link, err := r.setup.Link(r.t.Context())
	if err != nil || link == "" {
		r.t.Fatalf("link %q, %v", link, err)
	}
	return link
}

type browser struct {
	*rig
	cookies map[string]string
	site    string // Sec-Fetch-Site
}

func (r *rig) browser() *browser {
	return &browser{rig: r, cookies: map[string]string{}, site: "same-origin"}
}

type page struct {
	t      testing.TB
	status int
	header http.Header
	body   string
	root   *html.Node
}

func (b *browser) do(method, target string, form url.Values) *page {
	b.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = "https://localhost:8443" + target
	}
	req := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Sec-Fetch-Site", b.site)
	for k, v := range b.cookies {
		req.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, req)
	for _, c := range w.Result().Cookies() {
		b.cookies[c.Name] = c.Value
	}
	p := &page{t: b.t, status: w.Code, header: w.Header(), body: w.Body.String()}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		var err error
		if p.root, err = html.Parse(strings.NewReader(p.body)); err != nil {
			b.t.Fatal(err)
		}
	}
	return p
}

func (b *browser) get(target string) *page { b.t.Helper(); return b.do("GET", target, nil) }

// follow goes where redirects lead.
func (b *browser) follow(p *page) *page {
	b.t.Helper()
	for range 5 {
		to := p.header.Get("Location")
		if to == "" {
			return p
		}
		p = b.get(to)
	}
	b.t.Fatal("too many redirects")
	return nil
}

func (b *browser) submit(p *page, fields ...string) *page {
	b.t.Helper()
	values := url.Values{}
	for _, in := range p.all("form input[name]") {
		values.Set(attr(in, "name"), attr(in, "value"))
	}
	for _, o := range p.all("form option[selected]") {
		value := attr(o, "value")
		if value == "" {
			value = text(o)
		}
		values.Set(attr(o.Parent, "name"), value)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	return b.do("POST", attr(p.one("form"), "action"), values)
}

func (p *page) all(selector string) []*html.Node {
	p.t.Helper()
	if p.root == nil {
		p.t.Fatalf("the answer %d is no page: %s", p.status, p.body)
	}
	return cascadia.QueryAll(p.root, cascadia.MustCompile(selector))
}

func (p *page) one(selector string) *html.Node {
	p.t.Helper()
	found := p.all(selector)
	if len(found) != 1 {
		p.t.Fatalf("%d elements match %s, want 1 (status %d):\n%s", len(found), selector, p.status, p.body)
	}
	return found[0]
}

func (p *page) want(status int) *page {
	p.t.Helper()
	if p.status != status {
		p.t.Fatalf("status %d, want %d: %s", p.status, status, p.body)
	}
	return p
}

func text(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var b strings.Builder
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		b.WriteString(text(c))
	}
	return strings.TrimSpace(b.String())
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

const goodPassword = "Correct-Horse-7"

func (b *browser) administrator() *page {
	b.t.Helper()
	p := b.get(b.link()).want(200)
	return b.follow(b.submit(p, "email", "ops@example.com", "password", goodPassword, "repeat", goodPassword))
}

var screens = flag.String("screens", "", "folder to write every page in every state to, as HTML")

func TestFromTheLinkToALogin(t *testing.T) {
	r := newRig(t)
	b := r.browser()
	var seen []*page
	see := func(name string, p *page) *page {
		seen = append(seen, p)
		if *screens != "" {
			css := attr(p.one("link[rel=stylesheet]"), "href")
			if err := os.WriteFile(filepath.Join(*screens, name+".html"), []byte(strings.ReplaceAll(p.body, css, "style.css")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	p := see("setup-1-administrator", b.get(r.link()).want(200))
	see("setup-1-weak", b.submit(p, "email", "ops@example.com", "password", "short", "repeat", "short").want(400))
	if got := text(b.submit(p, "email", "ops@example.com").want(400).one("#password ~ .fault")); got != "Choose a password." {
		t.Errorf("without a password the page says %q", got)
	}
	see("setup-1-differs", b.submit(p, "email", "ops@example.com", "password", goodPassword, "repeat", "x").want(400))
	p = see("setup-2-application", b.follow(b.submit(p, "email", "ops@example.com", "password", goodPassword, "repeat", goodPassword)).want(200))
	if got := text(p.one("[aria-current=step]")); got != "Application" {
		t.Errorf("the step is %q", got)
	}
	see("setup-2-callback", b.submit(p, "name", "Shop", "callback", "").want(400))
	bad := b.submit(p, "name", "Shop", "callback", "javascript:alert(1)").want(400)
	if got := text(bad.one("#callback ~ .fault")); !strings.Contains(got, "no URL that can be called") {
		t.Errorf("the page says %q", got)
	}
	p = see("setup-3-ready", b.follow(b.submit(p, "name", "Shop & Co", "callback", "http://localhost:3000/callback")).want(200))
	facts := text(p.one("dl.facts"))
	clients, _, err := tenant.Find[tenant.Client](t.Context(), r.docs, "dev", tenant.KindClient, tenant.Query{})
	if err != nil || len(clients) != 1 {
		t.Fatal(err)
	}
	c := clients[0]
	for _, want := range []string{"localhost:8443", c.ID, c.Secret, "https://localhost:8443/.well-known/openid-configuration"} {
		if !strings.Contains(facts, want) {
			t.Errorf("the page does not show %s: %s", want, facts)
		}
	}
	snippet := text(p.one("pre"))
	for _, want := range []string{"ISSUER_BASE_URL=https://localhost:8443\n", "CLIENT_ID=" + c.ID, "BASE_URL=http://localhost:3000\n", "NODE_EXTRA_CA_CERTS='/data/my files/root-ca.pem'"} {
		if !strings.Contains(snippet, want) {
			t.Errorf("the settings lack %q:\n%s", want, snippet)
		}
	}

	// The login that the application would make, sign-up included.
	loginPage := b.follow(b.submit(p).want(303)).want(200)
	if got := text(loginPage.one(".lead")); got != "to continue to Shop & Co" {
		t.Errorf("the login page says %q", got)
	}
	if c, err = r.dir.Client(t.Context(), "dev", c.ID); err != nil || len(c.Callbacks) != 2 {
		t.Errorf("callbacks during the test: %v, %v", c.Callbacks, err)
	}
	signup := b.get(attr(loginPage.one(".switch a"), "href")).want(200)
	back := b.submit(signup, "email", "ann@example.com", "password", goodPassword)
	to := back.header.Get("Location")
	if !strings.HasPrefix(to, "https://localhost:8443/setup/callback?") {
		t.Fatalf("%d leads to %q: %s", back.status, to, back.body)
	}
	other := r.browser() // who has the address alone gets nothing
	other.get(to).want(403)
	claims := see("setup-3-claims", b.get(to).want(200))
	shown := text(claims.one("dl.facts"))
	for _, want := range []string{"iss", "https://localhost:8443/", "aud", c.ID, "ann@example.com", "nonce"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the claims lack %s: %s", want, shown)
		}
	}
	if c, err = r.dir.Client(t.Context(), "dev", c.ID); err != nil || !slices.Equal(c.Callbacks, []string{"http://localhost:3000/callback"}) {
		t.Errorf("callbacks after the test: %v, %v", c.Callbacks, err)
	}
	b.get(to).want(400) // the answer works once
	b.get("/setup/ready").want(200)

	for _, p := range seen {
		h := p.header
		if h.Get("Cache-Control") != "no-store" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("headers %v", h)
		}
		if len(p.all("script, style, [style]")) > 0 {
			t.Error("the page has what its policy forbids")
		}
		ids := map[string]bool{}
		for _, e := range p.all("[id]") {
			if ids[attr(e, "id")] {
				t.Errorf("the id %s stands twice", attr(e, "id"))
			}
			ids[attr(e, "id")] = true
		}
		for _, in := range p.all("input:not([type=hidden]), select") {
			if len(p.all("label[for="+attr(in, "id")+"]")) != 1 {
				t.Errorf("%s has no label", attr(in, "name"))
			}
			for _, ref := range strings.Fields(attr(in, "aria-describedby")) {
				if !ids[ref] {
					t.Errorf("%s is described by %s, which is not there", attr(in, "id"), ref)
				}
			}
		}
	}
}

func TestTheLinkWorksOnce(t *testing.T) {
	r := newRig(t)
	old := r.link()
	b := r.browser()
	if got := b.get(r.link()); got.status != 200 {
		t.Fatalf("status %d", got.status)
	}
	b.get(old).want(403) // a later start printed another
	b.get("/setup?token=unknown").want(403)
	b.get("/setup").want(403)
	b.administrator().want(200)
	if link, err := r.setup.Link(t.Context()); err != nil || link != "" {
		t.Errorf("there is an administrator, and still a link: %q, %v", link, err)
	}
	r.browser().get("/setup/application").want(403)
}

func TestOneOfManyUsesOfALinkMakesAnAdministrator(t *testing.T) {
	r := newRig(t)
	token := r.link()[len("https://localhost:8443/setup?token="):]
	var wg sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		wg.Go(func() {
			form := url.Values{"token": {token}, "email": {string(rune('a'+i)) + "@example.com"}, "password": {goodPassword}, "repeat": {goodPassword}}
			req := httptest.NewRequest("POST", "https://localhost:8443/setup", strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			r.handler.ServeHTTP(w, req)
			statuses[i] = w.Code
		})
	}
	wg.Wait()
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{303, 403, 403, 403, 403, 403, 403, 403}) {
		t.Errorf("statuses %v", statuses)
	}
	users, _, err := tenant.Find[tenant.User](t.Context(), r.docs, "config", tenant.KindUser, tenant.Query{})
	if err != nil || len(users) != 1 || !users[0].EmailVerified {
		t.Errorf("%d administrators, %v", len(users), err)
	}
}

func TestSetupFormsComeFromSetupPages(t *testing.T) {
	r := newRig(t)
	b := r.browser()
	p := b.administrator()
	b.site = "cross-site"
	b.submit(p, "name", "Evil").want(403)
	b.site = "same-origin"
	b.submit(p, "name", "Evil", "form", "").want(403)
	b.do("POST", "/setup/try", url.Values{"form": {attr(p.one("input[name=form]"), "value")}}).want(403) // of another page
	b.submit(p, "tenant", "config", "name", "Evil").want(400)
	clients, _, err := tenant.Find[tenant.Client](t.Context(), r.docs, "dev", tenant.KindClient, tenant.Query{})
	if err != nil || len(clients) != 0 {
		t.Errorf("%d applications, %v", len(clients), err)
	}
}

func TestSetupAnswersOnItsHostsOnly(t *testing.T) {
	r := newRig(t)
	b := r.browser()
	token := strings.TrimPrefix(r.link(), "https://localhost:8443")
	b.get("https://other.localhost:8443" + token).want(404)
	b.get("https://config.localhost:8443" + token).want(200)
}

func TestApplicationsOfEveryType(t *testing.T) {
	tests := []struct {
		typ, callback string
		snippet       string
		secret, try   bool
	}{
		{"regular_web", "https://shop.example/cb", "BASE_URL=https://shop.example", true, true},
		{"spa", "http://localhost:5173", "VITE_AUTH0_DOMAIN=localhost:8443", false, true},
		{"native", "com.example.app://callback", "AUTH0_CLIENT_ID=", false, true},
		{"non_interactive", "", "AUTH0_AUDIENCE=https://localhost:8443/api/v2/", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.typ, func(t *testing.T) {
			r := newRig(t)
			b := r.browser()
			p := b.follow(b.submit(b.administrator(), "type", tt.typ, "name", "App", "callback", tt.callback)).want(200)
			if !strings.Contains(text(p.one("pre")), tt.snippet) {
				t.Errorf("the settings lack %s: %s", tt.snippet, text(p.one("pre")))
			}
			if got := strings.Contains(p.body, "s3cret-of-the-client"); got != tt.secret {
				t.Errorf("the secret is shown: %v, want %v", got, tt.secret)
			}
			forms := p.all("form[action='/setup/try']")
			if len(forms) == 1 != tt.try {
				t.Fatalf("%d forms to try the login, want it: %v", len(forms), tt.try)
			}
			if !tt.try {
				return
			}
			signup := b.follow(b.submit(p))
			signup = b.get(attr(signup.one(".switch a"), "href"))
			done := b.follow(b.submit(signup, "email", "ann@example.com", "password", goodPassword)).want(200)
			if got := text(done.one("h1")); got != "The login works" {
				t.Errorf("it ends at %q", got)
			}
		})
	}
}

func TestWithoutATenantThePageSaysHowToMakeOne(t *testing.T) {
	r := newRig(t)
	r.tenants = nil
	if got := text(r.browser().administrator().one("pre")); got != "portcullis tenants create acme" {
		t.Errorf("the page says %q", got)
	}
}

func TestWhatWasTypedIsEscaped(t *testing.T) { // N42
	r := newRig(t)
	b := r.browser()
	const evil = `"><script>alert(1)</script>`
	p := b.follow(b.submit(b.administrator(), "name", "A"+evil, "callback", "http://localhost:3000/"+evil)).want(200)
	if len(p.all("script")) > 0 || !strings.Contains(text(p.one(".lead")), evil) {
		t.Errorf("%s", p.body)
	}
}
