package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis-id/portcullis/health"
)

const key = "0123456789abcdef0123456789abcdef"

func fine(name string) health.Check {
	return health.Check{Name: name, Run: func(context.Context) health.Result { return health.Result{OK: true, Message: "fine"} }}
}

func bad(name string, core bool) health.Check {
	return health.Check{Name: name, Core: core, Run: func(context.Context) health.Result {
		return health.Result{Value: 95, Threshold: 90, Unit: "% used", Message: "secret-host is full"}
	}}
}

// tolerated is a core check that fails, and whether the node bears it for a minute.
func tolerated(name string, bears bool) health.Check {
	c := bad(name, true)
	c.Tolerates = func(_ context.Context, failing time.Duration) bool { return bears && failing < time.Minute }
	return c
}

func service(t *testing.T, cfg health.Config, checks ...health.Check) *health.Service {
	t.Helper()
	s, err := health.New(cfg, checks...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func do(h http.Handler, method, path, user, password string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHTTP(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	all := service(t, health.Config{Key: key, Rate: 1000}, fine("db"), bad("disk", false))
	core := service(t, health.Config{Key: key, Rate: 1000}, bad("services", true), bad("db", true), bad("disk", false))
	noKey := service(t, health.Config{}, fine("db"))
	bears := service(t, health.Config{Key: key}, tolerated("db", true), tolerated("services", false))
	drains := service(t, health.Config{Key: key, Draining: func() bool { return true }}, fine("db"))
	mounted := http.NewServeMux()
	mounted.Handle("/health/", http.StripPrefix("/health", all.StatusHandler()))

	for _, c := range []struct {
		name           string
		h              http.Handler
		method, path   string
		user, password string
		status         int
		body           string // exactly; "{" means JSON
	}{
		{"fine", all.Handler(metrics), "GET", "/status/db", health.User, key, 204, ""},
		{"fine, HEAD", all.Handler(metrics), "HEAD", "/status/db", health.User, key, 204, ""},
		{"a problem", all.Handler(metrics), "GET", "/status/disk", health.User, key, 520, ""},
		{"a query changes nothing", all.Handler(metrics), "GET", "/status/db?detail=json", health.User, key, 204, ""},
		{"no such check", all.Handler(metrics), "GET", "/status/moon", health.User, key, 404, ""},
		{"no name", all.Handler(metrics), "GET", "/status/", health.User, key, 404, ""},
		{"another method", all.Handler(metrics), "POST", "/status/db", health.User, key, 405, ""},
		{"no key", all.Handler(metrics), "GET", "/status/db", "", "", 401, ""},
		{"no key, no such check", all.Handler(metrics), "GET", "/status/moon", "", "", 401, ""},
		{"a wrong key", all.Handler(metrics), "GET", "/status/db", health.User, key + "0", 401, ""},
		{"an empty key", all.Handler(metrics), "GET", "/status/db", health.User, "", 401, ""},
		{"a wrong user", all.Handler(metrics), "GET", "/status/db", "admin", key, 401, ""},
		{"an empty key is no key", noKey.Handler(nil), "GET", "/status/db", health.User, "", 401, ""},
		{"on the main listener", mounted, "GET", "/health/status/db", health.User, key, 204, ""},
		{"on the main listener, a problem", mounted, "GET", "/health/status/disk", health.User, key, 520, ""},
		{"on the main listener, no key", mounted, "GET", "/health/status/disk", "", "", 401, ""},
		{"on the main listener, details", mounted, "GET", "/health/detail", health.User, key, 200, "{"},
		{"no metrics on the main listener", mounted, "GET", "/health/metrics", health.User, key, 404, "404 page not found\n"},
		{"details", all.Handler(metrics), "GET", "/detail", health.User, key, 200, "{"},
		{"one detail", all.Handler(metrics), "GET", "/detail/disk", health.User, key, 200, "{"},
		{"no such detail", all.Handler(metrics), "GET", "/detail/moon", health.User, key, 404, "{"},
		{"details, no key", all.Handler(metrics), "GET", "/detail", "", "", 401, ""},
		{"metrics", all.Handler(metrics), "GET", "/metrics", health.User, key, 200, "up 1\n"},
		{"metrics, no key", all.Handler(metrics), "GET", "/metrics", "", "", 401, ""},
		{"no metrics", all.Handler(nil), "GET", "/metrics", health.User, key, 404, "404 page not found\n"},
		{"alive", core.Handler(nil), "GET", "/livez", "", "", 200, "OK"},
		{"ready, though a check that is not core fails", all.Handler(nil), "GET", "/readyz", "", "", 200, "OK"},
		{"not ready", core.Handler(nil), "GET", "/readyz", "", "", 503, "services\ndb"},
		{"self-test", all.TestAllHandler(), "GET", "/testall", "", "", 200, "OK"},
		{"self-test fails", core.TestAllHandler(), "GET", "/testall", "", "", 503, "services\ndb"},
		{"a node that drains is not ready", drains.Handler(nil), "GET", "/readyz", "", "", 503, "draining"},
		{"a node that drains, for load balancers", drains.TestAllHandler(), "GET", "/testall", "", "", 404, "draining"},
		{"a node that drains is alive", drains.Handler(nil), "GET", "/livez", "", "", 200, "OK"},
		{"ready all the same with a failure that is tolerated", bears.TestAllHandler(), "GET", "/testall", "", "", 503, "services"},
		{"which is a failure for who looks", bears.Handler(nil), "GET", "/status/db", health.User, key, 520, ""},
		{"self-test, another method", all.TestAllHandler(), "POST", "/testall", "", "", 405, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := do(c.h, c.method, c.path, c.user, c.password)
			b := body(t, r)
			if r.StatusCode != c.status {
				t.Errorf("status %d, want %d", r.StatusCode, c.status)
			}
			if c.body == "{" && json.Valid([]byte(b)) {
				return
			}
			if b != c.body {
				t.Errorf("body %q, want %q", b, c.body)
			}
			if r.StatusCode == 401 && !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("WWW-Authenticate %q", r.Header.Get("WWW-Authenticate"))
			}
			if r.StatusCode != 404 && r.StatusCode != 405 && c.path != "/livez" && r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control %q", r.Header.Get("Cache-Control"))
			}
			if strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") && strings.Contains(b, "secret") {
				t.Error("a stranger is told the message")
			}
		})
	}
}

