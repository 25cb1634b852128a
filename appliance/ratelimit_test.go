package appliance_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/ratelimit"
)

// send sends a request over the node's main listener and reads the answer.
func (n *node) send(method, path, typ, body string, header ...string) (*http.Response, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, strings.TrimSuffix(n.issuer, "/")+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := n.browser()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := c.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res, string(raw)
}

const form, jsonType = "application/x-www-form-urlencoded", "application/json"

func limited(t *testing.T, buckets ...string) *node {
	t.Helper()
	return startWith(t, "", func(c *configuration) {
		c.RateLimits.Enabled = true
		c.RateLimits.Buckets = buckets
	})
}

// TestTooManyRequests reaches the limit of each surface, and reads what it says.
func TestTooManyRequests(t *testing.T) {
	n := limited(t, "management-api size=3 per_hour=3", "signing-key-rotation per_day=1", "login per_hour=2", "signup per_hour=2", "change-password per_hour=2", "userinfo per_hour=2", "authentication-api-ip unlimited")
	wrong := url.Values{"grant_type": {"password"}, "username": {"Ann@acme.example"}, "password": {"no"}, "client_id": {"x"}}.Encode()
	for _, tt := range []struct {
		name, method, path, typ, body string
		header                        []string
		allowed, limit                int
		want                          []string
	}{
		{"management", "GET", "/api/v2/clients", "", "", []string{"Authorization", "Bearer " + n.token}, 3, 3,
			[]string{`"statusCode":429`, `"error":"Too Many Requests"`, `"errorCode":"too_many_requests"`, `"message":"Global limit has been reached"`}},
		{"password grant", "POST", "/oauth/token", form, wrong, nil, 2, 2, []string{`"error":"too_many_requests"`, `"error_description":"Too many requests.`}},
		{"signup", "POST", "/dbconnections/signup", jsonType, `{}`, nil, 2, 2, []string{`"code":"too_many_requests"`, `"statusCode":429`}},
		{"change password", "POST", "/dbconnections/change_password", jsonType, `{"email":"bob@acme.example"}`, nil, 2, 2, []string{`"code":"too_many_requests"`}},
		{"userinfo", "GET", "/userinfo", "", "", []string{"Authorization", "Bearer x"}, 2, 2, []string{`"error":"too_many_requests"`}},
		{"login page", "POST", "/u/login", form, "username=eve%40acme.example&password=no&state=x", nil, 2, 2, []string{"<h1>Too many requests</h1>", "try again in 30 minutes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.allowed {
				res, body := n.send(tt.method, tt.path, tt.typ, tt.body, tt.header...)
				if res.StatusCode == http.StatusTooManyRequests {
					t.Fatalf("request %d of %d was refused: %s", i+1, tt.allowed, body)
				}
				if got := res.Header.Get("X-RateLimit-Limit"); got != strconv.Itoa(tt.limit) {
					t.Errorf("request %d: X-RateLimit-Limit is %q, want %d", i+1, got, tt.limit)
				}
				if got := res.Header.Get("X-RateLimit-Remaining"); got != strconv.Itoa(tt.allowed-1-i) {
					t.Errorf("request %d: X-RateLimit-Remaining is %q, want %d", i+1, got, tt.allowed-1-i)
				}
				if reset, err := strconv.ParseInt(res.Header.Get("X-RateLimit-Reset"), 10, 64); err != nil || time.Unix(reset, 0).Before(time.Now()) {
					t.Errorf("request %d: X-RateLimit-Reset is %q, want seconds of an hour to come", i+1, res.Header.Get("X-RateLimit-Reset"))
				}
			}
			res, body := n.send(tt.method, tt.path, tt.typ, tt.body, append(tt.header, "Origin", n.issuer)...)
			if res.StatusCode != http.StatusTooManyRequests {
				t.Fatalf("one request too many: %s %s", res.Status, body)
			}
			for _, w := range tt.want {
				if !strings.Contains(body, w) {
					t.Errorf("the body lacks %s: %s", w, body)
				}
			}
			wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
			if err != nil || wait < 1 || wait > 3600 || res.Header.Get("X-RateLimit-Remaining") != "0" {
				t.Errorf("Retry-After %q, remaining %q", res.Header.Get("Retry-After"), res.Header.Get("X-RateLimit-Remaining"))
			}
		})
	}
	// Another user, and a case that differs: the first has a bucket of its own, the
	// second has not.
	other := strings.Replace(wrong, "Ann", "other", 1)
	if res, body := n.send("POST", "/oauth/token", form, other); res.StatusCode == http.StatusTooManyRequests {
		t.Errorf("another user was refused: %s", body)
	}
	if res, _ := n.send("POST", "/oauth/token", form, strings.Replace(wrong, "Ann", "ANN", 1)); res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the same user in other letters: %s", res.Status)
	}
	// Cached documents are free, and the local socket is not counted.
	if res, _ := n.send("GET", "/.well-known/jwks.json", "", ""); res.StatusCode != http.StatusOK || res.Header.Get("X-RateLimit-Limit") != "" {
		t.Errorf("a cached document: %s %v", res.Status, res.Header)
	}
	if _, err := n.local.Tenants(t.Context()); err != nil {
		t.Errorf("over the local socket: %v", err)
	}

	// One event for each key, however many were refused; of the types that Auth0 has.
	for range 3 {
		n.send("POST", "/oauth/token", form, wrong)
	}
	if _, err := n.local.ResetRateLimit(t.Context(), ratelimit.ManagementAPI, "main"); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"api_limit": 3, "limit_mu": 1, "limit_sul": 2} // management, change password, userinfo; signup; the two users
	eventually(t, "the log has one event for each key", func() bool {
		if _, err := n.local.ResetRateLimit(t.Context(), ratelimit.ManagementAPI, "main"); err != nil {
			t.Fatal(err)
		}
		_, body := n.send("GET", "/api/v2/logs?per_page=100", "", "", "Authorization", "Bearer "+n.token)
		var events []struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal([]byte(body), &events); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		got := map[string]int{}
		for _, e := range events {
			if _, ok := want[e.Type]; ok {
				got[e.Type]++
			}
		}
		for k, c := range got {
			if c > want[k] {
				t.Fatalf("%d events of type %s, want %d", c, k, want[k])
			}
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
}

// TestBodiesAreLeftAlone: finding out who a request is about takes nothing of it.
func TestBodiesAreLeftAlone(t *testing.T) {
	n := limited(t)
	for _, tt := range []struct{ typ, body, want string }{
		{jsonType, `{"client_id":"x","email":"ann@acme.example"}`, "client_id is not that of an application"},
		{form, "client_id=x&email=ann%40acme.example", "client_id is not that of an application"},
		{jsonType, `{"email":`, "The body is no JSON object"},
		{jsonType, `{"email":"` + strings.Repeat("a", 1<<20) + `"}`, "larger than the 1048576 bytes"},
		{jsonType, `{"email":"ann@acme.example","connection":"` + strings.Repeat("a", 100<<10) + `"}`, "missing client_id"},
	} {
		if _, body := n.send("POST", "/dbconnections/change_password", tt.typ, tt.body); !strings.Contains(body, tt.want) {
			t.Errorf("%.60s: %s", tt.body, body)
		}
	}
}

// TestRateLimitsAtRunTime changes limits while the node serves.
func TestRateLimitsAtRunTime(t *testing.T) {
	engines(t, func(t *testing.T, n *node) {
		ctx := t.Context()
		set := func(c client.RateLimitChange) error { _, err := n.local.ChangeRateLimit(ctx, c); return err }
		key := func() ratelimit.Decision {
			d, err := n.local.RateLimitKey(ctx, ratelimit.Login, "main|ann|192.0.2.1")
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		if d := key(); d.Limit != 20 {
			t.Fatalf("%+v", d)
		}
		ann := ratelimit.Override{Bucket: ratelimit.Login, Match: `main\|ann\|.*`, Spec: ratelimit.Spec{PerHour: 7}}
		if err := set(client.RateLimitChange{Override: ann}); err != nil {
			t.Fatal(err)
		}
		if d := key(); d.Limit != 7 || d.Remaining != 7 {
			t.Errorf("after the change: %+v", d)
		}
		all, err := n.local.RateLimits(ctx)
		if err != nil || len(all.Overrides) != 1 || len(all.Buckets) < 10 {
			t.Errorf("%+v, %v", all.Overrides, err)
		}
		for name, bad := range map[string]client.RateLimitChange{
			"there is no bucket": {Override: ratelimit.Override{Bucket: "nothing", Spec: ratelimit.Spec{PerHour: 7}}},
			"size is 0":          {Override: ratelimit.Override{Bucket: ratelimit.Login}},
			"nothing to take":    {Override: ratelimit.Override{Bucket: ratelimit.Login, Key: "x"}, Remove: true},
		} {
			if err := set(bad); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := set(client.RateLimitChange{Override: ratelimit.Override{Bucket: ratelimit.Login, Match: ann.Match}, Remove: true}); err != nil {
			t.Fatal(err)
		}
		if d := key(); d.Limit != 20 {
			t.Errorf("after the change was taken back: %+v", d)
		}
	})
}
