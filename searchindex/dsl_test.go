package searchindex

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// generate makes a query at random, of what the corpus has and of what it has not.
func generate(r *rand.Rand, depth int) search.Node {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	if depth > 0 && r.IntN(3) > 0 {
		var list []search.Node
		for range r.IntN(4) {
			list = append(list, generate(r, depth-1))
		}
		switch r.IntN(4) {
		case 0:
			return &search.And{Nodes: list}
		case 1:
			return &search.Or{Nodes: list}
		}
		return &search.Not{Node: generate(r, depth-1)}
	}
	field := pick("", "email", "name", "nickname", "username", "given_name", "family_name", "user_id", "connection", "phone_number", "last_ip",
		"logins_count", "blocked", "email_verified", "created_at", "last_login", "app_metadata", "app_metadata.plan", "app_metadata.age", "app_metadata.tags", "app_metadata.on",
		"app_metadata.deep.a.b.c", "user_metadata.age", "user_metadata.mixed", "user_metadata.mixed.k", "user_metadata.n", "user_metadata.neg", "user_metadata.arr", "user_metadata.a.b.c",
		"user_metadata.stadt", "user_metadata.when", "user_metadata.face", "identities", "identities.connection", "nothing")
	value := pick("ann", "Ann Fox", "bob", "CID", "a", "d", "e", "x", "Y", "1", "9", "30", "-1", "0", "1.5", "31", "true", "false", "gold", "Silver", "köln", "2026-01-02", "2026-01-01T10:00:00Z",
		"auth0|03", "", "ünal@example.de", "田中", "star*man", `back\slash`, "10.0.0.1", "x😀", "9007199254740993")
	switch r.IntN(5) {
	case 0:
		return &search.Exists{Field: pick("name", "email", "blocked", "app_metadata", "user_metadata.tags", "user_metadata.mixed", "user_metadata.null", "logins_count", "created_at", field+"x")}
	case 1:
		if field == "" {
			field = "name"
		}
		return &search.Range{Field: field, Low: pick("", "*", value), High: pick("", "*", "b", "10", "2026-02-01", value), LowIn: r.IntN(2) == 0, HighIn: r.IntN(2) == 0}
	case 2:
		runes := []rune(value)
		runes = runes[:r.IntN(len(runes)+1)]
		return &search.Match{Field: field, Text: strings.NewReplacer(`\`, `\\`, `*`, `\*`).Replace(string(runes)) + pick("*", "?", "??", "?*", "*?"), Wildcard: true}
	}
	return &search.Match{Field: field, Text: value, Exact: r.IntN(2) == 0}
}

// Queries at random find the same in the search engine as in the store, and fail
// in the same way.
func TestSameAsTheStore(t *testing.T) {
	db := storetest.New(t)
	d, x := open(t, settings(t, engineURL(t)), db)
	register(t, db, "a", "b")
	err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
		for id, doc := range storetest.Corpus {
			if err := tx.Insert(tenant.KindUser, id, []byte(doc)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	settle(t, x)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- a test
	nodes := make([]search.Node, 0, 400)
	for range 300 {
		nodes = append(nodes, generate(r, 4))
	}
	// The dearest queries that a stranger can ask.
	for _, q := range []string{
		strings.Repeat("a ", search.MaxClauses), strings.Repeat("-a ", search.MaxClauses), strings.Repeat("x* ", search.MaxClauses), "*:* " + strings.Repeat("-n:x ", 255),
		strings.Repeat("user_metadata.n:[1 TO 2] ", 255), strings.Repeat("(a AND (b OR ", 15) + "name:x" + strings.Repeat("))", 15), strings.Repeat("-(a OR b) ", 80),
		strings.Repeat("(a b -c OR ", 15) + "x" + strings.Repeat(")", 15), "name:" + strings.Repeat("a", 8000), "name:" + strings.Repeat("a", 8000) + "*", "name:" + strings.Repeat("𝒶", 199) + "*", "user_metadata.xyz:" + strings.Repeat("𝒶", 199) + "?", "name:a" + strings.Repeat("?", 199), strings.Repeat("x", 70) + ".y:a" + strings.Repeat("?", 198) + "*", "name:b" + strings.Repeat("*?", 99),
		"name:[" + strings.Repeat("𝒶", 200) + " TO " + strings.Repeat("𝒷", 200) + "]", "name:[" + strings.Repeat("a", 201) + " TO *]", "x.y:[" + strings.Repeat("𝒶", 200) + " TO " + strings.Repeat("𝒷", 200) + "}",
		"user_metadata." + strings.Repeat("x", 8000) + ":1", strings.TrimSpace(strings.Repeat("n:a?????????? ", 256)), "a.b:" + strings.Repeat("y", 100) + strings.Repeat("?", 64),
	} {
		parsed, err := search.Parse(strings.TrimSpace(q))
		if err != nil {
			t.Fatalf("%.60s: %v", q, err)
		}
		nodes = append(nodes, parsed.Root)
	}
	refused := 0
	for _, n := range nodes {
		q := tenant.Query{Search: &search.Query{Root: n}, Total: true}
		want, wantErr := db.Find(t.Context(), "a", tenant.KindUser, q)
		got, err := d.Find(t.Context(), "a", tenant.KindUser, q)
		if wantErr != nil {
			refused++
			if !problem.Is(wantErr, problem.Invalid) || err == nil || err.Error() != wantErr.Error() {
				t.Errorf("%.200s: the store says %v, the search engine %v", q.Search, wantErr, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.200s: %v", q.Search, err)
			continue
		}
		if g, w := recordIDs(got), recordIDs(want); !slices.Equal(g, w) || got.Total != want.Total {
			t.Errorf("%.200s: the search engine finds %v of %d, the store %v of %d", q.Search, g, got.Total, w, want.Total)
		}
	}
	// Two of the dearest nest more deeply than Elasticsearch takes.
	deep := int64(0)
	if st, err := x.Status(t.Context()); err != nil || strings.HasPrefix(st.Engine, "elasticsearch 7.") {
		deep = 2
	}
	if refused == len(nodes) || d.fallbacks.Load() != deep {
		t.Errorf("of %d queries %d were refused, and %d answered by the store", len(nodes), refused, d.fallbacks.Load())
	}
}

func recordIDs(p tenant.Page) (out []string) {
	for _, r := range p.Records {
		out = append(out, r.ID)
	}
	return out
}

// FuzzQuery: what can be parsed makes a body that is JSON, filters by the tenant,
// and nests no deeper than the query.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "jane", `name:"jane doe" AND NOT (a OR -b)`, "n:[1 TO 9}", "a.b:{* TO x]", `x:a\*b*`, "name:j?", "_exists_:a.b", "created_at:[2026-01-01 TO *]", `"\"}"`, strings.Repeat("-(a b) ", 60), "blocked:true -x"} {
		f.Add(s)
	}
	ks := kinds()
	f.Fuzz(func(t *testing.T, in string) {
		parsed, err := search.Parse(in)
		if err != nil {
			return
		}
		for _, k := range tenant.Searchable() {
			cond, err := search.Resolve(parsed, ks[k].schema)
			if err != nil {
				if !problem.Is(err, problem.Invalid) {
					t.Fatalf("%q: %v", in, err)
				}
				continue
			}
			body, err := request(ks[k].Collection, "acme", tenant.Query{Total: true}, cond)
			if err != nil {
				t.Fatalf("%q: %v", in, err)
			}
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatalf("%q: %v", in, err)
			}
			var back struct {
				Query struct {
					Bool struct {
						Filter []map[string]json.RawMessage `json:"filter"`
					} `json:"bool"`
				} `json:"query"`
			}
			if err := json.Unmarshal(raw, &back); err != nil || len(back.Query.Bool.Filter) != 2 || string(back.Query.Bool.Filter[0]["term"]) != `{"tenant":"acme"}` {
				t.Fatalf("%q: %s, %v", in, raw, err)
			}
			check(t, in, body["query"].(dsl), 0)
		}
	})
}

// check walks a query: each part has one name that the engine knows.
func check(t *testing.T, in string, q dsl, depth int) {
	if len(q) != 1 || depth > search.MaxDepth+4 {
		t.Fatalf("%q: depth %d, %v", in, depth, q)
	}
	for name, v := range q {
		switch name {
		case "match_all", "match_none", "term", "range", "prefix", "wildcard", "exists":
		case "bool":
			for _, list := range v.(dsl) {
				if parts, ok := list.([]dsl); ok {
					for _, p := range parts {
						check(t, in, p, depth+1)
					}
				}
			}
		default:
			t.Fatalf("%q: the engine knows no %s", in, name)
		}
	}
}

// FuzzEncode: every document that the store takes becomes one of bounded terms.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,"x",null,{"b":[[1]]}]}`, `{"` + strings.Repeat("k", 500) + `":{"x":1e400}}`, `{"name":"` + strings.Repeat("ü", 20000) + `"}`, `{"a.b":1,"":2}`, `{"a":-0.0}`} {
		f.Add(s)
	}
	ks := kinds()
	f.Fuzz(func(t *testing.T, doc string) {
		if !json.Valid([]byte(doc)) {
			return
		}
		for _, k := range tenant.Searchable() {
			raw, err := encode(ks[k].Collection, ks[k].schema, "acme", "id", []byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			var d indexed
			if err := json.Unmarshal(raw, &d); err != nil {
				t.Fatal(err)
			}
			for _, list := range [][]string{d.Folded, d.Exact, d.Text, d.Number, d.Has} {
				for _, s := range list {
					if len(s) > 32766 {
						t.Fatalf("a term of %d bytes", len(s))
					}
				}
			}
			if len(raw) > 200*len(doc)+1000 {
				t.Fatalf("%d bytes of document become %d", len(doc), len(raw))
			}
		}
	})
}

func TestNumbersSortAsTheirDigits(t *testing.T) {
	numbers := []float64{math.Inf(-1), -math.MaxFloat64, -2, -1, -math.SmallestNonzeroFloat64, 0, math.SmallestNonzeroFloat64, 0.5, 1, 2, 1e300, math.Inf(1)}
	var texts []string
	for _, n := range numbers {
		texts = append(texts, digits(n))
	}
	if !slices.IsSorted(texts) || digits(math.Copysign(0, -1)) != digits(0) {
		t.Errorf("%v: %v", numbers, texts)
	}
}

func TestLongTextsAreFoundByWhatAQueryCanSay(t *testing.T) {
	long := strings.Repeat("ü", maxTerm)
	if c := clip(long); len(c) > maxTerm || len(c) < maxTerm-1 || !strings.HasPrefix(long, c) {
		t.Errorf("%d bytes", len(c))
	}
	if a, b := term([]string{strings.Repeat("a", 100), "x"}), term([]string{strings.Repeat("a", 100), "y"}); a == b || len(a) > maxPath+2 {
		t.Errorf("%q, %q", a, b)
	}
	if docID("t", strings.Repeat("a", 5000)) == docID("t", strings.Repeat("a", 5001)) || len(docID(strings.Repeat("t", 63), strings.Repeat("a", 5000))) > 512 {
		t.Error("ids of documents meet, or are too long")
	}
}

func TestCheapQueriesAreThoseThatTheStoreHasIndexesFor(t *testing.T) {
	ks := kinds()
	for q, want := range map[string]bool{
		`email:"a@b.test"`: true, `email:"a@b.test" AND blocked:true`: true, `user_id:"x" OR email:"y"`: true, `phone_number:+4670`: true,
		`email:a*`: false, `jane`: false, `email:a@b.test OR blocked:true`: false, `NOT email:a@b.test`: false, `app_metadata.x:1`: false, `*`: false, `blocked:true`: false, ``: false,
		`email:(` + strings.Repeat("a OR ", 20) + `b)`: false,
	} {
		parsed, err := search.Parse(q)
		if err != nil {
			t.Fatal(err)
		}
		cond, err := search.Resolve(parsed, ks[tenant.KindUser].schema)
		if err != nil {
			t.Fatal(err)
		}
		if got := cheap(tenant.KindUser, cond); got != want {
			t.Errorf("%s: %v, want %v", q, got, want)
		}
	}
	if cheap(tenant.KindUser, search.Any{}) {
		t.Error(fmt.Sprint("nothing is no query of an index"))
	}
}

func TestLevels(t *testing.T) {
	all := tenant.Collections()
	schema := all[slices.IndexFunc(all, func(c tenant.Collection) bool { return c.Kind == tenant.KindUser })].Schema()
	for q, want := range map[string]int{
		"a:1":                     1,
		"a:1 AND b:1":             2,
		"-a:1":                    2,
		"a:1 AND (b:1 OR c:1)":    3,
		"a:1 AND (b:1 AND c:1)":   2,
		"a:1 OR (b:1 AND -(c:1))": 4,
	} {
		parsed, err := search.Parse(q)
		if err != nil {
			t.Fatal(err)
		}
		cond, err := search.Resolve(parsed, schema)
		if err != nil {
			t.Fatal(err)
		}
		if got := levels(query(cond, false)); got != want {
			t.Errorf("%s: %d levels, want %d", q, got, want)
		}
	}
}
