package search

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/problem"
)

// Type is how the values of a column compare.
type Type int

// The types of columns. Folded values are kept in lower case. Whole numbers,
// booleans (0 and 1) and times (milliseconds since the Unix epoch) are all int64.
const (
	Text Type = iota
	Folded
	Integer
	Boolean
	Time
)

// Column is a property that an engine keeps apart from the document.
type Column struct {
	Name string
	Type Type
}

// Schema is what queries of one kind of document can name.
type Schema struct {
	Columns map[string]Column // by field; every other field is a path in the document
	Default []string          // fields of a term that names none: text alone
}

// Cond is a condition that every engine understands in the same way: fields are
// resolved, text is folded, and bounds have the type of what they bound. It is
// one of All, Any, None, Is, Like, Between, Whole, Number and Has.
//
// A condition on a path holds when it holds for the value there, or for one of
// the values when arrays lie on the path. Text of a value in a document is that of
// a string, a number or a boolean, in lower case; objects and null have none.
type Cond interface{ cond() }

type (
	// All holds when each condition does; with none of them always.
	All []Cond
	// Any holds when one condition does; with none of them never.
	Any []Cond
	// None holds when its condition does not; of what is absent nothing holds.
	None struct{ Cond Cond }

	// Is compares text for equality.
	Is struct {
		At   Place
		Text string
	}
	// Like compares text with a pattern: * is any text, ? one character; a backslash
	// takes the meaning from the next character.
	Like struct {
		At      Place
		Pattern string
	}
	// Between compares text by its bytes. A nil bound is open.
	Between struct {
		At            Place
		Low, High     *string
		LowIn, HighIn bool
	}
	// Whole compares a column of int64; the bounds belong to the range. A nil bound is
	// open.
	Whole struct {
		Column    string
		Low, High *int64
	}
	// Number compares numbers in the document. A nil bound is open.
	Number struct {
		Path          []string
		Low, High     *float64
		LowIn, HighIn bool
	}
	// Has holds when the column has a value, or the path leads to something that is
	// not null.
	Has struct{ At Place }
)

// Place is where a value is: in one of several columns, or at a path of the
// document.
type Place struct {
	Columns []Column
	Path    []string
}

func (All) cond()     {}
func (Any) cond()     {}
func (None) cond()    {}
func (Is) cond()      {}
func (Like) cond()    {}
func (Between) cond() {}
func (Whole) cond()   {}
func (Number) cond()  {}
func (Has) cond()     {}

// MaxPattern bounds a term with wildcards, and a bound of a range of text, in
// characters: search engines make an automaton of them.
const MaxPattern = 200

// MaxPath bounds the names of a field with dots between them.
const MaxPath = 8

// Resolve turns a query into conditions over a schema. Errors are
// problem.Invalid: "invalid_query_string", or "invalid_text" for text that is not
// UTF-8 or has a NUL.
func Resolve(q *Query, s Schema) (Cond, error) {
	if q == nil || q.Root == nil {
		return All{}, nil
	}
	return s.resolve(q.Root)
}

func invalid(format string, args ...any) error {
	return problem.New(problem.Invalid, "invalid_query_string", format, args...)
}

// Storable reports whether every engine can hold a text.
func Storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

func storable(texts ...string) error {
	for _, t := range texts {
		if !Storable(t) {
			return problem.New(problem.Invalid, "invalid_text", "a text is not UTF-8, or has a NUL character")
		}
	}
	return nil
}

// short holds a text to MaxPattern.
func short(text string) error {
	if n := utf8.RuneCountInString(text); n > MaxPattern {
		return invalid("a term with wildcards or a bound of a range has %d characters; allowed are %d", n, MaxPattern)
	}
	return nil
}

func (s Schema) resolve(n Node) (Cond, error) {
	switch n := n.(type) {
	case *And:
		list, err := s.list(n.Nodes)
		return All(list), err
	case *Or:
		list, err := s.list(n.Nodes)
		return Any(list), err
	case *Not:
		inner, err := s.resolve(n.Node)
		return None{inner}, err
	case *Match:
		if err := storable(n.Field, n.Text); err != nil {
			return nil, err
		}
		if err := short(n.Text); err != nil && n.Wildcard {
			return nil, err
		}
		if n.Field == "" {
			return s.anyDefault(n)
		}
		return s.match(n)
	case *Range:
		if err := storable(n.Field, n.Low, n.High); err != nil {
			return nil, err
		}
		return s.between(n)
	case *Exists:
		if err := storable(n.Field); err != nil {
			return nil, err
		}
		at, err := s.place(n.Field)
		return Has{at}, err
	}
	return nil, invalid("this form of query is not known")
}

