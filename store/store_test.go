package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// dsns runs a test on both engines.
func dsns(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "x.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.PostgresDSN(t)) })
}

func key(t *testing.T, b byte) []byte {
	t.Helper()
	return bytes.Repeat([]byte{b}, seal.KeySize)
}

func sealer(t *testing.T, keys ...[]byte) *seal.Sealer {
	t.Helper()
	s, err := seal.New(keys[0], keys[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, dsn string, s *seal.Sealer, now func() time.Time) *store.Store {
	t.Helper()
	db, err := store.Open(t.Context(), dsn, store.Options{Sealer: s, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestMasterKeyRotates(t *testing.T) {
	dsns(t, func(t *testing.T, dsn string) {
		old, next := key(t, 1), key(t, 2)
		db := open(t, dsn, sealer(t, old), nil)
		for i := range 250 {
			err := db.Write(t.Context(), "a", func(tx tenant.Tx) error {
				return tx.Insert(tenant.KindClient, tenant.RandomString(8), []byte(`{"name":"n","client_secret":"secret-`+string(rune('a'+i%26))+`"}`))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		// Broken off after the first batch, as by a crash: both keys open everything.
		ctx, cancel := context.WithCancel(t.Context())
		_, err := db.RotateMaster(ctx, sealer(t, next, old), func(int) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		db.Close()
		db = open(t, dsn, sealer(t, old, next), nil)
		page, err := db.Find(t.Context(), "a", tenant.KindClient, tenant.Query{})
		if err != nil || len(page.Records) != 250 {
			t.Fatalf("%d clients, %v", len(page.Records), err)
		}
		last := 0
		done, err := db.RotateMaster(t.Context(), sealer(t, next, old), func(n int) { last = n })
		if err != nil || done == 0 || done >= 250 || last != done {
			t.Fatalf("the second run sealed %d again (progress %d), %v; want those that the first left", done, last, err)
		}
		db.Close()
		if _, err := store.Open(t.Context(), dsn, store.Options{Sealer: sealer(t, old)}); problem.From(err).Code != "wrong_master_key" {
			t.Errorf("the old key still opens the database: %v", err)
		}
		db = open(t, dsn, sealer(t, next), nil)
		defer db.Close()
		page, err = db.Find(t.Context(), "a", tenant.KindClient, tenant.Query{})
		if err != nil || len(page.Records) != 250 || !strings.Contains(string(page.Records[0].Doc), "secret-") {
			t.Errorf("the new key alone does not open everything: %v", err)
		}
	})
}

func TestPurgeDeletesWhatExpired(t *testing.T) {
	dsns(t, func(t *testing.T, dsn string) {
		now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
		db := open(t, dsn, sealer(t, key(t, 1)), func() time.Time { return now })
		defer db.Close()
		for _, tn := range []string{"a", "b"} {
			err := db.Write(t.Context(), tn, func(tx tenant.Tx) error {
				for i := range 600 {
					end := now.Add(time.Duration(i-300) * time.Hour)
					if err := tx.Insert(tenant.KindOnce, tenant.RandomString(10), []byte(`{"type":"x","expires_at":"`+end.Format(time.RFC3339)+`"}`)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		n, err := db.Purge(t.Context())
		if err != nil || n != 600 {
			t.Errorf("purged %d, %v; want 300 of each tenant", n, err)
		}
		if n, err := db.Purge(t.Context()); err != nil || n != 0 {
			t.Errorf("the second purge: %d, %v", n, err)
		}
	})
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	made, err := seal.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal.LoadKey(path)
	if err != nil || !bytes.Equal(got, made) {
		t.Errorf("got another key, %v", err)
	}
	if _, err := seal.CreateKey(path); !problem.Is(err, problem.Conflict) {
		t.Errorf("an existing key was overwritten: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read was taken: %v", err)
	}
	if _, err := seal.DecodeKey("c2hvcnQ="); err == nil {
		t.Error("a short key was taken")
	}
}

func TestSealedTextBelongsToItsPlace(t *testing.T) {
	s := sealer(t, key(t, 1))
	sealed, err := s.Seal("secret", "a|clients|1|client_secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(sealed, "b|clients|1|client_secret"); err == nil {
		t.Error("a secret was opened for another tenant")
	}
	if _, err := s.Open(sealed[:len(sealed)-4]+"AAAA", "a|clients|1|client_secret"); err == nil {
		t.Error("a damaged secret was opened")
	}
	if _, err := sealer(t, key(t, 2)).Open(sealed, "a|clients|1|client_secret"); problem.From(err).Code != "unknown_master_key" {
		t.Errorf("another key: %v", err)
	}
}
