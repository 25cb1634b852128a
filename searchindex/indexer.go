package searchindex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tidwall/gjson"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// The work of one step, and the waits between steps.
const (
	batch     = 500              // entries of the queue, or documents of a build
	maxBulk   = 4 << 20          // bytes of one request, one document at least
	bulkTime  = 15 * time.Second // less than a lease
	lookEvery = time.Second
	gather    = 200 * time.Millisecond // after a write, for others to come
	measure   = 5 * time.Second
	firstWait = time.Second // after a failure; doubles
	maxWait   = 10 * time.Second
	poisoned  = time.Minute // the first wait of a document that the engine refuses; doubles
	maxPoison = time.Hour
)

// Options are what an Indexer needs beside the configuration.
type Options struct {
	Name   string // of the node, for people
	Logger *slog.Logger
}

// Indexer brings the queue into the index, and builds indices. Several nodes may
// run one each.
type Indexer struct {
	cfg    Config
	docs   tenant.Docs
	engine *engine
	kinds  map[tenant.Kind]kind
	opts   Options
	id     string
	wake   chan struct{}
	groups []*group
	notice time.Duration

	queued, failedDocs, oldest atomic.Int64 // oldest: when it was written, in milliseconds; 0 for none
	down                       atomic.Pointer[string]
}

// group is a group as this node works on it.
type group struct {
	number int
	parts  []string
	epoch  int64 // of the lease; 0 without one
	count  int64 // of the versions of this epoch
	until  time.Time
	wait   time.Duration // after a failure
	again  time.Time     // when to try again
	state  groupState

	checked bool // that the indices are there
}

func newIndexer(cfg Config, docs tenant.Docs, e *engine, ks map[tenant.Kind]kind, opts Options) *Indexer {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	x := &Indexer{cfg: cfg, docs: docs, engine: e, kinds: ks, opts: opts, id: tenant.RandomString(16), wake: make(chan struct{}, 1), notice: notice}
	for g := range cfg.Groups {
		x.groups = append(x.groups, &group{number: g, parts: cfg.parts(g)})
	}
	return x
}

// Wake lets the indexer look at once, after something was written.
func (x *Indexer) Wake() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, and then gives its leases back.
func (x *Indexer) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	wait := firstWait
	var measured time.Time
	for {
		if time.Since(measured) > measure {
			measured = time.Now()
			if err := x.Measure(ctx); err != nil && ctx.Err() == nil {
				x.opts.Logger.WarnContext(ctx, "the search queue could not be measured", "error", err)
			}
		}
		busy, err := x.Step(ctx)
		switch {
		case ctx.Err() != nil:
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			for _, g := range x.groups {
				if err := x.release(last, g); err != nil && !problem.Is(err, problem.Conflict) {
					x.opts.Logger.WarnContext(last, "a lease of the search index could not be given back", "group", g.number, "error", err)
				}
			}
			return nil
		case err != nil:
			x.fails(ctx, err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, maxWait)
			continue
		}
		x.works(ctx)
		wait = firstWait
		if busy {
			continue
		}
		select {
		case <-ctx.Done():
		case <-x.wake:
			select {
			case <-ctx.Done():
			case <-time.After(gather):
			}
		case <-tick.C:
		}
	}
}

// fails and works note whether the engine can be filled, and log each change once.
func (x *Indexer) fails(ctx context.Context, err error) {
	text := err.Error()
	if x.down.Swap(&text) == nil {
		x.opts.Logger.ErrorContext(ctx, "the search index cannot be filled; what is written waits in the queue", "error", err)
	}
}

func (x *Indexer) works(ctx context.Context) {
	if x.down.Swap(nil) != nil {
		x.opts.Logger.InfoContext(ctx, "the search index is filled again")
	}
}

// Step does what there is to do, once, and reports whether there may be more.
func (x *Indexer) Step(ctx context.Context) (busy bool, err error) {
	states, err := x.states(ctx)
	if err != nil {
		return false, fmt.Errorf("read the state of the search index: %w", err)
	}
	var ready []*group
	for _, g := range x.groups {
		mine, err := x.lease(ctx, g, states[g.number])
		if err != nil {
			return false, fmt.Errorf("lease of the search index: %w", err)
		}
		if !mine || time.Now().Before(g.again) {
			continue
		}
		if err := x.prepare(ctx, g); err != nil {
			return false, x.failed(g, err)
		}
		ready = append(ready, g)
	}
	if len(ready) == 0 {
		return false, nil
	}
	queue, err := x.queue(ctx, ready)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, g := range ready {
		more, err := x.drain(ctx, g, queue[g.number])
		if err == nil && g.state.Build != nil {
			more = true
			err = x.build(ctx, g)
		}
		busy = busy || more
		// The other groups may be on shards that work.
		errs = append(errs, x.failed(g, err))
	}
	err = errors.Join(errs...)
	return busy && err == nil, err
}