func (s Schema) list(nodes []Node) ([]Cond, error) {
	out := make([]Cond, len(nodes))
	for i, n := range nodes {
		var err error
		if out[i], err = s.resolve(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s Schema) place(field string) (Place, error) {
	if col, ok := s.Columns[field]; ok {
		return Place{Columns: []Column{col}}, nil
	}
	path := strings.Split(field, ".")
	if slices.Contains(path, "") || len(path) > MaxPath {
		return Place{}, invalid("%q is no field; allowed are up to 8 names with dots between them", field)
	}
	return Place{Path: path}, nil
}

// anyDefault is a term without a field: the default fields, those of one type
// together.
func (s Schema) anyDefault(m *Match) (Cond, error) {
	if len(s.Default) == 0 {
		return nil, invalid("a term here wants a field, as in field:value")
	}
	byType := map[Type][]Column{}
	for _, f := range s.Default {
		col := s.Columns[f]
		byType[col.Type] = append(byType[col.Type], col)
	}
	var out Any
	for _, t := range []Type{Folded, Text} {
		if cols := byType[t]; len(cols) > 0 {
			out = append(out, text(Place{Columns: cols}, m))
		}
	}
	return out, nil
}

// text compares the text at a place with what a Match says.
func text(at Place, m *Match) Cond {
	if m.Wildcard && m.Text == "*" {
		return Has{at}
	}
	want := m.Text
	if at.Columns == nil || at.Columns[0].Type == Folded {
		want = strings.ToLower(want)
	}
	if m.Wildcard {
		return Like{at, want}
	}
	return Is{at, want}
}

func (s Schema) match(m *Match) (Cond, error) {
	at, err := s.place(m.Field)
	if err != nil || at.Columns == nil || m.Wildcard && m.Text == "*" {
		return text(at, m), err
	}
	col := at.Columns[0]
	switch col.Type {
	case Integer:
		n, err := strconv.ParseInt(m.Text, 10, 64)
		if err != nil {
			return Any{}, nil
		}
		return Whole{col.Name, &n, &n}, nil
	case Boolean:
		n := int64(slices.Index([]string{"false", "true"}, strings.ToLower(m.Text)))
		if n < 0 {
			return Any{}, nil
		}
		return Whole{col.Name, &n, &n}, nil
	case Time:
		low, next, ok := span(m.Text)
		if !ok {
			return Any{}, nil
		}
		high := next - 1
		return Whole{col.Name, &low, &high}, nil
	}
	return text(at, m), nil
}

func open(bound string) bool { return bound == "" || bound == "*" }

// span is the time that a date or an instant covers, in milliseconds; next is the
// first one after it.
func span(s string) (low, next int64, ok bool) {
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

func (s Schema) between(r *Range) (Cond, error) {
	at, err := s.place(r.Field)
	if err != nil {
		return nil, err
	}
	if at.Columns != nil {
		switch col := at.Columns[0]; col.Type {
		case Integer, Time:
			return whole(col, r)
		case Boolean:
			return nil, invalid("%s is true or false and has no ranges", r.Field)
		}
	}
	if open(r.Low) && open(r.High) {
		return Has{at}, nil
	}
	if at.Columns == nil {
		if low, high, ok := numbers(r); ok {
			return Number{at.Path, low, high, r.LowIn, r.HighIn}, nil
		}
	}
	bound := func(b string) *string {
		if open(b) {
			return nil
		}
		if at.Columns == nil || at.Columns[0].Type == Folded {
			b = strings.ToLower(b)
		}
		return &b
	}
	for _, b := range []string{r.Low, r.High} {
		if err := short(b); err != nil {
			return nil, err
		}
	}
	return Between{at, bound(r.Low), bound(r.High), r.LowIn, r.HighIn}, nil
}

// numbers reads bounds that are all numbers.
func numbers(r *Range) (low, high *float64, ok bool) {
	for _, b := range []struct {
		text string
		to   **float64
	}{{r.Low, &low}, {r.High, &high}} {
		if open(b.text) {
			continue
		}
		f, err := strconv.ParseFloat(b.text, 64)
		if err != nil || math.IsNaN(f) {
			return nil, nil, false
		}
		*b.to = &f
	}
	return low, high, true
}

// whole reads the bounds of a column of whole numbers or times, and takes them
// into the range.
func whole(col Column, r *Range) (Cond, error) {
	// A bound covers from first to last: a day has many milliseconds.
	cover := func(b string) (first, last int64, err error) {
		if col.Type == Time {
			low, next, ok := span(b)
			if !ok {
				return 0, 0, invalid("%s wants dates such as 2026-01-31 or 2026-01-31T12:00:00Z as bounds, got %q", r.Field, b)
			}
			return low, next - 1, nil
		}
		n, err := strconv.ParseInt(b, 10, 64)
		if err != nil {
			return 0, 0, invalid("%s wants whole numbers as bounds, got %q", r.Field, b)
		}
		return n, n, nil
	}
	out := Whole{Column: col.Name}
	never := false
	if !open(r.Low) {
		first, last, err := cover(r.Low)
		if err != nil {
			return nil, err
		}
		if !r.LowIn {
			never = last == math.MaxInt64
			first = last + 1
		}
		out.Low = &first
	}
	if !open(r.High) {
		first, last, err := cover(r.High)
		if err != nil {
			return nil, err
		}
		if !r.HighIn {
			never = never || first == math.MinInt64
			last = first - 1
		}
		out.High = &last
	}
	switch {
	case never:
		return Any{}, nil
	case out.Low == nil && out.High == nil:
		return Has{Place{Columns: []Column{col}}}, nil
	}
	return out, nil
}
