package login_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/login"
	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

func TestEveryPageIsSafeAndAccessible(t *testing.T) {
	for _, st := range states(t) {
		t.Run(st.name, func(t *testing.T) {
			p := st.page
			p.t = t
			h := p.header
			for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "X-Frame-Options": "DENY"} {
				if got := h.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if !strings.HasPrefix(h.Get("Strict-Transport-Security"), "max-age=") {
				t.Error("no Strict-Transport-Security")
			}
			csp := h.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("the policy lacks %s: %s", want, csp)
				}
			}
			if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
				t.Errorf("the policy lets something run: %s", csp)
			}
			if n := p.all("script, style, iframe, object, [style]"); len(n) > 0 {
				t.Errorf("the page has %d elements that its policy forbids", len(n))
			}
			for _, e := range p.all("*") {
				for _, a := range e.Attr {
					if strings.HasPrefix(a.Key, "on") {
						t.Errorf("<%s> has a handler %s", e.Data, a.Key)
					}
				}
			}
			if lang := attr(p.one("html"), "lang"); lang != "en" && lang != "de" {
				t.Errorf("lang is %q", lang)
			}
			if p.text("title") == "" || p.text("h1") == "" {
				t.Error("no title or no heading")
			}
			if len(p.all("main")) != 1 || attr(p.one("meta[name=viewport]"), "content") == "" {
				t.Error("no main or no viewport")
			}
			if strings.Contains(p.body, "fault.") || regexp.MustCompile(`>[a-z]+\.[a-z_]+<`).MatchString(p.body) {
				t.Errorf("a text is missing: %s", p.body)
			}
			checkForms(t, p)
		})
	}
}

// checkForms: every input that people see has a label and says what it is for;
// every reference leads to an element; ids are unique.
func checkForms(t *testing.T, p *page) {
	t.Helper()
	ids := map[string]int{}
	for _, e := range p.all("[id]") {
		ids[attr(e, "id")]++
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements have the id %s", n, id)
		}
	}
	for _, in := range p.all("input:not([type=hidden]), select, textarea") {
		id := attr(in, "id")
		if id == "" || len(p.all("label[for="+id+"]")) != 1 {
			t.Errorf("the input %q has no label", attr(in, "name"))
		}
		if attr(in, "autocomplete") == "" {
			t.Errorf("the input %s has no autocomplete (WCAG 2.2, 1.3.5)", id)
		}
		for _, ref := range strings.Fields(attr(in, "aria-describedby")) {
			if ids[ref] == 0 {
				t.Errorf("the input %s is described by %s, which is not there", id, ref)
			}
		}
		if attr(in, "aria-invalid") == "true" {
			if !strings.Contains(attr(in, "aria-describedby"), "fault") {
				t.Errorf("the input %s is wrong and does not say why", id)
			}
			if attr(p.one("#fault"), "role") != "alert" {
				t.Error("the fault is no alert")
			}
		}
		if attr(in, "type") == "password" && has(in, "value") {
			t.Errorf("the password %s is written into the page", id)
		}
	}
	for _, b := range p.all("button, a[href]") {
		if strings.TrimSpace(textOf(b)) == "" {
			t.Errorf("a <%s> has no text", b.Data)
		}
	}
}

