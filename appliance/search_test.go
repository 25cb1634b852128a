package appliance_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// A node whose search engine is away logs users in, finds them by what the
// database has an index of, and says of the rest when to come again.
func TestLoginsWithoutTheSearchEngine(t *testing.T) {
	n := startWith(t, "", func(c *configuration) {
		c.Search.URLs = []string{fmt.Sprintf("http://127.0.0.1:%d", port(t))}
		c.Log.Level = "error"
	})
	id, email := n.user()
	app := n.application(nil)
	verifier := oauth2.GenerateVerifier()
	back := n.login(n.browser(), app.request(verifier), email)
	if a := n.exchange(app, back.Get("code"), verifier, nil); a.StatusCode != http.StatusOK {
		t.Errorf("the code: %d %s", a.StatusCode, a.body)
	}
	if u := n.api(http.MethodGet, "users/"+url.PathEscape(id), nil); u["email"] != email {
		t.Errorf("by id: %v", u)
	}
	if found := n.apiAs(n.token, http.MethodGet, "users?q="+url.QueryEscape(`email:"`+email+`"`), nil); found.StatusCode != http.StatusOK || !strings.Contains(found.body, id) {
		t.Errorf("by address: %d %s", found.StatusCode, found.body)
	}
	a := n.apiAs(n.token, http.MethodGet, "users?q="+url.QueryEscape("user_metadata.color:red"), nil)
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, `"errorCode":"search_unavailable"`) || strings.Contains(a.body, "127.0.0.1") {
		t.Errorf("by metadata: %d %v %s", a.StatusCode, a.Header, a.body)
	}
	// Not core: a load balancer leaves the node in.
	if a := n.get(n.browser(), "/testall", nil); a.StatusCode != http.StatusOK {
		t.Errorf("/testall: %d %s", a.StatusCode, a.body)
	}
	st, err := n.local.Search(t.Context())
	if err != nil || st.Down == "" || st.Queued == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	// The indexer is a service of the node that waits, and not one that has ended.
	if n.metric("portcullis_search_queue") == 0 {
		t.Error("the metric says that nothing waits")
	}
}

// The Management API finds through the search engine what was written before.
func TestSearchThroughTheEngine(t *testing.T) {
	engine := os.Getenv("PORTCULLIS_TEST_OPENSEARCH")
	if engine == "" {
		t.Skip("PORTCULLIS_TEST_OPENSEARCH is not set: `scripts/with-opensearch go test ./...` sets it")
	}
	for name, dsn := range map[string]func() string{"sqlite": func() string { return "" }, "postgres": func() string { return storetest.PostgresDSN(t) }} {
		t.Run(name, func(t *testing.T) {
			prefix := "t" + strings.ToLower(tenant.RandomString(12))
			t.Cleanup(func() {
				for _, k := range tenant.Searchable() {
					req, _ := http.NewRequest(http.MethodDelete, engine+"/"+prefix+"-"+string(k)+"-*", nil) // #nosec G704 -- a test's own server
					if resp, err := http.DefaultClient.Do(req); err == nil {
						resp.Body.Close()
					}
				}
			})
			n := startWith(t, dsn(), func(c *configuration) {
				c.Search.URLs, c.Search.Prefix, c.Search.Groups = []string{engine}, prefix, 1
			})
			find := func(path, q string) (total float64) {
				got := n.api(http.MethodGet, path+"?include_totals=true&q="+url.QueryEscape(q), nil)
				total, _ = got["total"].(float64)
				return total
			}
			eventually := func(what string, ok func() bool) {
				t.Helper()
				for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					if ok() {
						return
					}
				}
				t.Fatalf("after two minutes: %s", what)
			}
			eventually("the index is not there", func() bool {
				st, err := n.local.Search(t.Context())
				return err == nil && st.Groups[0].Live
			})
			id, email := n.user()
			n.api(http.MethodPatch, "users/"+url.PathEscape(id), map[string]any{"user_metadata": map[string]any{"color": "RED", "size": 7}})
			eventually("the user is not found", func() bool { return find("users", `user_metadata.color:red AND user_metadata.size:[5 TO 9]`) == 1 })
			eventually("the log event is not found", func() bool { return find("logs", `type:sapi*`) > 0 })
			if before, err := n.local.RebuildSearch(t.Context()); err != nil || before[0] != 1 {
				t.Fatalf("%v, %v", before, err)
			}
			eventually("the index was not built", func() bool {
				st, err := n.local.Search(t.Context())
				return err == nil && st.Groups[0].Generation == 2
			})
			if got := find("users", "email:"+email); got != 1 {
				t.Errorf("%v users after the build", got)
			}
			n.apiAs(n.token, http.MethodDelete, "users/"+url.PathEscape(id), nil)
			eventually("the user is still found", func() bool { return find("users", `user_metadata.color:red`) == 0 })
		})
	}
}