// failed decides what becomes of a group whose work has failed.
func (x *Indexer) failed(g *group, err error) error {
	switch {
	case err == nil:
		g.wait = 0
		return nil
	case problem.Is(err, problem.Conflict):
		g.epoch = 0 // another node has it
		return nil
	case noIndex(err):
		g.checked = false // somebody has deleted it
	}
	g.wait = min(max(firstWait, 2*g.wait), maxWait)
	g.again = time.Now().Add(g.wait)
	return fmt.Errorf("group %d: %w", g.number, err)
}

// prepare sees that a group has indices to write to.
func (x *Indexer) prepare(ctx context.Context, g *group) error {
	if !g.checked {
		if err := x.check(ctx, g); err != nil {
			return err
		}
	}
	// What nodes that do not know of the index yet write must be in the database when
	// it is read.
	early := g.state.Generation == 0 && time.Since(g.state.Since) < x.notice
	if g.state.Wanted != "" && g.state.Build == nil && !early {
		if err := x.begin(ctx, g); err != nil {
			return err
		}
	}
	return x.clean(ctx, g)
}

// queue reads the oldest entries of some groups. For all of them it goes along the
// key; where some are left out, because they cannot be written or are another
// node's, their entries must not stand in the way.
func (x *Indexer) queue(ctx context.Context, groups []*group) (map[int][]tenant.Record, error) {
	where := []tenant.Cond{{Column: "due_at", Op: tenant.Le, Value: time.Now()}}
	if len(groups) < len(x.groups) {
		var parts []string
		for _, g := range groups {
			parts = append(parts, g.parts...)
		}
		where = append(where, tenant.Cond{Column: "part", Op: tenant.In, Value: parts})
	}
	page, err := x.docs.Find(ctx, tenant.Authority, tenant.KindSearchQueue, tenant.Query{Limit: batch, Where: where})
	if err != nil {
		return nil, fmt.Errorf("read the search queue: %w", err)
	}
	out := map[int][]tenant.Record{}
	for _, rec := range page.Records {
		g := x.cfg.group(gjson.GetBytes(rec.Doc, "tenant").Str)
		out[g] = append(out[g], rec)
	}
	return out, nil
}

// drain brings entries of the queue into the index, and into the one that is being
// built.
func (x *Indexer) drain(ctx context.Context, g *group, queue []tenant.Record) (more bool, err error) {
	if len(queue) == 0 || !g.state.Live && g.state.Build == nil {
		return false, nil
	}
	// Of a document that was written several times the last state is enough.
	entries := map[key][]tenant.Record{}
	wanted := map[source][]string{}
	for _, rec := range queue {
		var e tenant.Indexing
		if err := json.Unmarshal(rec.Doc, &e); err != nil {
			return false, fmt.Errorf("decode the search queue: %w", err)
		}
		k := key{source{e.Tenant, e.Kind}, e.ID}
		if len(entries[k]) == 0 {
			wanted[k.source] = append(wanted[k.source], e.ID)
		}
		entries[k] = append(entries[k], rec)
	}
	// Read after the entries: what is read is at least as new as they are.
	var items []item
	for from, ids := range wanted {
		found, err := x.docs.Find(ctx, from.tenant, from.kind, tenant.Query{Where: []tenant.Cond{{Column: "id", Op: tenant.In, Value: ids}}, Limit: len(ids)})
		if err != nil {
			return false, err
		}
		docs := map[string][]byte{}
		for _, rec := range found.Records {
			docs[rec.ID] = rec.Doc
		}
		for _, id := range ids {
			items = append(items, item{key: key{from, id}, doc: docs[id]})
		}
	}
	if err := x.send(ctx, g, items, g.state.Live, g.state.Build != nil); err != nil {
		return false, err
	}
	done := 0
	err = x.held(ctx, g, func(tx tenant.Tx, s *groupState) error {
		done = 0
		for _, it := range items {
			for _, rec := range entries[it.key] {
				switch {
				case it.stale && s.Build == nil && s.Wanted == "":
					s.Wanted = "the index was ahead of the database, which was taken back to an earlier state"
				case it.stale: // stays until the index that is being built has it
				case it.err != nil:
					if err := postpone(tx, rec, it.err); err != nil {
						return err
					}
				default:
					if _, err := tx.Delete(tenant.KindSearchQueue, rec.ID); err != nil {
						return err
					}
					done++
				}
			}
		}
		return nil
	})
	for _, it := range items {
		if it.err != nil && err == nil {
			x.opts.Logger.WarnContext(ctx, "a document cannot be indexed; it is tried again later", "tenant", it.tenant, "kind", it.kind, "id", it.id, "error", it.err)
		}
	}
	return done > 0, err
}

