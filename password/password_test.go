package password_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

func hasher(t testing.TB, cfg password.Config) *password.Hasher {
	t.Helper()
	if cfg.MemoryKiB == 0 {
		cfg.MemoryKiB, cfg.Time = 8192, 1
	}
	h, err := password.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestOwnHashes(t *testing.T) {
	h := hasher(t, password.Config{})
	hash, err := h.Hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=8192,t=1,p=1$") {
		t.Fatalf("got %s, %v", hash, err)
	}
	if again, _ := h.Hash(t.Context(), "correct horse"); again == hash {
		t.Error("two hashes of one password are equal: there is no salt")
	}
	for plain, want := range map[string]bool{"correct horse": true, "correct hors": false, "": false, strings.Repeat("x", 10<<20): false} {
		if ok, rehash, err := h.Verify(t.Context(), hash, plain); ok != want || rehash || err != nil {
			t.Errorf("a password of %d bytes: %v, %v, %v", len(plain), ok, rehash, err)
		}
	}
	stronger := hasher(t, password.Config{MemoryKiB: 16384, Time: 1})
	if ok, rehash, err := stronger.Verify(t.Context(), hash, "correct horse"); !ok || !rehash || err != nil {
		t.Errorf("a hash of weaker parameters: %v, %v, %v; want it to be made anew", ok, rehash, err)
	}
	if _, err := h.Hash(t.Context(), strings.Repeat("x", password.MaxLength+1)); !problem.Is(err, problem.Invalid) {
		t.Errorf("a password that is too long: %v", err)
	}
}

// The digests were made with Python's hashlib.
func TestImportedHashes(t *testing.T) {
	tests := []struct{ name, in, plain string }{
		{"bcrypt 2b", `{"algorithm":"bcrypt","hash":{"value":"` + bcrypted(t, "password") + `"}}`, "password"},
		{"md5 hex", `{"algorithm":"md5","hash":{"value":"5f4dcc3b5aa765d61d8327deb882cf99","encoding":"hex"}}`, "password"},
		{"sha1 base64", `{"algorithm":"sha1","hash":{"value":"W6ph5Mm5Pz8GgiULbPgzG37mj9g=","encoding":"base64"}}`, "password"},
		{"sha256 salt first", `{"algorithm":"sha256","hash":{"value":"` + "13601bda4ea78e55a07b98866d2be6be0744e3866f13c00c811cab608a28f322" + `","encoding":"hex"},"salt":{"value":"salt","position":"prefix"}}`, "password"},
		{"ldap SHA", `{"algorithm":"ldap","hash":{"value":"{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="}}`, "password"},
		{"hmac sha1", `{"algorithm":"hmac","hash":{"value":"a462b4d910544d3ffb39f3a64017f65e029b73fb","encoding":"hex","digest":"sha1","key":{"value":"secret","encoding":"utf8"}}}`, "password"},
		{"pbkdf2 sha256", `{"algorithm":"pbkdf2","hash":{"value":"$pbkdf2-sha256$i=1000,l=32$c2FsdA$YywoEuRtRgQQK6dhjp1tfS+BKPYma0oDJk0qBGC33LM","encoding":"utf8"}}`, "password"},
	}
	h := hasher(t, password.Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hash, err := password.Import(json.RawMessage(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if ok, _, err := h.Verify(t.Context(), hash, "wrong"); ok || err != nil {
				t.Errorf("a wrong password: %v, %v", ok, err)
			}
			if ok, rehash, err := h.Verify(t.Context(), hash, tt.plain); !ok || !rehash || err != nil {
				t.Errorf("the right password: %v, %v, %v", ok, rehash, err)
			}
		})
	}
}

