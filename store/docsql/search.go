package docsql

import (
	"strings"

	"github.com/portcullis-id/portcullis/search"
)

// search writes a resolved query as SQL.
func (b *builder) search(c search.Cond) string {
	switch c := c.(type) {
	case search.All:
		return b.join(c, " AND ", "(1 = 1)")
	case search.Any:
		return b.join(c, " OR ", "(1 = 0)")
	case search.None:
		// Unknown is not true: what has no such field does not match the inner condition.
		return "NOT COALESCE(" + b.search(c.Cond) + ", FALSE)"
	case search.Is:
		return b.text(c.At, func(expr string) string { return expr + " = " + b.bind(c.Text) })
	case search.Like:
		pattern := like(c.Pattern)
		return b.text(c.At, func(expr string) string { return expr + " LIKE " + b.bind(pattern) + ` ESCAPE '\'` })
	case search.Between:
		return b.text(c.At, func(expr string) string { return between(b, expr, c.Low, c.High, c.LowIn, c.HighIn) })
	case search.Whole:
		return between(b, quote(c.Column), c.Low, c.High, true, true)
	case search.Number:
		return b.d.JSONMatch(c.Path, b.bind, func(_, number string) string { return between(b, number, c.Low, c.High, c.LowIn, c.HighIn) })
	case search.Has:
		if c.At.Columns == nil {
			return b.d.JSONExists(c.At.Path, b.bind)
		}
		return b.text(c.At, func(expr string) string { return expr + " IS NOT NULL" })
	}
	return "1 = 0" // Resolve makes no others
}

func (b *builder) join(list []search.Cond, op, empty string) string {
	if len(list) == 0 {
		return empty
	}
	parts := make([]string, len(list))
	for i, c := range list {
		parts[i] = b.search(c)
	}
	return "(" + strings.Join(parts, op) + ")"
}

// text is a condition on the text at a place. A column is compared as it is, so
// that its index can be used.
func (b *builder) text(at search.Place, cond func(expr string) string) string {
	if at.Columns == nil {
		// Names of the path are bound or quoted by the dialect, never pasted.
		return b.d.JSONMatch(at.Path, b.bind, func(text, _ string) string { return cond(text) })
	}
	parts := make([]string, len(at.Columns))
	for i, c := range at.Columns {
		parts[i] = cond(quote(c.Name))
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

func between[T any](b *builder, expr string, low, high *T, lowIn, highIn bool) string {
	var parts []string
	if low != nil {
		parts = append(parts, expr+map[bool]string{true: " >= ", false: " > "}[lowIn]+b.bind(*low))
	}
	if high != nil {
		parts = append(parts, expr+map[bool]string{true: " <= ", false: " < "}[highIn]+b.bind(*high))
	}
	return "(" + strings.Join(parts, " AND ") + ")"
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
