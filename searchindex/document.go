package searchindex

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// schema is the version of what an index holds. Its number is part of the names, so
// that a program with another one makes indices of its own.
const schema = 1

// The fields of an index. None of them grows with what tenants write into their
// users' metadata: whatever stands at a path of a document is a term of one of
// three fields, with the path in front.
const (
	fieldTenant = "tenant"
	fieldID     = "id"
	fieldColumn = "c."     // the columns, each with a type of its own
	fieldFolded = "folded" // all default fields of a term without a field, by type
	fieldText   = "exact"
	fieldPath   = "text"   // PATH NUL text
	fieldNumber = "number" // PATH NUL number, in digits that sort as the numbers do
	fieldHas    = "has"    // PATH NUL
)

// maxTerm bounds a term in bytes. Lucene takes up to 32,766 and refuses the whole
// document for one that is longer. As no query is longer than search.MaxLength,
// what stands behind these bytes changes no answer.
const maxTerm = 2 * search.MaxLength

// maxPath is how long a path may be that stands in a term as it is.
const maxPath = 64

// term is the beginning of a path's terms. Documents hold no NUL, so that no two
// paths share terms.
func term(path []string) string {
	p := strings.Join(path, ".")
	if len(p) <= maxPath {
		return "." + p + "\x00"
	}
	sum := sha256.Sum256([]byte(p))
	return "#" + hex.EncodeToString(sum[:16]) + "\x00"
}

// clip cuts a text to maxTerm, between two characters.
func clip(s string) string {
	if len(s) <= maxTerm {
		return s
	}
	n := maxTerm
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// digits writes a number so that the texts sort as the numbers do.
func digits(f float64) string {
	if f == 0 {
		f = 0 // of two zeros one
	}
	bits := math.Float64bits(f)
	if bits>>63 == 1 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	return fmt.Sprintf("%016x", bits)
}

// numberText is the text of a JSON number: as it was written, but without an
// exponent.
func numberText(raw string) string {
	if strings.ContainsAny(raw, "eE") {
		if f, err := strconv.ParseFloat(raw, 64); err == nil {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
	}
	return raw
}

// indexed is a document as it is sent to the engine.
type indexed struct {
	Tenant  string         `json:"tenant"`
	ID      string         `json:"id"`
	Columns map[string]any `json:"c"`
	Folded  []string       `json:"folded,omitempty"`
	Exact   []string       `json:"exact,omitempty"`
	Text    []string       `json:"text,omitempty"`
	Number  []string       `json:"number,omitempty"`
	Has     []string       `json:"has,omitempty"`
}

// encode makes the index's form of a document.
func encode(c tenant.Collection, s search.Schema, tenantID, id string, doc []byte) ([]byte, error) {
	d := indexed{Tenant: tenantID, ID: clip(id), Columns: map[string]any{}}
	for _, col := range c.Columns {
		v := col.Value(doc)
		if v == nil {
			continue
		}
		if text, ok := v.(string); ok {
			v = clip(text)
		}
		d.Columns[col.Name] = v
	}
	for _, f := range s.Default {
		if text, ok := d.Columns[f].(string); ok {
			if s.Columns[f].Type == search.Folded {
				d.Folded = append(d.Folded, text)
			} else {
				d.Exact = append(d.Exact, text)
			}
		}
	}
	d.object(gjson.ParseBytes(doc), nil)
	return json.Marshal(d)
}

func (d *indexed) object(v gjson.Result, path []string) {
	v.ForEach(func(name, inner gjson.Result) bool {
		// Names that no query can give: dots stand between names.
		if name.Str == "" || strings.Contains(name.Str, ".") {
			return true
		}
		d.at(append(path[:len(path):len(path)], name.Str), inner)
		return true
	})
}

// at notes a value, or each of an array's, as search.Cond says.
func (d *indexed) at(path []string, v gjson.Result) {
	begin := term(path)
	has := false
	each := func(_, v gjson.Result) bool {
		switch {
		case v.Type == gjson.Null:
			return true
		case v.IsObject():
			if len(path) < search.MaxPath {
				d.object(v, path)
			}
		case v.IsArray(): // an array in an array is there, and no more
		case v.Type == gjson.Number:
			d.Text = append(d.Text, begin+clip(numberText(v.Raw)))
			d.Number = append(d.Number, begin+digits(v.Num))
		default:
			d.Text = append(d.Text, begin+clip(strings.ToLower(v.String())))
		}
		has = true
		return true
	}
	if v.IsArray() {
		v.ForEach(each)
	} else {
		each(gjson.Result{}, v)
	}
	if has {
		d.Has = append(d.Has, begin)
	}
}

// docID is the id of a document in the engine: at most 512 bytes.
func docID(tenantID, id string) string {
	if len(id) <= 400 {
		return tenantID + "/" + id
	}
	sum := sha256.Sum256([]byte(id))
	return tenantID + "/#" + hex.EncodeToString(sum[:])
}

// mapping is the body that makes an index.
func mapping(c tenant.Collection, alias string) ([]byte, error) {
	columns := map[string]any{}
	for _, col := range c.Columns {
		t := "keyword"
		if col.Type != search.Text && col.Type != search.Folded {
			t = "long"
		}
		columns[col.Name] = map[string]any{"type": t}
	}
	keyword, terms := map[string]any{"type": "keyword"}, map[string]any{"type": "keyword", "doc_values": false}
	return json.Marshal(map[string]any{
		"aliases": map[string]any{alias: map[string]any{}},
		"settings": map[string]any{
			"number_of_shards": 1, "auto_expand_replicas": "0-1",
			// How long the engine remembers what was deleted, so that an older write that
			// comes late does not bring it back.
			"gc_deletes": "10m",
		},
		"mappings": map[string]any{
			"dynamic": "strict",
			"_source": map[string]any{"enabled": false}, // documents are in the store
			"properties": map[string]any{
				fieldTenant: keyword, fieldID: keyword, "c": map[string]any{"properties": columns},
				fieldFolded: keyword, fieldText: keyword, fieldPath: terms, fieldNumber: terms, fieldHas: terms,
			},
		},
	})
}
