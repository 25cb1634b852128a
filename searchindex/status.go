package searchindex

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/tenant"
)

// Status is the state of the search index, over all nodes.
type Status struct {
	Engine    string         `json:"engine"` // name and version, or empty
	Down      string         `json:"down,omitempty"`
	Queued    int            `json:"queued"`      // writes that the index does not have yet
	Lag       float64        `json:"lag_seconds"` // age of the oldest of them
	Failed    int            `json:"failed"`      // of them, what the engine has refused
	Example   string         `json:"failed_example,omitempty"`
	Documents map[string]int `json:"documents"` // in the index, by kind
	Groups    []GroupStatus  `json:"groups"`
}

// GroupStatus is the state of one group of tenants.
type GroupStatus struct {
	Group      int        `json:"group"`
	Node       string     `json:"node"` // that fills it; empty for none at this moment
	Generation int        `json:"generation"`
	Live       bool       `json:"live"` // searches go to the index; otherwise the database answers them
	BuiltAt    *time.Time `json:"built_at,omitempty"`
	Wanted     string     `json:"wanted,omitempty"` // why a build is about to begin
	Build      *Progress  `json:"build,omitempty"`
}

// Progress is how far a build is.
type Progress struct {
	Reason    string    `json:"reason"`
	StartedAt time.Time `json:"started_at"`
	Kind      string    `json:"kind"`
	Tenant    string    `json:"tenant"`
	Done      int       `json:"done"` // documents
}

// Status asks the store, and the engine where it answers.
func (x *Indexer) Status(ctx context.Context) (Status, error) {
	st := Status{Documents: map[string]int{}}
	if err := x.Measure(ctx); err != nil {
		return st, err
	}
	st.Queued, st.Failed, st.Lag = int(x.queued.Load()), int(x.failedDocs.Load()), x.Lag().Seconds()
	if st.Failed > 0 {
		all, _, err := tenant.Find[tenant.Indexing](ctx, x.docs, tenant.Authority, tenant.KindSearchQueue, tenant.Query{Limit: 1, Where: []tenant.Cond{{Column: "tries", Op: tenant.Ge, Value: 1}}})
		if err != nil {
			return st, err
		}
		for _, e := range all {
			st.Example = fmt.Sprintf("%s %s of tenant %s: %s", e.Kind, e.ID, e.Tenant, e.LastError)
		}
	}
	states, err := x.states(ctx)
	if err != nil {
		return st, err
	}
	now := time.Now()
	for _, g := range x.groups {
		s := states[g.number]
		out := GroupStatus{Group: g.number, Generation: s.Generation, Live: s.Live, BuiltAt: s.BuiltAt, Wanted: s.Wanted}
		if now.Before(s.Until) && s.Holder != "" {
			out.Node = s.Name
		}
		if b := s.Build; b != nil {
			out.Build = &Progress{Reason: b.Reason, StartedAt: b.StartedAt, Kind: string(b.Kind), Tenant: b.Tenant, Done: b.Done}
		}
		st.Groups = append(st.Groups, out)
	}
	if err := x.ask(ctx, &st); err != nil {
		st.Down = err.Error()
	}
	return st, nil
}

// ask says what the engine is, and what it has.
func (x *Indexer) ask(ctx context.Context, st *Status) error {
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	var err error
	if st.Engine, err = x.Ping(ctx); err != nil {
		return err
	}
	for _, k := range tenant.Searchable() {
		var names []string
		for _, g := range x.groups {
			names = append(names, url.PathEscape(x.cfg.base(k, g.number)))
		}
		var answer struct {
			Count int `json:"count"`
		}
		if err := x.engine.do(ctx, http.MethodGet, "/"+strings.Join(names, ",")+"/_count?ignore_unavailable=true&allow_no_indices=true", nil, &answer); err != nil {
			return err
		}
		st.Documents[string(k)] = answer.Count
	}
	return nil
}

// Ping asks the engine for its name and version.
func (x *Indexer) Ping(ctx context.Context) (string, error) {
	var info struct {
		Version struct {
			Distribution string `json:"distribution"`
			Number       string `json:"number"`
		} `json:"version"`
	}
	if err := x.engine.do(ctx, http.MethodGet, "/", nil, &info); err != nil {
		return "", err
	}
	if info.Version.Number == "" {
		return "", errors.New("what answers is neither OpenSearch nor Elasticsearch")
	}
	if info.Version.Distribution == "" {
		info.Version.Distribution = "elasticsearch" // it does not say
	}
	return info.Version.Distribution + " " + info.Version.Number, nil
}

// Rebuild asks for a new generation of every group. Until it is complete, searches
// go to the one that there is. It returns the generations that were searched when
// it was asked for; where a build is under way already, that one is the answer.
func (x *Indexer) Rebuild(ctx context.Context) (map[int]int, error) {
	out := map[int]int{}
	for _, g := range x.groups {
		s, err := x.change(ctx, g.number, func(_ tenant.Tx, s *groupState) error {
			if s.Build == nil && s.Wanted == "" {
				s.Wanted = "an operator asked for it"
			}
			return nil
		})
		if err != nil {
			return out, err
		}
		out[g.number] = s.Generation
	}
	x.Wake()
	return out, nil
}

// Measure counts the queue.
func (x *Indexer) Measure(ctx context.Context) error {
	page, err := x.docs.Find(ctx, tenant.Authority, tenant.KindSearchQueue, tenant.Query{Limit: 1, Total: true})
	if err != nil {
		return err
	}
	failed, err := x.docs.Find(ctx, tenant.Authority, tenant.KindSearchQueue, tenant.Query{Limit: 1, Total: true, Where: []tenant.Cond{{Column: "tries", Op: tenant.Ge, Value: 1}}})
	if err != nil {
		return err
	}
	// What the engine refuses is counted by itself: it says nothing of the rest.
	oldest, _, err := tenant.Find[tenant.Indexing](ctx, x.docs, tenant.Authority, tenant.KindSearchQueue, tenant.Query{Limit: 1, Where: []tenant.Cond{{Column: "tries", Op: tenant.Le, Value: 0}}})
	if err != nil {
		return err
	}
	x.queued.Store(int64(page.Total))
	x.failedDocs.Store(int64(failed.Total))
	x.oldest.Store(0)
	for _, e := range oldest {
		x.oldest.Store(e.At.UnixMilli())
	}
	return nil
}

// Queued is how many writes the index did not have when they were last counted,
// and Refused how many of them the engine has refused.
func (x *Indexer) Queued() int { return int(x.queued.Load()) }

// Refused is how many documents of the queue the engine has refused.
func (x *Indexer) Refused() int { return int(x.failedDocs.Load()) }

// Lag is the age of the oldest write that the index does not have.
func (x *Indexer) Lag() time.Duration {
	at := x.oldest.Load()
	if at == 0 {
		return 0
	}
	return max(0, time.Since(time.UnixMilli(at)))
}

// Down is why the index cannot be filled by this node; empty when it can.
func (x *Indexer) Down() string {
	if why := x.down.Load(); why != nil {
		return *why
	}
	return ""
}

// Refresh makes everything that was indexed visible to searches at once. In
// service the engine does so every second.
func (x *Indexer) Refresh(ctx context.Context) error {
	return x.engine.do(ctx, http.MethodPost, "/"+url.PathEscape(x.cfg.Prefix)+"-*/_refresh", nil, nil)
}