func TestStatesSayWhatIsWrong(t *testing.T) {
	want := map[string]struct {
		status   int
		selector string
		text     string
	}{
		"login":                {200, "form[action='/u/login'] button", "Log in"},
		"login-wrong":          {400, ".fault[role=alert]", "Wrong email or password."},
		"login-blocked":        {429, ".fault[role=alert]", "Too many failed attempts. We have sent an email that tells how to unblock the account."},
		"login-de":             {200, "h1", "Anmelden"},
		"signup-weak":          {400, "#password ~ .fault", "This password is too short. See below."},
		"signup-email":         {400, "#email ~ .fault", "That is not an email address. It looks like ann@example.com."},
		"signup-exists":        {409, "#email ~ .fault", "There is an account for this address already. Log in or reset your password."},
		"reset-email":          {400, "#email ~ .fault", "That is not an email address. It looks like ann@example.com."},
		"reset-sent":           {200, "h1", "Check your email"},
		"new-password-weak":    {400, "#password ~ .fault", "This password is too short. See below."},
		"new-password-differs": {400, "#repeat ~ .fault", "The two passwords differ."},
		"new-password-done":    {200, "h1", "Your password was changed"},
		"ticket-used":          {400, "h1", "This link no longer works"},
		"verify":               {200, "form[action='/u/email-verification'] button", "Yes, verify it"},
		"verify-done":          {200, "h1", "Your email is verified"},
		"unblock-done":         {200, "h1", "Your account is unblocked"},
		"consent":              {200, "h1", "Allow Tide Tables?"},
		"logged-out":           {200, "h1", "You are logged out"},
		"error-transaction":    {400, "h1", "This login cannot go on"},
		"error-cross-site":     {403, "h1", "This form was refused"},
	}
	for _, st := range states(t) {
		w, ok := want[st.name]
		if !ok {
			continue
		}
		delete(want, st.name)
		t.Run(st.name, func(t *testing.T) {
			st.page.t = t
			if st.page.status != w.status {
				t.Errorf("status %d, want %d", st.page.status, w.status)
			}
			if got := st.page.text(w.selector); got != w.text {
				t.Errorf("%s says %q, want %q", w.selector, got, w.text)
			}
		})
	}
	for name := range want {
		t.Errorf("there is no state %s", name)
	}
}

func TestLoginLeadsToTheApplication(t *testing.T) {
	s := newSite(t)
	s.addUser("ann@example.com")
	b := s.browser()
	p := b.begin("login_hint", "ann@example.com").want(200)
	if got := attr(p.one("#username"), "value"); got != "ann@example.com" {
		t.Errorf("the hint is not filled in: %q", got)
	}
	if !has(p.one("#password"), "autofocus") {
		t.Error("the password is not focused although the address is known")
	}
	first := b.submit(p, "username", "ann@example.com", "password", goodPassword)
	first.code()
	session := b.cookies["__Host-portcullis"]
	if session == "" {
		t.Fatal("no session")
	}

	// N24: a login page that was used, or is opened in another browser, says so.
	again := b.submit(p, "username", "ann@example.com", "password", goodPassword)
	if again.want(400).text("h1") != "This login cannot go on" || again.location() != "" {
		t.Errorf("a used login went on: %s", again.location())
	}
	other := s.browser()
	link := "/u/login?state=" + url.QueryEscape(attr(p.one("input[name=state]"), "value"))
	if got := other.get(link).want(400); got.text("h1") != "This login cannot go on" {
		t.Error("the page of another browser opened")
	}
	if _, planted := other.cookies["__Host-portcullis"]; planted {
		t.Error("a refused page gave a session")
	}

	// A second login of the same browser gets a new session value.
	p = b.begin("prompt", "login").want(200)
	b.submit(p, "username", "ann@example.com", "password", goodPassword).code()
	if b.cookies["__Host-portcullis"] == session {
		t.Error("the session value survived a login")
	}
}

func TestPostsOfOtherSitesAreRefused(t *testing.T) { // N41
	s := newSite(t)
	u := s.addUser("ann@example.com")
	b := s.browser()
	loginPage := b.begin()
	reset := b.get(attr(loginPage.one(".row a"), "href"))
	b.submit(reset, "email", "ann@example.com")
	newPassword := b.get(s.mailed(mail.ResetPassword))
	tests := []struct {
		name    string
		headers map[string]string
		status  int
	}{
		{"another site", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"another host of the domain", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"an older browser on another site", map[string]string{"Origin": "https://evil.example"}, 403},
		{"an older browser that hides its origin", map[string]string{"Origin": "null"}, 403},
		{"our own page in an older browser", map[string]string{"Origin": "https://" + host}, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b.headers = tt.headers
			for _, p := range []*page{loginPage, newPassword} {
				got := b.submit(p, "username", "ann@example.com", "password", "x", "repeat", "x")
				if got.status != tt.status {
					t.Errorf("%s answered %d, want %d", attr(p.one("form"), "action"), got.status, tt.status)
				}
			}
		})
	}
	// Login CSRF without the headers of a browser: the attacker's state belongs to
	// the attacker's browser.
	victim := s.browser()
	victim.headers = nil
	victim.begin()
	if got := victim.submit(loginPage, "username", u.Email, "password", goodPassword); got.status != 400 || got.text("h1") != "This login cannot go on" {
		t.Errorf("a login page of another browser was taken: %d", got.status)
	}
}

