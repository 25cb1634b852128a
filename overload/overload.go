package overload

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// Class is what a request is for. The lower the value, the longer it is served.
type Class int

// The classes, the first to live first. Health checks have none: they never wait.
const (
	Admin  Class = iota // the Management API
	Token               // tokens, userinfo, introspection
	Login               // pages and their forms
	Search              // queries that read much
	classes
)

// String is the class as metrics and logs name it.
func (c Class) String() string {
	switch c {
	case Admin:
		return "admin"
	case Token:
		return "token"
	case Login:
		return "login"
	}
	return "search"
}

// Classes lists all classes.
func Classes() []Class { return []Class{Admin, Token, Login, Search} }

// Config of a Gate. The zero value fits the machine.
type Config struct {
	Slots int // requests at work at the same time; 0 means one more than Go has schedulers
	Queue int // requests of one class that wait; 0 means 128 for each slot
	Now   func() time.Time
}

// stuck is how long the first of a queue may wait before its class counts as not
// served at all: who comes then is turned away at once.
const stuck = 250 * time.Millisecond

// retryAfter is what those who are turned away are told.
const retryAfter = time.Second

// Gate admits requests. It is safe for concurrent use.
type Gate struct {
	slots, queue int
	now          func() time.Time

	mu      sync.Mutex
	free    int // below 0 when paused requests came back to a full house
	waiting [classes][]*waiter
	shed    [classes]uint64
}

type waiter struct {
	admitted chan struct{}
	since    time.Time
}

// New makes a Gate.
func New(cfg Config) *Gate {
	if cfg.Slots <= 0 {
		cfg.Slots = runtime.GOMAXPROCS(0) + 1
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 128 * cfg.Slots
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gate{slots: cfg.Slots, queue: cfg.Queue, now: cfg.Now, free: cfg.Slots}
}

// reserve is how many slots a class leaves to those above it.
func (g *Gate) reserve(c Class) int { return g.slots * int(c) / 6 }

type ticketKey struct{}

// ticket is one request's right to work.
type ticket struct {
	gate *Gate
	mu   sync.Mutex
	held bool
}

// Enter waits for a slot and returns a context that carries it, with the function
// that gives it back. It fails with problem.Unavailable and "overloaded" when the
// request is turned away, and with ctx's error when that ends first.
func (g *Gate) Enter(ctx context.Context, c Class) (context.Context, func(), error) {
	g.mu.Lock()
	if len(g.waiting[c]) == 0 && g.free > g.reserve(c) {
		g.free--
		g.mu.Unlock()
		return g.admit(ctx)
	}
	if q := g.waiting[c]; len(q) >= g.queue || len(q) > 0 && g.now().Sub(q[0].since) > stuck {
		g.shed[c]++
		g.mu.Unlock()
		e := problem.New(problem.Unavailable, "overloaded", "This server has more to do than it can at this moment; try again in a second")
		e.RetryAfter = retryAfter
		return ctx, func() {}, e
	}
	w := &waiter{make(chan struct{}), g.now()}
	g.waiting[c] = append(g.waiting[c], w)
	g.mu.Unlock()
	select {
	case <-w.admitted:
		return g.admit(ctx)
	case <-ctx.Done():
		if g.forget(c, w) {
			return ctx, func() {}, ctx.Err()
		}
		// Admitted at the same moment: the slot goes to the next.
		g.release()
		return ctx, func() {}, ctx.Err()
	}
}

func (g *Gate) admit(ctx context.Context) (context.Context, func(), error) {
	t := &ticket{gate: g, held: true}
	return context.WithValue(ctx, ticketKey{}, t), t.leave, nil
}

// forget takes a waiter out of its queue, and reports whether it was there.
func (g *Gate) forget(c Class, w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range g.waiting[c] {
		if other == w {
			g.waiting[c] = append(g.waiting[c][:i:i], g.waiting[c][i+1:]...)
			return true
		}
	}
	return false
}

// release gives a slot to the first of the highest class that waits, or back.
func (g *Gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free++
	for c := range classes {
		for len(g.waiting[c]) > 0 && g.free > g.reserve(c) {
			g.free--
			close(g.waiting[c][0].admitted)
			g.waiting[c][0] = nil
			g.waiting[c] = g.waiting[c][1:]
		}
	}
}

func (t *ticket) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held {
		t.held = false
		t.gate.release()
	}
}

// Pause gives the slot of a request back while it waits for something that is no
// work of this machine's processors. The function that it returns takes a slot
// again, without a wait: who was admitted once is served to the end. Without a
// slot in ctx both do nothing.
func Pause(ctx context.Context) (resume func()) {
	t, _ := ctx.Value(ticketKey{}).(*ticket)
	if t == nil {
		return func() {}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.held {
		return func() {} // paused by a caller already
	}
	t.held = false
	t.gate.release()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.held = true
		t.gate.mu.Lock()
		defer t.gate.mu.Unlock()
		t.gate.free--
	}
}

// Shed is how many requests of a class were turned away.
func (g *Gate) Shed(c Class) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shed[c]
}

// Waiting is how many requests of a class wait now.
func (g *Gate) Waiting(c Class) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting[c])
}
