package search

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/problem"
)

// The bounds of a query string. They keep a stranger's query from costing more
// than its answer is worth, whichever engine runs it.
const (
	MaxLength  = 8 << 10 // bytes
	MaxDepth   = 32      // parentheses and negations within each other
	MaxClauses = 256     // terms, ranges and tests for existence
)

// Parse reads a query string. It understands Lucene's syntax as the user search
// of Auth0 takes it:
//
//	jane                          a word in the kind's default fields
//	name:jane  name:"jane doe"    a word; the whole value
//	name:ja*   name:*             a prefix; any value
//	_exists_:name                 any value
//	n:[1 TO 9] n:{1 TO *} n:>=10  ranges; { and } leave the bound itself out
//	a AND b, a && b               both; binds more tightly than OR
//	a OR b, a || b, a b           either
//	NOT a, !a, -a                 not; beside others without OR: the others, but not this one
//	+a b                          a; b only counts for a score, of which there is none
//	name:(jane OR joan)           a field for several terms
//
// A backslash takes the meaning from the next character. An empty string, * and
// *:* match everything, which is an And of no nodes. Fuzzy terms, proximity,
// boosts, regular expressions, and wildcards anywhere but at the end are
// refused.
//
// Errors are problem.Invalid with the code "invalid_query_string"; they name the
// position, in characters from 1, and what is allowed there.
func Parse(q string) (*Query, error) {
	p := &parser{in: q}
	root, err := p.query()
	if err != nil {
		return nil, err
	}
	return &Query{Root: root}, nil
}

// parser reads the string once, from left to right. field is the field of the
// group that it is in.
type parser struct {
	in      string
	pos     int
	depth   int
	clauses int
	field   string
}

func (p *parser) fail(pos int, format string, args ...any) error {
	n := utf8.RuneCountInString(p.in[:min(pos, len(p.in))]) + 1
	return problem.New(problem.Invalid, "invalid_query_string", "q, position %d: %s", n, fmt.Sprintf(format, args...)).About("q")
}

func (p *parser) query() (Node, error) {
	if len(p.in) > MaxLength {
		return nil, problem.New(problem.Invalid, "invalid_query_string",
			"q, position %d: the query string has %d bytes; allowed are %d", MaxLength+1, len(p.in), MaxLength).About("q")
	}
	for i, r := range p.in {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(p.in[i:]); n == 1 {
				return nil, p.fail(i, "a byte is not UTF-8; the query string has to be UTF-8")
			}
		}
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return nil, p.fail(i, "the control character %U is not allowed", r)
		}
	}
	p.space()
	if p.end() {
		return all(), nil
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.end() { // or stops at nothing else
		return nil, p.fail(p.pos, "a closing parenthesis has no opening one")
	}
	// What + and - say takes parentheses when the tree is written out, so that it
	// can nest one deeper than its string.
	if nesting(n) > MaxDepth {
		return nil, p.fail(0, "the query nests deeper than %d levels", MaxDepth)
	}
	return n, nil
}

// all matches everything: each of no conditions holds.
func all() Node { return &And{} }

func (p *parser) end() bool { return p.pos >= len(p.in) }

func (p *parser) peek() byte {
	if p.end() {
		return 0
	}
	return p.in[p.pos]
}

func (p *parser) space() {
	for !p.end() {
		r, n := utf8.DecodeRuneInString(p.in[p.pos:])
		if !unicode.IsSpace(r) {
			return
		}
		p.pos += n
	}
}

func (p *parser) takes(s string) bool {
	if strings.HasPrefix(p.in[p.pos:], s) {
		p.pos += len(s)
		return true
	}
	return false
}

