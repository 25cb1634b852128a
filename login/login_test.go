package login_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/andybalholm/cascadia"
	"golang.org/x/net/html"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/login"
	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/signing"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

const host = "acme.id.example.com"

// site is a tenant with its login, made of the real rooms.
type site struct {
	t        testing.TB
	docs     *tenant.Cache
	dir      *tenant.Directory
	users    *authn.Service
	pages    *login.Pages
	upstream *provider
	handler  http.Handler
}

// provider plays another identity provider.
type provider struct {
	state   string
	profile authn.Profile
	conn    *tenant.Connection
	err     error
}

func (p *provider) Supported(strategy string) bool { return strategy == "google-oauth2" }

func (p *provider) Begin(w http.ResponseWriter, r *http.Request, c *tenant.Connection, state, _ string) error {
	p.state, p.conn = state, c
	http.Redirect(w, r, "https://provider.example/authorize", http.StatusFound)
	return nil
}

func (p *provider) Finish(http.ResponseWriter, *http.Request) (string, *tenant.Connection, authn.Profile, error) {
	return p.state, p.conn, p.profile, p.err
}

type logs struct{}

func (logs) Append(string, tenant.LogEvent) {}

type woken struct{}

func (woken) Wake() {}

// doc is a document with more to come.
type doc map[string]any

