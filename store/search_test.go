package store_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// FuzzSearch: a query that parses either finds users or is the caller's mistake.
// Each user matches it or its opposite and never both, it finds the same in its
// canonical form, and more conditions never find more.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{
		"", "*", "jane", `name:"jane doe" AND NOT (a OR -b)`, "logins_count:[1 TO 9}", "logins_count:{* TO 3]", "created_at:[2026-01-01 TO *]", "created_at:2026-01-02", "user_metadata.age:>=30",
		"email:j*@b.test", `name:?an\*`, "blocked:true OR email_verified:false", "_exists_:user_metadata.tags", "user_metadata.tags:red", "identities.connection:Users", "a.b.c.d.e.f.g.h.i:1", "name:100%",
		"user_id:auth0|1", "logins_count:99999999999999999999", "user_metadata.age:[a TO 9]", "user_metadata.\"a'b\":1", "email_verified:[a TO b]", "name:\x00", "name:\xff", "NOT *:*", strings.Repeat("a ", 255) + "a", strings.Repeat("-", 32) + "a", strings.Repeat("-(a OR b) ", 80),
	} {
		f.Add(s)
	}
	db := storetest.New(f)
	err := db.Write(f.Context(), "a", func(tx tenant.Tx) error {
		for id, doc := range map[string]string{
			"auth0|1": `{"email":"jane@b.test","email_verified":true,"name":"Jane Doe","logins_count":3,"created_at":"2026-01-02T10:00:00.000Z","user_metadata":{"age":31,"tags":["red","Blue"]},"identities":[{"connection":"Users"}]}`,
			"auth0|2": `{"email":"JAN@b.test","name":"jan*","logins_count":1,"user_metadata":{"age":"31","a'b":1}}`,
			"auth0|3": `{"name":"100%","blocked":true,"user_metadata":{"tags":[]}}`,
			"auth0|4": `{"name":null,"a":{"b":[{"c":1},{"c":null}]}}`,
		} {
			if err := tx.Insert(tenant.KindUser, id, []byte(doc)); err != nil {
				return err
			}
		}
		return tx.Insert(tenant.KindUser, "auth0|5", []byte(`{"user_id":"auth0|5"}`))
	})
	if err != nil {
		f.Fatal(err)
	}
	err = db.Write(f.Context(), "b", func(tx tenant.Tx) error {
		return tx.Insert(tenant.KindUser, "other", []byte(`{"email":"jane@b.test","name":"jane","logins_count":3}`))
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string) {
		q, err := search.Parse(in)
		if err != nil || q.Root == nil {
			return
		}
		find := func(root search.Node) ([]string, error) {
			page, err := db.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Search: &search.Query{Root: root}, Total: true})
			var ids []string
			for _, r := range page.Records {
				ids = append(ids, r.ID)
			}
			if err == nil && page.Total != len(ids) {
				t.Errorf("%q finds %d and counts %d", in, len(ids), page.Total)
			}
			return ids, err
		}
		yes, err := find(q.Root)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		no, err := find(&search.Not{Node: q.Root})
		if err != nil {
			t.Fatalf("NOT %q: %v", in, err)
		}
		all := append(slices.Clone(yes), no...)
		slices.Sort(all)
		if !slices.Equal(all, []string{"auth0|1", "auth0|2", "auth0|3", "auth0|4", "auth0|5"}) {
			t.Errorf("%q finds %v, and its opposite %v", in, yes, no)
		}
		both, err := find(&search.And{Nodes: []search.Node{q.Root, &search.Exists{Field: "name"}}})
		if err != nil || slices.ContainsFunc(both, func(id string) bool { return !slices.Contains(yes, id) }) {
			t.Errorf("%q finds %v, and with one more condition %v, %v", in, yes, both, err)
		}
		if canonical, err := search.Parse(q.String()); err == nil {
			if again, err := find(canonical.Root); err != nil || !slices.Equal(again, yes) {
				t.Errorf("%q finds %v; as %q %v, %v", in, yes, q, again, err)
			}
		}
	})
}
