package tenant

import (
	"context"
	"time"

	"github.com/portcullis-id/portcullis/search"
)

// Kind names a collection of documents. The engines make one table of each.
type Kind string

// Collection declares what an engine has to know of a kind: the columns that are
// searched by, and the places that hold secrets.
type Collection struct {
	Kind Kind
	// Columns are taken out of the document on every write. They can be used in
	// Cond, Order and search queries.
	Columns []Column
	// Unique lists sets of columns that no two documents of a tenant share. Rows in
	// which one of the columns is absent are free of the rule.
	Unique [][]string
	// Sealed lists gjson paths of strings that are encrypted at rest with the master
	// key. An engine seals on write and opens on read; rooms never see the
	// ciphertext.
	Sealed []string
}

// ColumnType is how a column's values are kept and compare.
type ColumnType = search.Type

// The types of columns. Folded is text that is stored in lower case, so that
// equality ignores case. Time is stored as milliseconds since the Unix epoch.
const (
	Text    = search.Text
	Folded  = search.Folded
	Integer = search.Integer
	Boolean = search.Boolean
	Time    = search.Time
)

// Column is one searchable property of a document.
type Column struct {
	Name string // SQL name; letters, digits and underscores
	Path string // gjson path in the document
	Type ColumnType
}

// Record is a stored document.
type Record struct {
	ID      string
	Version int64 // 1 after Insert, one more after each Replace
	Doc     []byte
}

// Op compares a column with a value.
type Op int

// The comparisons. In takes a []string.
const (
	Eq Op = iota
	Lt
	Le
	Gt
	Ge
	In
)

// Cond is one condition. Value is a string, int64, bool, time.Time or, for In,
// []string. Column "id" is the document's id.
type Cond struct {
	Column string
	Op     Op
	Value  any
}

// Order sorts by a column.
type Order struct {
	Column string
	Desc   bool
}

// Query selects documents of one kind. The zero value selects all, in id order.
type Query struct {
	Where  []Cond        // all must hold
	Search *search.Query // a parsed query string, or nil
	Sort   []Order       // ties are broken by id
	Limit  int           // 0 means the engine's bound of 1,000
	Offset int
	After  string // id of the last document of the previous page; with Sort empty
	Total  bool   // count all matches too
}

// Page is the answer to a Query.
type Page struct {
	Records []Record
	Total   int // matches without Limit and Offset; only when asked for
}

// Docs is the durable store of documents. Implementations are safe for
// concurrent use. Errors are *problem.Error of kind NotFound, Conflict,
// Invalid, Unavailable, or unclassified.
type Docs interface {
	// Get returns one document or problem.NotFound.
	Get(ctx context.Context, tenant string, k Kind, id string) (Record, error)
	// Find returns the page that q selects, as of one point in time.
	Find(ctx context.Context, tenant string, k Kind, q Query) (Page, error)
	// Write runs fn in one transaction. When Write returns nil, everything fn did is
	// on disk; otherwise none of it is. fn may run more than once, and may share its
	// commit with the functions of other callers: it must be quick, do no I/O but
	// tx, and not keep tx.
	Write(ctx context.Context, tenant string, fn func(tx Tx) error) error
}

// NewDoc is a document to be added.
type NewDoc struct {
	ID  string
	Doc []byte
}

// Tx is a transaction on the documents of one tenant. It sees its own writes.
type Tx interface {
	Get(k Kind, id string) (Record, error)
	Find(k Kind, q Query) (Page, error)
	// Insert adds a document, or fails with problem.Conflict when the id or a unique
	// set is taken. The error's Subject is the name of the first column of the set,
	// or "id".
	Insert(k Kind, id string, doc []byte) error
	// InsertMissing adds many documents of a kind, and passes over those whose id or
	// unique set is taken. It asks the engine a few times and not once for each.
	InsertMissing(k Kind, docs []NewDoc) error
	// Replace overwrites the document if it still has rec.Version, and fails with
	// problem.Conflict (Subject "version") or problem.NotFound otherwise.
	Replace(k Kind, rec Record) error
	// Delete reports whether the document was there.
	Delete(k Kind, id string) (bool, error)
	// DeleteWhere deletes all documents that match, and counts them. An empty where is
	// refused.
	DeleteWhere(k Kind, where []Cond) (int, error)
	// Now is the time of the transaction.
	Now() time.Time
}
