package once_test

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

type payload struct{ User string }

func do(t *testing.T, d tenant.Docs, tn string, fn func(tx tenant.Tx) error) error {
	t.Helper()
	return d.Write(t.Context(), tn, fn)
}

func put(t *testing.T, d tenant.Docs, typ once.Type, value string) {
	t.Helper()
	if err := do(t, d, "a", func(tx tenant.Tx) error {
		return once.Put(tx, typ, value, "auth0|1", payload{"ann"}, time.Minute)
	}); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if problem.From(err).Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestTakeWorksOnce(t *testing.T) {
	d := storetest.New(t)
	put(t, d, once.AuthorizationCode, "v")
	take := func(got *payload) error {
		return do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.AuthorizationCode, "v", got) })
	}
	var first, second payload
	if err := take(&first); err != nil || first.User != "ann" {
		t.Fatalf("got %+v, %v", first, err)
	}
	// The second use fails, but tells what the first gave out, so that it can be revoked.
	wantCode(t, take(&second), once.CodeUsed)
	if second.User != "ann" {
		t.Errorf("the data of a used value is %+v", second)
	}
}

func TestTypesAndTenantsAreApart(t *testing.T) {
	d := storetest.New(t)
	put(t, d, once.PasswordReset, "v")
	wantCode(t, do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.EmailVerification, "v", nil) }), once.CodeUnknown)
	wantCode(t, do(t, d, "b", func(tx tenant.Tx) error { return once.Take(tx, once.PasswordReset, "v", nil) }), once.CodeUnknown)
	wantCode(t, do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.PasswordReset, "w", nil) }), once.CodeUnknown)
	if err := do(t, d, "a", func(tx tenant.Tx) error { return once.Peek(tx, once.PasswordReset, "v", &payload{}) }); err != nil {
		t.Errorf("a look took the value: %v", err)
	}
	if err := do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.PasswordReset, "v", nil) }); err != nil {
		t.Errorf("the right type is refused: %v", err)
	}
}

func TestValuesExpire(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "x.db"), store.Options{Sealer: storetest.Sealer(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put(t, d, once.Unblock, "v")
	claim := func() error {
		return do(t, d, "a", func(tx tenant.Tx) error { return once.Claim(tx, once.ClientAssertion, "jti", time.Minute) })
	}
	if err := claim(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, claim(), once.CodeUsed)
	now = now.Add(time.Minute)
	wantCode(t, do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.Unblock, "v", nil) }), once.CodeUnknown)
	if err := claim(); err != nil {
		t.Errorf("a claim that has expired still counts: %v", err)
	}
}

func TestOneOfManyTakesAndClaims(t *testing.T) {
	d := storetest.New(t)
	put(t, d, once.AuthorizationCode, "v")
	var taken, claimed atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.AuthorizationCode, "v", nil) }) == nil {
				taken.Add(1)
			}
			if do(t, d, "a", func(tx tenant.Tx) error { return once.Claim(tx, once.ClientAssertion, "j", time.Minute) }) == nil {
				claimed.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 || claimed.Load() != 1 {
		t.Errorf("%d took and %d claimed, want one each", taken.Load(), claimed.Load())
	}
}

func TestRevokeEndsAllOfASubject(t *testing.T) {
	d := storetest.New(t)
	put(t, d, once.PasswordReset, "v1")
	put(t, d, once.PasswordReset, "v2")
	put(t, d, once.EmailVerification, "v3")
	if err := do(t, d, "a", func(tx tenant.Tx) error {
		n, err := once.Revoke(tx, once.PasswordReset, "auth0|1")
		if n != 2 {
			t.Errorf("revoked %d, want 2", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.PasswordReset, "v1", nil) }), once.CodeUnknown)
	if err := do(t, d, "a", func(tx tenant.Tx) error { return once.Take(tx, once.EmailVerification, "v3", nil) }); err != nil {
		t.Errorf("another type was revoked too: %v", err)
	}
}
