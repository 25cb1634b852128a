package search_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
)

func word(field, text string) search.Node { return &search.Match{Field: field, Text: text} }
func exact(field, text string) search.Node {
	return &search.Match{Field: field, Text: text, Exact: true}
}
func wild(field, text string) search.Node {
	return &search.Match{Field: field, Text: text, Wildcard: true}
}
func and(n ...search.Node) search.Node { return &search.And{Nodes: n} }
func or(n ...search.Node) search.Node  { return &search.Or{Nodes: n} }
func not(n search.Node) search.Node    { return &search.Not{Node: n} }
func has(field string) search.Node     { return &search.Exists{Field: field} }
func span(field, low string, lowIn bool, high string, highIn bool) search.Node {
	return &search.Range{Field: field, Low: low, High: high, LowIn: lowIn, HighIn: highIn}
}

func TestParse(t *testing.T) {
	a, b, c, d := word("", "a"), word("", "b"), word("", "c"), word("", "d")
	for _, tc := range []struct {
		name, in string
		want     search.Node
	}{
		{"nothing is everything", "", and()},
		{"spaces are everything", " \t\n ", and()},
		{"a star is everything", "*", and()},
		{"star of star is everything", "*:*", and()},

		{"a word", "jane", word("", "jane")},
		{"a word of a field", "name:jane", word("name", "jane")},
		{"a mail address needs no quotes", "email:jane+x@doe.example", word("email", "jane+x@doe.example")},
		{"a space after the colon", "name: jane", word("name", "jane")},
		{"a phrase", `name:"jane doe"`, exact("name", "jane doe")},
		{"a phrase without a field", `"jane doe"`, exact("", "jane doe")},
		{"an empty phrase", `name:""`, exact("name", "")},
		{"a quoted wildcard is text", `name:"ja*"`, exact("name", "ja*")},
		{"quotes in a phrase", `name:"a \"b\" \\ c"`, exact("name", `a "b" \ c`)},
		{"a user id", "user_id:auth0|5f7c", word("user_id", "auth0|5f7c")},
		{"a nested field", "app_metadata.plan:gold", word("app_metadata.plan", "gold")},
		{"a field of identities", `identities.connection:"db"`, exact("identities.connection", "db")},
		{"an escaped colon", `user_id:a\:b`, word("user_id", "a:b")},
		{"an escaped field", `app_metadata.my\:key:v`, word("app_metadata.my:key", "v")},
		{"an escaped space", `name:jane\ doe`, word("name", "jane doe")},
		{"an escaped operator", `\AND`, word("", "AND")},
		{"operators are in capitals", "a and b", or(a, word("", "and"), b)},
		{"an operator's name as a value", "state:OR", word("state", "OR")},
		{"a term that begins like an operator", "ORlando NOTting ANDy", or(word("", "ORlando"), word("", "NOTting"), word("", "ANDy"))},
		{"a number below zero", "n:-5", word("n", "-5")},
		{"a phone number", "phone_number:+46701234567", word("phone_number", "+46701234567")},
		{"letters of any script", "name:Ünal　name:田中", or(word("name", "Ünal"), word("name", "田中"))},
		{"a slash within a term", "aud:https\\://x/y", word("aud", "https://x/y")},

		{"a suffix wildcard", "name:ja*", wild("name", "ja*")},
		{"a wildcard for one character", "name:jan?", wild("name", "jan?")},
		{"an escaped star is text", `name:ja\*`, word("name", "ja*")},
		{"a star as text and one as wildcard", `name:j\*\\a*`, wild("name", `j\*\\a*`)},

		{"any value", "name:*", has("name")},
		{"existence", "_exists_:app_metadata.plan", has("app_metadata.plan")},
		{"existence, quoted", `_exists_:"name"`, has("name")},
		{"absence", "NOT _exists_:name", not(has("name"))},

		{"both", "a AND b", and(a, b)},
		{"both, in signs", "a && b", and(a, b)},
		{"either", "a OR b", or(a, b)},
		{"either, in signs", "a || b", or(a, b)},
		{"either by default", "a b", or(a, b)},
		{"AND binds more tightly", "a OR b AND c OR d", or(a, and(b, c), d)},
		{"AND binds more tightly than a space", "a b AND c", or(a, and(b, c))},
		{"parentheses", "(a OR b) AND (c OR d)", and(or(a, b), or(c, d))},
		{"parentheses change nothing alone", "((a))", a},
		{"NOT", "NOT a", not(a)},
		{"an exclamation mark", "!a", not(a)},
		{"a minus", "-a", not(a)},
		{"NOT before a group", "NOT (a OR b)", not(or(a, b))},
		{"NOT binds most tightly", "NOT a AND b", and(not(a), b)},
		{"NOT after OR is one of the alternatives", "a OR NOT b", or(a, not(b))},
		{"NOT without OR excludes", "a NOT b", and(a, not(b))},
		{"a minus excludes from all alternatives", "a b -c", and(or(a, b), not(c))},
		{"a minus after OR excludes too", "a OR -b", and(a, not(b))},
		{"two exclusions", "-a -b", and(not(a), not(b))},
		{"a plus makes the rest optional", "+a b", a},
		{"two pluses", "+a +b c -d", and(a, b, not(d))},
		{"a plus within AND", "+a AND b", and(a, b)},
		{"NOT of NOT", "NOT NOT a", not(not(a))},

		{"a group of a field", "name:(a OR b)", or(word("name", "a"), word("name", "b"))},
		{"a group's phrase, prefix and absence", `name:("a b" c* -d)`, and(or(exact("name", "a b"), wild("name", "c*")), not(word("name", "d")))},
		{"another field within a group", "name:(a OR email:b)", or(word("name", "a"), word("email", "b"))},
		{"the group's field ends with it", "name:(a) b", or(word("name", "a"), b)},
		{"a star in a group", "name:(*)", has("name")},
		{"ranges in a group", "n:([1 TO 2] OR >5)", or(span("n", "1", true, "2", true), span("n", "5", false, "", false))},

		{"a closed range", "n:[1 TO 9]", span("n", "1", true, "9", true)},
		{"an open range", "n:{1 TO 9}", span("n", "1", false, "9", false)},
		{"a mixed range", "n:[1 TO 9}", span("n", "1", true, "9", false)},
		{"the other mixed range", "n:{1 TO 9]", span("n", "1", false, "9", true)},
		{"no upper bound", "n:[100 TO *]", span("n", "100", true, "", false)},
		{"no lower bound", "n:{* TO 100}", span("n", "", false, "100", false)},
		{"no bound at all", "n:[* TO *]", has("n")},
		{"times in a range", "created_at:[2020-01-01T00:00:00.000Z TO 2021-01-01]", span("created_at", "2020-01-01T00:00:00.000Z", true, "2021-01-01", true)},
		{"quoted bounds", `n:["a b" TO "*"]`, span("n", "a b", true, "*", true)},
		{"no space inside the brackets is needed", `n:["a"TO "b"]`, span("n", "a", true, "b", true)},
		{"at least", "n:>=10", span("n", "10", true, "", false)},
		{"more than", "n:>10", span("n", "10", false, "", false)},
		{"at most", "n:<=10", span("n", "", false, "10", true)},
		{"less than, below zero", "n:< -10", span("n", "", false, "-10", false)},
		{"a time to compare with", `created_at:>="2020-01-01T00:00:00Z"`, span("created_at", "2020-01-01T00:00:00Z", true, "", false)},

		{
			"the query of the design", `email:"a@b.c" AND logins_count:[10 TO *]`,
			and(exact("email", "a@b.c"), span("logins_count", "10", true, "", false)),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, err := search.Parse(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, q.Root, cmp.Transformer("nil", func(n []search.Node) []search.Node { return append([]search.Node{}, n...) })); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.in, d)
			}
			roundTrip(t, q)
		})
	}
}

