package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// Run is the definition of how a store behaves. open returns a new, empty one.
func Run(t *testing.T, open func(t *testing.T) tenant.Docs) {
	for name, test := range map[string]func(*testing.T, tenant.Docs){
		"documents":          documents,
		"conflicts":          conflicts,
		"many at once":       many,
		"tenants never meet": isolation,
		"writes are whole":   atomicity,
		"queries":            queries,
		"search":             searches,
		"what searches find": func(t *testing.T, d tenant.Docs) {
			RunSearch(t, func(*testing.T) (tenant.Docs, func()) { return d, func() {} })
		},
		"text is UTF-8 without NUL":   texts,
		"one of many takes":           oneTakes,
		"no update is lost":           noLostUpdate,
		"inserts race for one id":     insertRace,
		"times and numbers survive":   roundTrip,
		"a panic is an error":         panics,
		"cancelled writes do nothing": cancelled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func write(t *testing.T, d tenant.Docs, tn string, fn func(tx tenant.Tx) error) {
	t.Helper()
	if err := d.Write(t.Context(), tn, fn); err != nil {
		t.Fatal(err)
	}
}

func insert(t *testing.T, d tenant.Docs, tn string, k tenant.Kind, id, doc string) {
	t.Helper()
	write(t, d, tn, func(tx tenant.Tx) error { return tx.Insert(k, id, []byte(doc)) })
}

func wantKind(t *testing.T, err error, k problem.Kind, subject string) {
	t.Helper()
	var e *problem.Error
	if !errors.As(err, &e) || e.Kind != k || subject != "" && e.Subject != subject {
		t.Errorf("got %v, want %v about %q", err, k, subject)
	}
}

func documents(t *testing.T, d tenant.Docs) {
	ctx := t.Context()
	insert(t, d, "a", tenant.KindClient, "c1", `{"name":"one","client_secret":"s3cret"}`)
	rec, err := d.Get(ctx, "a", tenant.KindClient, "c1")
	if err != nil || rec.Version != 1 || rec.ID != "c1" {
		t.Fatalf("got %+v, %v", rec, err)
	}
	var doc map[string]string
	if err := json.Unmarshal(rec.Doc, &doc); err != nil || doc["name"] != "one" || doc["client_secret"] != "s3cret" {
		t.Errorf("got %s, %v", rec.Doc, err)
	}
	write(t, d, "a", func(tx tenant.Tx) error {
		rec, err := tx.Get(tenant.KindClient, "c1")
		if err != nil {
			return err
		}
		rec.Doc = []byte(`{"name":"two"}`)
		if err := tx.Replace(tenant.KindClient, rec); err != nil {
			return err
		}
		own, err := tx.Get(tenant.KindClient, "c1")
		if err != nil || own.Version != 2 || !strings.Contains(string(own.Doc), "two") {
			t.Errorf("a transaction does not see its own write: %+v, %v", own, err)
		}
		return nil
	})
	write(t, d, "a", func(tx tenant.Tx) error {
		for _, want := range []bool{true, false} {
			if there, err := tx.Delete(tenant.KindClient, "c1"); err != nil || there != want {
				t.Errorf("delete: %v, %v; want %v", there, err, want)
			}
		}
		return nil
	})
	_, err = d.Get(ctx, "a", tenant.KindClient, "c1")
	wantKind(t, err, problem.NotFound, "")
	if _, err := d.Get(ctx, "a", "nonsense", "x"); err == nil {
		t.Error("a kind that nobody declared was read")
	}
}

func conflicts(t *testing.T, d tenant.Docs) {
	ctx := t.Context()
	insert(t, d, "a", tenant.KindConnection, "con_1", `{"name":"users"}`)
	insert(t, d, "a", tenant.KindConnection, "con_3", `{"name":"others"}`)
	err := d.Write(ctx, "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindConnection, "con_1", []byte(`{"name":"x"}`)) })
	wantKind(t, err, problem.Conflict, "id")
	err = d.Write(ctx, "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindConnection, "con_2", []byte(`{"name":"users"}`)) })
	wantKind(t, err, problem.Conflict, "name")
	err = d.Write(ctx, "a", func(tx tenant.Tx) error {
		return tx.Replace(tenant.KindConnection, tenant.Record{ID: "con_3", Version: 1, Doc: []byte(`{"name":"users"}`)})
	})
	wantKind(t, err, problem.Conflict, "name")
	err = d.Write(ctx, "a", func(tx tenant.Tx) error {
		return tx.Replace(tenant.KindConnection, tenant.Record{ID: "con_1", Version: 7, Doc: []byte(`{"name":"y"}`)})
	})
	wantKind(t, err, problem.Conflict, "version")
	err = d.Write(ctx, "a", func(tx tenant.Tx) error {
		return tx.Replace(tenant.KindConnection, tenant.Record{ID: "none", Version: 1, Doc: []byte(`{"name":"z"}`)})
	})
	wantKind(t, err, problem.NotFound, "")
	// A conflict inside a function can be handled there; the transaction goes on.
	write(t, d, "a", func(tx tenant.Tx) error {
		wantKind(t, tx.Insert(tenant.KindConnection, "con_1", []byte(`{"name":"w"}`)), problem.Conflict, "id")
		return tx.Insert(tenant.KindConnection, "con_4", []byte(`{"name":"w"}`))
	})
	// Where a column of the set is absent, the rule does not hold.
	insert(t, d, "a", tenant.KindConnection, "con_5", `{}`)
	insert(t, d, "a", tenant.KindConnection, "con_6", `{}`)
	if err := d.Write(ctx, "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindClient, "bad", []byte(`{"name":`)) }); err == nil {
		t.Error("what is not JSON was stored")
	}
}

// many adds more documents than one statement takes, of which some are there.
func many(t *testing.T, d tenant.Docs) {
	insert(t, d, "a", tenant.KindConnection, "con_7", `{"name":"n7","options":{"first":true}}`)
	insert(t, d, "a", tenant.KindConnection, "other", `{"name":"n99"}`)
	for _, n := range []int{0, 1, 9, 200} {
		var docs []tenant.NewDoc
		for i := range n {
			docs = append(docs, tenant.NewDoc{ID: fmt.Sprintf("con_%d", i), Doc: fmt.Appendf(nil, `{"name":"n%d"}`, i)})
		}
		write(t, d, "a", func(tx tenant.Tx) error { return tx.InsertMissing(tenant.KindConnection, docs) })
		page, err := d.Find(t.Context(), "a", tenant.KindConnection, tenant.Query{Total: true, Limit: 1})
		want := map[int]int{0: 2, 1: 3, 9: 10, 200: 200} // n7 and con_7 are one; n99 is taken by another
		if err != nil || page.Total != want[n] {
			t.Errorf("after %d: %d documents, %v; want %d", n, page.Total, err, want[n])
		}
	}
	if rec, err := d.Get(t.Context(), "a", tenant.KindConnection, "con_7"); err != nil || rec.Version != 1 || !strings.Contains(string(rec.Doc), "first") {
		t.Errorf("a document that was there: %+v, %v", rec, err)
	}
	for _, bad := range []tenant.NewDoc{{ID: "bad", Doc: []byte(`{"name":`)}, {ID: "bad\x00", Doc: []byte(`{}`)}} {
		if err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
			return tx.InsertMissing(tenant.KindConnection, []tenant.NewDoc{{ID: "good", Doc: []byte(`{"name":"good"}`)}, bad})
		}); err == nil {
			t.Errorf("%q was taken", bad.ID)
		}
		_, err := d.Get(t.Context(), "a", tenant.KindConnection, "good")
		wantKind(t, err, problem.NotFound, "")
	}
}

func isolation(t *testing.T, d tenant.Docs) {
	ctx := t.Context()
	for _, tn := range []string{"a", "b"} {
		insert(t, d, tn, tenant.KindConnection, "con_1", `{"name":"users","of":"`+tn+`"}`) // the same id and the same unique value
	}
	for _, tn := range []string{"a", "b"} {
		rec, err := d.Get(ctx, tn, tenant.KindConnection, "con_1")
		if err != nil || !strings.Contains(string(rec.Doc), `"`+tn+`"`) {
			t.Errorf("tenant %s reads %s, %v", tn, rec.Doc, err)
		}
		page, err := d.Find(ctx, tn, tenant.KindConnection, tenant.Query{Total: true})
		if err != nil || page.Total != 1 || len(page.Records) != 1 {
			t.Errorf("tenant %s finds %+v, %v", tn, page, err)
		}
	}
	write(t, d, "a", func(tx tenant.Tx) error {
		_, err := tx.DeleteWhere(tenant.KindConnection, []tenant.Cond{{Column: "name", Value: "users"}})
		return err
	})
	if _, err := d.Get(ctx, "b", tenant.KindConnection, "con_1"); err != nil {
		t.Errorf("what tenant a deleted is gone at tenant b: %v", err)
	}
	write(t, d, "a", func(tx tenant.Tx) error {
		if _, err := tx.Get(tenant.KindConnection, "con_1"); !problem.Is(err, problem.NotFound) {
			t.Errorf("tenant a reads tenant b's document: %v", err)
		}
		wantKind(t, tx.Replace(tenant.KindConnection, tenant.Record{ID: "con_1", Version: 1, Doc: []byte(`{}`)}), problem.NotFound, "")
		if there, err := tx.Delete(tenant.KindConnection, "con_1"); there || err != nil {
			t.Errorf("tenant a deletes tenant b's document: %v, %v", there, err)
		}
		return nil
	})
	// The tenant of a query cannot be widened by a search.
	q := &search.Query{Root: &search.Or{Nodes: []search.Node{&search.Exists{Field: "name"}, &search.Not{Node: &search.Exists{Field: "name"}}}}}
	page, err := d.Find(ctx, "a", tenant.KindConnection, tenant.Query{Search: q})
	if err != nil || len(page.Records) != 0 {
		t.Errorf("a search left its tenant: %+v, %v", page, err)
	}
}

func atomicity(t *testing.T, d tenant.Docs) {
	broken := errors.New("broken on purpose")
	err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
		if err := tx.Insert(tenant.KindRole, "r1", []byte(`{"name":"x"}`)); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the function's own error", err)
	}
	if _, err := d.Get(t.Context(), "a", tenant.KindRole, "r1"); !problem.Is(err, problem.NotFound) {
		t.Errorf("half of a failed write is there: %v", err)
	}
	// Others that share the commit are not touched.
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
				if err := tx.Insert(tenant.KindRole, fmt.Sprint("g", i), []byte(`{}`)); err != nil {
					return err
				}
				if i%2 == 0 {
					return broken
				}
				return nil
			})
			if (err != nil) != (i%2 == 0) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	page, err := d.Find(t.Context(), "a", tenant.KindRole, tenant.Query{Total: true})
	if err != nil || page.Total != 20 {
		t.Errorf("%d roles are there, want 20: %v", page.Total, err)
	}
}

