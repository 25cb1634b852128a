package tenant

import (
	"hash/fnv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/portcullis-id/portcullis/search"
)

// defaultFields are the columns that a search term without a field looks at.
var defaultFields = map[Kind][]string{
	KindUser: {"email", "name", "nickname", "username", "given_name", "family_name"},
	KindLog:  {"user_name", "client_name", "connection", "type", "ip"},
}

// Schema is what search queries of the collection can name.
func (c Collection) Schema() search.Schema {
	s := search.Schema{Columns: map[string]search.Column{}, Default: defaultFields[c.Kind]}
	for _, col := range c.Columns {
		s.Columns[col.Name] = search.Column{Name: col.Name, Type: col.Type}
	}
	s.Columns["log_id"] = search.Column{Name: "id"}
	if c.Kind == KindUser {
		s.Columns["user_id"] = search.Column{Name: "id"}
	}
	return s
}

// Searchable are the kinds that a search engine may hold an index of.
func Searchable() []Kind { return []Kind{KindUser, KindLog} }

// SearchParts is how many parts the queue of a search index has; all of a tenant is
// in one.
const SearchParts = 64

// SearchPart is the part of a tenant, from 0.
func SearchPart(tenantID string) int {
	h := fnv.New32a()
	h.Write([]byte(tenantID))
	return int(h.Sum32() % SearchParts)
}

// Indexing is an entry of the queue: the document was written, or is gone. Which
// one is seen when it is indexed.
type Indexing struct {
	Part      string    `json:"part"` // SearchPart in decimal
	Tenant    string    `json:"tenant"`
	Kind      Kind      `json:"kind"`
	ID        string    `json:"id"`
	At        time.Time `json:"at"`     // when it was written
	DueAt     time.Time `json:"due_at"` // not before
	Tries     int       `json:"tries"`  // that the search engine refused
	LastError string    `json:"last_error,omitempty"`
}

// Value takes the column out of a document: a string, an int64, or nil where there
// is no value.
func (c Column) Value(doc []byte) any {
	v := gjson.GetBytes(doc, c.Path)
	if !v.Exists() || v.Type == gjson.Null {
		return nil
	}
	switch c.Type {
	case Folded:
		return strings.ToLower(v.String())
	case Integer:
		return v.Int()
	case Boolean:
		if v.Bool() {
			return int64(1)
		}
		return int64(0)
	case Time:
		t, err := time.Parse(time.RFC3339, v.String())
		if err != nil {
			return nil
		}
		return t.UnixMilli()
	}
	return v.String()
}