func roundTrip(t *testing.T, q *search.Query) {
	t.Helper()
	s := q.String()
	if len(s) > search.MaxLength {
		return
	}
	again, err := search.Parse(s)
	if err != nil {
		t.Fatalf("canonical form %q: %v", s, err)
	}
	if d := cmp.Diff(q, again); d != "" {
		t.Fatalf("canonical form %q is another tree (-first +second):\n%s", s, d)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []string // in the message
	}{
		{"a leading star", "name:*ane", []string{"position 6", "begin with a wildcard", "field:*"}},
		{"a leading question mark", "?ane", []string{"position 1", "begin with a wildcard"}},
		{"a star in the middle", "name:j*e", []string{"position 6", "end of a term"}},
		{"a wildcard in a field", "na*:x", []string{"position 1", "field name"}},
		{"everything of a star", "*:x", []string{"*:*"}},
		{"fuzzy", "name:jane~2", []string{"position 10", "fuzzy", "not supported"}},
		{"proximity", `name:"jane doe"~2`, []string{"position 16", "proximity", "not supported"}},
		{"a boost", "name:jane^2", []string{"position 10", "boosts", "not supported"}},
		{"a boost of a group", "(a b)^2", []string{"position 6", "boosts"}},
		{"a regular expression", "name:/j.*/", []string{"position 6", "regular expressions"}},
		{"a regular expression alone", "/j.*/", []string{"position 1", "regular expressions"}},
		{"_missing_", "_missing_:name", []string{"position 1", "NOT _exists_:field"}},
		{"_exists_ of nothing", `_exists_:""`, []string{"position 10", "name of a field"}},
		{"_exists_ of a wildcard", "_exists_:na*", []string{"position 10", "without wildcards"}},
		{"_exists_ of a group", "_exists_:(a b)", []string{"position 10", "missing"}},
		{"a colon within a value", "created_at:2020-01-01T00:00:00Z", []string{"position 25", "quoted"}},
		{"a colon within a comparison", "t:>12:30", []string{"position 6", "quoted"}},
		{"a colon alone", ":x", []string{"position 1", "field name is missing"}},
		{"a field without a value", "name:", []string{"position 6", "value is missing"}},
		{"a quoted field", `"name":x`, []string{"position 1", "not quoted"}},
		{"an open quotation mark", `name:"jane`, []string{"position 6", "not closed"}},
		{"an open parenthesis", "(a OR b", []string{"position 1", "not closed"}},
		{"a stray closing parenthesis", "a) b", []string{"position 2", "no opening one"}},
		{"empty parentheses", "()", []string{"position 2", "missing"}},
		{"AND at the beginning", "AND a", []string{"position 1", "before AND"}},
		{"AND at the end", "a AND ", []string{"position 7", "after AND"}},
		{"OR at the end of a group", "(a OR )", []string{"position 7", "after OR"}},
		{"two operators", "a AND OR b", []string{"position 7", "before OR"}},
		{"two operators in signs", "a || && b", []string{"position 6", "before &&"}},
		{"NOT alone", "NOT", []string{"position 4", "missing"}},
		{"a backslash at the end", `a\`, []string{"position 2", "backslash"}},
		{"a quotation mark within a term", `ja"ne"`, []string{"position 3", "quoted"}},
		{"a bracket within a term", "ids[0]:x", []string{"position 4", "quoted"}},
		{"a range without a field", "[1 TO 2]", []string{"position 1", "needs a field"}},
		{"a comparison without a field", ">5", []string{"position 1", "needs a field"}},
		{"a range without TO", "n:[1 2]", []string{"position 6", "TO is missing"}},
		{"a range without a lower bound", "n:[TO 2]", []string{"position 4", "lower bound"}},
		{"a range without an upper bound", "n:[1 TO ]", []string{"position 9", "upper bound"}},
		{"a range that is not closed", "n:[1 TO 2", []string{"position 3", "not closed"}},
		{"a range with a third bound", "n:[1 TO 2 3]", []string{"position 11", "] and }"}},
		{"a range with an empty bound", `n:["" TO 2]`, []string{"position 4", "empty"}},
		{"a wildcard in a bound", "n:[a* TO b]", []string{"position 5", "* alone"}},
		{"a wildcard in a comparison", "n:>1*", []string{"position 4", "wildcard"}},
		{"a comparison with nothing", "n:>=", []string{"position 5", "missing"}},
		{"a NUL", "name:a\x00b", []string{"position 7", "U+0000"}},
		{"not UTF-8", "name:\xff", []string{"position 6", "UTF-8"}},
		{"positions are characters", "ü AND *x", []string{"position 7"}},
		{"too long", strings.Repeat("a", search.MaxLength+1), []string{"8193 bytes", "8192"}},
		{"too deep", strings.Repeat("(", 33) + "a" + strings.Repeat(")", 33), []string{"position 33", "32 levels"}},
		{"too many negations", strings.Repeat("-", 33) + "a", []string{"position 33", "32 levels"}},
		{"too deep when written out", strings.Repeat("(", 32) + "a b -c" + strings.Repeat(") b -c", 32), []string{"32 levels"}},
		{"too many clauses", strings.Repeat("a ", 257), []string{"position 513", "256 clauses"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, err := search.Parse(tc.in)
			if err == nil {
				t.Fatalf("accepted as %s", q)
			}
			e := problem.From(err)
			if e.Kind != problem.Invalid || e.Code != "invalid_query_string" {
				t.Errorf("kind %v, code %q", e.Kind, e.Code)
			}
			for _, w := range tc.want {
				if !strings.Contains(e.Message, w) {
					t.Errorf("%q does not say %q", e.Message, w)
				}
			}
		})
	}
}

func TestParseAtTheBounds(t *testing.T) {
	for name, in := range map[string]string{
		"length":  strings.Repeat("a", search.MaxLength),
		"depth":   strings.Repeat("(", 32) + "a" + strings.Repeat(")", 32),
		"clauses": strings.Repeat("a ", 256),
	} {
		t.Run(name, func(t *testing.T) {
			q, err := search.Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, q)
		})
	}
}

func TestString(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"signs become words", "+a && !b || c", "a AND NOT b OR c"},
		{"groups are written out", "name:(a b -c)", "(name:a OR name:b) AND NOT name:c"},
		{"ranges", "n:>=10 n:<5", "n:[10 TO *] OR n:[* TO 5}"},
		{"existence", "name:*", "_exists_:name"},
		{"escapes", `n:\-a\:b`, `n:\-a\:b`},
		{"everything", " ", "*:*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, err := search.Parse(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := q.String(); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	for want, q := range map[string]*search.Query{"*:*": nil, "NOT *:*": {Root: or()}, "a": {Root: and(or(word("", "a")))}} {
		if got := q.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A hostile query is answered in time that grows with its length, not with its
// square.
func TestParseIsQuick(t *testing.T) {
	for name, unit := range map[string]string{
		"opening": "(", "negations": "-", "quotes": `"`, "backslashes": `\`, "colons": "a:", "ranges": "n:[", "stars": "*", "operators": "a AND ",
	} {
		in := strings.Repeat(unit, search.MaxLength/len(unit))
		start := time.Now()
		_, _ = search.Parse(in)
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s: %v", name, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "*", "name:jane", `name:"jane doe" AND NOT (a OR -b)`, "n:[1 TO 9} n:{* TO x]", "n:>=-10", "a && b || !c",
		"name:(a OR email:b) +c -d", `\AND:a\ b*`, "_exists_:a.b", `n:["" TO "*"]`, "a OR NOT b NOT c", "(((a b -c) d -e) f)",
		"name:/x/", "a~2^3", "\xff", `"a\"b\\"`, "n:[TO TO TO]", "&&a ||b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		q, err := search.Parse(in)
		if err != nil {
			if e := problem.From(err); e.Kind != problem.Invalid || e.Code != "invalid_query_string" || !strings.Contains(e.Message, "position") {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		roundTrip(t, q)
	})
}