func panics(t *testing.T, d tenant.Docs) {
	defer func() {
		if recover() != nil {
			return // an engine that runs the function in the caller's goroutine may let it through
		}
	}()
	err := d.Write(t.Context(), "a", func(tx tenant.Tx) error { panic("on purpose") })
	if err == nil {
		t.Error("a panic was taken for success")
	}
	insert(t, d, "a", tenant.KindRole, "after", `{}`)
}

func cancelled(t *testing.T, d tenant.Docs) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Write(ctx, "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindRole, "c", []byte(`{}`)) }); err == nil {
		t.Error("a write whose caller had gone succeeded")
	}
	if _, err := d.Get(t.Context(), "a", tenant.KindRole, "c"); !problem.Is(err, problem.NotFound) {
		t.Errorf("it is there: %v", err)
	}
}

func ids(p tenant.Page) string {
	var out []string
	for _, r := range p.Records {
		out = append(out, r.ID)
	}
	return strings.Join(out, " ")
}

func queries(t *testing.T, d tenant.Docs) {
	write(t, d, "a", func(tx tenant.Tx) error {
		for i, doc := range []string{
			`{"email":"Ann@Example.com","logins_count":3,"created_at":"2026-01-01T00:00:00Z","blocked":true}`,
			`{"email":"bob@example.com","logins_count":10,"created_at":"2026-01-02T00:00:00Z"}`,
			`{"email":"cid@example.com","created_at":"2026-01-03T00:00:00Z","blocked":false}`,
			`{"email":"dan@example.org","logins_count":7,"created_at":"2026-01-04T00:00:00.5Z"}`,
		} {
			if err := tx.Insert(tenant.KindUser, fmt.Sprint("u", i+1), []byte(doc)); err != nil {
				return err
			}
		}
		return nil
	})
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	tests := []struct {
		name  string
		q     tenant.Query
		want  string
		total int
	}{
		{"all in id order", tenant.Query{}, "u1 u2 u3 u4", 0},
		{"equality folds case", tenant.Query{Where: []tenant.Cond{{Column: "email", Value: "ANN@example.COM"}}}, "u1", 0},
		{"numbers compare as numbers", tenant.Query{Where: []tenant.Cond{{Column: "logins_count", Op: tenant.Ge, Value: 7}}}, "u2 u4", 0},
		{"times compare", tenant.Query{Where: []tenant.Cond{{Column: "created_at", Op: tenant.Gt, Value: day(2)}}}, "u3 u4", 0},
		{"booleans compare", tenant.Query{Where: []tenant.Cond{{Column: "blocked", Value: true}}}, "u1", 0},
		{"in a list", tenant.Query{Where: []tenant.Cond{{Column: "id", Op: tenant.In, Value: []string{"u4", "u2", "u9"}}}}, "u2 u4", 0},
		{"in an empty list", tenant.Query{Where: []tenant.Cond{{Column: "id", Op: tenant.In, Value: []string{}}}}, "", 0},
		{"sorted up, absent last", tenant.Query{Sort: []tenant.Order{{Column: "logins_count"}}}, "u1 u4 u2 u3", 0},
		{"sorted down, absent last", tenant.Query{Sort: []tenant.Order{{Column: "logins_count", Desc: true}}}, "u2 u4 u1 u3", 0},
		{"a page with the count of all", tenant.Query{Limit: 2, Offset: 1, Total: true}, "u2 u3", 4},
		{"after an id", tenant.Query{After: "u2", Limit: 1}, "u3", 0},
	}
	for _, tt := range tests {
		page, err := d.Find(t.Context(), "a", tenant.KindUser, tt.q)
		if err != nil || ids(page) != tt.want || page.Total != tt.total {
			t.Errorf("%s: got %q of %d, %v; want %q of %d", tt.name, ids(page), page.Total, err, tt.want, tt.total)
		}
	}
	for name, q := range map[string]tenant.Query{
		"unknown column":      {Where: []tenant.Cond{{Column: "doc", Value: "x"}}},
		"unknown sort":        {Sort: []tenant.Order{{Column: "1; DROP TABLE users"}}},
		"negative limit":      {Limit: -1},
		"after with an order": {After: "u1", Sort: []tenant.Order{{Column: "email"}}},
	} {
		if _, err := d.Find(t.Context(), "a", tenant.KindUser, q); !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	if err := d.Write(t.Context(), "a", func(tx tenant.Tx) error { _, err := tx.DeleteWhere(tenant.KindUser, nil); return err }); err == nil {
		t.Error("a delete without a condition was carried out")
	}
}

func searches(t *testing.T, d tenant.Docs) {
	write(t, d, "a", func(tx tenant.Tx) error {
		for i, doc := range []string{
			`{"email":"ann@example.com","name":"Ann Fox","logins_count":3,"created_at":"2026-01-01T10:00:00Z","app_metadata":{"plan":"Gold","age":9,"tags":["x","y"]},"identities":[{"connection":"db"},{"connection":"google"}]}`,
			`{"email":"bob_1@example.com","name":"Bob","logins_count":10,"created_at":"2026-01-02T10:00:00Z","app_metadata":{"plan":"silver","age":30,"on":true},"identities":[{"connection":"db"}]}`,
			`{"email":"cid%x@example.org","name":"Cid","created_at":"2026-01-03T10:00:00Z","user_metadata":{"k'ey":"v"}}`,
		} {
			if err := tx.Insert(tenant.KindUser, fmt.Sprint("u", i+1), []byte(doc)); err != nil {
				return err
			}
		}
		return nil
	})
	tests := []struct{ q, want string }{
		{`email:"ann@example.com"`, "u1"},
		{`email:"ANN@EXAMPLE.COM"`, "u1"},
		{`email:ann*`, "u1"},
		{`email:bob_*`, "u2"},
		{`email:cid%*`, "u3"},
		{`email:%*`, ""},
		{`name:"Ann Fox"`, "u1"},
		{`name:bob OR name:cid`, "u2 u3"},
		{`name:bob AND logins_count:[5 TO 20]`, "u2"},
		{`NOT name:bob`, "u1 u3"},
		{`logins_count:{3 TO *]`, "u2"},
		{`logins_count:[* TO 3]`, "u1"},
		{`-_exists_:logins_count`, "u3"},
		{`_exists_:app_metadata.plan`, "u1 u2"},
		{`app_metadata.plan:gold`, "u1"},
		{`app_metadata.plan:sil*`, "u2"},
		{`app_metadata.age:[10 TO *]`, "u2"},
		{`app_metadata.age:9`, "u1"},
		{`app_metadata.on:true`, "u2"},
		{`app_metadata.tags:y`, "u1"},
		{`identities.connection:google`, "u1"},
		{`identities.connection:db`, "u1 u2"},
		{`NOT identities.connection:db`, "u3"},
		{`created_at:[2026-01-01 TO 2026-01-02]`, "u1 u2"},
		{`created_at:{2026-01-01 TO *]`, "u2 u3"},
		{`created_at:2026-01-03`, "u3"},
		{`bob`, "u2"},
		{``, "u1 u2 u3"},
		{`* AND NOT bob`, "u1 u3"},
		{`NOT *`, ""},
		{`app_metadata.plan:"' OR 1=1 --"`, ""},
		{`nothing.like.this:x`, ""},
	}
	for _, tt := range tests {
		q, err := search.Parse(tt.q)
		if err != nil {
			t.Errorf("%s: %v", tt.q, err)
			continue
		}
		page, err := d.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Search: q})
		if err != nil || ids(page) != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.q, ids(page), err, tt.want)
		}
	}
}

