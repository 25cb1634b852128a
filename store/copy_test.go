package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/docsql"
	"github.com/portcullis-id/portcullis/tenant"
)

// left are the kinds that are not copied to a single node.
var left = []tenant.Kind{tenant.KindMember, tenant.KindCluster, tenant.KindChange, tenant.KindSearchQueue, tenant.KindSearchGroup}

func sqliteDSN(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "x.db") }

// fill writes documents of every kind for two tenants, n of the larger kinds, with
// what engines write in different ways, and counts what Copy has to carry anywhere.
func fill(t *testing.T, dsn string, n int) (documents int) {
	t.Helper()
	db := open(t, dsn, sealer(t, key(t, 1)), nil)
	defer db.Close()
	for _, tn := range []string{"a", "Ä b"} {
		for _, c := range tenant.Collections() {
			n := n
			if c.Kind != tenant.KindUser && c.Kind != tenant.KindLog {
				n = min(n, 5)
			}
			if !slices.Contains(left, c.Kind) {
				documents += n
			}
			err := db.Write(t.Context(), tn, func(tx tenant.Tx) error {
				for i := range n {
					doc := fmt.Sprintf(`{"z":1.50,"b":1e2,"a":-0.0,"big":12345678901234567890123,"text":"ü\\u00e4 <%d>","name":"n%d","email":"N%d@Example.com","client_secret":"secret-%d","private_key":"key-%d","created_at":"2026-01-02T03:04:05.678Z","list":[3,1,{"y":null,"x":true}]}`, i, i, i, i, i)
					if err := tx.Insert(c.Kind, fmt.Sprintf("%s|ID %d", []string{"x", "X", "_", "é"}[i%4], i), []byte(doc)); err != nil {
						return err
					}
				}
				rec, err := tx.Get(c.Kind, "x|ID 0")
				if err != nil {
					return err
				}
				return tx.Replace(c.Kind, rec) // version 2
			})
			if err != nil {
				t.Fatalf("%s: %v", c.Kind, err)
			}
		}
	}
	return documents
}

func copyStore(ctx context.Context, t *testing.T, from, to string, progress func(store.CopyProgress)) (store.Copied, error) {
	t.Helper()
	if progress == nil {
		progress = func(store.CopyProgress) {}
	}
	return store.Copy(ctx, from, to, store.Options{Sealer: sealer(t, key(t, 1))}, progress)
}

// TestCopyThereAndBack: from SQLite to PostgreSQL and back nothing is lost, and the
// checksums of both engines are equal.
func TestCopyThereAndBack(t *testing.T) {
	dsns(t, func(t *testing.T, middle string) {
		first, last := sqliteDSN(t), sqliteDSN(t)
		documents := fill(t, first, 9)
		there, err := copyStore(t.Context(), t, first, middle, nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := copyStore(t.Context(), t, middle, last, nil)
		if err != nil {
			t.Fatal(err)
		}
		sums := map[string]string{}
		for _, s := range there.Sets {
			sums[string(s.Kind)+"|"+s.Tenant] = s.Checksum
		}
		for _, s := range back.Sets {
			if sums[string(s.Kind)+"|"+s.Tenant] != s.Checksum {
				t.Errorf("%s of %s have another checksum after the way back", s.Kind, s.Tenant)
			}
		}
		var out []tenant.Kind
		for _, l := range back.LeftOut {
			out = append(out, l.Kind)
		}
		kinds := len(tenant.Collections())
		if !slices.Equal(out, left) || len(back.Sets) != 2*(kinds-len(left)) || back.Documents != documents || back.Resumed || back.Repaired != 0 {
			t.Errorf("%d sets with %d documents came back, %+v were left out", len(back.Sets), back.Documents, back.LeftOut)
		}
		db := open(t, last, sealer(t, key(t, 1)), nil)
		defer db.Close()
		rec, err := db.Get(t.Context(), "Ä b", tenant.KindClient, "x|ID 0")
		if err != nil || rec.Version != 2 || !strings.Contains(string(rec.Doc), `"secret-0"`) || !strings.Contains(string(rec.Doc), "12345678901234567890123") {
			t.Errorf("a client came back as %+v %s, %v", rec, rec.Doc, err)
		}
		page, err := db.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Where: []tenant.Cond{{Column: "email", Value: "n3@example.com"}}})
		if err != nil || len(page.Records) != 1 {
			t.Errorf("the columns that are searched by: %d users, %v", len(page.Records), err)
		}
	})
}

