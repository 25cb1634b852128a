package appliance

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/problem"
)

func TestClasses(t *testing.T) {
	for target, want := range map[string]string{
		"GET /api/v2/users?q=email:x": "search", "GET /api/v2/users?per_page=1&q=x": "search", "GET /api/v2/users?per_page=1": "admin", "POST /api/v2/users?q=x": "admin",
		"POST /oauth/token": "token", "GET /userinfo": "token", "POST /oauth/introspect": "token",
		"GET /authorize": "login", "POST /u/login": "login", "GET /": "login", "POST /dbconnections/signup": "login",
		"GET /.well-known/jwks.json": "", "GET /u/assets/style.css": "",
	} {
		method, path, _ := strings.Cut(target, " ")
		got := ""
		if c, gated := class(httptest.NewRequest(method, path, nil)); gated {
			got = c.String()
		}
		if got != want {
			t.Errorf("%s is of class %q, want %q", target, got, want)
		}
	}
}

// TestRefusalOfAnUnfitNodeIsHeld: it must not be the fastest of all nodes.
func TestRefusalOfAnUnfitNodeIsHeld(t *testing.T) {
	h := fit(func() *problem.Error { return problem.New(problem.Unavailable, "clock_apart", "the clock is wrong") }, http.NotFoundHandler())
	for _, c := range []struct {
		name  string
		limit time.Duration // of the client's patience
		held  time.Duration
	}{{"a patient client", time.Minute, refusalHeld}, {"a client that goes", refusalHeld / 2, refusalHeld / 2}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.limit)
				defer cancel()
				began, w := time.Now(), httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/userinfo", nil))
				if held := time.Since(began); held != c.held {
					t.Errorf("the request was held for %s, want %s", held, c.held)
				}
				if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
					t.Errorf("got %d, Retry-After %q; want 503 and 1", w.Code, w.Header().Get("Retry-After"))
				}
			})
		})
	}
}

// TestTurnedAway asks a node that is full, on each of its surfaces.
func TestTurnedAway(t *testing.T) {
	gate := overload.New(overload.Config{Slots: 1, Queue: 1})
	enter := func() {
		if _, _, err := gate.Enter(t.Context(), overload.Admin); err != nil {
			t.Error(err)
		}
	}
	enter()
	for _, c := range overload.Classes() { // one waits in each queue
		go func() { _, _, _ = gate.Enter(t.Context(), c) }()
	}
	for _, c := range overload.Classes() {
		for gate.Waiting(c) == 0 {
			runtime.Gosched()
		}
	}
	served := 0
	h := admit(gate, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	for _, tt := range []struct{ method, path, typ, body string }{
		{"GET", "/api/v2/clients", "application/json; charset=utf-8", `"errorCode":"overloaded"`},
		{"GET", "/api/v2/users?q=x", "application/json; charset=utf-8", `"statusCode":503`},
		{"POST", "/oauth/token", "application/json; charset=utf-8", `"error":"temporarily_unavailable"`},
		{"GET", "/authorize", "text/html; charset=utf-8", `http-equiv="refresh"`},
		{"POST", "/u/login", "text/html; charset=utf-8", `Go back and send the form again.`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || w.Header().Get("Content-Type") != tt.typ || !strings.Contains(w.Body.String(), tt.body) {
			t.Errorf("%s %s: %d %v %s", tt.method, tt.path, w.Code, w.Header(), w.Body.String())
		}
	}
	if served > 0 {
		t.Errorf("%d requests were served by a node that is full", served)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/.well-known/jwks.json", nil))
	if served != 1 {
		t.Error("a cached document had to wait")
	}
}
