package searchindex

import (
	"fmt"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// dsl is a part of the engine's query language.
type dsl = map[string]any

// query writes conditions in the engine's query language. Negations are taken down
// to the leaves, so that and/or alternate and nest no deeper than the query did.
func query(c search.Cond, not bool) dsl {
	switch c := c.(type) {
	case search.None:
		return query(c.Cond, !not)
	case search.All:
		return join(c, not, not)
	case search.Any:
		return join(c, !not, not)
	}
	q := leaf(c)
	if not {
		return dsl{"bool": dsl{"must_not": []dsl{q}}}
	}
	return q
}

// maxLevels is how deep the queries nest that every engine takes, the outermost and the
// innermost counted: indices.query.bool.max_nested_depth is 20 in Elasticsearch 7, and
// 30 in 8. OpenSearch 2 takes all that a query can be.
const maxLevels = 20

// levels is how deep a query nests.
func levels(q dsl) int {
	group, ok := q["bool"].(dsl)
	if !ok {
		return 1
	}
	most := 0
	for _, parts := range group {
		if list, ok := parts.([]dsl); ok {
			for _, p := range list {
				most = max(most, levels(p))
			}
		}
	}
	return 1 + most
}

// join puts conditions together, each of them negated where not says so. Groups of the
// same kind within each other become one.
func join(list []search.Cond, either, not bool) dsl {
	var parts []dsl
	var add func(list []search.Cond, not bool)
	add = func(list []search.Cond, not bool) {
		for _, c := range list {
			n := not
			for inner, ok := c.(search.None); ok; inner, ok = c.(search.None) {
				c, n = inner.Cond, !n
			}
			all, isAll := c.(search.All)
			any, isAny := c.(search.Any)
			switch {
			case isAll && n == either:
				add(all, n)
			case isAny && n != either:
				add(any, n)
			default:
				parts = append(parts, query(c, n))
			}
		}
	}
	add(list, not)
	switch {
	case len(parts) == 0 && either:
		return dsl{"match_none": dsl{}}
	case len(parts) == 0:
		return dsl{"match_all": dsl{}}
	case len(parts) == 1:
		return parts[0]
	case either:
		return dsl{"bool": dsl{"should": parts, "minimum_should_match": 1}}
	}
	return dsl{"bool": dsl{"filter": parts}}
}

// field is where the text of a place is in the index, and what its terms begin
// with.
func field(at search.Place) (name, begin string) {
	switch {
	case at.Columns == nil:
		return fieldPath, term(at.Path)
	case len(at.Columns) > 1 && at.Columns[0].Type == search.Folded:
		return fieldFolded, ""
	case len(at.Columns) > 1:
		return fieldText, ""
	}
	return columnField(at.Columns[0].Name), ""
}

func columnField(name string) string {
	if name == "id" {
		return fieldID
	}
	return fieldColumn + name
}

func leaf(c search.Cond) dsl {
	switch c := c.(type) {
	case search.Is:
		name, begin := field(c.At)
		return dsl{"term": dsl{name: begin + clip(c.Text)}}
	case search.Like:
		name, begin := field(c.At)
		return like(name, begin, c.Pattern)
	case search.Between:
		name, begin := field(c.At)
		return between(name, begin, c.Low, c.High, c.LowIn, c.HighIn)
	case search.Number:
		text := func(f *float64) *string {
			if f == nil {
				return nil
			}
			s := digits(*f)
			return &s
		}
		return between(fieldNumber, term(c.Path), text(c.Low), text(c.High), c.LowIn, c.HighIn)
	case search.Whole:
		bounds := dsl{}
		if c.Low != nil {
			bounds["gte"] = *c.Low
		}
		if c.High != nil {
			bounds["lte"] = *c.High
		}
		return dsl{"range": dsl{columnField(c.Column): bounds}}
	case search.Has:
		if c.At.Columns == nil {
			return dsl{"term": dsl{fieldHas: term(c.At.Path)}}
		}
		name, _ := field(c.At)
		return dsl{"exists": dsl{"field": name}}
	}
	return dsl{"match_none": dsl{}} // search.Resolve makes no others
}

// between bounds text, which may have a beginning that stays.
func between(name, begin string, low, high *string, lowIn, highIn bool) dsl {
	bounds := dsl{}
	switch {
	case low != nil:
		bounds[map[bool]string{true: "gte", false: "gt"}[lowIn]] = begin + clip(*low)
	case begin != "":
		bounds["gte"] = begin
	}
	switch {
	case high != nil:
		bounds[map[bool]string{true: "lte", false: "lt"}[highIn]] = begin + clip(*high)
	case begin != "": // the first text after all that begin so: NUL, its last byte, is the least
		bounds["lt"] = strings.TrimSuffix(begin, "\x00") + "\x01"
	}
	return dsl{"range": dsl{name: bounds}}
}

// like compares with a pattern. One that only ends in * is a prefix.
func like(name, begin, pattern string) dsl {
	var prefix, escaped strings.Builder
	escaped.WriteString(escape(begin))
	wild := 0 // wildcards that are no * at the end
	rest := pattern
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch {
		case c == '\\' && i+1 < len(pattern):
			i++
			prefix.WriteByte(pattern[i])
			escaped.WriteByte('\\')
			escaped.WriteByte(pattern[i])
		case c == '\\': // escapes nothing
		case c == '*' || c == '?':
			if rest = pattern[i:]; rest != "*" {
				wild++
			}
			escaped.WriteByte(c)
		default:
			prefix.WriteByte(c)
			escaped.WriteByte(c)
		}
	}
	if wild == 0 && rest == "*" {
		return dsl{"prefix": dsl{name: dsl{"value": begin + prefix.String()}}}
	}
	return dsl{"wildcard": dsl{name: dsl{"value": escaped.String()}}}
}

