package searchindex

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// leaseFor is how long a node may work on a group without renewing; it renews when
// less than half of that is left.
const leaseFor = 20 * time.Second

// groupState is what the store knows of a group.
type groupState struct {
	Group int       `json:"group"`
	Since time.Time `json:"since"` // when the first node began

	// The lease. Epoch grows with each new holder; versions in the index begin with
	// it, so that what an earlier holder sends late is older than what is there.
	Holder string    `json:"holder"`
	Name   string    `json:"name"` // of the holder, for people
	Epoch  int64     `json:"epoch"`
	Until  time.Time `json:"until"`

	Generation int        `json:"generation"` // of the last indices that were complete; 0 before the first
	Live       bool       `json:"live"`       // they are there, and searched
	BuiltAt    *time.Time `json:"built_at,omitempty"`
	Wanted     string     `json:"wanted,omitempty"` // why a new generation is to be built
	Build      *build     `json:"build,omitempty"`
	Old        []string   `json:"old,omitempty"` // indices that are no longer searched
}

// build is how far a new generation is.
type build struct {
	Generation int         `json:"generation"`
	Reason     string      `json:"reason"`
	StartedAt  time.Time   `json:"started_at"`
	Kind       tenant.Kind `json:"kind"`   // that is read now
	Tenant     string      `json:"tenant"` // that is read now; those before it are done
	After      string      `json:"after"`  // its last document that is done
	Done       int         `json:"done"`   // documents
}

func (c *Config) stateID(group int) string {
	return "v" + strconv.Itoa(schema) + "-" + c.Prefix + "-" + strconv.Itoa(group) + "of" + strconv.Itoa(c.Groups)
}

// change applies fn to a group's state. The state is made when there is none.
func (x *Indexer) change(ctx context.Context, group int, fn func(tx tenant.Tx, s *groupState) error) (*groupState, error) {
	var out *groupState
	err := x.docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		s, err := tenant.Load[groupState](tx, tenant.KindSearchGroup, x.cfg.stateID(group))
		if problem.Is(err, problem.NotFound) {
			s, err = &groupState{Group: group}, nil
		}
		if err != nil {
			return err
		}
		if err := fn(tx, s); err != nil {
			return err
		}
		out = s
		return tenant.Set(tx, tenant.KindSearchGroup, x.cfg.stateID(group), s)
	})
	return out, err
}

// errLost says that another node works on the group now.
var errLost = problem.New(problem.Conflict, "lease_lost", "another node fills this part of the search index")

// held applies fn to the state of a group that this node has.
func (x *Indexer) held(ctx context.Context, g *group, fn func(tx tenant.Tx, s *groupState) error) error {
	s, err := x.change(ctx, g.number, func(tx tenant.Tx, s *groupState) error {
		if s.Holder != x.id || s.Epoch != g.epoch {
			return errLost
		}
		return fn(tx, s)
	})
	if err == nil {
		g.state = *s
	}
	return err
}

// states reads the states of all groups. Nodes of other settings must not work at
// the same time: each entry of the queue is there for one index.
func (x *Indexer) states(ctx context.Context) (map[int]groupState, error) {
	page, err := x.docs.Find(ctx, tenant.Authority, tenant.KindSearchGroup, tenant.Query{})
	if err != nil {
		return nil, err
	}
	ours := map[string]bool{}
	for _, g := range x.groups {
		ours[x.cfg.stateID(g.number)] = true
	}
	out := map[int]groupState{}
	for _, rec := range page.Records {
		var s groupState
		if err := json.Unmarshal(rec.Doc, &s); err != nil {
			return nil, fmt.Errorf("decode the state of the search index: %w", err)
		}
		if ours[rec.ID] {
			out[s.Group] = s
			continue
		}
		if s.held(time.Now()) {
			return nil, problem.New(problem.Conflict, "search_settings_differ", "node %s fills the index %s; search.index_prefix and search.groups have to be the same on all nodes", s.Name, rec.ID)
		}
		// What is written from now on does not reach it: should these settings come back,
		// it has to be built anew.
		if err := x.forget(ctx, rec.ID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *groupState) held(now time.Time) bool { return s.Holder != "" && now.Before(s.Until) }

func (x *Indexer) forget(ctx context.Context, id string) error {
	return x.docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		_, err := tx.Delete(tenant.KindSearchGroup, id)
		return err
	})
}

// NoticeEvery is how often a node without a search engine asks Unused. notice is how
// long the first build waits for all of them to have asked.
const (
	NoticeEvery = 2 * time.Second
	notice      = 5 * NoticeEvery
)

// abandoned is how long after the end of the last lease an index counts as no longer
// in use.
const abandoned = time.Minute

// Unused is for a node without a search engine. While other nodes fill an index it
// reports true: writes have to go into the queue here too. Otherwise it clears what
// an index that is no longer in use has left in the store, so that it is built anew
// should it come back.
func Unused(ctx context.Context, docs tenant.Docs) (filled bool, err error) {
	states, _, err := tenant.Find[groupState](ctx, docs, tenant.Authority, tenant.KindSearchGroup, tenant.Query{})
	if err != nil {
		return false, err
	}
	for _, s := range states {
		if time.Now().Before(s.Until.Add(abandoned)) {
			return true, nil
		}
	}
	for _, k := range []tenant.Kind{tenant.KindSearchGroup, tenant.KindSearchQueue} {
		for {
			page, err := docs.Find(ctx, tenant.Authority, k, tenant.Query{Limit: batch})
			if err != nil {
				return false, err
			}
			if len(page.Records) == 0 {
				break
			}
			err = docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
				for _, rec := range page.Records {
					if _, err := tx.Delete(k, rec.ID); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// lease takes or renews the lease of a group, whose state was just read, and
// reports whether this node has it.
func (x *Indexer) lease(ctx context.Context, g *group, s groupState) (bool, error) {
	mine := g.epoch > 0 && s.Holder == x.id && s.Epoch == g.epoch
	now := time.Now()
	switch {
	case mine && g.until.Sub(now) > leaseFor/2:
		g.state = s
		return true, nil
	case !mine && s.Holder != x.id && s.held(now):
		g.epoch = 0
		return false, nil
	}
	got, err := x.change(ctx, g.number, func(tx tenant.Tx, s *groupState) error {
		switch {
		case g.epoch > 0 && s.Holder == x.id && s.Epoch == g.epoch:
		case s.Holder == "" || s.Holder == x.id || s.Until.Before(tx.Now()):
			s.Holder, s.Name = x.id, x.opts.Name
			s.Epoch++
			if s.Since.IsZero() {
				s.Since = tx.Now()
			}
		default:
			return errLost
		}
		s.Until = tx.Now().Add(leaseFor)
		return nil
	})
	if err != nil {
		g.epoch = 0
		if problem.Is(err, problem.Conflict) {
			return false, nil
		}
		return false, err
	}
	if got.Epoch != g.epoch {
		g.epoch, g.count, g.checked = got.Epoch, 0, false
	}
	g.state, g.until = *got, now.Add(leaseFor)
	return true, nil
}

// release lets the next node begin at once.
func (x *Indexer) release(ctx context.Context, g *group) error {
	if g.epoch == 0 {
		return nil
	}
	return x.held(ctx, g, func(_ tenant.Tx, s *groupState) error {
		s.Holder, s.Name = "", ""
		return nil
	})
}

// parts are the parts of the queue that belong to a group.
func (c *Config) parts(group int) []string {
	var out []string
	for p := group; p < tenant.SearchParts; p += c.Groups {
		out = append(out, strconv.Itoa(p))
	}
	return out
}
