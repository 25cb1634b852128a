package searchindex

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

// searchTimeout bounds one query.
const searchTimeout = 5 * time.Second

// pause is how long no query is sent after the engine did not answer one, so that
// callers need not wait for that again.
const pause = 3 * time.Second

// kind is what is known of a searchable kind.
type kind struct {
	tenant.Collection
	schema search.Schema
}

func kinds() map[tenant.Kind]kind {
	out := map[tenant.Kind]kind{}
	for _, c := range tenant.Collections() {
		if slices.Contains(tenant.Searchable(), c.Kind) {
			out[c.Kind] = kind{c, c.Schema()}
		}
	}
	return out
}

// base is the name under which a group's documents of a kind are found: an alias.
func (c *Config) base(k tenant.Kind, group int) string {
	return c.Prefix + "-" + string(k) + "-v" + strconv.Itoa(schema) + "-" + strconv.Itoa(group) + "of" + strconv.Itoa(c.Groups)
}

func (c *Config) group(tenantID string) int { return tenant.SearchPart(tenantID) % c.Groups }

// Docs is the store, with the search engine in front for queries that search.
// What they find is eventually consistent: a write is found some seconds later.
// The documents themselves always come from the store, as they are there.
//
// While a group's index is not complete, the store searches. While the engine does
// not answer, the store searches only where it has an index for the query; other
// queries are problem.Unavailable.
type Docs struct {
	tenant.Docs
	cfg     Config
	engine  *engine
	kinds   map[tenant.Kind]kind
	written func() // after a write
	until   atomic.Int64

	fallbacks atomic.Int64
	refused   atomic.Int64
}

var _ tenant.Docs = (*Docs)(nil)

// New makes the store's front and the indexer that belongs to it. client calls out
// on the row of the search engine.
func New(cfg Config, docs tenant.Docs, client *http.Client, opts Options) (*Docs, *Indexer) {
	e, ks := cfg.engine(client), kinds()
	x := newIndexer(cfg, docs, e, ks, opts)
	return &Docs{Docs: docs, cfg: cfg, engine: e, kinds: ks, written: x.Wake}, x
}

// Write implements tenant.Docs.
func (d *Docs) Write(ctx context.Context, tenantID string, fn func(tx tenant.Tx) error) error {
	touched := false
	err := d.Docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		touched = false
		return fn(&noticeTx{tx, d.kinds, &touched})
	})
	if err == nil && touched {
		d.written()
	}
	return err
}

// noticeTx notes whether something was written that is searched.
type noticeTx struct {
	tenant.Tx
	kinds   map[tenant.Kind]kind
	touched *bool
}

func (t *noticeTx) note(k tenant.Kind) {
	if _, ok := t.kinds[k]; ok {
		*t.touched = true
	}
}

func (t *noticeTx) Insert(k tenant.Kind, id string, doc []byte) error {
	t.note(k)
	return t.Tx.Insert(k, id, doc)
}

func (t *noticeTx) InsertMissing(k tenant.Kind, docs []tenant.NewDoc) error {
	t.note(k)
	return t.Tx.InsertMissing(k, docs)
}

func (t *noticeTx) Replace(k tenant.Kind, rec tenant.Record) error {
	t.note(k)
	return t.Tx.Replace(k, rec)
}

func (t *noticeTx) Delete(k tenant.Kind, id string) (bool, error) {
	t.note(k)
	return t.Tx.Delete(k, id)
}

func (t *noticeTx) DeleteWhere(k tenant.Kind, where []tenant.Cond) (int, error) {
	t.note(k)
	return t.Tx.DeleteWhere(k, where)
}