func TestWhatStrangersWriteIsEscaped(t *testing.T) { // N42
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>`
	s := newSite(t, settings.with(doc{"friendly_name": "T" + evil, "picture_url": "javascript:alert(1)", "support_url": "javascript:alert(3)", "flags": doc{"use_scope_descriptions_for_consent": true}}),
		client.with(doc{"name": "A" + evil, "logo_uri": "https://logo.example/x.png" + evil, "is_first_party": false}),
		google.with(doc{"display_name": "P" + evil}),
		doc{"identifier": "https://api.example/", "id": "api1", "name": "API" + evil, "scopes": []doc{{"value": "read", "description": "D" + evil}}})
	u := s.addUser("ann@example.com")
	b := s.browser()
	p := b.begin("login_hint", evil, "audience", "https://api.example/", "scope", "openid read")
	pages := []*page{p, b.submit(p, "username", evil, "password", "x")}
	err := s.docs.Write(t.Context(), "acme", func(tx tenant.Tx) error {
		_, err := tenant.UpdateUser(tx, u.ID, func(u *tenant.User) error { u.Name = "U" + evil; return nil })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ok := b.submit(p, "username", "ann@example.com", "password", goodPassword)
	pages = append(pages, b.get(ok.location()).want(200), b.get("/authorize?client_id="+url.QueryEscape(evil)), b.get("/u/logged-out"))
	rec := httptest.NewRecorder()
	s.pages.Error(rec, httptest.NewRequest("GET", "/", nil), problem.New(problem.Invalid, evil, "%s", evil))
	root, err := html.Parse(strings.NewReader(rec.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, &page{t: t, body: rec.Body.String(), root: root})
	shown := 0
	for i, p := range pages {
		if n := len(p.all("script, [onerror]")); n > 0 {
			t.Errorf("page %d has %d elements of a stranger: %s", i, n, p.body)
		}
		for _, e := range p.all("[href^='javascript'], [src^='javascript']") {
			t.Errorf("page %d leads to a script: <%s>", i, e.Data)
		}
		if strings.Contains(textOf(p.root), "<script>alert(1)</script>") {
			shown++
		}
	}
	if shown != len(pages) {
		t.Errorf("%d of %d pages show the text: the others prove nothing", shown, len(pages))
	}
}

func TestSignupTakesNothingButWhatAPersonMaySay(t *testing.T) { // N30
	s := newSite(t)
	b := s.browser()
	p := b.begin("screen_hint", "signup")
	b.submit(p, "email", "bob@example.com", "password", goodPassword, "email_verified", "true", "app_metadata", `{"admin":true}`, "app_metadata[admin]", "true",
		"user_id", "auth0|x", "blocked", "false", "roles", "admin").code()
	users, _, err := tenant.Find[tenant.User](t.Context(), s.docs, "acme", tenant.KindUser, tenant.Query{})
	if err != nil || len(users) != 1 {
		t.Fatalf("%d users, %v", len(users), err)
	}
	u := users[0]
	if u.EmailVerified || len(u.AppMetadata) > 0 || u.ID == "auth0|x" || u.Blocked != nil || len(u.Extra) > 0 {
		t.Errorf("the form set what it must not: %+v", u)
	}
}

func TestSignupIsShutWhereItIsDisabled(t *testing.T) {
	s := newSite(t, database.with(doc{"options": doc{"disable_signup": true, "disable_self_service_change_password": true}}))
	b := s.browser()
	p := b.begin().want(200)
	if len(p.all("a[href^='/u/signup'], a[href^='/u/reset']")) != 0 {
		t.Error("links lead to what is disabled")
	}
	state := attr(p.one("input[name=state]"), "value")
	form := url.Values{"state": {state}, "email": {"bob@example.com"}, "password": {goodPassword}}
	b.do(http.MethodPost, "/u/signup", form).want(403)
	b.do(http.MethodPost, "/u/reset-password", form).want(403)
	b.get("/u/reset-password").want(403)
}

func TestResetAnswersTheSameForStrangers(t *testing.T) {
	s := newSite(t)
	s.addUser("ann@example.com")
	b := s.browser()
	ask := b.get(attr(b.begin().one(".row a"), "href"))
	known, unknown := b.submit(ask, "email", "ann@example.com"), b.submit(ask, "email", "eve@example.com")
	if a, z := strings.ReplaceAll(known.body, "ann@", "x@"), strings.ReplaceAll(unknown.body, "eve@", "x@"); known.status != unknown.status || a != z {
		t.Errorf("the answers differ:\n%s\n%s", a, z)
	}
}

func TestALinkChangesNothingUntilTheButtonIsPressed(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	b.submit(b.begin("screen_hint", "signup"), "email", "bob@example.com", "password", goodPassword).code()
	link := s.mailed(mail.VerifyEmail)
	verified := func() bool {
		users, _, err := tenant.Find[tenant.User](t.Context(), s.docs, "acme", tenant.KindUser, tenant.Query{})
		if err != nil || len(users) != 1 {
			t.Fatal(err)
		}
		return users[0].EmailVerified
	}
	for range 2 { // mail scanners open links, and more than once
		b.get(link).want(200)
	}
	if verified() {
		t.Fatal("a GET verified the address")
	}
	b.submit(b.get(link)).want(200)
	if !verified() {
		t.Error("the button did not verify the address")
	}
	if got := b.get(link).want(400).text("h1"); got != "This link no longer works" {
		t.Errorf("a used link says %q", got)
	}
}

func TestResetWorksFromALinkThatHasNoLogin(t *testing.T) {
	s := newSite(t)
	s.addUser("ann@example.com")
	b := s.browser()
	old := b.get("/u/reset-password?ticket=unknown").want(400)
	ask := b.get(attr(old.one("a.button"), "href")).want(200)
	b.submit(ask, "email", "ann@example.com").want(200)
	p := b.get(s.mailed(mail.ResetPassword)).want(200)
	if got := attr(p.one("#account"), "value"); got != "ann@example.com" {
		t.Errorf("the page is for %q", got)
	}
	b.submit(p, "password", "Another-Horse-8", "repeat", "Another-Horse-8").want(200)
	b.submit(b.begin(), "username", "ann@example.com", "password", "Another-Horse-8").code()
}

func TestATicketLeadsWhereItsMakerSaid(t *testing.T) {
	s := newSite(t)
	u := s.addUser("ann@example.com")
	link, err := s.users.VerificationTicket(t.Context(), "acme", authn.Ticket{UserID: u.ID, ResultURL: "https://app.example/welcome?a=1", IncludeEmail: true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := s.browser()
	got := b.submit(b.get(strings.TrimPrefix(link, "https://"+host))).want(303)
	to, err := url.Parse(got.location())
	if err != nil || to.Host != "app.example" || to.Path != "/welcome" {
		t.Fatalf("it leads to %s", got.location())
	}
	q := to.Query()
	if q.Get("a") != "1" || q.Get("success") != "true" || q.Get("email") != "ann@example.com" || !strings.Contains(q.Get("message"), " ") {
		t.Errorf("the application reads %v", q)
	}
	if got.header.Get("Referrer-Policy") != "no-referrer" {
		t.Error("the application may read the ticket")
	}
}

func TestConsent(t *testing.T) {
	s := newSite(t, client.with(doc{"is_first_party": false}))
	s.addUser("ann@example.com")
	for _, tt := range []struct{ name, action, want string }{{"allow", "accept", "code"}, {"deny", "deny", "error"}} {
		t.Run(tt.name, func(t *testing.T) {
			b := s.browser()
			ok := b.submit(b.begin("prompt", "consent"), "username", "ann@example.com", "password", goodPassword)
			p := b.get(ok.location()).want(200)
			got := b.submit(p, "action", tt.action)
			to, err := url.Parse(got.location())
			if err != nil || to.Host != "app.example" || to.Query().Get(tt.want) == "" {
				t.Errorf("%s leads to %s", tt.action, got.location())
			}
		})
	}
}

func TestOtherProviders(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	p := b.begin()
	button := p.one("a.secondary")
	if !strings.Contains(textOf(button), "Google") {
		t.Errorf("the button says %q", textOf(button))
	}
	if got := b.get(attr(button, "href")).want(302).location(); got != "https://provider.example/authorize" {
		t.Errorf("the button leads to %s", got)
	}
	s.upstream.profile = authn.Profile{Subject: "42", Email: "ann@gmail.example", EmailVerified: true}
	b.headers = map[string]string{"Sec-Fetch-Site": "cross-site"} // form_post comes from the provider's site
	b.do(http.MethodPost, "/login/callback", url.Values{"code": {"c"}}).code()

	b = s.browser()
	b.get(attr(b.begin().one("a.secondary"), "href")).want(302)
	s.upstream.err = problem.New(problem.Forbidden, "access_denied", "The user said no")
	back := b.get("/login/callback?error=access_denied").want(400)
	if got := back.text(".fault"); !strings.HasPrefix(got, "Logging in there did not work.") {
		t.Errorf("the page says %q", got)
	}
	s.upstream.err = errors.New("secret cause")
	if got := b.get("/login/callback").want(500); strings.Contains(got.body, "secret cause") {
		t.Error("the page shows a cause")
	}

	// An application that has chosen the provider is told, and not sent in circles.
	b = s.browser()
	s.upstream.err = problem.New(problem.Forbidden, "access_denied", "The user said no")
	b.begin("connection", "google").want(302)
	got := b.get("/login/callback?error=access_denied")
	if !strings.HasPrefix(got.location(), "https://app.example/cb?") || !strings.Contains(got.location(), "error=access_denied") {
		t.Errorf("it leads to %s", got.location())
	}
	b.get("/u/login/connection?connection=google&state=" + url.QueryEscape(s.upstream.state)).want(302)
	b.get("/u/login/connection?connection=Users&state=" + url.QueryEscape(s.upstream.state)).want(403)
}

func TestTheDefaultDirectoryIsAskedWhereThereAreSeveral(t *testing.T) {
	s := newSite(t, settings.with(doc{"default_directory": "Users"}),
		doc{"id": "con_0", "name": "Archive", "strategy": "auth0", "enabled_clients": []string{"app1"}})
	s.addUser("ann@example.com")
	b := s.browser()
	b.submit(b.begin(), "username", "ann@example.com", "password", goodPassword).code()
	b = s.browser()
	b.submit(b.begin("connection", "Archive"), "username", "ann@example.com", "password", goodPassword).want(400)
}

func TestLanguages(t *testing.T) {
	tests := []struct {
		name, wanted, accept string
		enabled              []string
		want                 string
	}{
		{"nothing said", "", "", nil, "en"},
		{"the browser's language", "", "de-AT,de;q=0.9,en;q=0.5", nil, "de"},
		{"the application's wish goes first", "fr", "de", nil, "fr"},
		{"a wish that cannot be met", "ja", "es-MX", nil, "es"},
		{"the tenant has fewer languages", "de", "fr", []string{"en", "fr"}, "fr"},
		{"the tenant's first language for strangers", "", "ja", []string{"es", "en"}, "es"},
		{"nonsense", "-", ";;;q=9,*", nil, "en"},
		{"too long", "", strings.Repeat("de,", 200), nil, "en"},
	}
	s := newSite(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.put(settings.with(doc{"enabled_locales": tt.enabled}))
			b := s.browser()
			b.headers["Accept-Language"] = tt.accept
			p := b.begin("ui_locales", tt.wanted)
			p.t = t
			if got := attr(p.one("html"), "lang"); got != tt.want {
				t.Errorf("lang is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestEveryLanguageHasEveryText(t *testing.T) {
	read := func(lang string) map[string]any {
		raw, err := os.ReadFile(filepath.Join("locales", lang+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return decode(t, string(raw))
	}
	holes := regexp.MustCompile(`\{\{\.\w+\}\}`)
	placeholders := func(v any) []string {
		if forms, ok := v.(map[string]any); ok {
			v = forms["other"]
		}
		text, _ := v.(string)
		found := holes.FindAllString(text, -1)
		slices.Sort(found)
		return found
	}
	en := read("en")
	for _, lang := range []string{"de", "fr", "es"} {
		other := read(lang)
		for id, text := range en {
			if other[id] == nil {
				t.Errorf("%s lacks %s", lang, id)
			} else if a, b := placeholders(text), placeholders(other[id]); !slices.Equal(a, b) {
				t.Errorf("%s: %s names %v, English %v", lang, id, b, a)
			}
		}
		for id := range other {
			if en[id] == nil {
				t.Errorf("%s has %s, which English lacks", lang, id)
			}
		}
	}
}

func TestErrorsNameTheRequestAndNoCause(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	p := b.get("/authorize?client_id=nobody").want(400)
	if id := p.header.Get("X-Request-Id"); id == "" || !strings.Contains(p.text(".facts"), id) {
		t.Error("the page does not show the request id")
	}
	if p.location() != "" {
		t.Errorf("the page leads to %s", p.location())
	}
	rec := httptest.NewRecorder()
	s.pages.Error(rec, httptest.NewRequest("GET", "/", nil), problem.From(errors.New("dial tcp 10.0.0.1: secret")))
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "10.0.0.1") || strings.Contains(rec.Body.String(), "internal_error") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestStylesheetIsKeptForever(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	path := s.pages.Stylesheet()
	if got := attr(b.begin().one("link[rel=stylesheet]"), "href"); got != path {
		t.Errorf("pages name %s, Stylesheet says %s", got, path)
	}
	r := b.get(path).want(200)
	if cc := r.header.Get("Cache-Control"); !strings.Contains(cc, "immutable") || !strings.HasPrefix(r.header.Get("Content-Type"), "text/css") {
		t.Errorf("%s %s", cc, r.header.Get("Content-Type"))
	}
	if strings.Contains(r.body, "url(") || strings.Contains(r.body, "@import") {
		t.Error("the sheet loads something")
	}
	b.get("/u/assets/portcullis-other.css").want(404)
	if got := b.get("/avatars/ab.svg").want(200); !strings.HasPrefix(got.header.Get("Content-Type"), "image/svg+xml") {
		t.Error("no avatar")
	}
	for _, bad := range []string{"/avatars/abc.svg", "/avatars/.svg", "/avatars/%22%3E.svg"} {
		b.get(bad).want(404)
	}
}

// The ratios are those of WCAG 2.2, criteria 1.4.3 and 1.4.11.
func TestColoursHaveContrast(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("assets", "portcullis.css"))
	if err != nil {
		t.Fatal(err)
	}
	light, dark, ok := strings.Cut(string(raw), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("there are no dark colours")
	}
	colours := func(block string) map[string][3]float64 {
		out := map[string][3]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #(\w\w)(\w\w)(\w\w);`).FindAllStringSubmatch(block, -1) {
			var c [3]float64
			for i := range 3 {
				var n int
				for _, d := range m[2+i] {
					n = n*16 + strings.IndexRune("0123456789abcdef", d)
				}
				c[i] = float64(n) / 255
			}
			out[m[1]] = c
		}
		return out
	}
	for name, block := range map[string]string{"light": light, "dark": dark[:strings.Index(dark, "}\n}")]} {
		c := colours(block)
		for _, pair := range []struct {
			fore, back string
			least      float64
		}{{"ink", "card", 7}, {"soft", "card", 4.5}, {"soft", "page", 4.5}, {"accent", "card", 4.5}, {"accent", "page", 4.5}, {"accent-ink", "accent", 4.5},
			{"accent-ink", "accent-deep", 4.5}, {"bad", "card", 4.5}, {"bad", "bad-wash", 4.5}, {"line", "card", 3}} {
			if got := ratio(c[pair.fore], c[pair.back]); got < pair.least {
				t.Errorf("%s: %s on %s has %.2f, want %.1f", name, pair.fore, pair.back, got, pair.least)
			}
		}
	}
}