// texts: what PostgreSQL cannot hold is found, written and deleted nowhere, and no
// engine falls over it.
func texts(t *testing.T, d tenant.Docs) {
	insert(t, d, "a", tenant.KindUser, "u1", `{"email":"a@b.test","name":"back\\\\u0000slash"}`)
	for name, s := range map[string]string{"NUL": "u\x001", "not UTF-8": "u\xff1"} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.Get(t.Context(), "a", tenant.KindUser, s); !problem.Is(err, problem.NotFound) {
				t.Errorf("get: %v, want NotFound", err)
			}
			for what, q := range map[string]tenant.Query{
				"where":  {Where: []tenant.Cond{{Column: "email", Value: s}}},
				"in":     {Where: []tenant.Cond{{Column: "email", Op: tenant.In, Value: []string{s}}}},
				"after":  {After: s},
				"search": {Search: &search.Query{Root: &search.Match{Field: "name", Text: s}}},
				"field":  {Search: &search.Query{Root: &search.Exists{Field: "x" + s}}},
			} {
				if _, err := d.Find(t.Context(), "a", tenant.KindUser, q); !problem.Is(err, problem.Invalid) {
					t.Errorf("find %s: %v, want Invalid", what, err)
				}
			}
			err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
				found, err := tx.Delete(tenant.KindUser, s)
				if found {
					t.Error("deleted")
				}
				return err
			})
			if err != nil {
				t.Errorf("delete: %v", err)
			}
			wantKind(t, d.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindUser, s, []byte(`{}`)) }), problem.Invalid, "")
		})
	}
	for _, doc := range []string{`{"name":"\u0000"}`, `{"name":"\\\u0000"}`, "{\"name\":\"\xff\"}"} {
		wantKind(t, d.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindUser, "u2", []byte(doc)) }), problem.Invalid, "")
	}
	insert(t, d, "a", tenant.KindUser, "u3", `{"name":"\\u0000"}`)
}

