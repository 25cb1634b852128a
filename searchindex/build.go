package searchindex

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/tenant"
)

// check looks whether a group's indices are there, and wants them built where they
// are not.
func (x *Indexer) check(ctx context.Context, g *group) error {
	live, lost := "", ""
	for _, k := range tenant.Searchable() {
		indices, err := x.behind(ctx, x.cfg.base(k, g.number))
		if err != nil {
			return err
		}
		if len(indices) != 1 || indices[0] != x.index(k, g.number, g.state.Generation) {
			live = "there is no index of " + string(k)
			// One that the database knows nothing of is of another time: it was not told of
			// what was written since.
			for _, name := range indices {
				if err := x.engine.do(ctx, http.MethodDelete, "/"+url.PathEscape(name), nil, nil); err != nil && !noIndex(err) {
					return err
				}
			}
		}
		if g.state.Build == nil {
			continue
		}
		if indices, err = x.behind(ctx, x.cfg.next(k, g.number)); err != nil {
			return err
		}
		if len(indices) != 1 || indices[0] != x.index(k, g.number, g.state.Build.Generation) {
			lost = "an index of " + string(k) + " was lost while it was being built"
		}
	}
	g.checked = true
	if live == "" && lost == "" && g.state.Live {
		return nil
	}
	return x.held(ctx, g, func(_ tenant.Tx, s *groupState) error {
		s.Live = live == ""
		if lost != "" {
			s.Build, s.Wanted = nil, lost
		}
		if live != "" && s.Build == nil {
			s.Wanted = live
		}
		return nil
	})
}

func (x *Indexer) index(k tenant.Kind, group, generation int) string {
	return x.cfg.base(k, group) + "-g" + strconv.Itoa(generation)
}

