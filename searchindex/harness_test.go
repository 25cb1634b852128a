package searchindex

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// engineURL is the search engine that tests run against. Without one they are
// skipped.
func engineURL(t testing.TB) string {
	t.Helper()
	url := os.Getenv("PORTCULLIS_TEST_OPENSEARCH")
	if url == "" {
		t.Skip("PORTCULLIS_TEST_OPENSEARCH is not set: `scripts/with-opensearch go test ./...` sets it")
	}
	return url
}

// settings are those of an index of the test's own.
func settings(t testing.TB, url string) Config {
	t.Helper()
	cfg := Default()
	cfg.URLs, cfg.Groups, cfg.Prefix = []string{url}, 2, "t"+strings.ToLower(tenant.RandomString(12))
	t.Cleanup(func() {
		e := cfg.engine(http.DefaultClient)
		for _, k := range tenant.Searchable() {
			_ = e.do(context.Background(), http.MethodDelete, "/"+cfg.Prefix+"-"+string(k)+"-*", nil, nil) // the test may have ended the engine
		}
	})
	return cfg
}

// stores opens the store that a test runs on, on each engine.
func stores(t *testing.T, test func(t *testing.T, db *store.Store)) {
	t.Run("sqlite", func(t *testing.T) { test(t, storetest.New(t)) })
	t.Run("postgres", func(t *testing.T) {
		db, err := store.Open(t.Context(), storetest.PostgresDSN(t), store.Options{Sealer: storetest.Sealer(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		test(t, db)
	})
}

// register makes tenants known, as an index is built along them.
func register(t testing.TB, d tenant.Docs, names ...string) {
	t.Helper()
	err := d.Write(t.Context(), tenant.Authority, func(tx tenant.Tx) error {
		for _, n := range names {
			if err := tx.Insert(tenant.KindTenant, n, []byte(`{}`)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// settle works until nothing is left, and lets searches see it.
func settle(t testing.TB, x *Indexer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		busy, err := x.Step(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !busy {
			break
		}
	}
	if err := x.Measure(ctx); err != nil {
		t.Fatal(err)
	}
	if n := x.Queued(); n != 0 {
		t.Fatalf("%d entries are left in the queue", n)
	}
	if err := x.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg Config, db *store.Store) (*Docs, *Indexer) {
	t.Helper()
	db.Index(true)
	d, x := New(cfg, db, &http.Client{Timeout: 30 * time.Second}, Options{Name: "test"})
	x.notice = 0 // there are no other nodes
	return d, x
}
