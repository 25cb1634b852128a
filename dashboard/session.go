package dashboard

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// setupCookie carries the value that leads through the steps after the first.
const setupCookie = "__Host-portcullis-setup"

const (
	linkTTL    = 24 * time.Hour // appliance.Ready says so
	sessionTTL = time.Hour
	loginTTL   = 15 * time.Minute // of a test login
)

const linkSubject = "link"

// Uses of values of type once.Setup, kept apart so that none serves as another.
const (
	useLink    = "link"
	useSession = "session"
	useLogin   = "login"
)

// ticket is what a value of type once.Setup stands for.
type ticket struct {
	Use      string `json:"use"`
	Tenant   string `json:"tenant,omitempty"`
	ClientID string `json:"client_id,omitempty"`

	// Of a test login.
	Session   string   `json:"session,omitempty"` // hash of the cookie's value
	Nonce     string   `json:"nonce,omitempty"`
	Verifier  string   `json:"verifier,omitempty"`  // RFC 7636
	Callbacks []string `json:"callbacks,omitempty"` // of the application, without ours
}

func setCookie(w http.ResponseWriter, value string) {
	// Lax: the test login comes back from another host.
	http.SetCookie(w, &http.Cookie{Name: setupCookie, Value: value, Path: "/", MaxAge: int(sessionTTL / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// open returns the value of the browser's cookie and what it stands for.
func (s *Setup) open(r *http.Request) (string, ticket, error) {
	var t ticket
	c, err := r.Cookie(setupCookie)
	if err != nil || len(c.Value) > 128 {
		return "", t, errSession(err)
	}
	err = s.deps.Docs.Write(r.Context(), s.cfg.Root, func(tx tenant.Tx) error {
		t = ticket{}
		return once.Peek(tx, once.Setup, c.Value, &t)
	})
	if code := problem.From(err).Code; code == once.CodeUnknown || code == once.CodeUsed || err == nil && t.Use != useSession {
		return "", t, errSession(err)
	}
	return c.Value, t, err
}

func errSession(cause error) error {
	return problem.Wrap(problem.Forbidden, "setup_session_ended", cause,
		"The set-up has ended in this browser: it stays open for an hour after its last step. Go on with the Management API or the command line: portcullis admin token.")
}

// session opens the set-up for the steps after the first. A form has to carry the
// proof that it came from the page before.
func (s *Setup) session(h func(w http.ResponseWriter, r *http.Request, value string, t ticket) error) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		value, t, err := s.open(r)
		if err != nil {
			return err
		}
		if r.Method == http.MethodPost && !hmac.Equal([]byte(r.PostForm.Get("form")), []byte(formToken(value, r.URL.Path))) {
			return problem.New(problem.Forbidden, "cross_site_request", "This form was not sent from our own page. Go back, reload the page and try again.")
		}
		return h(w, r, value, t)
	}
}

// move ends one value of the session and goes on with another.
func (s *Setup) move(w http.ResponseWriter, r *http.Request, old string, t ticket) error {
	value := once.New()
	err := s.deps.Docs.Write(r.Context(), s.cfg.Root, func(tx tenant.Tx) error {
		if err := once.Take(tx, once.Setup, old, nil); err != nil {
			return err
		}
		return once.Put(tx, once.Setup, value, useSession, t, sessionTTL)
	})
	if code := problem.From(err).Code; code == once.CodeUnknown || code == once.CodeUsed {
		return errSession(err) // another window was quicker
	}
	if err != nil {
		return err
	}
	setCookie(w, value)
	return nil
}

// formToken proves that a form came from a page that we gave to the browser with
// the cookie.
func formToken(value, path string) string {
	m := hmac.New(sha256.New, []byte(value))
	m.Write([]byte(path))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func hashed(value string) string {
	sum := sha256.Sum256([]byte(value))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
