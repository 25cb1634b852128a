package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// Corpus are users that differ in what queries can ask for.
var Corpus = map[string]string{
	"auth0|01": `{"email":"ann@example.com","email_verified":true,"name":"Ann Fox","nickname":"annie","logins_count":3,"created_at":"2026-01-01T10:00:00Z","last_ip":"10.0.0.1",
		"app_metadata":{"plan":"Gold","age":9,"tags":["x","Y"],"deep":{"a":{"b":{"c":"Found"}}}},"identities":[{"connection":"db"},{"connection":"Google"}]}`,
	"auth0|02": `{"email":"bob_1@example.com","email_verified":false,"name":"Bob","logins_count":10,"created_at":"2026-01-02T10:00:00.500Z","app_metadata":{"plan":"silver","age":30,"on":true},"identities":[{"connection":"db"}]}`,
	"auth0|03": `{"email":"cid%x@example.org","name":"Cid","username":"CID","created_at":"2026-01-03T10:00:00Z","user_metadata":{"k'ey":"v","with space":1,"Case":"a"}}`,
	"auth0|04": `{"name":"Ünal Öztürk","email":"ünal@EXAMPLE.de","nickname":"ÇELİK","user_metadata":{"city":"İstanbul","stadt":"KÖLN","emoji":"😀 Smile","face":"x😀"},"logins_count":-5}`,
	"auth0|05": `{"name":"田中","email":"tanaka@example.jp","user_metadata":{"名":"花子","n":1.5,"big":12345678901234567890,"exp":1e3}}`,
	"auth0|06": `{"name":"","blocked":true,"user_metadata":{"tags":[],"list":[null],"obj":{},"arr":[[1,2]],"null":null,"mixed":[1,"one",true,{"k":"v"}]}}`,
	"auth0|07": `{"name":"star*man","nickname":"a\"quote","given_name":"back\\slash","family_name":"ques?tion","user_metadata":{"p":"50% *off*","q":"x_y"}}`,
	"auth0|08": `{"name":null,"user_metadata":{"age":"31","a":{"b":[{"c":1},{"c":null},{"d":"E"}]}},"phone_number":"+46701234567","last_login":"2026-02-28T23:59:59.999Z"}`,
	"google|9": `{"email":"ANN@example.com","name":"ann","logins_count":9007199254740993,"blocked":false,"user_metadata":{"neg":-1,"zero":0,"negzero":-0.0,"when":"2026-01-02","a=b":"c","a":"b=c"}}`,
	"sms|10":   `{"phone_number":"+46709999999","logins_count":0,"created_at":"not a time","user_metadata":{"x.y":"unreachable","":"unreachable","tab":"a\tb"}}`,
}

