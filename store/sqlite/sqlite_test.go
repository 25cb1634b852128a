package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/store/sqlite"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) tenant.Docs { return storetest.New(t) })
}

func TestSecretsAreSealedInTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := sqlite.Open(t.Context(), path, storetest.Sealer(t), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), "a", func(tx tenant.Tx) error {
		return tx.Insert(tenant.KindConnection, "c", []byte(`{"name":"visible-name","options":{"client_secret":"hidden-secret"}}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("hidden-secret")) || !bytes.Contains(raw, []byte("visible-name")) {
		t.Error("the file holds the secret in the clear, or not the document")
	}
}

func TestOpenRefuses(t *testing.T) {
	sealer := storetest.Sealer(t)
	good := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "x.db")
		db, err := sqlite.Open(t.Context(), path, sealer, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name string
		path func(t *testing.T) string
		key  bool // another master key
		code string
		says string
	}{
		{"a file that is no database", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "x.db")
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database at all. "), 400), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, false, "database_corrupt", "restore it from a backup"},
		{"a torn file", func(t *testing.T) string {
			path := good(t)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 4096; i < len(raw)-4096; i++ {
				raw[i] ^= 0x5a
			}
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, false, "database_corrupt", "restore it from a backup"},
		{"a file that was cut off", func(t *testing.T) string {
			path := large(t, good(t), sealer)
			if err := os.Truncate(path, 17<<20); err != nil {
				t.Fatal(err)
			}
			return path
		}, false, "database_corrupt", "its header says"},
		{"a database of another master key", good, true, "wrong_master_key", "start with the key that the data was written with"},
		{"a database of a newer schema", func(t *testing.T) string {
			path := good(t)
			storetest.SetSchemaVersion(t, path, 9999)
			return path
		}, false, "schema_too_new", "a newer Portcullis has used it"},
		{"a database that another node holds", func(t *testing.T) string {
			path := good(t)
			db, err := sqlite.Open(t.Context(), path, sealer, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			return path
		}, false, "database_locked", "in use by another node (process"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, key := tt.path(t), sealer
			if tt.key {
				key = storetest.Sealer(t)
			}
			db, err := sqlite.Open(t.Context(), path, key, time.Now)
			if err == nil {
				db.Close()
				t.Fatal("it was opened")
			}
			e := problem.From(err)
			if e.Code != tt.code || !strings.Contains(e.Message, tt.says) || !strings.Contains(e.Message, path) {
				t.Errorf("got %s: %v", e.Code, err)
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	db := storetest.New(b)
	doc := []byte(`{"family":"f","user_id":"auth0|1","client_id":"c","expires_at":"2027-01-01T00:00:00Z","scope":["openid","profile"]}`)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := tenant.RandomString(20)
			if err := db.Write(b.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindRefreshToken, id, doc) }); err != nil {
				b.Error(err)
			}
		}
	})
}

// large grows a database beyond what is looked through at the start.
func large(t *testing.T, path string, sealer *seal.Sealer) string {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, sealer, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", 30_000)
	err = db.Write(t.Context(), "t", func(tx tenant.Tx) error {
		for i := range 700 {
			if err := tenant.Add(tx, tenant.KindLog, fmt.Sprintf("%056d", i), map[string]string{"type": "s", "description": filler}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() < 20<<20 {
		t.Fatalf("the database is too small for the test: %v", err)
	}
	return path
}

func TestVerifyFindsDamageThatTheStartDoesNotLookFor(t *testing.T) {
	sealer := storetest.Sealer(t)
	path := large(t, filepath.Join(t.TempDir(), "x.db"), sealer)
	if err := sqlite.Verify(t.Context(), path); err != nil {
		t.Fatalf("a good database: %v", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := int64(10 << 20); at < 11<<20; at += 4096 { // the heads of pages in the middle
		if _, err := f.WriteAt(bytes.Repeat([]byte{0x5a}, 64), at); err != nil {
			t.Fatal(err)
		}
	}
	db, err := sqlite.Open(t.Context(), path, sealer, time.Now)
	if err != nil {
		t.Fatalf("the start looks through a large file: %v", err)
	}
	defer db.Close()
	damage := sqlite.Verify(t.Context(), path) // beside the node
	if problem.From(damage).Code != "database_corrupt" || !strings.Contains(damage.Error(), path) {
		t.Fatalf("got %v", damage)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("ping before anybody knows: %v", err)
	}
	db.SetDamaged(damage)
	if err := db.Ping(t.Context()); !errors.Is(err, damage) {
		t.Errorf("ping of a damaged database: %v", err)
	}
	if err := sqlite.Verify(t.Context(), path+".gone"); problem.From(err).Code != "no_database" {
		t.Errorf("no file: %v", err)
	}
}