// Find implements tenant.Docs.
func (d *Docs) Find(ctx context.Context, tenantID string, k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	kd, ok := d.kinds[k]
	if !ok || q.Search == nil || q.Search.Root == nil {
		return d.Docs.Find(ctx, tenantID, k, q)
	}
	cond, err := search.Resolve(q.Search, kd.schema)
	if err != nil {
		return tenant.Page{}, err
	}
	body, err := request(kd.Collection, tenantID, q, cond)
	if err != nil {
		return tenant.Page{}, err
	}
	ids, total, err := d.ask(ctx, d.cfg.base(k, d.cfg.group(tenantID)), body)
	switch {
	case err == nil:
		page, err := d.load(ctx, tenantID, k, ids)
		page.Total = total
		return page, err
	case noIndex(err), tooDeep(err, body): // it is being built, or takes no query like this
		d.fallbacks.Add(1)
		return d.Docs.Find(ctx, tenantID, k, q)
	case !problem.Is(err, problem.Unavailable) || ctx.Err() != nil:
		return tenant.Page{}, err
	case cheap(k, cond):
		d.fallbacks.Add(1)
		return d.Docs.Find(ctx, tenantID, k, q)
	}
	d.refused.Add(1)
	return tenant.Page{}, err
}

// ask sends a query and returns the ids that it finds, in order.
func (d *Docs) ask(ctx context.Context, index string, body dsl) (ids []string, total int, err error) {
	if time.Now().UnixNano() < d.until.Load() {
		return nil, 0, unavailable(nil)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, 0, err
	}
	var answer struct {
		Hits struct {
			Total struct {
				Value int `json:"value"`
			} `json:"total"`
			Hits []struct {
				Sort []any `json:"sort"`
			} `json:"hits"`
		} `json:"hits"`
		TimedOut bool `json:"timed_out"`
		Shards   struct {
			Failed int `json:"failed"`
		} `json:"_shards"`
	}
	asked, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	err = d.engine.do(asked, http.MethodPost, "/"+url.PathEscape(index)+"/_search?allow_partial_search_results=false&filter_path=hits.total,hits.hits.sort,timed_out,_shards.failed", raw, &answer)
	if err != nil {
		if problem.Is(err, problem.Unavailable) && ctx.Err() == nil {
			d.until.Store(time.Now().Add(pause).UnixNano())
		}
		return nil, 0, err
	}
	for _, h := range answer.Hits.Hits {
		if len(h.Sort) > 0 {
			if id, ok := h.Sort[len(h.Sort)-1].(string); ok { // ties are broken by it
				ids = append(ids, id)
			}
		}
	}
	return ids, answer.Hits.Total.Value, nil
}

// load reads the documents that were found. One that is gone meanwhile is left
// out.
func (d *Docs) load(ctx context.Context, tenantID string, k tenant.Kind, ids []string) (tenant.Page, error) {
	if len(ids) == 0 {
		return tenant.Page{}, nil
	}
	found, err := d.Docs.Find(ctx, tenantID, k, tenant.Query{Where: []tenant.Cond{{Column: "id", Op: tenant.In, Value: ids}}, Limit: len(ids)})
	if err != nil {
		return tenant.Page{}, err
	}
	byID := make(map[string]tenant.Record, len(ids))
	for _, rec := range found.Records {
		byID[rec.ID] = rec
	}
	var page tenant.Page
	for _, id := range ids {
		if rec, ok := byID[id]; ok {
			page.Records = append(page.Records, rec)
		}
	}
	return page, nil
}

// quick are the columns whose equality few documents share, and that the store has
// an index of.
var quick = map[tenant.Kind][]string{
	tenant.KindUser: {"id", "email", "username", "phone_number", "name", "nickname"},
	tenant.KindLog:  {"id", "user_id", "user_name"},
}

// cheap reports whether the store answers a condition along its indexes, so that
// it may do so while it has to bear everything else as well.
func cheap(k tenant.Kind, c search.Cond) bool {
	switch c := c.(type) {
	case search.All: // one that is cheap leaves few documents for the others
		return slices.ContainsFunc(c, func(c search.Cond) bool { return cheap(k, c) })
	case search.Any:
		return len(c) > 0 && len(c) <= 16 && !slices.ContainsFunc(c, func(c search.Cond) bool { return !cheap(k, c) })
	case search.Is:
		return len(c.At.Columns) == 1 && slices.Contains(quick[k], c.At.Columns[0].Name)
	}
	return false
}
