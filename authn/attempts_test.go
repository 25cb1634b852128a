package authn_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// flaky refuses the writes that broken asks it to.
type flaky struct {
	tenant.Docs
	writes int
	broken func(n int) bool
}

func (f *flaky) Write(ctx context.Context, t string, fn func(tx tenant.Tx) error) error {
	f.writes++
	if f.broken != nil && f.broken(f.writes) {
		return problem.Wrap(problem.Unavailable, "database_full", errors.New("no space left on device"), "the database has no room left")
	}
	return f.Docs.Write(ctx, t, fn)
}

type silent struct{}

func (silent) Append(string, tenant.LogEvent) {}
func (silent) Wake()                          {}

// A user is blocked for wrong passwords, and not for a store that could count an
// attempt and then not note the login.
func TestALoginThatWeFailedIsNoFailedLogin(t *testing.T) {
	docs := &flaky{Docs: storetest.New(t)}
	hasher, err := password.New(password.Config{MemoryKiB: 8192, Time: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := authn.New(docs, tenant.NewDirectory(tenant.Hosts{}, tenant.NewCache(docs, 0)), hasher, silent{}, silent{}, slog.New(slog.DiscardHandler))
	c := &tenant.Connection{ID: "con_1", Name: "users", Strategy: tenant.StrategyDatabase}
	const right = "Correct-horse-7"
	hash, err := hasher.Hash(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	err = docs.Write(t.Context(), "a", func(tx tenant.Tx) error {
		return tenant.CreateUser(tx, c, &tenant.User{Email: "ann@example.com"}, hash)
	})
	if err != nil {
		t.Fatal(err)
	}
	login := func(ctx context.Context, pw string) error {
		docs.writes = 0
		_, err := s.Login(ctx, authn.Attempt{Origin: authn.Origin{IP: "192.0.2.1"}, Tenant: "a", Connection: c, Identifier: "ann@example.com", Password: pw})
		return err
	}
	wrong := func(n int) {
		t.Helper()
		for range n {
			if err := login(t.Context(), "wrong"); problem.From(err).Code != authn.CodeWrong {
				t.Fatalf("a wrong password: %v", err)
			}
		}
	}

	docs.broken = func(n int) bool { return n == 2 } // what notes the login
	for range 12 {
		if err := login(t.Context(), right); !problem.Is(err, problem.Unavailable) {
			t.Fatalf("a store without room: %v", err)
		}
	}
	docs.broken = nil
	wrong(9)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 { // the client is gone before its password is looked at
		if err := login(gone, right); err == nil {
			t.Fatal("who is gone was logged in")
		}
	}
	if err := login(t.Context(), right); err != nil {
		t.Errorf("the right password after nine wrong ones, and failures of ours: %v", err)
	}
	wrong(10)
	if err := login(t.Context(), right); problem.From(err).Code != authn.CodeTooMany {
		t.Errorf("after ten wrong ones: %v", err)
	}
}
