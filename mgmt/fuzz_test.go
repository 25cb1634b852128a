package mgmt

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/portcullis-id/portcullis/problem"
)

// FuzzQuery: whatever a query string says of pages and fields, the answer is a
// bounded query or an error of the caller's.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"page=1&per_page=5", "from=x&take=3", "per_page=1e9", "fields=a,b.c&include_fields=false", "page=-1", "include_totals=x", "sort=email:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		p, err := readPaging(q, 50, 100)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("got %v", err)
			}
		} else if p.perPage < 0 || p.perPage > 100 || p.take < 1 || p.take > 100 || p.page < 0 {
			t.Errorf("out of bounds: %+v", p)
		}
		cut, err := fieldsOf(q)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("got %v", err)
			}
			return
		}
		cut(doc{"a": 1, "b": doc{"c": doc{"d": 2}}, "e": []any{}})
	})
}

// FuzzBody: whatever a body holds, the rules of every resource judge it without
// falling over.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"name":"x"}`, `{"name":null,"options":{"password_options":7}}`, `{"jwt_configuration":{"alg":[]}}`, `{"scopes":[{"value":1}]}`,
		`{"refresh_token":"x","callbacks":[1],"client_metadata":{"a":{}}}`, `{"options":{"attributes":{"email":{"signup":[]}},"authentication_methods":[]}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for _, judge := range []func(d doc) error{
			func(d doc) error {
				if err := clientFields.check(d); err != nil {
					return err
				}
				if err := judgeClient(d); err != nil {
					return err
				}
				completeClient(d)
				return nil
			},
			func(d doc) error {
				if err := resourceServerFields.check(d); err != nil {
					return err
				}
				return judgeResourceServer(d)
			},
			func(d doc) error {
				if err := connectionFields.check(d); err != nil {
					return err
				}
				o, ok := d["options"].(doc)
				if !ok {
					o = doc{}
				}
				d["strategy"] = "auth0"
				completeConnection(d, o)
				return judgeDatabase(o)
			},
			func(d doc) error { _, err := newCredential("c", d); return err },
			func(d doc) error { _, err := importedHash(d); return err },
		} {
			v, err := decode([]byte(raw))
			if err != nil {
				return
			}
			d, ok := v.(doc)
			if !ok || bounded(v, 0) != nil {
				return
			}
			if err := judge(d); err != nil && !problem.Is(err, problem.Invalid) {
				t.Errorf("%s: %v", raw, err)
			}
			if _, err := json.Marshal(d); err != nil {
				t.Errorf("%s: %v", raw, err)
			}
		}
	})
}
