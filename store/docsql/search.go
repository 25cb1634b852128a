package docsql

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// defaults are the columns that a search term without a field looks at.
var defaults = map[tenant.Kind][]string{
	tenant.KindUser: {"email", "name", "nickname", "username", "given_name", "family_name"},
	tenant.KindLog:  {"user_name", "client_name", "connection", "type", "ip"},
}

func (b *builder) search(n search.Node) (string, error) {
	switch n := n.(type) {
	case *search.And:
		return b.join(n.Nodes, " AND ")
	case *search.Or:
		return b.join(n.Nodes, " OR ")
	case *search.Not:
		inner, err := b.search(n.Node)
		if err != nil {
			return "", err
		}
		// Unknown is not true: what has no such field does not match the inner condition.
		return "NOT COALESCE(" + inner + ", FALSE)", nil
	case *search.Match:
		if n.Field == "" {
			var parts []string
			for _, f := range defaults[b.kd.Kind] {
				m := *n
				m.Field = f
				cond, err := b.match(&m)
				if err != nil {
					return "", err
				}
				parts = append(parts, cond)
			}
			if len(parts) == 0 {
				return "", problem.New(problem.Invalid, "invalid_query_string", "a term here wants a field, as in field:value")
			}
			return "(" + strings.Join(parts, " OR ") + ")", nil
		}
		return b.match(n)
	case *search.Range:
		return b.between(n)
	case *search.Exists:
		if col, ok := b.column(n.Field); ok {
			return quote(col.Name) + " IS NOT NULL", nil
		}
		path, err := b.path(n.Field)
		if err != nil {
			return "", err
		}
		return b.d.JSONExists(path, b.bind), nil
	}
	return "", problem.New(problem.Invalid, "invalid_query_string", "this form of query is not known")
}

func (b *builder) join(nodes []search.Node, op string) (string, error) {
	if len(nodes) == 0 { // each of no conditions holds, none of them does
		return map[string]string{" AND ": "(1 = 1)", " OR ": "(1 = 0)"}[op], nil
	}
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		var err error
		if parts[i], err = b.search(n); err != nil {
			return "", err
		}
	}
	return "(" + strings.Join(parts, op) + ")", nil
}

func (b *builder) column(field string) (tenant.Column, bool) {
	if field == "user_id" && b.kd.Kind == tenant.KindUser || field == "log_id" {
		return tenant.Column{Name: "id", Type: tenant.Text}, true
	}
	col, ok := b.kd.columns[field]
	return col, ok
}

// path splits a field into the names that lead to it in the document. They are
// bound or quoted by the dialect, never pasted.
func (b *builder) path(field string) ([]string, error) {
	path := strings.Split(field, ".")
	if slices.Contains(path, "") || len(path) > 8 {
		return nil, problem.New(problem.Invalid, "invalid_query_string", "%q is no field; allowed are up to 8 names with dots between them", field)
	}
	return path, nil
}

func (b *builder) match(m *search.Match) (string, error) {
	b.notText = b.notText || !storable(m.Text)
	if m.Wildcard && m.Text == "*" {
		return b.search(&search.Exists{Field: m.Field})
	}
	col, ok := b.column(m.Field)
	if !ok {
		path, err := b.path(m.Field)
		if err != nil {
			return "", err
		}
		return b.d.JSONMatch(path, b.bind, func(text, _ string) string { return b.text(text, strings.ToLower(m.Text), m.Wildcard) }), nil
	}
	name := quote(col.Name)
	switch col.Type {
	case tenant.Integer:
		n, ok := number(m.Text)
		if !ok {
			return "1 = 0", nil
		}
		return name + " = " + b.bind(n), nil
	case tenant.Boolean:
		switch strings.ToLower(m.Text) {
		case "true":
			return name + " = " + b.bind(int64(1)), nil
		case "false":
			return name + " = " + b.bind(int64(0)), nil
		}
		return "1 = 0", nil
	case tenant.Time:
		low, high, ok := span(m.Text)
		if !ok {
			return "1 = 0", nil
		}
		return "(" + name + " >= " + b.bind(low) + " AND " + name + " < " + b.bind(high) + ")", nil
	case tenant.Folded:
		return b.text(name, strings.ToLower(m.Text), m.Wildcard), nil
	}
	return b.text(name, m.Text, m.Wildcard), nil
}