// postpone lets an entry that the engine refuses wait, so that it holds up nobody.
func postpone(tx tenant.Tx, rec tenant.Record, why error) error {
	_, err := tenant.Change(tx, tenant.KindSearchQueue, rec.ID, func(e *tenant.Indexing) error {
		e.DueAt = tx.Now().Add(min(poisoned<<min(e.Tries, 10), maxPoison))
		e.Tries++
		e.LastError = why.Error()
		return nil
	})
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	return err
}

// source is where documents come from; key is one of them.
type source struct {
	tenant string
	kind   tenant.Kind
}

type key struct {
	source
	id string
}

// item is a document on its way; doc is nil when it is gone.
type item struct {
	key
	doc   []byte
	stale bool  // the index has a newer version
	err   error // the engine refuses it
}

// action is a part of a request. Of an old index it does not matter whether it has
// something newer.
type action struct {
	item *item
	old  bool
}

// next is the name under which the index that is being built is written to.
func (c *Config) next(k tenant.Kind, group int) string { return c.base(k, group) + "-next" }

// send brings documents into the index that is searched (live), and into the one
// that is being built (next), in requests of bounded size. What happened to each
// stands in the item; an error says that nothing is known of the rest.
func (x *Indexer) send(ctx context.Context, g *group, items []item, live, next bool) error {
	var body bytes.Buffer
	var sent []action
	flush := func() error {
		if len(sent) == 0 {
			return nil
		}
		err := x.bulk(ctx, g, body.Bytes(), sent)
		body.Reset()
		sent = sent[:0]
		return err
	}
	for i := range items {
		it := &items[i]
		kd := x.kinds[it.kind]
		what := "delete"
		var doc []byte
		if it.doc != nil {
			what = "index"
			var err error
			if doc, err = encode(kd.Collection, kd.schema, it.tenant, it.id, it.doc); err != nil {
				it.err = err
				continue
			}
		}
		if body.Len() > 0 && body.Len()+2*len(doc) > maxBulk {
			if err := flush(); err != nil {
				return err
			}
		}
		g.count++
		for _, to := range []struct {
			on, live bool
			name     string
		}{{live, true, x.cfg.base(it.kind, g.number)}, {next, false, x.cfg.next(it.kind, g.number)}} {
			if !to.on {
				continue
			}
			head, err := json.Marshal(map[string]any{what: map[string]any{
				"_index": to.name, "_id": docID(it.tenant, it.id), "version": g.epoch<<32 + g.count, "version_type": "external",
			}})
			if err != nil {
				return err
			}
			body.Write(head)
			body.WriteByte('\n')
			if doc != nil {
				body.Write(doc)
				body.WriteByte('\n')
			}
			// An index that is about to be replaced may be ahead of the database.
			sent = append(sent, action{it, to.live && next})
		}
	}
	return flush()
}

// bulk sends one request. Its time ends before the lease does.
func (x *Indexer) bulk(ctx context.Context, g *group, body []byte, sent []action) error {
	until := time.Now().Add(bulkTime)
	if g.until.Before(until) {
		until = g.until
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	var answer struct {
		Items []map[string]struct {
			Status int `json:"status"`
			Error  struct {
				Type   string `json:"type"`
				Reason string `json:"reason"`
			} `json:"error"`
		} `json:"items"`
	}
	err := x.engine.do(ctx, http.MethodPost, "/_bulk?require_alias=true&filter_path=items.*.status,items.*.error.type,items.*.error.reason", body, &answer)
	if err != nil {
		return err
	}
	if len(answer.Items) != len(sent) {
		return unavailable(fmt.Errorf("the search engine answered %d of %d actions: %w", len(answer.Items), len(sent), io.ErrUnexpectedEOF))
	}
	for i, a := range answer.Items {
		it := sent[i].item
		for _, r := range a {
			refusal := &refusal{status: r.Status, kind: r.Error.Type, reason: r.Error.Reason}
			switch {
			case r.Status < 300, r.Status == http.StatusNotFound && r.Error.Type == "": // to delete what is not there
			case r.Status == http.StatusConflict:
				it.stale = it.stale || !sent[i].old
			case r.Status == http.StatusNotFound:
				return refusal
			case r.Status == http.StatusTooManyRequests, r.Status >= 500:
				return unavailable(refusal)
			default:
				it.err = refusal
			}
		}
	}
	return nil
}
