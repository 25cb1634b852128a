package appliance_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/internal/golden"
	"github.com/portcullis-id/portcullis/mgmt"
	"github.com/portcullis-id/portcullis/netcontract"
)

func TestHealth(t *testing.T) {
	n := start(t, "")
	c := &http.Client{}
	ask := func(path, user, key string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.health+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			req.SetBasicAuth(user, key)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	for _, name := range []string{"db", "services", "network", "internet", "email", "replicaset"} {
		if got := ask("/status/"+name, "api_keys_health", n.key); got.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %d, want 204", name, got.StatusCode)
		}
	}
	if got := ask("/status/db", "api_keys_health", "wrong"); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("a wrong key: %d", got.StatusCode)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200} {
		if got := ask(path, "", ""); got.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, got.StatusCode, want)
		}
	}
	if a := n.get(n.browser(), "/testall", nil); a.StatusCode != 200 || a.body != "OK" {
		t.Errorf("testall: %d %q", a.StatusCode, a.body)
	}
	limited := false
	for range 40 {
		limited = limited || ask("/status/db", "api_keys_health", n.key).StatusCode == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("40 requests at once were all answered: want 429 over 10 a second")
	}
}

// TestListenersAreDeclared finds every TCP listener of this process and wants a
// row of the contract, or a setting of it, for each.
func TestListenersAreDeclared(t *testing.T) {
	before := listeners(t)
	n := start(t, "")
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[int]netcontract.RowID{}
	cfg := n.cfg
	for port, row := range map[int]netcontract.RowID{cfg.Listen.HTTPS: netcontract.LB, cfg.Listen.HTTP: netcontract.LB, cfg.Listen.Health: netcontract.Health} {
		if _, ok := table.Row(row); !ok {
			t.Errorf("no row %s", row)
		}
		declared[port] = row
	}
	found := 0
	for port := range listeners(t) {
		if before[port] {
			continue
		}
		if _, ok := declared[port]; !ok {
			t.Errorf("port %d listens and no row declares it", port)
		}
		found++
	}
	if found != len(declared) {
		t.Errorf("%d listeners, want %d", found, len(declared))
	}
}

// listeners are the TCP ports that this process listens on: sockets of its own
// descriptors that are in the state LISTEN.
func listeners(t *testing.T) map[int]bool {
	t.Helper()
	own := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	out := map[int]bool{}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue // no IPv6
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			if len(fields) < 10 || fields[3] != "0A" || !own[fields[9]] {
				continue
			}
			_, hexPort, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseInt(hexPort, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			out[int(port)] = true
		}
		f.Close()
	}
	return out
}

func TestPlainHTTPIsForThisHostAlone(t *testing.T) {
	n := start(t, "")
	plain := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Listen.HTTP))
	c := n.browser()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if a := n.do(c, "GET", plain+"/authorize?client_id=x", http.Header{"Host": {"localhost"}}, nil); a.StatusCode != 308 || !strings.HasPrefix(a.Header.Get("Location"), n.issuer+"authorize") {
		t.Errorf("a page in the clear: %d %s", a.StatusCode, a.Header.Get("Location"))
	}
	if a := n.do(c, "GET", plain+"/.well-known/openid-configuration", http.Header{"Host": {"localhost"}}, nil); a.StatusCode != 200 || !strings.Contains(a.body, `"issuer":"`+n.issuer) {
		t.Errorf("discovery of this host's own programs: %d %s", a.StatusCode, a.body)
	}
}