// RunSearch is the definition of how search behaves, whatever engine answers. open
// returns a new, empty store, and a function that waits until everything that was
// written can be found.
func RunSearch(t *testing.T, open func(t *testing.T) (d tenant.Docs, settle func())) {
	d, settle := open(t)
	write(t, d, "a", func(tx tenant.Tx) error {
		for id, doc := range Corpus {
			if err := tx.Insert(tenant.KindUser, id, []byte(doc)); err != nil {
				return err
			}
		}
		for i, doc := range []string{
			`{"date":"2026-01-01T00:00:00Z","type":"s","user_id":"auth0|01","user_name":"Ann@Example.com","client_name":"App","ip":"10.0.0.1","connection":"db","details":{"prompts":[{"name":"Login"}]}}`,
			`{"date":"2026-01-01T00:00:01Z","type":"fp","user_name":"ann@example.com","ip":"10.0.0.2","connection":"DB"}`,
			`{"date":"2026-01-02T00:00:00Z","type":"S"}`,
		} {
			if err := tx.Insert(tenant.KindLog, fmt.Sprintf("log%d", i+1), []byte(doc)); err != nil {
				return err
			}
		}
		return nil
	})
	write(t, d, "b", func(tx tenant.Tx) error {
		return tx.Insert(tenant.KindUser, "other", []byte(`{"email":"ann@example.com","name":"Ann Fox","user_metadata":{"only":"b"}}`))
	})
	settle()
	t.Run("users", func(t *testing.T) { finds(t, d, tenant.KindUser, userQueries) })
	t.Run("logs", func(t *testing.T) { finds(t, d, tenant.KindLog, logQueries) })
	t.Run("pages", func(t *testing.T) { pages(t, d) })
	t.Run("refusals", func(t *testing.T) { refusals(t, d) })
	t.Run("tenants never meet", func(t *testing.T) {
		for q, want := range map[string]string{"ann*": "other", "user_metadata.only:b": "other", "NOT name:x": "other", "*": "other", "email:tanaka@example.jp": ""} {
			if got := find(t, d, "b", tenant.KindUser, q, tenant.Query{}); ids(got) != want {
				t.Errorf("%s: tenant b finds %q, want %q", q, ids(got), want)
			}
		}
	})
	t.Run("changes", func(t *testing.T) {
		write(t, d, "a", func(tx tenant.Tx) error {
			rec, err := tx.Get(tenant.KindUser, "auth0|02")
			if err != nil {
				return err
			}
			rec.Doc = []byte(`{"email":"robert@example.com","name":"Robert"}`)
			if _, err := tx.Delete(tenant.KindUser, "auth0|01"); err != nil {
				return err
			}
			return tx.Replace(tenant.KindUser, rec)
		})
		settle()
		for q, want := range map[string]string{"bob_1@example.com": "", "robert": "auth0|02", "app_metadata.plan:*": "", "email:ann@example.com": "google|9", "identities.connection:db": ""} {
			if got := find(t, d, "a", tenant.KindUser, q, tenant.Query{}); ids(got) != want {
				t.Errorf("%s: got %q, want %q", q, ids(got), want)
			}
		}
		// An id that was deleted can be used again.
		write(t, d, "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindUser, "auth0|01", []byte(`{"name":"Again"}`)) })
		settle()
		if got := find(t, d, "a", tenant.KindUser, "again", tenant.Query{}); ids(got) != "auth0|01" || string(got.Records[0].Doc) == "" {
			t.Errorf("got %q", ids(got))
		}
	})
}

func find(t *testing.T, d tenant.Docs, tn string, k tenant.Kind, q string, query tenant.Query) tenant.Page {
	t.Helper()
	parsed, err := search.Parse(q)
	if err != nil {
		t.Errorf("%s: %v", q, err)
		return tenant.Page{}
	}
	query.Search = parsed
	page, err := d.Find(t.Context(), tn, k, query)
	if err != nil {
		t.Errorf("%s: %v", q, err)
	}
	return page
}

type found struct{ name, q, want string }

func finds(t *testing.T, d tenant.Docs, k tenant.Kind, tests []found) {
	for _, tt := range tests {
		if got := find(t, d, "a", k, tt.q, tenant.Query{Total: true}); ids(got) != tt.want || got.Total != len(got.Records) {
			t.Errorf("%s: %s: got %q of %d, want %q", tt.name, tt.q, ids(got), got.Total, tt.want)
		}
	}
}

const everybody = "auth0|01 auth0|02 auth0|03 auth0|04 auth0|05 auth0|06 auth0|07 auth0|08 google|9 sms|10"

var userQueries = []found{
	{"everybody", ``, everybody},
	{"everybody", `*:*`, everybody},
	{"nobody", `NOT *`, ""},

	{"a word in the default fields", `bob`, "auth0|02"},
	{"a word is the whole value", `fox`, ""},
	{"the default fields ignore case", `ANN`, "google|9"},
	{"a username", `cid`, "auth0|03"},
	{"a prefix in the default fields", `ann*`, "auth0|01 google|9"},
	{"a phrase in the default fields", `"Ann Fox"`, "auth0|01"},

	{"a phrase", `name:"ann fox"`, "auth0|01"},
	{"a part of a phrase", `name:"ann"`, "google|9"},
	{"an address", `email:"ann@example.com"`, "auth0|01 google|9"},
	{"an address in capitals", `email:"ANN@EXAMPLE.COM"`, "auth0|01 google|9"},
	{"capitals beyond ASCII", `email:ünal@example.de`, "auth0|04"},
	{"capitals beyond ASCII, the other way", `name:"ÜNAL ÖZTÜRK"`, "auth0|04"},
	{"a folded nickname", `nickname:çelik`, "auth0|04"},
	{"other scripts", `name:田中`, "auth0|05"},
	{"a prefix of another script", `name:田*`, "auth0|05"},
	{"one character of another script", `name:田?`, "auth0|05"},
	{"one character has several bytes", `name:田??`, ""},
	{"an empty value", `name:""`, "auth0|06"},
	{"a prefix of the empty value", `name:b* OR name:""`, "auth0|02 auth0|06"},

	{"a prefix", `email:ann*`, "auth0|01 google|9"},
	{"an underscore is no wildcard", `email:bob_*`, "auth0|02"},
	{"a percent sign is no wildcard", `email:%*`, ""},
	{"a percent sign", `email:cid%*`, "auth0|03"},
	{"one character", `name:bo?`, "auth0|02"},
	{"one character is not none", `name:bob?`, ""},
	{"two characters and more", `name:b??*`, "auth0|02"},
	{"an escaped star", `name:star\*man`, "auth0|07"},
	{"an escaped star before a wildcard", `name:star\**`, "auth0|07"},
	{"an escaped question mark", `family_name:ques\?tion`, "auth0|07"},
	{"an escaped quotation mark", `nickname:"a\"quote"`, "auth0|07"},
	{"an escaped backslash", `given_name:back\\slash`, "auth0|07"},
	{"an escaped backslash before a wildcard", `given_name:back\\*`, "auth0|07"},
	{"an escaped space", `name:ann\ f*`, "auth0|01"},

	{"case counts where it is kept", `connection:google`, ""},
	{"case counts in a prefix too", `user_id:AUTH0*`, ""},
	{"an id", `user_id:"auth0|03"`, "auth0|03"},
	{"ids by prefix", `user_id:auth0*`, "auth0|01 auth0|02 auth0|03 auth0|04 auth0|05 auth0|06 auth0|07 auth0|08"},
	{"ids by range", `user_id:["auth0|07" TO "google|9"]`, "auth0|07 auth0|08 google|9"},
	{"the first connection", `connection:db`, "auth0|01 auth0|02"},
	{"a phone number", `phone_number:+46701234567`, "auth0|08"},
	{"an address of the network", `last_ip:10.0.0.*`, "auth0|01"},

	{"a number", `logins_count:10`, "auth0|02"},
	{"a number is no text", `logins_count:1*`, ""},
	{"a number with a fraction", `logins_count:3.0`, ""},
	{"what is no number", `logins_count:many`, ""},
	{"a number below zero", `logins_count:-5`, "auth0|04"},
	{"a number that a float cannot hold", `logins_count:9007199254740993`, "google|9"},
	{"its neighbour", `logins_count:9007199254740992`, ""},
	{"a closed range", `logins_count:[3 TO 10]`, "auth0|01 auth0|02"},
	{"an open range", `logins_count:{3 TO 10}`, ""},
	{"no upper bound", `logins_count:{3 TO *]`, "auth0|02 google|9"},
	{"no lower bound", `logins_count:[* TO 3]`, "auth0|01 auth0|04 sms|10"},
	{"no bound", `logins_count:[* TO *]`, "auth0|01 auth0|02 auth0|04 google|9 sms|10"},
	{"beyond all numbers", `logins_count:{9223372036854775807 TO *]`, ""},
	{"below all numbers", `logins_count:{* TO -9223372036854775808}`, ""},
	{"an empty range", `logins_count:[10 TO 3]`, ""},

	{"true", `blocked:true`, "auth0|06"},
	{"false", `blocked:FALSE`, "google|9"},
	{"not true is more than false", `NOT blocked:true`, "auth0|01 auth0|02 auth0|03 auth0|04 auth0|05 auth0|07 auth0|08 google|9 sms|10"},
	{"neither", `blocked:maybe`, ""},

	{"a day", `created_at:2026-01-02`, "auth0|02"},
	{"days", `created_at:[2026-01-01 TO 2026-01-02]`, "auth0|01 auth0|02"},
	{"after a day", `created_at:{2026-01-01 TO *]`, "auth0|02 auth0|03"},
	{"before a day", `created_at:{* TO 2026-01-03}`, "auth0|01 auth0|02"},
	{"an instant", `created_at:"2026-01-02T10:00:00.500Z"`, "auth0|02"},
	{"an instant in another zone", `created_at:"2026-01-02T11:00:00.5+01:00"`, "auth0|02"},
	{"from an instant", `created_at:["2026-01-02T10:00:00.501Z" TO *]`, "auth0|03"},
	{"the last moment of a day", `last_login:[2026-02-28 TO 2026-02-28]`, "auth0|08"},
	{"not after it", `last_login:{2026-02-28 TO *]`, ""},
	{"what is no time", `created_at:soon`, ""},
	{"what is no time is absent", `NOT _exists_:created_at`, "auth0|04 auth0|05 auth0|06 auth0|07 auth0|08 google|9 sms|10"},

	{"and", `name:bob AND logins_count:[5 TO 20]`, "auth0|02"},
	{"or", `name:bob OR name:cid`, "auth0|02 auth0|03"},
	{"or by default", `name:bob name:cid`, "auth0|02 auth0|03"},
	{"not", `NOT name:bob`, "auth0|01 auth0|03 auth0|04 auth0|05 auth0|06 auth0|07 auth0|08 google|9 sms|10"},
	{"a minus among others", `name:* -name:bob -name:ann*`, "auth0|03 auth0|04 auth0|05 auth0|06 auth0|07"},
	{"a group", `name:(bob OR "ann fox") AND NOT email:ann*`, "auth0|02"},
	{"not of a group", `NOT (name:* OR phone_number:*)`, ""},
	{"not of and", `NOT (name:* AND email:*)`, "auth0|06 auth0|07 auth0|08 sms|10"},
	{"not of not", `NOT (NOT name:bob)`, "auth0|02"},
	{"deep", `((name:bob AND (email:bob* OR (name:x AND name:y))) OR ((name:cid)))`, "auth0|02 auth0|03"},

	{"existence", `_exists_:username`, "auth0|03"},
	{"null is absence", `_exists_:name`, "auth0|01 auth0|02 auth0|03 auth0|04 auth0|05 auth0|06 auth0|07 google|9"},
	{"absence", `-_exists_:logins_count`, "auth0|03 auth0|05 auth0|06 auth0|07 auth0|08"},
	{"an object exists", `_exists_:app_metadata`, "auth0|01 auth0|02"},
	{"an empty object exists", `_exists_:user_metadata.obj`, "auth0|06"},
	{"an empty list does not", `_exists_:user_metadata.tags`, ""},
	{"a list of null does not", `_exists_:user_metadata.list`, ""},
	{"a list in a list exists", `_exists_:user_metadata.arr`, "auth0|06"},
	{"null does not", `_exists_:user_metadata.null`, ""},
	{"a deep path exists", `_exists_:app_metadata.deep.a.b.c`, "auth0|01"},
	{"an unknown path does not", `_exists_:nothing.like.this`, ""},
	{"not of an unknown path", `NOT nothing.like.this:x AND name:bob`, "auth0|02"},

	{"a path", `app_metadata.plan:gold`, "auth0|01"},
	{"a path in capitals", `app_metadata.plan:"GOLD"`, "auth0|01"},
	{"names of a path keep their case", `app_metadata.Plan:gold OR user_metadata.case:a`, ""},
	{"a prefix at a path", `app_metadata.plan:sil*`, "auth0|02"},
	{"any value at a path", `app_metadata.plan:*`, "auth0|01 auth0|02"},
	{"a deep path", `app_metadata.deep.a.b.c:found`, "auth0|01"},
	{"a part of a path", `app_metadata.deep.a:found`, ""},
	{"a value that begins like a path", `app_metadata:plan`, ""},
	{"capitals beyond ASCII at a path", `user_metadata.stadt:köln`, "auth0|04"},
	{"capitals beyond ASCII at a path, the other way", `user_metadata.stadt:KÖ*`, "auth0|04"},
	{"a path in another script", `user_metadata.名:花子`, "auth0|05"},
	{"beyond the first plane", `user_metadata.emoji:"😀 smile"`, "auth0|04"},
	{"one character beyond the first plane", `user_metadata.face:x?`, "auth0|04"},
	{"it is not two", `user_metadata.face:x??`, ""},
	{"a quotation mark in a path", `user_metadata.k'ey:v`, "auth0|03"},
	{"a space in a path", `user_metadata.with\ space:1`, "auth0|03"},
	{"a dot in a name is no path", `user_metadata.x.y:unreachable`, ""},
	{"an equals sign in a name", `user_metadata.a=b:c`, "google|9"},
	{"an equals sign in a value", `user_metadata.a:b=c`, "google|9"},
	{"signs at a path", `user_metadata.p:"50% *off*"`, "auth0|07"},
	{"a prefix with signs at a path", `user_metadata.p:50%\ \**`, "auth0|07"},
	{"an underscore at a path", `user_metadata.q:x_?`, "auth0|07"},
	{"a tab", "user_metadata.tab:\"a\tb\"", "sms|10"},
	{"a list", `app_metadata.tags:y`, "auth0|01"},
	{"a list of objects", `identities.connection:google`, "auth0|01"},
	{"each of a list of objects", `identities.connection:db`, "auth0|01 auth0|02"},
	{"not in a list", `NOT identities.connection:db AND email:*`, "auth0|03 auth0|04 auth0|05 google|9"},
	{"lists have no numbers of places", `identities.0.connection:db`, ""},
	{"a list of all sorts", `user_metadata.mixed:one AND user_metadata.mixed:1 AND user_metadata.mixed:true AND user_metadata.mixed.k:v`, "auth0|06"},
	{"objects and lists in lists have no text", `user_metadata.obj:\{* OR user_metadata.arr:\[* OR app_metadata:\{*`, ""},
	{"objects of a list in an object of a list", `user_metadata.a.b.c:1 AND user_metadata.a.b.d:e`, "auth0|08"},
	{"true at a path", `app_metadata.on:true`, "auth0|02"},
	{"text is no number", `user_metadata.age:[30 TO 32]`, ""},
	{"text of digits", `user_metadata.age:31`, "auth0|08"},
	{"a number at a path", `app_metadata.age:9`, "auth0|01"},
	{"a fraction at a path", `user_metadata.n:1.5`, "auth0|05"},
	{"a range of numbers at a path", `app_metadata.age:[10 TO *]`, "auth0|02"},
	{"numbers compare as numbers", `app_metadata.age:[8 TO 10]`, "auth0|01"},
	{"an open range at a path", `app_metadata.age:{9 TO 30}`, ""},
	{"a range with fractions", `user_metadata.n:[1.4999 TO 1.5]`, "auth0|05"},
	{"below zero", `user_metadata.neg:[-2 TO -0.5]`, "google|9"},
	{"zero of either sign", `user_metadata.zero:[-0.0 TO 0] AND user_metadata.negzero:[0 TO 0]`, "google|9"},
	{"large numbers", `user_metadata.big:[12345678901234567000 TO *]`, "auth0|05"},
	{"an exponent", `user_metadata.exp:[1000 TO 1e3]`, "auth0|05"},
	{"a range of numbers in a list", `user_metadata.mixed:[0 TO 1]`, "auth0|06"},
	{"a range of text at a path", `app_metadata.plan:[a TO m]`, "auth0|01"},
	{"a range of text ignores case", `app_metadata.plan:[GOLD TO GOLDFISH]`, "auth0|01"},
	{"a range of text with an open end", `app_metadata.plan:{gold TO *]`, "auth0|02"},
	{"a range of text stays at its path", `user_metadata.when:[2026-01-01 TO 2026-01-03]`, "google|9"},
	{"a range of text with a number", `user_metadata.age:[30 TO 3x]`, "auth0|08"},
	{"a range of text in a column", `name:[b TO d]`, "auth0|02 auth0|03"},
	{"a range of bytes beyond ASCII", `name:[ÿ TO *]`, "auth0|05"},
	{"an injection", `app_metadata.plan:"' OR 1=1 --"`, ""},
	{"JSON", `name:"\"}},{\"match_all\":{}}"`, ""},
}

var logQueries = []found{
	{"the default fields", `ann@example.com`, "log1 log2"},
	{"a type keeps its case", `type:s`, "log1"},
	{"a prefix of a type keeps its case", `type:S*`, "log3"},
	{"a default field that keeps its case", `DB`, "log2"},
	{"a default field that does not", `APP`, "log1"},
	{"a user's", `user_id:"auth0|01"`, "log1"},
	{"an id", `log_id:log2`, "log2"},
	{"an address", `ip:10.0.0.*`, "log1 log2"},
	{"a second", `date:["2026-01-01T00:00:01Z" TO "2026-01-01T00:00:01Z"]`, "log2"},
	{"a path", `details.prompts.name:login`, "log1"},
	{"not", `NOT type:f* AND NOT type:s`, "log3"},
}

func pages(t *testing.T, d tenant.Docs) {
	at := func(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
	up, down := []tenant.Order{{Column: "logins_count"}}, []tenant.Order{{Column: "logins_count", Desc: true}}
	for _, tt := range []struct {
		name, q string
		query   tenant.Query
		want    string
		total   int
	}{
		{"the first page", "*", tenant.Query{Limit: 3, Total: true}, "auth0|01 auth0|02 auth0|03", 10},
		{"the third page", "*", tenant.Query{Limit: 4, Offset: 8, Total: true}, "google|9 sms|10", 10},
		{"beyond the last page", "*", tenant.Query{Limit: 4, Offset: 12, Total: true}, "", 10},
		{"no count", "*", tenant.Query{Limit: 1}, "auth0|01", 0},
		{"a page of what is found", "email:*", tenant.Query{Limit: 2, Offset: 1, Total: true}, "auth0|02 auth0|03", 6},
		{"after an id", "email:*", tenant.Query{Limit: 2, After: "auth0|03", Total: true}, "auth0|04 auth0|05", 6},
		{"after the last id", "*", tenant.Query{After: "sms|10"}, "", 0},
		{"after an id that is gone", "*", tenant.Query{After: "auth0|zz", Limit: 1}, "google|9", 0},
		{"sorted up, absent last", "*", tenant.Query{Sort: up}, "auth0|04 sms|10 auth0|01 auth0|02 google|9 auth0|03 auth0|05 auth0|06 auth0|07 auth0|08", 0},
		{"sorted down, absent last, ties down", "*", tenant.Query{Sort: down}, "google|9 auth0|02 auth0|01 sms|10 auth0|04 auth0|08 auth0|07 auth0|06 auth0|05 auth0|03", 0},
		{"a page in an order", "*", tenant.Query{Sort: down, Limit: 2, Offset: 1, Total: true}, "auth0|02 auth0|01", 10},
		{"sorted by text, folded", "name:*", tenant.Query{Sort: []tenant.Order{{Column: "name"}}}, "auth0|06 google|9 auth0|01 auth0|02 auth0|03 auth0|07 auth0|04 auth0|05", 0},
		{"sorted by two", "_exists_:blocked OR _exists_:email_verified", tenant.Query{Sort: []tenant.Order{{Column: "blocked", Desc: true}, {Column: "email"}}}, "auth0|06 google|9 auth0|01 auth0|02", 0},
		{"sorted by id, down", "email:*", tenant.Query{Sort: []tenant.Order{{Column: "id", Desc: true}}, Limit: 2}, "google|9 auth0|05", 0},
		{"with a filter", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "email", Value: "Ann@Example.com"}}, Total: true}, "auth0|01 google|9", 2},
		{"with a filter of ids", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "id", Op: tenant.In, Value: []string{"auth0|02", "auth0|08", "nobody"}}}}, "auth0|02", 0},
		{"with a filter of no ids", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "id", Op: tenant.In, Value: []string{}}}}, "", 0},
		{"with a filter of numbers", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "logins_count", Op: tenant.Gt, Value: 3}}}, "auth0|02 google|9", 0},
		{"with a filter of times", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "created_at", Op: tenant.Ge, Value: at(2)}, {Column: "created_at", Op: tenant.Lt, Value: at(3)}}}, "auth0|02", 0},
		{"with a filter of booleans", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "blocked", Value: true}}}, "auth0|06", 0},
		{"with a filter of text in order", "name:*", tenant.Query{Where: []tenant.Cond{{Column: "name", Op: tenant.Le, Value: "bob"}, {Column: "name", Op: tenant.Gt, Value: "ann"}}}, "auth0|01 auth0|02", 0},
	} {
		if got := find(t, d, "a", tenant.KindUser, "("+tt.q+") AND *:*", tt.query); ids(got) != tt.want || got.Total != tt.total {
			t.Errorf("%s: got %q of %d, want %q of %d", tt.name, ids(got), got.Total, tt.want, tt.total)
		}
	}
}