// text compares a text expression; LIKE only where there is a wildcard, so that
// equality can use the index.
func (b *builder) text(expr, want string, wildcard bool) string {
	if !wildcard {
		return expr + " = " + b.bind(want)
	}
	return expr + " LIKE " + b.bind(like(want)) + ` ESCAPE '\'`
}

// like turns * and ? into SQL's wildcards. A backslash escapes them.
func like(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			if i+1 < len(s) {
				i++
				if strings.IndexByte(`%_\`, s[i]) >= 0 {
					out.WriteByte('\\')
				}
				out.WriteByte(s[i])
			}
		case '*':
			out.WriteByte('%')
		case '?':
			out.WriteByte('_')
		case '%', '_':
			out.WriteByte('\\')
			out.WriteByte(c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

func open(bound string) bool { return bound == "" || bound == "*" }

// span is the time that a date or an instant covers, in milliseconds.
func span(s string) (low, high int64, ok bool) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t.UnixMilli(), t.AddDate(0, 0, 1).UnixMilli(), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), t.UnixMilli() + 1, true
		}
	}
	return 0, 0, false
}

func (b *builder) between(r *search.Range) (string, error) {
	b.notText = b.notText || !storable(r.Low) || !storable(r.High)
	lowOp, highOp := ">", "<"
	if r.LowIn {
		lowOp = ">="
	}
	if r.HighIn {
		highOp = "<="
	}
	var expr func(cond func(value string) string) string
	convert := func(s string, high bool) (any, error) { return strings.ToLower(s), nil }
	if col, ok := b.column(r.Field); ok {
		expr = func(cond func(string) string) string { return cond(quote(col.Name)) }
		switch col.Type {
		case tenant.Integer:
			convert = func(s string, _ bool) (any, error) {
				n, ok := number(s)
				if !ok {
					return nil, problem.New(problem.Invalid, "invalid_query_string", "%s wants whole numbers as bounds, got %q", r.Field, s)
				}
				return n, nil
			}
		case tenant.Time:
			convert = func(s string, high bool) (any, error) {
				from, to, ok := span(s)
				if !ok {
					return nil, problem.New(problem.Invalid, "invalid_query_string", "%s wants dates such as 2026-01-31 or 2026-01-31T12:00:00Z as bounds, got %q", r.Field, s)
				}
				// The end of an inclusive day is its last millisecond; what follows an
				// exclusive one begins after it.
				if high && r.HighIn || !high && !r.LowIn {
					return to - 1, nil
				}
				return from, nil
			}
		case tenant.Text:
			convert = func(s string, _ bool) (any, error) { return s, nil }
		case tenant.Boolean:
			return "", problem.New(problem.Invalid, "invalid_query_string", "%s is true or false and has no ranges", r.Field)
		}
	} else {
		path, err := b.path(r.Field)
		if err != nil {
			return "", err
		}
		_, lowErr := strconv.ParseFloat(r.Low, 64)
		_, highErr := strconv.ParseFloat(r.High, 64)
		numeric := (lowErr == nil || open(r.Low)) && (highErr == nil || open(r.High))
		if numeric {
			convert = func(s string, _ bool) (any, error) { return strconv.ParseFloat(s, 64) }
		}
		expr = func(cond func(string) string) string {
			return b.d.JSONMatch(path, b.bind, func(text, number string) string {
				if numeric {
					return cond(number)
				}
				return cond(text)
			})
		}
	}
	type bound struct {
		op string
		v  any
	}
	var bounds []bound
	if !open(r.Low) {
		v, err := convert(r.Low, false)
		if err != nil {
			return "", err
		}
		bounds = append(bounds, bound{lowOp, v})
	}
	if !open(r.High) {
		v, err := convert(r.High, true)
		if err != nil {
			return "", err
		}
		bounds = append(bounds, bound{highOp, v})
	}
	if len(bounds) == 0 {
		return b.search(&search.Exists{Field: r.Field})
	}
	return expr(func(value string) string {
		parts := make([]string, len(bounds))
		for i, bd := range bounds {
			parts[i] = value + " " + bd.op + " " + b.bind(bd.v)
		}
		return "(" + strings.Join(parts, " AND ") + ")"
	}), nil
}
