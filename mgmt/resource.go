package mgmt

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// resource declares one kind of things: everything that the generic handler has
// to know.
type resource struct {
	path    string      // "clients": path, scope and, unless key says else, name of the list
	key     string      // name of the list in envelopes
	kind    tenant.Kind // where it is stored
	id      string      // property that holds the id
	newID   func() string
	fields  schema            // what a client may send
	filters map[string]string // query parameter -> column
	lists   bool              // always an envelope, as Auth0's newer lists
	missing *problem.Error

	createdStatus, deletedStatus int
	deletedBody                  func() any

	// create completes and judges a new one; update a changed one, of which old is the
	// stored form and patch what was sent.
	create func(a *API, c *call, d doc) error
	update func(a *API, c *call, old, patch, merged doc) error
	// merge puts a patch into a document; nil replaces properties, and null deletes
	// them.
	merge func(old, patch doc) doc
	// find returns the stored id for the one in a path; nil takes it as it is.
	find func(a *API, c *call, id string) (string, error)
	// related works on other kinds in the transaction of a create or delete.
	onCreate func(a *API, c *call, tx tenant.Tx, id string, d doc) error
	onDelete func(a *API, c *call, tx tenant.Tx, id string) error
	view     func(a *API, c *call, d doc) doc
	always   []string // shown whatever fields says, as Auth0 does
	conflict string   // message when a unique property is taken
}

func notFound(code, message string) *problem.Error {
	return problem.New(problem.NotFound, code, "%s", message)
}

func (a *API) registerResource(mux *http.ServeMux, r *resource) {
	if r.key == "" {
		r.key = r.path
	}
	one := r.path + "/{id}"
	a.handle(mux, "GET "+r.path, []string{"read:" + scopeName(r.path)}, func(c *call) (int, any, error) { return a.list(c, r) })
	a.handle(mux, "POST "+r.path, []string{"create:" + scopeName(r.path)}, func(c *call) (int, any, error) { return a.createOne(c, r) })
	a.handle(mux, "GET "+one, []string{"read:" + scopeName(r.path)}, func(c *call) (int, any, error) { return a.getOne(c, r) })
	a.handle(mux, "PATCH "+one, []string{"update:" + scopeName(r.path)}, func(c *call) (int, any, error) { return a.updateOne(c, r) })
	a.handle(mux, "DELETE "+one, []string{"delete:" + scopeName(r.path)}, func(c *call) (int, any, error) { return a.deleteOne(c, r) })
}

func scopeName(path string) string {
	out := []byte(path)
	for i := range out {
		if out[i] == '-' {
			out[i] = '_'
		}
	}
	return string(out)
}

func (r *resource) shown(a *API, c *call, d doc) doc {
	if r.view != nil {
		return r.view(a, c, d)
	}
	return d
}

func (a *API) load(c *call, r *resource, id string) (doc, tenant.Record, error) {
	if r.find != nil {
		var err error
		if id, err = r.find(a, c, id); problem.Is(err, problem.NotFound) {
			return nil, tenant.Record{}, r.missing
		} else if err != nil {
			return nil, tenant.Record{}, err
		}
	}
	rec, err := a.docs.Get(c.ctx(), c.tenant, r.kind, id)
	if problem.Is(err, problem.NotFound) {
		return nil, rec, r.missing
	}
	if err != nil {
		return nil, rec, err
	}
	d, err := asDoc(rec.Doc)
	return d, rec, err
}

