package problem

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Kind says what sort of failure an Error is; it decides the HTTP status.
type Kind int

// The kinds. Internal is the zero value on purpose: what nobody classified is
// our own fault.
const (
	Internal Kind = iota
	Invalid
	Unauthorized
	Forbidden
	NotFound
	Conflict
	TooLarge
	Limited
	Unavailable
	NotImplemented
)

var statuses = map[Kind]int{
	Internal:       http.StatusInternalServerError,
	Invalid:        http.StatusBadRequest,
	Unauthorized:   http.StatusUnauthorized,
	Forbidden:      http.StatusForbidden,
	NotFound:       http.StatusNotFound,
	Conflict:       http.StatusConflict,
	TooLarge:       http.StatusRequestEntityTooLarge,
	Limited:        http.StatusTooManyRequests,
	Unavailable:    http.StatusServiceUnavailable,
	NotImplemented: http.StatusNotImplemented,
}

// Status is the HTTP status of the kind.
func (k Kind) Status() int { return statuses[k] }

// String is the English name of the kind, as it stands in logs.
func (k Kind) String() string { return http.StatusText(statuses[k]) }

// Error is a failure that somebody can act on. Code and Message are for
// clients; Subject and Err are for the log.
type Error struct {
	Kind       Kind
	Code       string // stable and machine-readable, such as "inexistent_client" or "invalid_grant"
	Message    string // one sentence; names the field, what was wrong and what is allowed
	Subject    string // the thing that it is about: a field, a column, an id
	Status     int    // overrides the kind's HTTP status when not 0
	RetryAfter time.Duration
	Err        error
}

// New makes an Error. The code may be empty where only the kind matters.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap classifies a cause.
func Wrap(kind Kind, code string, err error, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...), Err: err}
}

// About returns a copy that names its subject.
func (e *Error) About(subject string) *Error {
	c := *e
	c.Subject = subject
	return &c
}

// WithStatus returns a copy with another HTTP status, where a wire format wants
// one that differs from its kind's.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// Error is the text for logs: message, subject and cause.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = e.Kind.String()
	}
	if e.Subject != "" {
		s += " (" + e.Subject + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus is the status to answer with.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	return e.Kind.Status()
}

// From finds the Error in a chain. An error that nobody classified becomes an
// Internal one with a fixed sentence.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Code: "internal_error", Message: "An internal error occurred", Err: err}
}

// Is reports whether the chain holds an Error of this kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}
