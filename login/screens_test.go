package login_test

import (
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/mail"
)

var screens = flag.String("screens", "", "folder to write every page in every state to, as HTML with its stylesheet")

// state is a page in one of its states.
type state struct {
	name string
	page *page
}

// states opens every page in every state that it can be in.
func states(t *testing.T) []state {
	t.Helper()
	s := newSite(t, client.with(doc{"client_id": "app2", "name": "Tide Tables", "is_first_party": false}),
		database.with(doc{"enabled_clients": []string{"app1", "app2"}}),
		doc{"identifier": "https://api.example/", "id": "api1", "name": "Mooring API", "scopes": []doc{{"value": "berths:read", "description": "See your berths"}, {"value": "berths:book"}}})
	s.put(settings.with(doc{"flags": doc{"use_scope_descriptions_for_consent": true, "enable_public_signup_user_exists_error": true}}))
	s.addUser("ann@example.com")
	var out []state
	add := func(name string, p *page) *page { out = append(out, state{name, p}); return p }

	b := s.browser()
	in := add("login", b.begin())
	add("login-hint", b.begin("login_hint", "ann@example.com"))
	add("login-wrong", b.submit(in, "username", "ann@example.com", "password", "nope"))
	add("login-de", b.begin("ui_locales", "de"))
	up := add("signup", b.begin("screen_hint", "signup"))
	add("signup-weak", b.submit(up, "email", "bob@example.com", "password", "short"))
	add("signup-email", b.submit(up, "email", "bob", "password", goodPassword))
	add("signup-exists", b.submit(up, "email", "ann@example.com", "password", goodPassword))
	ask := add("reset", b.get(attr(in.one(".row a"), "href")))
	add("reset-email", b.submit(ask, "email", "ann"))
	add("reset-sent", b.submit(ask, "email", "ann@example.com"))
	fresh := add("new-password", b.get(s.mailed(mail.ResetPassword)))
	add("new-password-weak", b.submit(fresh, "password", "short", "repeat", "short"))
	add("new-password-differs", b.submit(fresh, "password", goodPassword, "repeat", "other"))
	add("new-password-done", b.submit(fresh, "password", "Another-Horse-8", "repeat", "Another-Horse-8"))
	add("ticket-used", b.submit(fresh, "password", "Another-Horse-8", "repeat", "Another-Horse-8"))

	b.submit(up, "email", "carl@example.com", "password", goodPassword).code()
	verify := add("verify", b.get(s.mailed(mail.VerifyEmail)))
	add("verify-done", b.submit(verify))

	for range 10 {
		b.submit(in, "username", "carl@example.com", "password", "nope")
	}
	add("login-blocked", b.submit(in, "username", "carl@example.com", "password", goodPassword))
	unblock := add("unblock", b.get(s.mailed(mail.BlockedAccount)))
	add("unblock-done", b.submit(unblock))

	c := s.browser()
	third := c.begin("client_id", "app2", "audience", "https://api.example/", "scope", "openid profile email offline_access berths:read berths:book")
	ok := c.submit(third, "username", "carl@example.com", "password", goodPassword)
	add("consent", c.get(ok.location()))
	add("logged-out", b.get("/u/logged-out"))
	add("logout", c.get("/oidc/logout"))
	add("error-transaction", s.browser().get("/u/login?state=forged"))
	b.headers["Sec-Fetch-Site"] = "cross-site"
	add("error-cross-site", b.submit(in, "username", "a", "password", "b"))
	return out
}

func TestScreens(t *testing.T) {
	if *screens == "" {
		t.Skip("no -screens DIR: nothing to write")
	}
	if err := os.MkdirAll(*screens, 0o755); err != nil {
		t.Fatal(err)
	}
	css := ""
	for _, st := range states(t) {
		if st.page.root == nil {
			t.Fatalf("%s is no page: %d %s", st.name, st.page.status, st.page.body)
		}
		css = attr(st.page.one("link[rel=stylesheet]"), "href")
		body := strings.ReplaceAll(st.page.body, css, "style.css")
		if err := os.WriteFile(filepath.Join(*screens, st.name+".html"), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sheet := newSite(t).browser().do(http.MethodGet, css, nil)
	if err := os.WriteFile(filepath.Join(*screens, "style.css"), []byte(sheet.body), 0o644); err != nil {
		t.Fatal(err)
	}
}
