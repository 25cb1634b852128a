package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// The cookies. Both are host-only by their prefix. The session has SameSite=None:
// silent authentication runs in a frame of the application, and form_post comes
// back across sites. What it could be misused for is guarded otherwise: every
// state-changing page has its own proof of origin, and /authorize gives codes to
// registered redirect URIs alone.
const (
	sessionCookie = "__Host-portcullis"
	browserCookie = "__Host-portcullis-txn"
)

// Session is what a browser that logged in has.
type Session struct {
	ID           string    `json:"id"` // public: the claim sid
	UserID       string    `json:"user_id"`
	ConnectionID string    `json:"connection_id"`
	Connection   string    `json:"connection"`
	Strategy     string    `json:"strategy"`
	AuthTime     time.Time `json:"auth_time"`
	Methods      []string  `json:"amr,omitempty"`
	CreatedAt    time.Time `json:"created_at"`
	SeenAt       time.Time `json:"seen_at"`
	EndsAt       time.Time `json:"ends_at"`    // absolute
	ExpiresAt    time.Time `json:"expires_at"` // idle or absolute, whatever is first
}

// hashed is how a bearer value is stored: who reads the database has no session.
func hashed(value string) string {
	sum := sha256.Sum256([]byte(value))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// session returns the browser's session, or nil. Seeing it moves its idle end on,
// written at most once a minute.
func (p *Provider) session(r *http.Request) (*Session, error) {
	c, err := r.Cookie(sessionCookie)
	if err != nil || len(c.Value) > 128 {
		return nil, nil
	}
	t := tenantOf(r.Context())
	key := hashed(c.Value)
	s, err := tenant.Get[Session](r.Context(), p.docs, t, tenant.KindSession, key)
	if problem.Is(err, problem.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now := p.now()
	if !now.Before(s.ExpiresAt) {
		return nil, nil
	}
	if now.Sub(s.SeenAt) < time.Minute {
		return s, nil
	}
	settings, err := p.dir.Settings(r.Context(), t)
	if err != nil {
		return nil, err
	}
	_, idle := settings.Session()
	err = p.docs.Write(r.Context(), t, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindSession, key, func(s *Session) error {
			s.SeenAt = tx.Now()
			s.ExpiresAt = earlier(s.EndsAt, s.SeenAt.Add(idle))
			return nil
		})
		return err
	})
	if problem.Is(err, problem.NotFound) {
		return nil, nil // ended at this moment
	}
	return s, err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// newSession makes a session for a login and gives the browser its cookie. The
// value is always a new one: what an attacker may have planted is worth nothing.
func (p *Provider) newSession(tx tenant.Tx, settings *tenant.Settings, l Login, value string) (*Session, error) {
	absolute, idle := settings.Session()
	now := tx.Now()
	s := &Session{ID: tenant.RandomString(32), UserID: l.UserID, ConnectionID: l.ConnectionID, Connection: l.Connection, Strategy: l.Strategy,
		AuthTime: l.Time.UTC().Truncate(time.Second), Methods: l.Methods, CreatedAt: now, SeenAt: now, EndsAt: now.Add(absolute),
		ExpiresAt: earlier(now.Add(absolute), now.Add(idle))}
	return s, tenant.Add(tx, tenant.KindSession, hashed(value), s)
}

func setSessionCookie(w http.ResponseWriter, value string, settings *tenant.Settings) {
	c := &http.Cookie{Name: sessionCookie, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode} // #nosec G124 -- SameSite=None: see the cookies' comment
	if settings.SessionCookie.Mode != "non-persistent" {
		absolute, _ := settings.Session()
		c.MaxAge = int(absolute / time.Second)
	}
	http.SetCookie(w, c)
}

// endSession deletes the browser's session and cookie.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) error {
	if c, err := r.Cookie(sessionCookie); err == nil && len(c.Value) <= 128 {
		err := p.docs.Write(r.Context(), tenantOf(r.Context()), func(tx tenant.Tx) error {
			_, err := tx.Delete(tenant.KindSession, hashed(c.Value))
			return err
		})
		if err != nil {
			return err
		}
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode}) // #nosec G124 -- it takes the cookie away
	return nil
}

// browser returns the hash of the value that binds login pages to a browser, and
// plants the value where there is none.
func browser(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(browserCookie); err == nil && len(c.Value) == len(once.New()) {
		return hashed(c.Value)
	}
	value := once.New()
	http.SetCookie(w, &http.Cookie{Name: browserCookie, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode, MaxAge: 86400}) // #nosec G124 -- SameSite=None: see the cookies' comment
	return hashed(value)
}