func TestDiscoveryGolden(t *testing.T) {
	n := start(t, "")
	var doc map[string]any
	if err := json.Unmarshal([]byte(n.get(n.browser(), "/.well-known/openid-configuration", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/discovery.json", []byte(strings.ReplaceAll(string(raw), n.issuer, "https://acme.example.com/")+"\n"))
	first := n.get(n.browser(), "/.well-known/jwks.json", nil)
	again := n.do(n.browser(), "GET", "/.well-known/jwks.json", http.Header{"If-None-Match": {first.Header.Get("ETag")}}, nil)
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("the key set has not changed, and the answer is %d", again.StatusCode)
	}
}

// TestCallers asks the Management API as every kind of caller.
func TestCallers(t *testing.T) {
	n := start(t, "")
	scoped := func(scopes ...string) string {
		tok, err := n.local.Token(t.Context(), client.TokenRequest{Tenant: "main", Scopes: scopes})
		if err != nil {
			t.Fatal(err)
		}
		return tok.AccessToken
	}
	app := n.application(nil)
	tests := []struct {
		name, token, method, path string
		body                      any
		status                    int
		has, hasNot               string
	}{
		{"nobody", "", "GET", "clients", nil, 401, "Missing authentication", app.id},
		{"a stranger", "x.y.z", "GET", "clients", nil, 401, `"errorCode":"invalid_token"`, app.id},
		{"another scope", scoped("read:users"), "GET", "clients", nil, 403, "Insufficient scope, expected any of: read:clients", app.id},
		{"may read", scoped("read:clients"), "GET", "clients/" + app.id, nil, 200, app.id, app.secret},
		{"may read keys", scoped("read:clients", "read:client_keys"), "GET", "clients/" + app.id, nil, 200, app.secret, ""},
		{"may not write", scoped("read:clients"), "DELETE", "clients/" + app.id, nil, 403, "delete:clients", ""},
		{"an unknown property", n.token, "POST", "clients", map[string]any{"name": "x", "nmae": 1}, 400, "Additional properties not allowed: nmae", ""},
		{"a wrong type", n.token, "POST", "clients", map[string]any{"name": 7}, 400, "Expected type string but found type number", ""},
		{"a list for an object", n.token, "POST", "clients", []string{"x"}, 400, "Expected type object but found type array", ""},
		{"what is not there", n.token, "GET", "clients/nobody", nil, 404, `"errorCode":"inexistent_client"`, ""},
		{"what there is not yet", n.token, "GET", "organizations", nil, 501, "This feature is not enabled for this tenant.", ""},
		{"what there never was", n.token, "GET", "unicorns", nil, 404, "no such endpoint", ""},
		{"tenants, at a tenant", n.token, "POST", "tenants", map[string]any{"name": "mine"}, 403, "create:tenants", ""},
		{"a taken identifier", n.token, "POST", "resource-servers", map[string]any{"name": "x", "identifier": n.issuer + "api/v2/"}, 409, "already exists", ""},
		{"a callback that runs", n.token, "POST", "clients", map[string]any{"name": "x", "callbacks": []string{"javascript:alert(1)"}}, 400, "scheme", ""},
		{"a tenant's name in a row", n.token, "GET", "users/" + strings.Repeat("x", 600), nil, 404, "inexistent_user", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := n.apiAs(tt.token, tt.method, tt.path, tt.body)
			if a.StatusCode != tt.status || !strings.Contains(a.body, tt.has) || tt.hasNot != "" && strings.Contains(a.body, tt.hasNot) {
				t.Errorf("got %d %s", a.StatusCode, a.body)
			}
			if tt.status >= 400 && a.json()["statusCode"] != float64(tt.status) {
				t.Errorf("the error has another form: %s", a.body)
			}
		})
	}
	for _, s := range mgmt.Scopes(false) {
		if strings.HasSuffix(s, ":tenants") {
			t.Errorf("an ordinary tenant has the scope %s", s)
		}
	}
}

// TestPagesOfLists goes through lists in both of Auth0's forms.
func TestPagesOfLists(t *testing.T) { engines(t, pagesOfLists) }

func pagesOfLists(t *testing.T, n *node) {
	for i := range 7 {
		n.api("POST", "roles", map[string]any{"name": fmt.Sprint("role ", i)})
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(n.apiAs(n.token, "GET", "roles?per_page=5&page=1", nil).body), &all); err != nil || len(all) != 2 {
		t.Errorf("page 1 has %d, %v", len(all), err)
	}
	page := n.api("GET", "roles?per_page=5&page=0&include_totals=true", nil)
	if page["total"] != 7.0 || page["limit"] != 5.0 || page["start"] != 0.0 || len(page["roles"].([]any)) != 5 {
		t.Errorf("got %v", page)
	}
	seen, from := map[string]bool{}, ""
	for range 5 {
		path := "roles?take=3"
		if from != "" {
			path += "&from=" + from
		}
		page := n.api("GET", path, nil)
		for _, r := range page["roles"].([]any) {
			seen[r.(map[string]any)["id"].(string)] = true
		}
		next, ok := page["next"].(string)
		if !ok {
			break
		}
		from = next
	}
	if len(seen) != 7 {
		t.Errorf("the checkpoints lead to %d of 7", len(seen))
	}
	if a := n.apiAs(n.token, "GET", "roles?fields=name&per_page=1", nil); strings.Contains(a.body, "description") || !strings.Contains(a.body, "name") {
		t.Errorf("fields: %s", a.body)
	}
	if a := n.apiAs(n.token, "GET", "roles?fields=name&include_fields=false&per_page=1", nil); strings.Contains(a.body, `"name"`) {
		t.Errorf("fields to leave out: %s", a.body)
	}
}

// TestUsersComeAndGo imports users with hashes of another system, logs one in,
// and exports them.
func TestUsersComeAndGo(t *testing.T) { engines(t, usersComeAndGo) }

func usersComeAndGo(t *testing.T, n *node) {
	var found []struct{ ID string }
	if err := json.Unmarshal([]byte(n.apiAs(n.token, "GET", "connections?name="+database, nil).body), &found); err != nil {
		t.Fatal(err)
	}
	users := `[{"email":"imp1@example.com","email_verified":true,"custom_password_hash":{"algorithm":"sha256","hash":{"value":"` + sha256Hex("Old-system-9") + `","encoding":"hex"}},"app_metadata":{"n":1}},
		{"email":"imp2@example.com","nonsense":true}]`
	job := n.importUsers(found[0].ID, users)
	done := n.jobDone(job)
	if s := done["summary"].(map[string]any); s["inserted"] != 1.0 || s["failed"] != 1.0 || s["total"] != 2.0 {
		t.Fatalf("got %v", done)
	}
	if a := n.apiAs(n.token, "GET", "jobs/"+job+"/errors", nil); !strings.Contains(a.body, "nonsense") || strings.Contains(a.body, sha256Hex("Old-system-9")) {
		t.Errorf("the errors: %s", a.body)
	}
	app := n.application(nil)
	for range 2 { // the second time with the hash that was made anew
		a := n.form(n.browser(), "/oauth/token", map[string][]string{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database},
			"client_id": {app.id}, "client_secret": {app.secret}, "username": {"imp1@example.com"}, "password": {"Old-system-9"}})
		if a.StatusCode != 200 {
			t.Fatalf("the imported user: %d %s", a.StatusCode, a.body)
		}
	}
	export := n.api("POST", "jobs/users-exports", map[string]any{"format": "csv", "fields": []map[string]any{{"name": "email"}, {"name": "app_metadata.n", "export_as": "n"}}})
	result := n.jobDone(export["id"].(string))
	got := n.gunzip(result["location"].(string))
	if !strings.HasPrefix(got, "email,n\n") || !strings.Contains(got, "imp1@example.com,1\n") {
		t.Errorf("the export: %s", got)
	}
	if a := n.get(n.browser(), strings.Split(result["location"].(string), "?")[0], nil); a.StatusCode != 404 {
		t.Errorf("an export without its token: %d", a.StatusCode)
	}
}
