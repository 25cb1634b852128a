package page

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"

	"github.com/portcullis-id/portcullis/problem"
)

// formCookie holds what proves that a form came from a page that we gave to the
// same browser. Its prefix keeps other hosts of the domain from planting one.
const formCookie = "__Host-portcullis-form"

// TokenField is the name of the hidden field with the proof.
const TokenField = "form"

const (
	secretBytes = 32
	maxForm     = 64 << 10 // bytes; the largest field is a sealed transaction of 16 KiB
)

// CodeCrossSite is the code of a POST that did not come from a page of ours
// (problem.Forbidden).
const CodeCrossSite = "cross_site_request"

// Protect fills in the view's Token for forms that post to path, and gives the
// browser the cookie that belongs to it.
func (k *Kit) Protect(w http.ResponseWriter, r *http.Request, v *View, path string) {
	secret := formSecret(r)
	if secret == "" {
		b := make([]byte, secretBytes)
		rand.Read(b) // never fails: crypto/rand ends the program instead
		secret = base64.RawURLEncoding.EncodeToString(b)
		http.SetCookie(w, &http.Cookie{Name: formCookie, Value: secret, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	v.Token = formToken(secret, path)
}

func formSecret(r *http.Request) string {
	c, err := r.Cookie(formCookie)
	if err != nil || len(c.Value) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return ""
	}
	return c.Value
}

// formToken belongs to one path, so that what one page shows opens no other.
func formToken(secret, path string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(path))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// CheckForm reads a posted form and fails with problem.Forbidden and
// CodeCrossSite unless it came from a page of ours in the same browser.
func (k *Kit) CheckForm(w http.ResponseWriter, r *http.Request) error {
	cross := problem.New(problem.Forbidden, CodeCrossSite,
		"This form was not sent from our own page, or your browser did not send our cookie along. Go back, reload the page and try again.")
	if err := k.guard.Check(r); err != nil {
		cross.Err = err
		return cross
	}
	if err := ReadForm(w, r); err != nil {
		return err
	}
	secret := formSecret(r)
	if secret == "" || !hmac.Equal([]byte(formToken(secret, r.URL.Path)), []byte(r.PostForm.Get(TokenField))) {
		return cross
	}
	return nil
}

// ReadForm parses a posted form of bounded size.
func ReadForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read; allowed is application/x-www-form-urlencoded of at most %d bytes", maxForm)
	}
	return nil
}