// atWord reports whether an operator in words comes next, and not a term that
// only begins like one.
func (p *parser) atWord(w string) bool {
	rest, ok := strings.CutPrefix(p.in[p.pos:], w)
	if !ok {
		return false
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return rest == "" || unicode.IsSpace(r) || strings.ContainsRune(`():"[]{}`, r)
}

func (p *parser) takesWord(w string) bool {
	if p.atWord(w) {
		p.pos += len(w)
		return true
	}
	return false
}

// occur is what stands in front of a clause.
type occur int

const (
	should   occur = iota
	must           // +
	prohibit       // -
	negated        // NOT or !
)

// or reads clauses until the end or a closing parenthesis.
func (p *parser) or() (Node, error) {
	var shoulds, musts, nots []Node
	orBefore := false
	for {
		n, o, err := p.and()
		if err != nil {
			return nil, err
		}
		p.space()
		orAfter := p.takesWord("OR") || p.takes("||")
		switch {
		case o == must:
			musts = append(musts, n)
		case o == prohibit, o == negated && !orBefore && !orAfter:
			nots = append(nots, n)
		default:
			shoulds = append(shoulds, n)
		}
		p.space()
		if p.end() || p.peek() == ')' {
			if orAfter {
				return nil, p.fail(p.pos, "a term is missing after OR")
			}
			return combine(shoulds, musts, nots), nil
		}
		orBefore = orAfter
	}
}

func combine(shoulds, musts, nots []Node) Node {
	var nodes []Node
	switch {
	case len(musts) > 0:
		nodes = musts
	case len(shoulds) == 1:
		nodes = shoulds
	case len(shoulds) > 1:
		nodes = []Node{&Or{Nodes: shoulds}}
	}
	nodes = append(nodes, nots...)
	if len(nodes) == 1 {
		return nodes[0]
	}
	return &And{Nodes: nodes}
}

// and reads a chain of clauses that AND binds. The occurrence counts only for a
// clause that stands alone.
func (p *parser) and() (Node, occur, error) {
	var nodes []Node
	for {
		n, o, err := p.unary()
		if err != nil {
			return nil, 0, err
		}
		nodes = append(nodes, n)
		p.space()
		if !p.takesWord("AND") && !p.takes("&&") {
			if len(nodes) == 1 {
				return n, o, nil
			}
			return &And{Nodes: nodes}, should, nil
		}
		p.space()
		if p.end() || p.peek() == ')' {
			return nil, 0, p.fail(p.pos, "a term is missing after AND")
		}
	}
}

func (p *parser) enter(pos int) error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(pos, "the query nests deeper than %d levels", MaxDepth)
	}
	return nil
}

func (p *parser) unary() (Node, occur, error) {
	p.space()
	start := p.pos
	var o occur
	switch {
	case p.takes("+"):
		o = must
	case p.takes("-"):
		o = prohibit
	case p.takes("!"), p.takesWord("NOT"):
		o = negated
	default:
		n, err := p.primary()
		return n, should, err
	}
	if err := p.enter(start); err != nil {
		return nil, 0, err
	}
	n, _, err := p.unary()
	if err != nil {
		return nil, 0, err
	}
	p.depth--
	if o != must {
		n = &Not{Node: n}
	}
	return n, o, nil
}

// primary reads one clause: a group, or a term with or without its field.
func (p *parser) primary() (Node, error) {
	start := p.pos
	for _, w := range []string{"AND", "OR"} {
		if p.atWord(w) {
			return nil, p.fail(start, "a term is missing before %s; as a word it has to be quoted", w)
		}
	}
	switch {
	case p.end():
		return nil, p.fail(start, "a term is missing")
	case p.peek() == ')':
		return nil, p.fail(start, "a term is missing before the closing parenthesis")
	case strings.HasPrefix(p.in[start:], "&&"), strings.HasPrefix(p.in[start:], "||"):
		return nil, p.fail(start, "a term is missing before %s", p.in[start:start+2])
	case p.peek() == ':':
		return nil, p.fail(start, "a field name is missing before the colon")
	case strings.IndexByte(`("[{<>/`, p.peek()) >= 0:
		n, err := p.value(p.field)
		if err == nil && p.in[start] == '"' && p.peek() == ':' {
			return nil, p.fail(start, "a field name is not quoted; a backslash takes the meaning from a special character")
		}
		return n, err
	}

	t, err := p.term(false)
	if err != nil {
		return nil, err
	}
	if p.peek() != ':' {
		return p.match(p.field, t)
	}
	p.pos++
	p.space()
	switch name := t.text(); {
	case t.allStars():
		v, err := p.term(true)
		if err != nil {
			return nil, err
		}
		if !v.allStars() || p.peek() == ':' {
			return nil, p.fail(start, "* is no field name; allowed is *:* for everything")
		}
		return p.leaf(start, all())
	case t.wild():
		return nil, p.fail(start, "a field name must not hold a wildcard; a backslash takes the meaning from it")
	case name == "_missing_":
		return nil, p.fail(start, "_missing_ is not supported; use NOT _exists_:field")
	case name == "_exists_":
		return p.exists()
	default:
		return p.value(name)
	}
}

