package oauth

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/problem"
)

func TestRedirectURIs(t *testing.T) {
	registered := []string{"https://app.test/cb", "http://127.0.0.1/cb", "http://[::1]:8080/cb", "myapp://callback", "https://*.app.test/cb", "http://localhost:3000/cb", "https://*.test/cb"}
	tests := []struct {
		name, uri string
		wildcards bool
		want      bool
	}{
		{"equal", "https://app.test/cb", false, true},
		{"custom scheme", "myapp://callback", false, true},
		{"loopback with another port", "http://127.0.0.1:1234/cb", false, true},
		{"loopback IPv6 with another port", "http://[::1]:9/cb", false, true},
		{"localhost has no free port", "http://localhost:3001/cb", false, false},
		{"loopback with another path", "http://127.0.0.1:1234/other", false, false},
		{"loopback with a query", "http://127.0.0.1:1234/cb?x", false, false},
		{"loopback with two ports", "http://127.0.0.1:1:2/cb", false, false},
		{"loopback in https", "https://127.0.0.1:1234/cb", false, false},
		{"subdomain without the setting", "https://pr-1.app.test/cb", false, false},
		{"subdomain with the setting", "https://pr-1.app.test/cb", true, true},
		{"two labels", "https://a.b.app.test/cb", true, false},
		{"empty label", "https://.app.test/cb", true, false},
		{"label of other characters", "https://a_b.app.test/cb", true, false},
		{"label with a trick", "https://evil.test%2f.app.test/cb", true, false},
		{"wildcard in http", "http://pr-1.app.test/cb", true, false},
		{"wildcard of a top-level domain", "https://evil.test/cb", true, false},
		{"the star itself", "https://*.app.test/cb", true, true},
		{"user information", "https://x@app.test/cb", true, false},
		{"empty", "", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := matchRedirect(registered, tt.uri, tt.wildcards); got != tt.want {
				t.Errorf("%s: got %v, want %v", tt.uri, got, tt.want)
			}
		})
	}
}

// FuzzRedirectURI: what is accepted differs from what was registered in the port
// of a loopback address, or in one label, and in nothing else.
func FuzzRedirectURI(f *testing.F) {
	for _, s := range []string{"https://app.test/cb", "http://127.0.0.1:5/cb", "https://a.app.test/cb", "https://app@a@evil.test/cb", "\\\\evil", "http://127.0.0.1@evil/cb", "https://a.app.test:443/cb"} {
		f.Add(s)
	}
	registered := []string{"https://app.test/cb", "http://127.0.0.1/cb", "https://*.app.test/cb"}
	f.Fuzz(func(t *testing.T, uri string) {
		if !matchRedirect(registered, uri, true) {
			return
		}
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatalf("%q was accepted and is no URL", uri)
		}
		host := u.Hostname()
		ok := uri == registered[0] || uri == registered[2] ||
			u.Scheme == "http" && host == "127.0.0.1" && u.Path == "/cb" && u.RawQuery == "" ||
			u.Scheme == "https" && strings.HasSuffix(host, ".app.test") && strings.Count(host, ".") == 2 && u.Path == "/cb" && u.Port() == ""
		if !ok || u.User != nil || u.Fragment != "" {
			t.Errorf("%q was accepted", uri)
		}
	})
}

func TestScopesAreParsed(t *testing.T) {
	tests := []struct {
		name, in, want string
		fails          bool
	}{
		{"in order, without doubles", "openid  email openid", "openid email", false},
		{"empty", "", "", false},
		{"quote", `a"b`, "", true}, {"backslash", `a\b`, "", true}, {"tab", "a\tb", "", true}, {"not ASCII", "ä", "", true},
		{"too long", strings.Repeat("a", maxScope+1), "", true}, {"too many", manyScopes(maxScopes + 1), "", true}, {"the most", manyScopes(maxScopes), manyScopes(maxScopes), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseScope(tt.in)
			if (err != nil) != tt.fails || !tt.fails && scopeOf(got) != tt.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func manyScopes(n int) string {
	out := make([]string, n)
	for i := range out {
		out[i] = "s" + strings.Repeat("x", i%5) + string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	return strings.Join(out, " ")
}

// FuzzScope: the values are those between the spaces, in their order, each once,
// of RFC 6749's characters and no more than are allowed; and they read the same
// again.
func FuzzScope(f *testing.F) {
	for _, s := range []string{"openid email", "a\x00b", " ", "\"", "é", "a\u00a0b", "a  b a", "a\tb", manyScopes(maxScopes + 1), strings.Repeat("x", maxScope+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseScope(in)
		if err != nil {
			if problem.From(err).Code != "invalid_scope" {
				t.Errorf("%q: %v", in, err)
			}
			return
		}
		var want []string
		for _, s := range strings.Split(in, " ") {
			if s != "" && !slices.Contains(want, s) {
				want = append(want, s)
			}
			if !plainText(s) || strings.Contains(s, " ") {
				t.Errorf("%q was accepted in %q", s, in)
			}
		}
		if !slices.Equal(got, want) || len(got) > maxScopes || len(in) > maxScope {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
		again, err := parseScope(scopeOf(got))
		if err != nil || !slices.Equal(again, got) {
			t.Errorf("%q: %v and then %v, %v", in, got, again, err)
		}
	})
}