// behind are the indices behind an alias.
func (x *Indexer) behind(ctx context.Context, alias string) ([]string, error) {
	var found map[string]json.RawMessage
	err := x.engine.do(ctx, http.MethodGet, "/_alias/"+url.PathEscape(alias), nil, &found)
	if noIndex(err) {
		return nil, nil
	}
	var out []string
	for name := range found {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, err
}

// all are the indices of a group and kind, of every generation.
func (x *Indexer) all(ctx context.Context, k tenant.Kind, group int) ([]string, error) {
	var found map[string]json.RawMessage
	err := x.engine.do(ctx, http.MethodGet, "/"+url.PathEscape(x.cfg.base(k, group))+"-g*/_alias", nil, &found)
	if noIndex(err) {
		return nil, nil
	}
	var out []string
	for name := range found {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, err
}

// begin makes the indices of a new generation. From then on everything is written
// to them too.
func (x *Indexer) begin(ctx context.Context, g *group) error {
	next := g.state.Generation + 1
	for _, k := range tenant.Searchable() {
		live, err := x.behind(ctx, x.cfg.base(k, g.number))
		if err != nil {
			return err
		}
		all, err := x.all(ctx, k, g.number)
		if err != nil {
			return err
		}
		for _, name := range all { // what a build that was broken off has left
			if slices.Contains(live, name) {
				if n, err := strconv.Atoi(name[strings.LastIndex(name, "-g")+2:]); err == nil && n >= next {
					next = n + 1 // the store was taken back to an earlier state
				}
				continue
			}
			if err := x.engine.do(ctx, http.MethodDelete, "/"+url.PathEscape(name), nil, nil); err != nil && !noIndex(err) {
				return err
			}
		}
	}
	for _, k := range tenant.Searchable() {
		body, err := mapping(x.kinds[k].Collection, x.cfg.next(k, g.number))
		if err != nil {
			return err
		}
		if err := x.engine.do(ctx, http.MethodPut, "/"+url.PathEscape(x.index(k, g.number, next)), body, nil); err != nil {
			return fmt.Errorf("make an index: %w", err)
		}
	}
	err := x.held(ctx, g, func(tx tenant.Tx, s *groupState) error {
		s.Build = &build{Generation: next, Reason: s.Wanted, StartedAt: tx.Now(), Kind: tenant.Searchable()[0]}
		s.Wanted = ""
		return nil
	})
	if err == nil {
		x.opts.Logger.InfoContext(ctx, "a search index is being built", "group", g.number, "generation", next, "reason", g.state.Build.Reason)
	}
	return err
}

// build reads one page from the store into the new indices. As one node writes to
// them, in turn with the queue, each document is as new as the last that was sent.
func (x *Indexer) build(ctx context.Context, g *group) error {
	b := *g.state.Build
	if b.Tenant == "" {
		return x.nextTenant(ctx, g, b)
	}
	page, err := x.docs.Find(ctx, b.Tenant, b.Kind, tenant.Query{Limit: batch, After: b.After})
	if err != nil {
		return err
	}
	if len(page.Records) == 0 {
		return x.nextTenant(ctx, g, b)
	}
	var items []item
	for _, rec := range page.Records {
		items = append(items, item{key: key{source{b.Tenant, b.Kind}, rec.ID}, doc: rec.Doc})
	}
	if err := x.send(ctx, g, items, false, true); err != nil {
		return err
	}
	return x.held(ctx, g, func(tx tenant.Tx, s *groupState) error {
		for _, it := range items {
			if it.err == nil {
				continue
			}
			// It goes into the queue, which tries again and counts it.
			e := tenant.Indexing{Part: strconv.Itoa(tenant.SearchPart(it.tenant)), Tenant: it.tenant, Kind: it.kind, ID: it.id, At: tx.Now(),
				DueAt: tx.Now().Add(poisoned), Tries: 1, LastError: it.err.Error()}
			if err := tenant.Add(tx, tenant.KindSearchQueue, fmt.Sprintf("%012x-%s", tx.Now().UnixMilli(), tenant.RandomString(12)), &e); err != nil {
				return err
			}
		}
		s.Build.After = page.Records[len(page.Records)-1].ID
		s.Build.Done += len(items)
		return nil
	})
}

// nextTenant goes on to the group's next tenant, then to the next kind, and then
// ends the build.
func (x *Indexer) nextTenant(ctx context.Context, g *group, b build) error {
	name, err := x.tenantAfter(ctx, g, b.Tenant)
	if err != nil {
		return err
	}
	if name == "" {
		kinds := tenant.Searchable()
		i := slices.Index(kinds, b.Kind) + 1
		if i == len(kinds) {
			return x.finish(ctx, g, b)
		}
		b.Kind = kinds[i]
		if name, err = x.tenantAfter(ctx, g, ""); err != nil {
			return err
		}
		if name == "" {
			return x.finish(ctx, g, b)
		}
	}
	return x.held(ctx, g, func(_ tenant.Tx, s *groupState) error {
		s.Build.Kind, s.Build.Tenant, s.Build.After = b.Kind, name, ""
		return nil
	})
}

// tenantAfter is the group's first tenant whose name follows; "" when there is
// none.
func (x *Indexer) tenantAfter(ctx context.Context, g *group, name string) (string, error) {
	for {
		page, err := x.docs.Find(ctx, tenant.Authority, tenant.KindTenant, tenant.Query{Limit: 1000, After: name})
		if err != nil {
			return "", err
		}
		for _, rec := range page.Records {
			if x.cfg.group(rec.ID) == g.number {
				return rec.ID, nil
			}
		}
		if len(page.Records) == 0 {
			return "", nil
		}
		name = page.Records[len(page.Records)-1].ID
	}
}

// keepOld is how long the indices before stay: queries that were on their way when
// the new ones took their place still end there.
const keepOld = 2 * searchTimeout

// clean deletes what is no longer searched.
func (x *Indexer) clean(ctx context.Context, g *group) error {
	if len(g.state.Old) == 0 || g.state.BuiltAt == nil || time.Since(*g.state.BuiltAt) < keepOld {
		return nil
	}
	for _, name := range g.state.Old {
		if err := x.engine.do(ctx, http.MethodDelete, "/"+url.PathEscape(name), nil, nil); err != nil && !noIndex(err) {
			return err
		}
	}
	return x.held(ctx, g, func(_ tenant.Tx, s *groupState) error { s.Old = nil; return nil })
}

// finish lets searches see the new indices, all at one moment.
func (x *Indexer) finish(ctx context.Context, g *group, b build) error {
	var actions []dsl
	var olds []string
	for _, k := range tenant.Searchable() {
		name := x.index(k, g.number, b.Generation)
		if err := x.engine.do(ctx, http.MethodPost, "/"+url.PathEscape(name)+"/_refresh", nil, nil); err != nil {
			return err
		}
		live, err := x.behind(ctx, x.cfg.base(k, g.number))
		if err != nil {
			return err
		}
		actions = append(actions, dsl{"add": dsl{"index": name, "alias": x.cfg.base(k, g.number)}}, dsl{"remove": dsl{"index": name, "alias": x.cfg.next(k, g.number)}})
		for _, old := range live {
			if old != name {
				actions = append(actions, dsl{"remove": dsl{"index": old, "alias": x.cfg.base(k, g.number)}})
				olds = append(olds, old)
			}
		}
	}
	body, err := json.Marshal(dsl{"actions": actions})
	if err != nil {
		return err
	}
	if err := x.engine.do(ctx, http.MethodPost, "/_aliases", body, nil); err != nil {
		return fmt.Errorf("switch to the new indices: %w", err)
	}
	err = x.held(ctx, g, func(tx tenant.Tx, s *groupState) error {
		now := tx.Now()
		s.Generation, s.BuiltAt, s.Build, s.Live, s.Old = b.Generation, &now, nil, true, olds
		return nil
	})
	if err == nil {
		x.opts.Logger.InfoContext(ctx, "a search index is complete", "group", g.number, "generation", b.Generation, "documents", b.Done, "took", time.Since(b.StartedAt).Round(time.Millisecond))
	}
	return err
}
