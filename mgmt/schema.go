package mgmt

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
)

// schema maps the properties of an object to their types: string, boolean,
// integer, number, object, array, strings (an array of them) or any. A leading
// "?" allows null.
type schema map[string]string

// declare reads "name:type other:?type".
func declare(s string) schema {
	out := schema{}
	for _, f := range strings.Fields(s) {
		name, typ, _ := strings.Cut(f, ":")
		if typ == "" {
			typ = "string"
		}
		out[name] = typ
	}
	return out
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number, float64, int:
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// check refuses properties that are not declared, or are of another type.
func (s schema) check(d doc) error {
	names := make([]string, 0, len(d))
	for k := range d {
		names = append(names, k)
	}
	slices.Sort(names)
	var extra []string
	for _, name := range names {
		typ, ok := s[name]
		if !ok {
			extra = append(extra, clip(name, 64))
			continue
		}
		if err := checkType(name, typ, d[name]); err != nil {
			return err
		}
	}
	if len(extra) > 0 {
		return invalidBody("'Additional properties not allowed: %s'.", strings.Join(extra, ", "))
	}
	return nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

func checkType(name, typ string, v any) error {
	bare, nullable := strings.CutPrefix(typ, "?")
	if v == nil && nullable || bare == "any" {
		return nil
	}
	found := kindOf(v)
	ok := found == bare
	switch bare {
	case "integer":
		if n, is := v.(json.Number); is {
			f, err := n.Float64()
			ok = err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53
		}
	case "strings":
		list, is := v.([]any)
		ok = is
		for i, e := range list {
			if _, is := e.(string); !is {
				return invalidBody("'Expected type string but found type %s' on property %s[%d].", kindOf(e), name, i)
			}
		}
		bare = "array"
	}
	if !ok {
		return invalidBody("'Expected type %s but found type %s' on property %s.", bare, found, name)
	}
	return nil
}

// oneOf refuses values of a property that are not allowed. An absent one is
// fine.
func oneOf(d doc, name string, allowed ...string) error {
	v, ok := d[name]
	if !ok || v == nil {
		return nil
	}
	if s, ok := v.(string); ok && slices.Contains(allowed, s) {
		return nil
	}
	return invalidBody("'No enum match for: %s' on property %s (allowed are: %s).", clip(fmt.Sprint(v), 64), name, strings.Join(allowed, ", "))
}

// within refuses numbers out of bounds, and texts and arrays whose length is.
func within(d doc, name string, low, high float64) error {
	var n float64
	switch v := d[name].(type) {
	case nil:
		return nil
	case json.Number:
		n, _ = v.Float64()
	case string:
		n = float64(len(v))
	case []any:
		n = float64(len(v))
	default:
		return nil
	}
	if n < low || n > high {
		return invalidBody("'%s is out of bounds: allowed are %g to %g' on property %s.", clip(fmt.Sprint(d[name]), 64), low, high, name)
	}
	return nil
}

func required(d doc, names ...string) error {
	for _, name := range names {
		if v, ok := d[name]; !ok || v == nil {
			return invalidBody("'Missing required property: %s'.", name)
		}
	}
	return nil
}

// nonEmpty refuses texts without characters, or with too many.
func nonEmpty(d doc, name string, most int) error {
	v, ok := d[name]
	if !ok {
		return nil
	}
	s, _ := v.(string)
	if strings.TrimSpace(s) == "" || len(s) > most {
		return invalidBody("'%s wants 1 to %d characters' on property %s.", name, most, name)
	}
	return nil
}

// checkURLs refuses lists of URLs that hold what cannot be called back safely.
func checkURLs(d doc, name string, wildcards bool) error {
	list, _ := d[name].([]any)
	if len(list) > 500 {
		return invalidBody("'%s has more than the 500 values that are allowed'.", name)
	}
	for i, v := range list {
		s, _ := v.(string)
		if err := checkURL(s, wildcards); err != nil {
			return invalidBody("'%v' on property %s[%d].", err, name, i)
		}
	}
	return nil
}

func checkURL(s string, wildcards bool) error {
	u, err := url.Parse(strings.Replace(s, "://*.", "://wildcard.", 1))
	switch {
	case s == "" || len(s) > 2048 || err != nil || u.Scheme == "" || strings.ContainsAny(s, " \\\"<>^`"):
		return fmt.Errorf("%s is no URL", clip(s, 64))
	case slices.Contains([]string{"javascript", "data", "vbscript", "file", "blob", "about"}, strings.ToLower(u.Scheme)):
		return fmt.Errorf("the scheme %s is not allowed", u.Scheme)
	case u.User != nil:
		return fmt.Errorf("a URL must not have user information")
	case u.Fragment != "" || strings.Contains(s, "#"):
		return fmt.Errorf("a URL must not have a fragment")
	case strings.Contains(s, "*") && (!wildcards || !strings.HasPrefix(s, "https://*.") && !strings.HasPrefix(s, "http://*.") || strings.Count(s, "*") != 1 || strings.Count(u.Host, ".") < 2):
		return fmt.Errorf("a wildcard is allowed once, as the left-most label of a host with at least two more")
	}
	return nil
}