func (d doc) with(more doc) doc {
	out := doc{}
	for k, v := range d {
		out[k] = v
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

var (
	settings = doc{"friendly_name": "Acme Harbour", "support_email": "help@acme.example"}
	client   = doc{"client_id": "app1", "name": "Harbour Booking", "client_secret": "s", "app_type": "regular_web", "is_first_party": true,
		"callbacks": []string{"https://app.example/cb"}, "grant_types": []string{"authorization_code"}, "token_endpoint_auth_method": "client_secret_post"}
	database = doc{"id": "con_1", "name": "Users", "strategy": "auth0", "enabled_clients": []string{"app1"}, "options": doc{"passwordPolicy": "good"}}
	google   = doc{"id": "con_2", "name": "google", "strategy": "google-oauth2", "enabled_clients": []string{"app1"}}
)

// newSite makes a tenant with the documents above and those given; a later one of
// the same id replaces an earlier one.
func newSite(t testing.TB, more ...doc) *site {
	t.Helper()
	s := &site{t: t, docs: tenant.NewCache(storetest.New(t), 0), upstream: &provider{}}
	s.dir = tenant.NewDirectory(tenant.Hosts{Domain: "id.example.com"}, s.docs)
	keys := tenant.NewKeys(s.docs, signing.Native)
	set, err := keys.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	err = s.docs.Write(t.Context(), "acme", func(tx tenant.Tx) error { return keys.Ensure(tx, set) })
	if err != nil {
		t.Fatal(err)
	}
	s.put(append([]doc{settings, client, database, google}, more...)...)
	hasher, err := password.New(password.Config{MemoryKiB: 8192, Time: 1})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	s.users = authn.New(s.docs, s.dir, hasher, woken{}, logs{}, logger)
	flow := oauth.New(oauth.Deps{Docs: s.docs, Directory: s.dir, Keys: keys, Log: logs{}, Logger: logger})
	if s.pages, err = login.New(login.Deps{Directory: s.dir, Flow: flow, Users: s.users, Upstream: s.upstream, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	flow.SetPages(s.pages)
	mux := http.NewServeMux()
	flow.Register(mux)
	s.pages.Register(mux)
	s.handler = web.Middleware(web.Config{Logger: logger}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != host {
			s.pages.Error(w, r, problem.New(problem.NotFound, "unknown_host", "No tenant answers on this host name"))
			return
		}
		mux.ServeHTTP(w, r.WithContext(tenant.WithTenant(r.Context(), &tenant.Tenant{Name: "acme"})))
	}))
	return s
}

func (s *site) put(docs ...doc) {
	s.t.Helper()
	err := s.docs.Write(s.t.Context(), "acme", func(tx tenant.Tx) error {
		for _, d := range docs {
			k, id := tenant.KindSettings, tenant.SettingsID
			if v, ok := d["client_id"].(string); ok {
				k, id = tenant.KindClient, v
			} else if v, ok := d["identifier"].(string); ok {
				k, id = tenant.KindResourceServer, v
			} else if v, ok := d["strategy"]; ok && v != nil {
				k, id = tenant.KindConnection, d["id"].(string)
			}
			if err := tenant.Set(tx, k, id, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

const goodPassword = "Correct-Horse-7"

func (s *site) addUser(email string) *tenant.User {
	s.t.Helper()
	c, err := s.dir.Connection(s.t.Context(), "acme", "Users")
	if err != nil {
		s.t.Fatal(err)
	}
	u, err := s.users.CreateUser(s.t.Context(), "acme", c, &tenant.User{Email: email}, goodPassword, "", false)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// mailed is the link in the latest mail of a kind.
func (s *site) mailed(kind mail.Kind) string {
	s.t.Helper()
	if err := s.users.SendResets(context.Background(), "acme"); err != nil {
		s.t.Fatal(err)
	}
	page, err := s.docs.Find(context.Background(), "acme", tenant.KindOutbox, tenant.Query{})
	if err != nil {
		s.t.Fatal(err)
	}
	link := ""
	for _, rec := range page.Records {
		text := string(rec.Doc)
		if !strings.Contains(text, `\"kind\":\"`+string(kind)) && !strings.Contains(text, `"kind":"`+string(kind)) {
			continue
		}
		if m := regexp.MustCompile(`https://` + regexp.QuoteMeta(host) + `/u/[a-z-]+\?ticket=\w+`).FindString(text); m != "" {
			link = m
		}
	}
	if link == "" {
		s.t.Fatalf("no mail of kind %s has a link; the outbox has %d", kind, len(page.Records))
	}
	return strings.TrimPrefix(link, "https://"+host)
}

// browser keeps cookies and follows nothing.
type browser struct {
	*site
	cookies map[string]string
	headers map[string]string
}

func (s *site) browser() *browser {
	return &browser{site: s, cookies: map[string]string{}, headers: map[string]string{"Sec-Fetch-Site": "same-origin"}}
}

func (b *browser) do(method, target string, form url.Values) *page {
	b.t.Helper()
	r := httptest.NewRequest(method, "https://"+host+target, strings.NewReader(form.Encode()))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for k, v := range b.headers {
		r.Header.Set(k, v)
	}
	for k, v := range b.cookies {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
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

func (b *browser) get(target string) *page { b.t.Helper(); return b.do(http.MethodGet, target, nil) }

// begin asks for authorization and opens the page that this leads to.
func (b *browser) begin(more ...string) *page {
	b.t.Helper()
	q := url.Values{"client_id": {"app1"}, "redirect_uri": {"https://app.example/cb"}, "response_type": {"code"}, "scope": {"openid profile email"}, "state": {"st"}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	p := b.get("/authorize?" + q.Encode())
	if p.status != http.StatusFound {
		b.t.Fatalf("/authorize answered %d: %s", p.status, p.body)
	}
	return b.get(p.location())
}

// submit fills in the page's form and posts it.
func (b *browser) submit(p *page, fields ...string) *page {
	b.t.Helper()
	form := p.one("form[method=post]")
	values := url.Values{}
	for _, in := range p.all("form[method=post] input[name]") {
		values.Set(attr(in, "name"), attr(in, "value"))
	}
	for i := 0; i+1 < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	return b.do(http.MethodPost, attr(form, "action"), values)
}

// page is an answer.
type page struct {
	t      testing.TB
	status int
	header http.Header
	body   string
	root   *html.Node
}

func (p *page) location() string { return p.header.Get("Location") }

func (p *page) all(selector string) []*html.Node {
	p.t.Helper()
	if p.root == nil {
		p.t.Fatalf("the answer %d is no page: %s", p.status, p.body)
	}
	sel, err := cascadia.ParseGroup(selector)
	if err != nil {
		p.t.Fatal(err)
	}
	return cascadia.QueryAll(p.root, sel)
}

func (p *page) one(selector string) *html.Node {
	p.t.Helper()
	found := p.all(selector)
	if len(found) != 1 {
		p.t.Fatalf("%d elements match %s, want 1 (status %d):\n%s", len(found), selector, p.status, p.body)
	}
	return found[0]
}

func (p *page) text(selector string) string {
	p.t.Helper()
	return strings.Join(strings.Fields(textOf(p.one(selector))), " ")
}

func textOf(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var b strings.Builder
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		b.WriteString(textOf(c))
	}
	return b.String()
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}

func (p *page) want(status int) *page {
	p.t.Helper()
	if p.status != status {
		p.t.Fatalf("status %d, want %d: %s", p.status, status, p.body)
	}
	return p
}

// code is the authorization code that the browser carries to the application.
func (p *page) code() string {
	p.t.Helper()
	u, err := url.Parse(p.location())
	if err != nil || u.Host != "app.example" || u.Query().Get("code") == "" {
		p.t.Fatalf("status %d leads to %q, want the application with a code: %s", p.status, p.location(), p.body)
	}
	return u.Query().Get("code")
}

func decode(t testing.TB, body string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return m
}
