package chaos

import (
	"fmt"
	"sync"
	"time"
)

// Kind is what an operation does.
type Kind string

// The operations of the load.
const (
	Login    Kind = "login"         // authorization code flow with a password, up to the code
	Session  Kind = "session"       // the same flow of a browser that is logged in
	Redeem   Kind = "redeem code"   // Key and Token are the code, Next is the refresh token
	Refresh  Kind = "refresh"       // Key is the family; Token goes in, Next comes out
	Revoke   Kind = "revoke"        // Key is the family
	UserInfo Kind = "userinfo"      // Key is the family
	Machine  Kind = "machine token" // client_credentials; Key is the application, Token its secret
	Rotate   Kind = "rotate secret" // Key is the application, Next its new secret
	Create   Kind = "create user"   // Key is the mail address
	Find     Kind = "find user"     // Value is how many there are; at the end, for every Create
	Write    Kind = "write"         // Key is a user, Value what was written
	Read     Kind = "read"          // Key is a user, Value what was read
	Take     Kind = "take"          // one token of a rate limit that nothing refills; Key is its key
	Searched Kind = "search"        // a query that the search engine alone answers
	// Granted is no request: Next is the first refresh token of a family, or the first
	// secret of an application.
	Granted Kind = "granted"
)

// Outcome is what is known of an operation.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"      // it was acknowledged
	Refused Outcome = "refused" // it was refused for what was asked, as a used code is
	Unknown Outcome = "unknown" // no answer, or an error: it may have happened
)

// Op is one operation, seen from its client.
type Op struct {
	Kind    Kind
	Key     string
	Token   string
	Next    string
	Value   int
	Outcome Outcome
	Status  int // of HTTP, 0 without an answer
	Error   string
	// Call and Return are since the history began.
	Call, Return time.Duration
}

// History is what happened, from several goroutines.
type History struct {
	began time.Time

	mu    sync.Mutex
	ops   []Op
	marks []Mark
}

// Mark is a moment of the scenario, such as the beginning of a fault.
type Mark struct {
	Name string
	At   time.Duration
}

// NewHistory begins now.
func NewHistory() *History { return &History{began: time.Now()} }

// Now is the time since the beginning.
func (h *History) Now() time.Duration { return time.Since(h.began) }

// Record adds an operation.
func (h *History) Record(op Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// Mark notes a moment.
func (h *History) Mark(format string, args ...any) time.Duration {
	at := h.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks = append(h.marks, Mark{fmt.Sprintf(format, args...), at})
	return at
}

// Marks are the moments so far, in order.
func (h *History) Marks() []Mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Mark(nil), h.marks...)
}

// Ops are the operations so far, in the order of their returns.
func (h *History) Ops() []Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Op(nil), h.ops...)
}
