package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// HandlerFunc is an HTTP handler that leaves its errors to somebody who knows
// how to show them. After it returned an error it must not have written.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Renderer writes an error in the form of its surface.
type Renderer func(w http.ResponseWriter, r *http.Request, e *problem.Error)

// Handle adapts h. The error is noted in the request's event, where its cause
// stays; the client sees what render makes of it.
func Handle(h HandlerFunc, render Renderer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := checkQuery(r)
		if err == nil {
			err = h(w, r)
		}
		if err == nil {
			return
		}
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) && !problem.Is(err, problem.TooLarge) {
			err = problem.Wrap(problem.TooLarge, "request_too_large", err, "The request body is larger than the %d bytes that are allowed", tooBig.Limit)
		}
		e := problem.From(err)
		EventFrom(r.Context()).Fail(err)
		if e.RetryAfter > 0 {
			w.Header().Set("Retry-After", seconds(e.RetryAfter))
		}
		render(w, r, e)
	})
}

// checkQuery refuses a query string that net/url reads in part only: a parameter
// that is dropped in silence may be the one that mattered.
func checkQuery(r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return problem.Wrap(problem.Invalid, "invalid_request", err, "The query string cannot be read: separate parameters with &, and encode other characters")
	}
	return nil
}

func seconds(d time.Duration) string {
	b, _ := json.Marshal(int64((d + time.Second - 1) / time.Second))
	return string(b)
}

// JSON writes v with a status. Responses are not cached unless the caller set
// Cache-Control before.
func JSON(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_, err = w.Write(raw)
	return err
}

// Event is what one request leaves in the log. It is filled on the way and
// written once, at the end. Methods are safe for concurrent use.
type Event struct {
	ID string // request id: shown on error pages, sent as X-Request-Id

	mu      sync.Mutex
	attrs   []slog.Attr
	err     error
	routine bool
}

// Set adds a property. Never put a secret or a token into it.
func (e *Event) Set(key string, value any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attrs = append(e.attrs, slog.Any(key, value))
}

// Routine says that the request is one of very many that nobody reads about, such
// as one for a public document: when it goes well it is logged at level debug.
func (e *Event) Routine() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.routine = true
}

// Fail notes the error that the request ended with.
func (e *Event) Fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

type contextKey int

const (
	eventKey contextKey = iota
	addrKey
)

// EventFrom returns the request's event; outside of a request, one that nobody
// writes.
func EventFrom(ctx context.Context) *Event {
	if e, ok := ctx.Value(eventKey).(*Event); ok {
		return e
	}
	return &Event{}
}

// RequestID returns the id of the request, or "".
func RequestID(ctx context.Context) string { return EventFrom(ctx).ID }

// ClientIP is the address of the client: of the connection, or the one that a
// trusted proxy names. It is the zero Addr outside of a request.
func ClientIP(ctx context.Context) netip.Addr {
	a, _ := ctx.Value(addrKey).(netip.Addr)
	return a
}

// WithClientIP returns a context that has the client's address.
func WithClientIP(ctx context.Context, a netip.Addr) context.Context {
	return context.WithValue(ctx, addrKey, a)
}

// Observer is told of each finished request: for metrics. Route is the pattern
// that matched, never the path, so that its values are few.
type Observer func(route, method string, status int, took time.Duration)

// Config of the outermost middleware.
type Config struct {
	Logger *slog.Logger
	// TrustedProxies may say in X-Forwarded-For whom they forward. From anybody else
	// the header is ignored.
	TrustedProxies []netip.Prefix
	// MaxBody bounds request bodies in bytes; 0 means 1 MiB. Handlers that take more
	// say so with http.MaxBytesReader on their own before reading.
	MaxBody  int64
	Observer Observer
	Now      func() time.Time
}

// Middleware wraps everything that a listener serves: it gives the request its
// id, event and client address, bounds the body, survives a panic and writes the
// event.
func Middleware(cfg Config, next http.Handler) http.Handler {
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 1 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := cfg.Now()
		ev := &Event{ID: rand.Text()}
		addr := clientAddr(r, cfg.TrustedProxies)
		ctx := context.WithValue(context.WithValue(r.Context(), eventKey, ev), addrKey, addr)
		r = r.WithContext(ctx)
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(w, r.Body, cfg.MaxBody)
		}
		rec := &recorder{ResponseWriter: w}
		rec.Header().Set("X-Request-Id", ev.ID)
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				cfg.Logger.ErrorContext(ctx, "panic in handler", "request_id", ev.ID, "panic", p, "stack", string(debug.Stack()))
				if rec.status == 0 {
					http.Error(rec, "An internal error occurred. Request id: "+ev.ID, http.StatusInternalServerError)
				}
			}
			took := cfg.Now().Sub(start)
			switch {
			case rec.status == 0:
				rec.status = http.StatusOK
			case rec.status >= 500 && errors.Is(ctx.Err(), context.Canceled):
				rec.status = clientGone
			}
			if cfg.Observer != nil {
				cfg.Observer(r.Pattern, r.Method, rec.status, took)
			}
			write(cfg.Logger, ctx, r, ev, rec, addr, took)
		}()
		next.ServeHTTP(rec, r)
	})
}

// clientGone is what is counted and logged where a client went away before its
// answer was ready: nothing failed here. No client ever sees it.
const clientGone = 499

func write(log *slog.Logger, ctx context.Context, r *http.Request, ev *Event, rec *recorder, addr netip.Addr, took time.Duration) {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	level := slog.LevelInfo
	switch {
	case rec.status >= 500:
		level = slog.LevelError
	case ev.routine && rec.status < 400:
		level = slog.LevelDebug
	}
	if !log.Enabled(ctx, level) {
		return
	}
	// The query and the headers stay out: they carry codes, tokens and tickets.
	attrs := append([]slog.Attr{
		slog.String("request_id", ev.ID), slog.String("method", r.Method), slog.String("host", r.Host),
		slog.String("path", r.URL.Path), slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes),
		slog.String("client_ip", addr.String()), slog.Float64("duration_ms", float64(took.Microseconds())/1000),
	}, ev.attrs...)
	if ev.err != nil {
		attrs = append(attrs, slog.String("error", ev.err.Error()))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}

// clientAddr walks X-Forwarded-For from its end, over trusted proxies only.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && contains(trusted, addr); i-- {
		hop, ok := parseHop(strings.TrimSpace(hops[i]))
		if !ok {
			break // what a proxy did not write, nobody has to believe
		}
		addr = hop.Unmap().WithZone("")
	}
	return addr
}

// parseHop reads an address, with a port as some balancers write it.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a, true
	}
	a, err := netip.ParseAddrPort(s)
	return a.Addr(), err == nil
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
