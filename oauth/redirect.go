package oauth

import (
	"net/url"
	"slices"
	"strings"
)

// matchRedirect reports whether an application registered a redirect URI. The
// comparison is of bytes (RFC 9700 section 4.1.3), but for the port of a loopback
// address (RFC 8252 section 7.3) and, where the tenant turned it on, one
// left-most label of https hosts ("https://*.example.com/cb").
func matchRedirect(registered []string, uri string, wildcards bool) bool {
	if !plausible(uri) {
		return false
	}
	if slices.Contains(registered, uri) {
		return true
	}
	for _, r := range registered {
		if loopbackMatch(r, uri) || wildcards && wildcardMatch(r, uri) {
			return true
		}
	}
	return false
}

// plausible refuses what no application registers, and what programs read in
// different ways: user information, fragments, backslashes, control characters.
func plausible(uri string) bool {
	if uri == "" || len(uri) > 2048 || strings.ContainsAny(uri, "\\#\"<>^`{|}") {
		return false
	}
	for i := range len(uri) {
		if uri[i] <= ' ' || uri[i] >= 0x7f {
			return false
		}
	}
	u, err := url.Parse(uri)
	return err == nil && u.Scheme != "" && u.User == nil && u.Fragment == "" && !forbiddenScheme(u.Scheme)
}

// forbiddenScheme: what a browser would run or show instead of calling an
// application.
func forbiddenScheme(s string) bool {
	switch strings.ToLower(s) {
	case "javascript", "data", "vbscript", "file", "blob", "about":
		return true
	}
	return false
}

// loopbackMatch: the port alone may differ, on loopback literals alone.
func loopbackMatch(registered, uri string) bool {
	for _, host := range []string{"http://127.0.0.1", "http://[::1]"} {
		r, ok1 := strings.CutPrefix(registered, host)
		u, ok2 := strings.CutPrefix(uri, host)
		if ok1 && ok2 && stripPort(r) == stripPort(u) && beginsPath(stripPort(u)) {
			return true
		}
	}
	return false
}

func beginsPath(s string) bool { return s == "" || s[0] == '/' || s[0] == '?' }

// stripPort takes ":digits" off the front.
func stripPort(s string) string {
	if !strings.HasPrefix(s, ":") {
		return s
	}
	i := 1
	for i < len(s) && i <= 5 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	if i == 1 {
		return s
	}
	return s[i:]
}

// wildcardMatch: "https://*.example.com/cb" fits one DNS label in place of the
// star; everything after it is compared byte for byte.
func wildcardMatch(registered, uri string) bool {
	rest, ok := strings.CutPrefix(registered, "https://*.")
	if !ok || strings.Contains(rest, "*") {
		return false
	}
	host, _, _ := strings.Cut(rest, "/")
	if strings.Count(host, ".") < 1 { // never a whole top-level domain
		return false
	}
	after, ok := strings.CutPrefix(uri, "https://")
	if !ok {
		return false
	}
	label, tail, ok := strings.Cut(after, ".")
	return ok && validLabel(label) && tail == rest
}

func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
