package search

import (
	"strings"
	"unicode"
)

// String is the query in one canonical form, which Parse reads back to the same
// tree as long as it keeps within MaxLength: a group over a field is written out
// and may grow.
func (q *Query) String() string {
	if q == nil || q.Root == nil {
		return "*:*"
	}
	var b strings.Builder
	write(&b, q.Root)
	return b.String()
}

// needsParens reports whether a node has to stand in parentheses inside its
// parent, so that reading it back gives the same tree.
func needsParens(parent, child Node) bool {
	switch c := child.(type) {
	case *And:
		if len(c.Nodes) < 2 {
			return len(c.Nodes) == 1 && needsParens(parent, c.Nodes[0])
		}
		_, inOr := parent.(*Or)
		return !inOr // AND binds more tightly than OR
	case *Or:
		if len(c.Nodes) == 1 {
			return needsParens(parent, c.Nodes[0])
		}
		return len(c.Nodes) > 1
	}
	return false
}

func writeChild(b *strings.Builder, parent, child Node) {
	if needsParens(parent, child) {
		b.WriteByte('(')
		write(b, child)
		b.WriteByte(')')
		return
	}
	write(b, child)
}

func writeList(b *strings.Builder, parent Node, nodes []Node, op string) {
	for i, n := range nodes {
		if i > 0 {
			b.WriteString(op)
		}
		if len(nodes) == 1 {
			write(b, n)
			return
		}
		writeChild(b, parent, n)
	}
}

func write(b *strings.Builder, n Node) {
	switch n := n.(type) {
	case *And:
		if len(n.Nodes) == 0 {
			b.WriteString("*:*")
		}
		writeList(b, n, n.Nodes, " AND ")
	case *Or:
		if len(n.Nodes) == 0 {
			b.WriteString("NOT *:*") // none of no conditions holds
		}
		writeList(b, n, n.Nodes, " OR ")
	case *Not:
		b.WriteString("NOT ")
		writeChild(b, n, n.Node)
	case *Match:
		writeField(b, n.Field)
		switch {
		case n.Exact:
			writeQuoted(b, n.Text)
		case n.Wildcard:
			writePattern(b, n.Text)
		default:
			writeTerm(b, n.Text)
		}
	case *Range:
		writeField(b, n.Field)
		b.WriteByte(bracket(n.LowIn || n.Low == "", '[', '{'))
		writeBound(b, n.Low)
		b.WriteString(" TO ")
		writeBound(b, n.High)
		b.WriteByte(bracket(n.HighIn || n.High == "", ']', '}'))
	case *Exists:
		b.WriteString("_exists_:")
		writeTerm(b, n.Field)
	}
}

func bracket(in bool, closed, open byte) byte {
	if in {
		return closed
	}
	return open
}

func writeField(b *strings.Builder, field string) {
	if field != "" {
		writeTerm(b, field)
		b.WriteByte(':')
	}
}

// writeRune escapes a character that would mean something in a bare term.
func writeRune(b *strings.Builder, r rune, first bool) {
	if unicode.IsSpace(r) || strings.ContainsRune(`(){}[]^"~*?:\`, r) || first && strings.ContainsRune(`+-!/&|<>`, r) {
		b.WriteByte('\\')
	}
	b.WriteRune(r)
}

func writeTerm(b *strings.Builder, s string) {
	switch s {
	case "":
		b.WriteString(`""`)
	case "AND", "OR", "NOT":
		b.WriteByte('\\')
	}
	for i, r := range s {
		writeRune(b, r, i == 0)
	}
}

// writePattern writes a text in which * and ? are wildcards and a backslash
// escapes.
func writePattern(b *strings.Builder, s string) {
	escaped := false
	for i, r := range s {
		switch {
		case escaped:
			writeRune(b, r, false)
			escaped = false
		case r == '\\':
			escaped = true
		case r == '*' || r == '?':
			b.WriteRune(r)
		default:
			writeRune(b, r, i == 0)
		}
	}
}

var quoteEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func writeQuoted(b *strings.Builder, s string) {
	b.WriteByte('"')
	b.WriteString(quoteEscape.Replace(s))
	b.WriteByte('"')
}

func writeBound(b *strings.Builder, s string) {
	plain := s != "TO"
	for _, r := range s {
		plain = plain && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.:+-", r))
	}
	switch {
	case s == "":
		b.WriteByte('*')
	case plain:
		b.WriteString(s)
	default:
		writeQuoted(b, s)
	}
}

// nesting counts the levels of parentheses and negations that the canonical
// form takes.
func nesting(n Node) int {
	deepest := func(nodes []Node) int {
		d := 0
		for _, c := range nodes {
			cd := nesting(c)
			if needsParens(n, c) {
				cd++
			}
			d = max(d, cd)
		}
		return d
	}
	switch n := n.(type) {
	case *And:
		return deepest(n.Nodes)
	case *Or:
		return deepest(n.Nodes)
	case *Not:
		return 1 + deepest([]Node{n.Node})
	}
	return 0
}
