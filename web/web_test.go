package web_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

func render(w http.ResponseWriter, _ *http.Request, e *problem.Error) {
	http.Error(w, e.Code+": "+e.Message, e.HTTPStatus())
}

func TestClientAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	tests := []struct{ name, remote, forwarded, want string }{
		{"no proxy", "192.0.2.1:1", "", "192.0.2.1"},
		{"a stranger's word", "192.0.2.1:1", "6.6.6.6", "192.0.2.1"},
		{"a proxy's word", "10.0.0.1:1", "198.51.100.7", "198.51.100.7"},
		{"two proxies", "10.0.0.1:1", "198.51.100.7, 10.0.0.2", "198.51.100.7"},
		{"what stands before the proxy's word", "10.0.0.1:1", "6.6.6.6, 198.51.100.7", "198.51.100.7"},
		{"malformed", "10.0.0.1:1", "198.51.100.7, junk", "10.0.0.1"},
		{"with a port", "10.0.0.1:1", "[2001:db8::7]:4711, 10.0.0.2:443", "2001:db8::7"},
		{"IPv6", "[fd00::1]:1", "2001:db8::7", "2001:db8::7"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.1]:1", "", "192.0.2.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got netip.Addr
			h := web.Middleware(web.Config{Logger: slog.New(slog.DiscardHandler), TrustedProxies: trusted}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = web.ClientIP(r.Context())
			}))
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.remote
			if tt.forwarded != "" {
				r.Header.Set("X-Forwarded-For", tt.forwarded)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if got.String() != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOneEventForEachRequest(t *testing.T) {
	tests := []struct {
		name   string
		h      web.HandlerFunc
		status int
		body   string // what the client sees
		log    string // what the log has
	}{
		{"success", func(w http.ResponseWriter, r *http.Request) error {
			web.EventFrom(r.Context()).Set("tenant", "acme")
			return web.JSON(w, 200, "ok")
		}, 200, `"ok"`, `"tenant":"acme"`},
		{"a classified error", func(http.ResponseWriter, *http.Request) error {
			return problem.Wrap(problem.Invalid, "invalid_name", io.ErrUnexpectedEOF, "name is too short")
		}, 400, "invalid_name: name is too short", "unexpected EOF"},
		{"an error that nobody classified", func(http.ResponseWriter, *http.Request) error { return io.ErrClosedPipe }, 500, "internal_error: An internal error occurred", "closed pipe"},
		{"a panic", func(http.ResponseWriter, *http.Request) error { panic("on purpose") }, 500, "Request id", "on purpose"},
		{"a body that is too big", func(_ http.ResponseWriter, r *http.Request) error { _, err := io.ReadAll(r.Body); return err }, 413, "request_too_large", `"status":413`},
		{"a limit", func(http.ResponseWriter, *http.Request) error {
			e := problem.New(problem.Limited, "slow_down", "wait")
			e.RetryAfter = 1500 * time.Millisecond
			return e
		}, 429, "slow_down", `"status":429`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			h := web.Middleware(web.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil)), MaxBody: 64}, web.Handle(tt.h, render))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("POST", "/x?code=secret-code", strings.NewReader(strings.Repeat("x", 100))))
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) || strings.Contains(w.Body.String(), "closed pipe") {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if !strings.Contains(log.String(), tt.log) || strings.Contains(log.String(), "secret-code") || strings.Count(log.String(), `"msg":"request"`) != 1 {
				t.Errorf("the log: %s", log.String())
			}
			if id := w.Header().Get("X-Request-Id"); id == "" || !strings.Contains(log.String(), id) {
				t.Errorf("request id %q is not in the log", id)
			}
			if tt.status == 429 && w.Header().Get("Retry-After") != "2" {
				t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

func TestAQueryThatIsReadInPartIsRefused(t *testing.T) {
	h := web.Handle(func(w http.ResponseWriter, _ *http.Request) error { return web.JSON(w, 200, "ok") }, render)
	for query, want := range map[string]int{"a=1&b=2": 200, "a=1;b=2": 400, "a=%zz": 400} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/?"+query, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", query, w.Code, want)
		}
	}
}

func TestRoutineRequestsAreLoggedOnlyWhenTheyFail(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	status := http.StatusOK
	h := web.Middleware(web.Config{Logger: log}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.EventFrom(r.Context()).Routine()
		w.WriteHeader(status)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if out.Len() != 0 {
		t.Errorf("a routine request was logged: %s", out.String())
	}
	status = http.StatusNotFound
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(out.String(), `"status":404`) {
		t.Errorf("a failed one was not: %s", out.String())
	}
}

func TestClientThatWentAwayIsNoFailure(t *testing.T) {
	var out bytes.Buffer
	var counted int
	h := web.Middleware(web.Config{Logger: slog.New(slog.NewJSONHandler(&out, nil)), Observer: func(_, _ string, status int, _ time.Duration) { counted = status }},
		web.Handle(func(http.ResponseWriter, *http.Request) error { return context.Canceled }, func(w http.ResponseWriter, _ *http.Request, e *problem.Error) { w.WriteHeader(e.HTTPStatus()) }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	if counted != 499 || !strings.Contains(out.String(), `"level":"INFO"`) {
		t.Errorf("counted as %d, logged as %s", counted, out.String())
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if counted != 500 {
		t.Errorf("a failure of our own is counted as %d", counted)
	}
}