func (a *API) getOne(c *call, r *resource) (int, any, error) {
	cut, err := fieldsOf(c.URL.Query(), r.always...)
	if err != nil {
		return 0, nil, err
	}
	d, _, err := a.load(c, r, c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, cut(r.shown(a, c, d)), nil
}

func (a *API) list(c *call, r *resource) (int, any, error) {
	q := c.URL.Query()
	p, err := readPaging(q, 50, 100)
	if err != nil {
		return 0, nil, err
	}
	cut, err := fieldsOf(q, r.always...)
	if err != nil {
		return 0, nil, err
	}
	var query tenant.Query
	for param, column := range r.filters {
		v := q.Get(param)
		switch {
		case v == "":
		case param == "name_filter": // a part of the name
			query.Search = &search.Query{Root: &search.Match{Field: column, Text: "*" + escapeWildcards(v) + "*", Wildcard: true}}
		case column == "is_first_party" || column == "is_global" || column == "is_system":
			if v != "true" && v != "false" {
				return 0, nil, problem.New(problem.Invalid, "invalid_query_string", "%s wants true or false", param)
			}
			query.Where = append(query.Where, tenant.Cond{Column: column, Value: v == "true"})
		default:
			values := q[param]
			if len(values) > 100 {
				return 0, nil, problem.New(problem.Invalid, "invalid_query_string", "%s stands more than 100 times", param)
			}
			query.Where = append(query.Where, tenant.Cond{Column: column, Op: tenant.In, Value: split(values)})
		}
	}
	if !p.checkpoint {
		query.Sort = []tenant.Order{{Column: "created_at"}}
	}
	page, err := a.docs.Find(c.ctx(), c.tenant, r.kind, p.query(query))
	if err != nil {
		return 0, nil, err
	}
	items, ids := make([]any, 0, len(page.Records)), make([]string, 0, len(page.Records))
	for _, rec := range page.Records {
		d, err := asDoc(rec.Doc)
		if err != nil {
			return 0, nil, err
		}
		items, ids = append(items, cut(r.shown(a, c, d))), append(ids, rec.ID)
	}
	return http.StatusOK, p.envelope(r.key, items, ids, page.Total), nil
}

func escapeWildcards(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(s)
}

// split also takes values with commas between them.
func split(values []string) []string {
	var out []string
	for _, v := range values {
		start := 0
		for i := 0; i <= len(v); i++ {
			if i == len(v) || v[i] == ',' {
				if i > start {
					out = append(out, v[start:i])
				}
				start = i + 1
			}
		}
	}
	return out
}

func (a *API) createOne(c *call, r *resource) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := r.fields.check(d); err != nil {
		return 0, nil, err
	}
	if err := r.create(a, c, d); err != nil {
		return 0, nil, err
	}
	id := text(d, r.id)
	if id == "" {
		id = r.newID()
		d[r.id] = id
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		stored := doc{"created_at": timestamp(tx.Now())}
		for k, v := range d {
			stored[k] = v
		}
		if err := tenant.Add(tx, r.kind, id, stored); err != nil {
			return err
		}
		if r.onCreate != nil {
			return r.onCreate(a, c, tx, id, d)
		}
		return nil
	})
	if err != nil {
		return 0, nil, r.taken(err)
	}
	stored, _, err := a.load(c, r, id)
	if err != nil {
		return 0, nil, err
	}
	return r.createdStatus, r.shown(a, c, stored), nil
}

// taken says a conflict in the resource's own words.
func (r *resource) taken(err error) error {
	e := problem.From(err)
	if e.Kind != problem.Conflict || e.Subject == "version" || r.conflict == "" {
		return err
	}
	return problem.Wrap(problem.Conflict, "conflict", err, "%s", r.conflict)
}

func (a *API) updateOne(c *call, r *resource) (int, any, error) {
	patch, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := r.fields.check(patch); err != nil {
		return 0, nil, err
	}
	current, rec, err := a.load(c, r, c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	merge := r.merge
	if merge == nil {
		merge = shallow
	}
	// Judged on what is there now, outside of the transaction: a rule may read other
	// documents. The version says whether it still holds when it is stored.
	merged := merge(current, patch)
	if err := r.update(a, c, current, patch, merged); err != nil {
		return 0, nil, err
	}
	raw, err := json.Marshal(merged)
	if err != nil {
		return 0, nil, fmt.Errorf("encode %s: %w", r.path, err)
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		next := rec
		next.Doc = raw
		return tx.Replace(r.kind, next)
	})
	if e := problem.From(err); err != nil && e.Kind == problem.Conflict && e.Subject == "version" {
		return 0, nil, problem.Wrap(problem.Conflict, "concurrent_update", err, "Somebody else changed it at the same moment; try again")
	}
	if err != nil {
		return 0, nil, r.taken(err)
	}
	stored, _, err := a.load(c, r, rec.ID)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, r.shown(a, c, stored), nil
}

// shallow replaces whole properties; null deletes them.
func shallow(old, patch doc) doc {
	out := doc{}
	for k, v := range old {
		out[k] = v
	}
	for k, v := range patch {
		if v == nil {
			delete(out, k)
			continue
		}
		out[k] = v
	}
	return out
}

func (a *API) deleteOne(c *call, r *resource) (int, any, error) {
	id := c.PathValue("id")
	if r.find != nil {
		found, err := r.find(a, c, id)
		if problem.Is(err, problem.NotFound) {
			return r.deleted()
		}
		if err != nil {
			return 0, nil, err
		}
		id = found
	}
	err := a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		there, err := tx.Delete(r.kind, id)
		if err != nil || !there || r.onDelete == nil {
			return err
		}
		return r.onDelete(a, c, tx, id)
	})
	if err != nil {
		return 0, nil, err
	}
	// Deleting what is gone already succeeds, as at Auth0: a run that is repeated must
	// not fail.
	return r.deleted()
}

func (r *resource) deleted() (int, any, error) {
	if r.deletedBody != nil {
		return r.deletedStatus, r.deletedBody(), nil
	}
	return r.deletedStatus, nil, nil
}