// The statuses over a real connection, where net/http has its own ideas of bodies.
func TestOverTheWire(t *testing.T) {
	srv := httptest.NewServer(service(t, health.Config{Key: key}, fine("db"), bad("disk", false)).Handler(nil))
	defer srv.Close()
	for path, want := range map[string]int{"/status/db": 204, "/status/disk": 520} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(health.User, key)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b := body(t, resp)
		resp.Body.Close()
		if resp.StatusCode != want || b != "" {
			t.Errorf("%s: %d %q", path, resp.StatusCode, b)
		}
	}
}

func TestDetail(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	s := service(t, health.Config{Key: key, Now: func() time.Time { return now }}, fine("db"), bad("disk", false))
	var one map[string]any
	if err := json.Unmarshal([]byte(body(t, do(s.Handler(nil), "GET", "/detail/disk", health.User, key))), &one); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"name": "disk", "ok": false, "since": "2030-01-02T03:04:05Z", "checked": "2030-01-02T03:04:05Z", "value": 95.0,
		"threshold": 90.0, "unit": "% used", "message": "secret-host is full", "duration_ms": 0.0,
	}
	for k, v := range want {
		if one[k] != v {
			t.Errorf("%s is %v, want %v", k, one[k], v)
		}
	}
	var all struct {
		OK     bool
		Checks []health.Report
	}
	if err := json.Unmarshal([]byte(body(t, do(s.Handler(nil), "GET", "/detail", health.User, key))), &all); err != nil {
		t.Fatal(err)
	}
	if all.OK || len(all.Checks) != 2 || all.Checks[0].Name != "db" || all.Checks[0].Value != nil {
		t.Errorf("%+v", all)
	}
}

func TestRateLimit(t *testing.T) {
	now := time.Unix(1000, 0)
	s := service(t, health.Config{Key: key, Now: func() time.Time { return now }}, fine("db"), fine("cpu"))
	h, main := s.Handler(nil), http.StripPrefix("/health", s.StatusHandler())
	for range 50 {
		if got := do(h, "GET", "/status/db", health.User, "guess").StatusCode; got != 401 {
			t.Fatalf("status %d", got)
		}
	}
	for i := range 10 {
		path := []string{"/status/db", "/status/cpu"}[i%2]
		if got := do(h, "GET", path, health.User, key).StatusCode; got != 204 {
			t.Fatalf("request %d: %d", i+1, got)
		}
	}
	for name, r := range map[string]*http.Response{
		"status": do(h, "GET", "/status/db", health.User, key),
		"detail": do(h, "GET", "/detail", health.User, key),
		"main":   do(main, "GET", "/health/status/db", health.User, key),
	} {
		if b := body(t, r); r.StatusCode != 429 || b != "" {
			t.Errorf("%s: %d %q", name, r.StatusCode, b)
		}
	}
	now = now.Add(100 * time.Millisecond)
	if got := do(h, "GET", "/status/db", health.User, key).StatusCode; got != 204 {
		t.Errorf("a tenth of a second later: %d", got)
	}
	if got := do(h, "GET", "/status/db", health.User, key).StatusCode; got != 429 {
		t.Errorf("and once more: %d", got)
	}
	if got := do(h, "GET", "/readyz", "", "").StatusCode; got != 200 {
		t.Errorf("readiness is not limited: %d", got)
	}
}