func refusals(t *testing.T, d tenant.Docs) {
	for q, want := range map[string]string{
		`logins_count:[a TO 5]`:       "whole numbers",
		`logins_count:[1.5 TO 5]`:     "whole numbers",
		`created_at:[yesterday TO *]`: "dates such as",
		`blocked:[a TO b]`:            "no ranges",
		`a.b.c.d.e.f.g.h.i:x`:         "up to 8 names",
		`a..b:x`:                      "up to 8 names",
		`_exists_:a.`:                 "up to 8 names",
	} {
		parsed, err := search.Parse(q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = d.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Search: parsed}); !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want Invalid with %q", q, err, want)
		}
	}
	any := &search.Query{Root: &search.Exists{Field: "name"}}
	for name, q := range map[string]tenant.Query{
		"unknown sort":        {Search: any, Sort: []tenant.Order{{Column: "doc"}}},
		"unknown column":      {Search: any, Where: []tenant.Cond{{Column: "doc", Value: "x"}}},
		"negative limit":      {Search: any, Limit: -1},
		"negative offset":     {Search: any, Offset: -1},
		"after with an order": {Search: any, After: "u1", Sort: []tenant.Order{{Column: "email"}}},
		"NUL in a query":      {Search: &search.Query{Root: &search.Match{Field: "name", Text: "a\x00"}}},
		"NUL in a filter":     {Search: any, Where: []tenant.Cond{{Column: "email", Value: "a\x00"}}},
		"NUL in an id":        {Search: any, After: "\x00"},
		"no UTF-8":            {Search: &search.Query{Root: &search.Match{Text: "a\xff"}}},
	} {
		if _, err := d.Find(t.Context(), "a", tenant.KindUser, q); !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
}