// value reads what stands after a field's colon, or a clause that begins with a
// mark of its own.
func (p *parser) value(field string) (Node, error) {
	start := p.pos
	var n Node
	var err error
	switch c := p.peek(); {
	case c == '(':
		n, err = p.group(field)
	case c == '"':
		var text string
		if text, err = p.quoted(); err == nil {
			n, err = p.leaf(start, &Match{Field: field, Text: text, Exact: true})
		}
	case c == '[' || c == '{':
		n, err = p.brackets(field)
	case c == '<' || c == '>':
		n, err = p.comparison(field)
	case c == '/':
		return nil, p.fail(start, "regular expressions are not supported; before a text that begins with / put a backslash")
	default:
		var t term
		if t, err = p.term(true); err != nil {
			return nil, err
		}
		if p.peek() == ':' {
			return nil, p.fail(p.pos, "a colon within a value has to be quoted, or to have a backslash before it")
		}
		return p.match(field, t)
	}
	if err != nil {
		return nil, err
	}
	if c := p.peek(); c == '~' || c == '^' {
		return nil, p.refuse(c)
	}
	return n, nil
}

func (p *parser) refuse(c byte) error {
	what := "proximity and fuzzy terms (~)"
	if c == '^' {
		what = "boosts (^)"
	}
	return p.fail(p.pos, "%s are not supported; a %c that belongs to the text has to be quoted, or to have a backslash before it", what, c)
}

func (p *parser) group(field string) (Node, error) {
	start := p.pos
	if err := p.enter(start); err != nil {
		return nil, err
	}
	p.pos++
	outer := p.field
	p.field = field
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.takes(")") {
		return nil, p.fail(start, "the parenthesis is not closed")
	}
	p.field = outer
	p.depth--
	return n, nil
}

func (p *parser) exists() (Node, error) {
	start := p.pos
	var name string
	if p.peek() == '"' {
		s, err := p.quoted()
		if err != nil {
			return nil, err
		}
		name = s
	} else {
		t, err := p.term(true)
		if err != nil {
			return nil, err
		}
		if t.wild() {
			return nil, p.fail(start, "_exists_ takes the name of one field, without wildcards")
		}
		name = t.text()
	}
	if name == "" {
		return nil, p.fail(start, "_exists_ takes the name of a field")
	}
	return p.leaf(start, &Exists{Field: name})
}

func (p *parser) leaf(pos int, n Node) (Node, error) {
	if p.clauses++; p.clauses > MaxClauses {
		return nil, p.fail(pos, "the query has more than %d clauses", MaxClauses)
	}
	return n, nil
}

// term is a bare text: its characters, and which of them are wildcards.
type term struct {
	start int
	chars []rune
	wilds []bool
}

func (t term) text() string { return string(t.chars) }

func (t term) wild() bool { return slices.Contains(t.wilds, true) }

// allStars reports whether the term is nothing but stars: any value.
func (t term) allStars() bool {
	for i, r := range t.chars {
		if r != '*' || !t.wilds[i] {
			return false
		}
	}
	return len(t.chars) > 0
}

// term reads a bare text up to a space, a colon or a parenthesis. Within a value
// each first character but those is text, so that phone_number:+46… is one.
func (p *parser) term(value bool) (term, error) {
	t := term{start: p.pos}
	for !p.end() {
		r, n := utf8.DecodeRuneInString(p.in[p.pos:])
		if unicode.IsSpace(r) || strings.ContainsRune("():", r) {
			break
		}
		switch r {
		case '~', '^':
			return term{}, p.refuse(byte(r))
		case '"', '[', ']', '{', '}':
			return term{}, p.fail(p.pos, "%c within a term has to be quoted, or to have a backslash before it", r)
		case '\\':
			c, err := p.escape()
			if err != nil {
				return term{}, err
			}
			t.chars, t.wilds = append(t.chars, c), append(t.wilds, false)
			continue
		}
		t.chars, t.wilds = append(t.chars, r), append(t.wilds, r == '*' || r == '?')
		p.pos += n
	}
	if len(t.chars) == 0 {
		what := "a term"
		if value {
			what = "a value"
		}
		return term{}, p.fail(p.pos, "%s is missing", what)
	}
	return t, nil
}

// escape reads a backslash and the character that it protects.
func (p *parser) escape() (rune, error) {
	rest := p.in[p.pos+1:]
	if rest == "" {
		return 0, p.fail(p.pos, "a character is missing after the backslash")
	}
	r, n := utf8.DecodeRuneInString(rest)
	p.pos += 1 + n
	return r, nil
}