func TestSetKey(t *testing.T) {
	s := service(t, health.Config{Key: "old-key-of-the-service"}, fine("db"))
	s.SetKey(key)
	for password, want := range map[string]int{"old-key-of-the-service": 401, key: 204} {
		if got := do(s.Handler(nil), "GET", "/status/db", health.User, password).StatusCode; got != want {
			t.Errorf("%s: %d, want %d", password, got, want)
		}
	}
}

func TestResultsAreKeptForASecond(t *testing.T) {
	var now atomic.Int64
	runs, ok := 0, true
	s := service(t, health.Config{Now: func() time.Time { return time.UnixMilli(now.Load()) }}, health.Check{Name: "x", Run: func(context.Context) health.Result {
		runs++
		return health.Result{OK: ok}
	}})
	for _, step := range []struct {
		at    int64 // ms
		ok    bool
		runs  int
		want  bool
		since int64
	}{
		{0, true, 1, true, 0}, {999, false, 1, true, 0}, {1000, false, 2, false, 1000}, {5000, false, 3, false, 1000}, {7000, true, 4, true, 7000},
	} {
		now.Store(step.at)
		ok = step.ok
		r, found := s.Check(t.Context(), "x")
		if !found || runs != step.runs || r.OK != step.want || r.Since.UnixMilli() != step.since {
			t.Errorf("at %d ms: run %d times, %+v", step.at, runs, r)
		}
	}
}

func TestAFloodRunsTheCheckOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		s := service(t, health.Config{}, health.Check{Name: "x", Run: func(context.Context) health.Result {
			runs.Add(1)
			time.Sleep(100 * time.Millisecond)
			return health.Result{OK: true}
		}})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if r, _ := s.Check(t.Context(), "x"); !r.OK {
					t.Errorf("%+v", r)
				}
			})
		}
		wg.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("run %d times", n)
		}
	})
}

func TestACheckThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var runs atomic.Int32
		s := service(t, health.Config{Timeout: 2 * time.Second}, health.Check{Name: "x", Run: func(context.Context) health.Result {
			if runs.Add(1) == 1 {
				<-release // and does not heed its context
			}
			return health.Result{OK: true}
		}})
		start := time.Now()
		r, _ := s.Check(t.Context(), "x")
		if r.OK || time.Since(start) != 2*time.Second || !strings.Contains(r.Message, "2s") {
			t.Errorf("after %v: %+v", time.Since(start), r)
		}
		time.Sleep(5 * time.Second)
		start = time.Now()
		if r, _ = s.Check(t.Context(), "x"); r.OK || time.Since(start) != 0 || runs.Load() != 1 {
			t.Errorf("still hanging: %+v after %v, run %d times", r, time.Since(start), runs.Load())
		}
		close(release)
		time.Sleep(5 * time.Second)
		if r, _ = s.Check(t.Context(), "x"); !r.OK || runs.Load() != 2 {
			t.Errorf("released: %+v, run %d times", r, runs.Load())
		}
	})
}

func TestACallerWhoGoesAwayDoesNotEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, health.Config{}, health.Check{Name: "x", Run: func(ctx context.Context) health.Result {
			select {
			case <-time.After(time.Second):
				return health.Result{OK: true}
			case <-ctx.Done():
				return health.Result{Message: "ended"}
			}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r, _ := s.Check(ctx, "x"); r.OK {
			t.Errorf("%+v", r)
		}
		if r, _ := s.Check(t.Context(), "x"); !r.OK {
			t.Errorf("%+v", r)
		}
	})
}