func TestAPISignup(t *testing.T) {
	s := newSite(t)
	call := func(path, body string) *page {
		t.Helper()
		r := httptest.NewRequest("POST", "https://"+host+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		return &page{t: t, status: w.Code, header: w.Header(), body: w.Body.String()}
	}
	const base = `"client_id":"app1","connection":"Users"`
	ok := call("/dbconnections/signup", `{`+base+`,"email":"Bob@Example.com","password":"`+goodPassword+`","given_name":"Bob","user_metadata":{"plan":"x"},"app_metadata":{"admin":true},"email_verified":true}`).want(200)
	got := decode(t, ok.body)
	if got["email"] != "bob@example.com" || got["email_verified"] != false || got["given_name"] != "Bob" || len(got["_id"].(string)) != 24 || got["app_metadata"] != nil {
		t.Errorf("%s", ok.body)
	}
	if ok.header.Get("Access-Control-Allow-Origin") == "" {
		t.Error("a page of the application cannot read the answer")
	}
	tests := []struct{ name, path, body, code string }{
		{"exists, and the tenant does not say so", "/dbconnections/signup", `{` + base + `,"email":"bob@example.com","password":"` + goodPassword + `"}`, "invalid_signup"},
		{"weak password", "/dbconnections/signup", `{` + base + `,"email":"c@example.com","password":"short"}`, "invalid_password"},
		{"no client", "/dbconnections/signup", `{"connection":"Users","email":"c@example.com","password":"` + goodPassword + `"}`, "invalid_body"},
		{"no database", "/dbconnections/signup", `{"client_id":"app1","connection":"google","email":"c@example.com","password":"` + goodPassword + `"}`, "invalid_connection"},
		{"metadata that is no object", "/dbconnections/signup", `{` + base + `,"email":"c@example.com","password":"` + goodPassword + `","user_metadata":[]}`, "invalid_body"},
		{"no JSON", "/dbconnections/signup", `{`, "invalid_body"},
		{"no email", "/dbconnections/change_password", `{` + base + `}`, "invalid_body"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := call(tt.path, tt.body)
			p.t = t
			m := decode(t, p.want(400).body)
			if m["code"] != tt.code || m["statusCode"] != float64(400) || m["description"] == "" || m["name"] == "" {
				t.Errorf("%s", p.body)
			}
		})
	}
	a := call("/dbconnections/change_password", `{`+base+`,"email":"bob@example.com"}`).want(200)
	z := call("/dbconnections/change_password", `{`+base+`,"email":"nobody@example.com"}`).want(200)
	if a.body != "We've just sent you an email to reset your password." || a.body != z.body {
		t.Errorf("%q, %q", a.body, z.body)
	}
	s.mailed(mail.ResetPassword)
	b := s.browser()
	b.do(http.MethodOptions, "/dbconnections/signup", nil).want(204)
}

func FuzzAPISignupBody(f *testing.F) {
	for _, body := range []string{`{}`, `{"client_id":1}`, `{"client_id":"app1","connection":"Users","email":"\u0000","password":"x"}`, `[`, `{"user_metadata":{"a":{}}}`, "null"} {
		f.Add(body)
	}
	s := newSite(f)
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "https://"+host+"/dbconnections/signup", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code < 200 {
			t.Errorf("%d for %q: %s", w.Code, body, w.Body)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("the answer is no JSON: %s", w.Body)
		}
	})
}

func TestPagesWorkWithoutOtherProviders(t *testing.T) {
	s := newSite(t)
	p, err := login.New(login.Deps{Directory: s.dir, Users: s.users})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	p.Register(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/login/callback", nil))
	if w.Code != 404 {
		t.Errorf("status %d, want 404", w.Code)
	}
}

func ratio(a, b [3]float64) float64 {
	la, lb := luminance(a), luminance(b)
	if la < lb {
		la, lb = lb, la
	}
	return (la + 0.05) / (lb + 0.05)
}

func luminance(c [3]float64) float64 {
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v := c[i]
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}