func bcrypted(t *testing.T, plain string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(plain), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func TestImportRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"an unknown algorithm", `{"algorithm":"rot13","hash":{"value":"x"}}`, "allowed are argon2, bcrypt"},
		{"not an object", `7`, "wants an object"},
		{"a bcrypt cost without bounds", `{"algorithm":"bcrypt","hash":{"value":"$2b$31$Cl0WvEpFiMgv5.pvgJVN8.F0ibzMwhmV7YYInG5lQbABlmGyAj9Xu"}}`, "out of bounds"},
		{"argon2 memory without bounds", `{"algorithm":"argon2","hash":{"value":"$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}}`, "out of bounds"},
		{"pbkdf2 iterations without bounds", `{"algorithm":"pbkdf2","hash":{"value":"$pbkdf2-sha256$i=999999999,l=32$c2FsdA$YywoEuRtRgQQK6dhjp1tfS+BKPYma0oDJk0qBGC33LM"}}`, "out of bounds"},
		{"a hash of the wrong length", `{"algorithm":"sha256","hash":{"value":"abcd","encoding":"hex"}}`, "32 bytes"},
		{"an unknown salt position", `{"algorithm":"md5","hash":{"value":"5f4dcc3b5aa765d61d8327deb882cf99"},"salt":{"value":"x","position":"middle"}}`, "prefix, suffix"},
		{"hmac without a key", `{"algorithm":"hmac","hash":{"value":"00","digest":"sha256"}}`, "hash.key"},
		{"ldap of no known scheme", `{"algorithm":"ldap","hash":{"value":"{CRYPT}xx"}}`, "{SSHA}"},
		{"a hash without end", `{"algorithm":"bcrypt","hash":{"value":"$2b$` + strings.Repeat("0", 4000) + `"}}`, "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := password.Import(json.RawMessage(tt.in))
			if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestN32 is the password part of the case: long ones, breached ones, endless ones.
func TestN32NewPasswords(t *testing.T) {
	opts := func(in string) tenant.DatabaseOptions {
		return (&tenant.Connection{Options: json.RawMessage(in)}).DatabaseOptions()
	}
	ann := &tenant.User{Email: "annabel@example.com", Name: "Annabel Fox"}
	tests := []struct {
		name, opts, plain, want string
	}{
		{"good by default", `{}`, "correct horse", ""},
		{"64 characters", `{}`, strings.Repeat("ab3$", 16), ""},
		{"too short", `{}`, "short", "At least 8 characters"},
		{"common", `{}`, "Password123", "too common"},
		{"endless", `{}`, strings.Repeat("a", 10<<20), "longer than"},
		{"NUL", `{}`, "abcdefgh\x00", "cannot be used"},
		{"none allows one character", `{"passwordPolicy":"none"}`, "x", ""},
		{"low wants six", `{"passwordPolicy":"low"}`, "zqxwv", "At least 6"},
		{"fair wants three classes", `{"passwordPolicy":"fair"}`, "alllowercase1", "upper-case"},
		{"fair", `{"passwordPolicy":"fair"}`, "Mixedcase1", ""},
		{"good takes special characters", `{"passwordPolicy":"good"}`, "mixed-case1", ""},
		{"excellent refuses runs", `{"passwordPolicy":"excellent"}`, "Mixxxed-case1", "in a row"},
		{"own minimum", `{"password_complexity_options":{"min_length":12}}`, "elevenchars", "At least 12"},
		{"dictionary", `{"password_dictionary":{"enable":true,"dictionary":["portcullis"]}}`, "Portcullis", "too common"},
		{"personal", `{"password_no_personal_info":{"enable":true}}`, "i-am-annabel", "information about the user"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := password.NewPolicy(opts(tt.opts)).Check(tt.plain, ann)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (problem.From(err).Code != "invalid_password" || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestHistory(t *testing.T) {
	h := hasher(t, password.Config{})
	hash := func(s string) string {
		out, err := h.Hash(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var o tenant.DatabaseOptions
	o.PasswordHistory.Enable, o.PasswordHistory.Size = true, 2
	p := password.NewPolicy(o)
	present, former := hash("third"), []string{hash("second"), hash("first")}
	for plain, refused := range map[string]bool{"third": true, "second": true, "first": false, "fourth": false} {
		if err := p.CheckHistory(t.Context(), h, plain, present, former); (err != nil) != refused {
			t.Errorf("%s: %v", plain, err)
		}
	}
}

func TestAFloodIsRefusedFast(t *testing.T) {
	h := hasher(t, password.Config{Workers: 1, Queue: 2, MemoryKiB: 8192, Time: 1})
	var refused, done atomic.Int32
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			err := h.Pretend(t.Context(), "x")
			var e = problem.From(err)
			switch {
			case err == nil:
				done.Add(1)
			case e.Code == "too_many_logins" && e.RetryAfter > 0:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done.Load() < 1 || refused.Load() < 1 || h.Waiting() != 0 {
		t.Errorf("%d done, %d refused, %d still waiting", done.Load(), refused.Load(), h.Waiting())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// A caller that has gone gives its place back.
	_ = h.Pretend(ctx, "x")
	if h.Waiting() != 0 {
		t.Error("a place was lost")
	}
}

func FuzzImport(f *testing.F) {
	for _, s := range []string{`{"algorithm":"bcrypt","hash":{"value":"$2b$04$x"}}`, `{"algorithm":"argon2","hash":{"value":"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg"}}`,
		`{"algorithm":"ldap","hash":{"value":"{SSHA}"}}`, `{"algorithm":"scrypt","hash":{"value":"$scrypt$ln=1,r=1,p=1$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg"}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := password.Import(json.RawMessage(in)); err != nil && !problem.Is(err, problem.Invalid) {
			t.Errorf("got %v, want Invalid", err)
		}
	})
}