// TestCopyGoesOn: a copy that is broken off at any point goes on where it stopped,
// no node starts on what is half there, and what changed meanwhile is found.
func TestCopyGoesOn(t *testing.T) {
	dsns(t, func(t *testing.T, to string) {
		from := sqliteDSN(t)
		documents := fill(t, from, 700) // more than a batch
		broken := 0
		for {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			result, err := copyStore(ctx, t, from, to, func(p store.CopyProgress) {
				if calls++; calls == 9 && p.Phase == "copy" {
					cancel()
				}
			})
			cancel()
			if err == nil {
				if broken < 2 || !result.Resumed || result.Repaired != 1 || result.Documents-clusterDocuments(result) != documents {
					t.Errorf("after %d breaks: resumed %v, %d repaired, %d documents", broken, result.Resumed, result.Repaired, result.Documents)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if broken++; broken == 1 {
				// The source goes on for a while: what was copied already is old.
				db := open(t, from, sealer(t, key(t, 1)), nil)
				err := db.Write(t.Context(), "a", func(tx tenant.Tx) error {
					if _, err := tx.Delete(tenant.KindTenant, "X|ID 1"); err != nil {
						return err
					}
					return tx.Insert(tenant.KindTenant, "X|ID 1", []byte(`{}`))
				})
				if err != nil {
					t.Fatal(err)
				}
				db.Close()
			}
			if _, err := store.Open(t.Context(), to, store.Options{Sealer: sealer(t, key(t, 1))}); problem.From(err).Code != "copy_unfinished" {
				t.Fatalf("a node starts on an unfinished copy: %v", err)
			}
		}
		open(t, to, sealer(t, key(t, 1)), nil).Close()
	})
}

// clusterDocuments counts what is copied to PostgreSQL alone.
func clusterDocuments(r store.Copied) (n int) {
	for _, s := range r.Sets {
		if s.Kind == tenant.KindMember || s.Kind == tenant.KindCluster {
			n += s.Documents
		}
	}
	return n
}

func TestCopyRefuses(t *testing.T) {
	dsns(t, func(t *testing.T, to string) {
		from, other := sqliteDSN(t), sqliteDSN(t)
		fill(t, from, 600)
		fill(t, other, 1)
		code := func(what string, err error, want string) {
			t.Helper()
			if problem.From(err).Code != want {
				t.Errorf("%s: got %v, want %s", what, err, want)
			}
		}
		_, err := copyStore(t.Context(), t, from, from, nil)
		code("the same database", err, "same_database")
		_, err = copyStore(t.Context(), t, from, other, nil)
		code("a target with documents", err, "target_not_empty")
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := copyStore(ctx, t, from, to, func(store.CopyProgress) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		_, err = copyStore(t.Context(), t, other, to, nil)
		code("another source's unfinished copy", err, "other_copy")
		_, err = store.Copy(t.Context(), from, to, store.Options{Sealer: sealer(t, key(t, 2))}, func(store.CopyProgress) {})
		code("another master key", err, "wrong_master_key")
		if _, err = copyStore(t.Context(), t, from, to, nil); err != nil {
			t.Fatal(err)
		}
		_, err = copyStore(t.Context(), t, from, to, nil)
		code("a finished copy", err, "target_not_empty")
		node := open(t, to, sealer(t, key(t, 1)), nil)
		defer node.Close()
		want := "database_locked"
		if strings.HasPrefix(to, "postgres") {
			want = "nodes_connected"
		}
		_, err = copyStore(t.Context(), t, to, sqliteDSN(t), nil)
		code("a source whose node runs", err, want)
	})
}

// TestChecksums: rows that mean the same have one checksum, in any order; every
// difference counts.
func TestChecksums(t *testing.T) {
	sum := func(rows ...docsql.Row) string {
		t.Helper()
		var s docsql.Sum
		for _, r := range rows {
			if err := s.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		return s.String()
	}
	row := func(tenantID, id string, version int64, doc string) docsql.Row {
		return docsql.Row{Tenant: tenantID, ID: id, Version: version, Doc: []byte(doc)}
	}
	a, b := row("t", "1", 1, `{"x":1.50, "y":[1e2,-0]}`), row("t", "2", 1, `{}`)
	if sum(a, b) != sum(b, row("t", "1", 1, `{"y":[100.0,0],"x":15e-1}`)) {
		t.Error("order or form counts")
	}
	for name, other := range map[string][]docsql.Row{
		"a document less":  {a},
		"one twice":        {a, b, b},
		"another version":  {a, row("t", "2", 2, `{}`)},
		"another id":       {a, row("t", "3", 1, `{}`)},
		"ids exchanged":    {row("t", "2", 1, string(a.Doc)), row("t", "1", 1, `{}`)},
		"a moved boundary": {a, row("t2", "", 1, `{}`)},
		"another number":   {row("t", "1", 1, `{"x":1.51,"y":[1e2,0]}`), b},
		"a text":           {row("t", "1", 1, `{"x":"1.5","y":[1e2,0]}`), b},
		"another order":    {row("t", "1", 1, `{"x":1.5,"y":[0,1e2]}`), b},
	} {
		if sum(other...) == sum(a, b) {
			t.Errorf("%s: the checksum is the same", name)
		}
	}
}

// FuzzCanonical: a document has a checksum or is no JSON.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1e999999999999999999999}`, `[1,2`, `{"a":{"b":[null,true,"\u0000"]}}`, `-0.0e-7`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var one, two docsql.Sum
		if one.Add(docsql.Row{Doc: doc}) != nil {
			return
		}
		if err := two.Add(docsql.Row{Doc: append([]byte(" "), doc...)}); err != nil || one != two {
			t.Errorf("%q: %v", doc, err)
		}
	})
}