func TestACheckThatPanics(t *testing.T) {
	s := service(t, health.Config{}, health.Check{Name: "x", Run: func(context.Context) health.Result { panic("boom") }})
	if r, _ := s.Check(t.Context(), "x"); r.OK || strings.Contains(r.Message, "boom") {
		t.Errorf("%+v", r)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, checks := range map[string][]health.Check{
		"twice":          {fine("a"), fine("a")},
		"no name":        {fine("")},
		"nothing to run": {{Name: "a"}},
	} {
		if _, err := health.New(health.Config{}, checks...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestChecks(t *testing.T) {
	down := errors.New("connection refused")
	err := func(e error) func(context.Context) error { return func(context.Context) error { return e } }
	services := func(m map[string]error) health.Check {
		return health.Services(func(context.Context) map[string]error { return m })
	}
	network := func(nodes []string, e error) health.Check {
		return health.Network(func(context.Context) []string { return nodes }, func(_ context.Context, a string) error {
			if a == "10.0.0.2" {
				return e
			}
			return nil
		}, func() string { return "" })
	}
	internet := func(source string, e error) health.Check {
		return health.Internet(func() string { return source }, func(context.Context, string) error { return e })
	}
	email := func(server string, e error) health.Check {
		return health.Email(func() string { return server }, func(context.Context, string) error { return e })
	}
	members := func(m map[string]error, e error) health.Check {
		return health.ReplicaSet(func(context.Context) (map[string]error, error) { return m, e })
	}
	for _, c := range []struct {
		name  string
		check health.Check
		id    string
		ok    bool
		says  string
	}{
		{"services up", services(map[string]error{"web": nil}), "services", true, "1 services"},
		{"a service down", services(map[string]error{"web": nil, "mail": down}), "services", false, "mail: connection refused"},
		{"a single node", network(nil, down), "network", true, "no other node"},
		{"all nodes answer", network([]string{"10.0.0.1", "10.0.0.2"}, nil), "network", true, "2 other nodes"},
		{"a node is silent", network([]string{"10.0.0.1", "10.0.0.2"}, down), "network", false, "10.0.0.2: connection refused"},
		{"nothing to reach", internet("", down), "internet", true, "nothing to reach"},
		{"the source answers", internet("https://depot.test", nil), "internet", true, "answers"},
		{"the source is silent", internet("https://depot.test", down), "internet", false, "connection refused"},
		{"no mail server", email("", down), "email", true, "no mail server"},
		{"the mail server answers", email("mail.test:587", nil), "email", true, "answers"},
		{"the mail server is silent", email("mail.test:587", down), "email", false, "connection refused"},
		{"the database answers", health.DB(err(nil), nil), "db", true, "answers"},
		{"the database is silent", health.DB(err(down), nil), "db", false, "connection refused"},
		{"an embedded database", members(nil, nil), "replicaset", true, "no further members"},
		{"all members up", members(map[string]error{"a": nil, "b": nil}, nil), "replicaset", true, "2 members"},
		{"a member down", members(map[string]error{"a": nil, "b": down}, nil), "replicaset", false, "b: connection refused"},
		{"members unknown", members(nil, down), "replicaset", false, "cannot be asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.check.Run(t.Context())
			if c.check.Name != c.id || r.OK != c.ok || !strings.Contains(r.Message, c.says) {
				t.Errorf("%s: %+v", c.check.Name, r)
			}
			if core := c.id == "db" || c.id == "services"; c.check.Core != core {
				t.Errorf("core is %v", c.check.Core)
			}
		})
	}
}

func TestReportsSurviveAClockThatIsSetBack(t *testing.T) {
	now := time.Now()
	runs := 0
	s, err := health.New(health.Config{Key: "k", Now: func() time.Time { return now }}, health.Check{Name: "a", Run: func(context.Context) health.Result {
		runs++
		return health.Result{OK: runs > 1}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := s.Check(t.Context(), "a"); r.OK {
		t.Fatal("the first run fails")
	}
	now = now.Add(-time.Hour)
	if r, _ := s.Check(t.Context(), "a"); !r.OK {
		t.Error("the report of before the clock was set back is given out")
	}
}

// TestReadyDoesNotWaitForASlowCheck: who asks often gets what was found last, for
// three seconds; then the check's own time counts.
func TestReadyDoesNotWaitForASlowCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		s := service(t, health.Config{}, health.Check{Name: "db", Core: true, Run: func(ctx context.Context) health.Result {
			if slow {
				<-ctx.Done()
				return health.Result{}
			}
			time.Sleep(time.Second) // the first answer is waited for
			return health.Result{OK: true}
		}})
		ask := func() (bool, time.Duration) {
			began := time.Now()
			bad := s.Ready(t.Context())
			return len(bad) == 0, time.Since(began)
		}
		if ok, took := ask(); !ok || took != time.Second {
			t.Errorf("the first answer: %v after %s", ok, took)
		}
		slow = true
		time.Sleep(1500 * time.Millisecond)
		if ok, took := ask(); !ok || took != 250*time.Millisecond {
			t.Errorf("a slow check: %v after %s; want what was found last, after 250ms", ok, took)
		}
		time.Sleep(1500 * time.Millisecond) // 3.25 s after the last result
		if ok, took := ask(); ok || took != 3250*time.Millisecond {
			t.Errorf("a check that hangs: %v after %s; want no after its five seconds", ok, took)
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

func TestToleranceEnds(t *testing.T) {
	now := time.Now()
	s := service(t, health.Config{Now: func() time.Time { return now }}, tolerated("db", true))
	for _, tt := range []struct {
		after time.Duration
		ready bool
	}{{0, true}, {59 * time.Second, true}, {2 * time.Second, false}} {
		now = now.Add(tt.after)
		if bad := s.Ready(t.Context()); (len(bad) == 0) != tt.ready {
			t.Errorf("%v later: %d checks fail, want ready %v", tt.after, len(bad), tt.ready)
		}
	}
}
