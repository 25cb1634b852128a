package tenant

import (
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
