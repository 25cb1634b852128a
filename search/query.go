package search

// Query is a parsed query string. Parse makes it; an engine runs it.
type Query struct {
	Root Node
}

// Node is one of *And, *Or, *Not, *Match, *Range and *Exists.
type Node interface{ node() }

// And holds when all of its nodes hold. With no nodes it always holds.
type And struct{ Nodes []Node }

// Or holds when one of its nodes holds. With no nodes it never holds.
type Or struct{ Nodes []Node }

// Not holds when its node does not.
type Not struct{ Node Node }

// Match compares a field with a text, ignoring case. An empty Field means the
// kind's default fields. Without Exact each word of the field's value may match,
// with it the whole value has to. Text may hold the wildcards * and ? when
// Wildcard is set; a backslash escapes them.
type Match struct {
	Field    string
	Text     string
	Exact    bool
	Wildcard bool
}

// Range holds when a field lies between two bounds. An empty bound is open.
type Range struct {
	Field         string
	Low, High     string
	LowIn, HighIn bool // the bound itself belongs to the range
}

// Exists holds when the document has the field.
type Exists struct{ Field string }

func (*And) node()    {}
func (*Or) node()     {}
func (*Not) node()    {}
func (*Match) node()  {}
func (*Range) node()  {}
func (*Exists) node() {}