var escapes = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`)

func escape(s string) string { return escapes.Replace(s) }

// maxWindow is how far numbered pages reach; the engine refuses more.
const maxWindow = 10_000

// request is a query as it is sent: always for one tenant.
func request(c tenant.Collection, tenantID string, q tenant.Query, cond search.Cond) (dsl, error) {
	if q.Limit < 0 || q.Offset < 0 {
		return nil, problem.New(problem.Invalid, "invalid_paging", "limit and offset are 0 or more")
	}
	if q.Limit == 0 || q.Limit > 1000 {
		q.Limit = 1000
	}
	if q.Offset+q.Limit > maxWindow {
		return nil, problem.New(problem.Invalid, "invalid_paging", "pages of a search reach %d documents; go on after the last id instead", maxWindow)
	}
	where, err := conditions(c, q.Where)
	if err != nil {
		return nil, err
	}
	parts := []dsl{{"term": dsl{fieldTenant: tenantID}}}
	for _, w := range append(where, cond) {
		parts = append(parts, query(w, false))
	}
	body := dsl{
		"query": dsl{"bool": dsl{"filter": parts}}, "size": q.Limit, "from": q.Offset, "_source": false, "track_total_hits": q.Total,
	}
	if !search.Storable(q.After) {
		return nil, problem.New(problem.Invalid, "invalid_text", "a text is not UTF-8, or has a NUL character")
	}
	if q.After != "" {
		if len(q.Sort) > 0 {
			return nil, problem.New(problem.Invalid, "invalid_paging", "a page after an id has no other order")
		}
		if q.Offset > 0 { // the engine takes one of the two
			return nil, problem.New(problem.Invalid, "invalid_paging", "a page after an id has no offset")
		}
		delete(body, "from")
		body["search_after"] = []string{clip(q.After)}
	}
	body["sort"], err = sorted(c, q.Sort)
	return body, err
}

// sorted is the order: absent values last, ties by id, as in the store.
func sorted(c tenant.Collection, order []tenant.Order) ([]dsl, error) {
	dir := map[bool]string{false: "asc", true: "desc"}
	var out []dsl
	last := false
	for _, o := range order {
		if _, ok := column(c, o.Column); !ok {
			return nil, problem.New(problem.Invalid, "invalid_sort", "%s cannot be sorted by; allowed are: %s", o.Column, names(c))
		}
		out = append(out, dsl{columnField(o.Column): dsl{"order": dir[o.Desc], "missing": "_last"}})
		last = o.Desc
	}
	return append(out, dsl{fieldID: dir[last]}), nil
}

func names(c tenant.Collection) string {
	list := []string{"id"}
	for _, col := range c.Columns {
		list = append(list, col.Name)
	}
	return strings.Join(list, ", ")
}

func column(c tenant.Collection, name string) (search.Column, bool) {
	if name == "id" {
		return search.Column{Name: "id"}, true
	}
	for _, col := range c.Columns {
		if col.Name == name {
			return search.Column{Name: name, Type: col.Type}, true
		}
	}
	return search.Column{}, false
}

// conditions reads the filters that are no search query.
func conditions(c tenant.Collection, where []tenant.Cond) ([]search.Cond, error) {
	var out []search.Cond
	for _, w := range where {
		col, ok := column(c, w.Column)
		if !ok {
			return nil, problem.New(problem.Invalid, "invalid_filter", "%s cannot be filtered by; allowed are: %s", w.Column, names(c))
		}
		at := search.Place{Columns: []search.Column{col}}
		fold := func(s string) string {
			if col.Type == search.Folded {
				return strings.ToLower(s)
			}
			return s
		}
		switch v := w.Value.(type) {
		case []string:
			if w.Op != tenant.In {
				return nil, fmt.Errorf("condition on %s: only In takes a []string", w.Column)
			}
			any := search.Any{}
			for _, s := range v {
				any = append(any, search.Is{At: at, Text: fold(s)})
			}
			out = append(out, any)
			continue
		case string:
			if !search.Storable(v) {
				return nil, problem.New(problem.Invalid, "invalid_text", "a text is not UTF-8, or has a NUL character")
			}
			if col.Type != search.Text && col.Type != search.Folded {
				return nil, fmt.Errorf("condition on %s: a text does not fit the column", w.Column)
			}
			out = append(out, compareText(at, w.Op, fold(v)))
			continue
		}
		n, err := wholeValue(w)
		if err != nil {
			return nil, err
		}
		out = append(out, compareWhole(col.Name, w.Op, n))
	}
	return out, nil
}

func wholeValue(w tenant.Cond) (int64, error) {
	switch v := w.Value.(type) {
	case int:
		return int64(v), nil
	case int64:
		return v, nil
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	case time.Time:
		return v.UnixMilli(), nil
	}
	return 0, fmt.Errorf("condition on %s: %T does not fit the column", w.Column, w.Value)
}

func compareText(at search.Place, op tenant.Op, v string) search.Cond {
	switch op {
	case tenant.Lt, tenant.Le:
		return search.Between{At: at, High: &v, HighIn: op == tenant.Le}
	case tenant.Gt, tenant.Ge:
		return search.Between{At: at, Low: &v, LowIn: op == tenant.Ge}
	}
	return search.Is{At: at, Text: v}
}

func compareWhole(name string, op tenant.Op, n int64) search.Cond {
	at, before, after := n, n-1, n+1
	switch op {
	case tenant.Lt:
		return search.Whole{Column: name, High: &before}
	case tenant.Le:
		return search.Whole{Column: name, High: &at}
	case tenant.Gt:
		return search.Whole{Column: name, Low: &after}
	case tenant.Ge:
		return search.Whole{Column: name, Low: &at}
	}
	return search.Whole{Column: name, Low: &at, High: &at}
}