func oneTakes(t *testing.T, d tenant.Docs) {
	insert(t, d, "a", tenant.KindOnce, "code:x", `{"type":"code"}`)
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			won := false
			err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
				won = false // the function may run again
				rec, err := tx.Get(tenant.KindOnce, "code:x")
				if err != nil || strings.Contains(string(rec.Doc), "taken") {
					return err
				}
				rec.Doc = []byte(`{"type":"code","taken":true}`)
				won = true
				return tx.Replace(tenant.KindOnce, rec)
			})
			if err == nil && won {
				wins.Add(1)
			}
		})
	}
	wg.Wait()
	if n := wins.Load(); n != 1 {
		t.Errorf("%d of 50 took a single-use value, want 1", n)
	}
}

func noLostUpdate(t *testing.T, d tenant.Docs) {
	insert(t, d, "a", tenant.KindUser, "u", `{"logins_count":0}`)
	var acknowledged atomic.Int32
	var wg sync.WaitGroup
	for range 60 { // such as the logins of one user
		wg.Go(func() {
			for range 2 {
				err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
					_, err := tenant.Change(tx, tenant.KindUser, "u", func(u *tenant.User) error { u.LoginsCount++; return nil })
					return err
				})
				if err == nil {
					acknowledged.Add(1)
				} else {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	wg.Wait()
	u, err := tenant.Get[tenant.User](t.Context(), d, "a", tenant.KindUser, "u")
	if err != nil || u.LoginsCount != int(acknowledged.Load()) || u.LoginsCount == 0 {
		t.Errorf("%d updates were acknowledged, %d are there: %v", acknowledged.Load(), u.LoginsCount, err)
	}
}

func insertRace(t *testing.T, d tenant.Docs) {
	var wins, conflicts atomic.Int32
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
				// Half of them race for the id, half for the unique name.
				return tx.Insert(tenant.KindConnection, []string{"same", fmt.Sprint("c", i)}[i%2], []byte(`{"name":"same"}`))
			})
			switch {
			case err == nil:
				wins.Add(1)
			case problem.Is(err, problem.Conflict):
				conflicts.Add(1)
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 || conflicts.Load() != 29 {
		t.Errorf("%d won and %d lost, want 1 and 29", wins.Load(), conflicts.Load())
	}
}

func roundTrip(t *testing.T, d tenant.Docs) {
	in := `{"big":12345678901234567890,"float":1.5,"text":"a\u0001\"ü😀","list":[1,"x",null,{"y":[]}],"empty":{}}`
	insert(t, d, "a", tenant.KindRole, "r", in)
	rec, err := d.Get(t.Context(), "a", tenant.KindRole, "r")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12345678901234567890", "1.5", "😀"} {
		if !strings.Contains(string(rec.Doc), want) {
			t.Errorf("%s is not in %s", want, rec.Doc)
		}
	}
	var got map[string]any
	if err := json.Unmarshal(rec.Doc, &got); err != nil || got["text"] != "a\u0001\"ü😀" || !slices.Equal(keys(got), []string{"big", "empty", "float", "list", "text"}) {
		t.Errorf("got %s, %v", rec.Doc, err)
	}
}

func keys(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