func (p *parser) quoted() (string, error) {
	start := p.pos
	p.pos++
	var b strings.Builder
	for !p.end() {
		switch c := p.in[p.pos]; c {
		case '"':
			p.pos++
			return b.String(), nil
		case '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return "", p.fail(start, "the quotation mark is not closed")
}

// match makes the node of a bare text.
func (p *parser) match(field string, t term) (Node, error) {
	if !t.wild() {
		return p.leaf(t.start, &Match{Field: field, Text: t.text()})
	}
	if t.allStars() {
		if field == "" {
			return p.leaf(t.start, all())
		}
		return p.leaf(t.start, &Exists{Field: field})
	}
	if t.wilds[0] {
		return nil, p.fail(t.start, "a term must not begin with a wildcard; allowed are wildcards at the end, as in name:jo*, and field:* for any value")
	}
	for i := slices.Index(t.wilds, true); i < len(t.wilds); i++ {
		if !t.wilds[i] {
			return nil, p.fail(t.start, "a wildcard may only stand at the end of a term, as in name:jo*")
		}
	}
	var b strings.Builder
	for i, r := range t.chars {
		if !t.wilds[i] && strings.ContainsRune(`*?\`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return p.leaf(t.start, &Match{Field: field, Text: b.String(), Wildcard: true})
}

// brackets reads [low TO high] with either kind of bracket at either end.
func (p *parser) brackets(field string) (Node, error) {
	start := p.pos
	if field == "" {
		return nil, p.fail(start, "a range needs a field, as in logins_count:[1 TO 9]")
	}
	r := &Range{Field: field, LowIn: p.peek() == '['}
	p.pos++
	p.space()
	low, err := p.bound("lower")
	if err != nil {
		return nil, err
	}
	p.space()
	if !p.takesWord("TO") {
		return nil, p.fail(p.pos, "TO is missing in the range; allowed is [low TO high]")
	}
	p.space()
	high, err := p.bound("upper")
	if err != nil {
		return nil, err
	}
	p.space()
	switch {
	case p.takes("]"):
		r.HighIn = true
	case p.takes("}"):
	case p.end():
		return nil, p.fail(start, "the range is not closed; allowed are ] and }")
	default:
		return nil, p.fail(p.pos, "the range has to end after its upper bound; allowed are ] and }, and quotes around a bound with spaces")
	}
	r.Low, r.High = low, high
	return p.ranged(start, r)
}

// ranged brings a range to its one form: an open bound does not belong to it, and
// a range that is open on both sides asks for any value.
func (p *parser) ranged(pos int, r *Range) (Node, error) {
	r.LowIn = r.LowIn && r.Low != ""
	r.HighIn = r.HighIn && r.High != ""
	if r.Low == "" && r.High == "" {
		return p.leaf(pos, &Exists{Field: r.Field})
	}
	return p.leaf(pos, r)
}

// bound reads one bound between brackets, where colons are text. An open bound is
// the empty string.
func (p *parser) bound(which string) (string, error) {
	start := p.pos
	if p.peek() == '"' {
		s, err := p.quoted()
		if err == nil && s == "" {
			err = p.fail(start, "the %s bound is empty; allowed are a value and *", which)
		}
		return s, err
	}
	if p.atWord("TO") {
		return "", p.fail(start, "the %s bound is missing before TO; allowed are a value and *", which)
	}
	var b strings.Builder
	star := -1
	for !p.end() {
		r, n := utf8.DecodeRuneInString(p.in[p.pos:])
		if unicode.IsSpace(r) || r == ']' || r == '}' {
			break
		}
		switch r {
		case '"', '(', ')', '[', '{', '?':
			return "", p.fail(p.pos, "%c within a bound has to be quoted, or to have a backslash before it", r)
		case '*':
			star = p.pos
		case '\\':
			c, err := p.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(c)
			continue
		}
		b.WriteRune(r)
		p.pos += n
	}
	switch s := b.String(); {
	case s == "":
		return "", p.fail(start, "the %s bound is missing; allowed are a value and *", which)
	case star < 0:
		return s, nil
	case s == "*":
		return "", nil
	default:
		return "", p.fail(star, "a bound must not hold a wildcard; allowed are a value and * alone")
	}
}

// comparison reads >low, >=low, <high or <=high.
func (p *parser) comparison(field string) (Node, error) {
	start := p.pos
	op := p.in[p.pos]
	p.pos++
	in := p.takes("=")
	if field == "" {
		return nil, p.fail(start, "a comparison needs a field, as in logins_count:>=10")
	}
	p.space()
	at := p.pos
	var v string
	if p.peek() == '"' {
		s, err := p.quoted()
		if err != nil {
			return nil, err
		}
		if s == "" {
			return nil, p.fail(at, "the value of the comparison is empty")
		}
		v = s
	} else {
		t, err := p.term(true)
		if err != nil {
			return nil, err
		}
		if p.peek() == ':' {
			return nil, p.fail(p.pos, "a colon within a value has to be quoted, or to have a backslash before it")
		}
		if t.wild() {
			return nil, p.fail(at, "the value of a comparison must not hold a wildcard")
		}
		v = t.text()
	}
	r := &Range{Field: field}
	if op == '>' {
		r.Low, r.LowIn = v, in
	} else {
		r.High, r.HighIn = v, in
	}
	return p.ranged(start, r)
}
