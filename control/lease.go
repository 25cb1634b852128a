package control

import (
	"context"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// The leader's lease. A leader's own time is shorter than what others wait, and
// both are measured by each node's own clock from before the write that the other
// sees: they never overlap.
const (
	renewEvery = time.Second
	leadFor    = 4 * time.Second
	waitFor    = 6 * time.Second
)

// leaseDoc is the lease as the store keeps it.
type leaseDoc struct {
	Holder   string `json:"holder"`
	Term     int64  `json:"term"` // grows with each new leader: the fencing token
	Renewals int64  `json:"renewals"`
}

// leaseView is what this node knows of the lease.
type leaseView struct {
	holder   string
	term     int64
	renewals int64
	seen     time.Time // when it last changed, by this node's clock
	until    time.Time // how long this node leads; zero when it does not
}

// Leads reports whether this node leads now.
func (s *Service) Leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.lease.until)
}

// Guard fails, inside a transaction of tenant.Authority, unless this node still
// has the lease of its term: what a leader writes there is written by the leader.
func (s *Service) Guard(tx tenant.Tx) error {
	s.mu.Lock()
	term := s.lease.term
	s.mu.Unlock()
	doc, err := tenant.Load[leaseDoc](tx, tenant.KindCluster, leaseID)
	if err != nil {
		return err
	}
	if doc.Holder != s.ID() || doc.Term != term {
		return problem.New(problem.Conflict, "not_the_leader", "node %s leads in term %d", doc.Holder, doc.Term)
	}
	return nil
}

// renewLease renews this node's lease, or takes one that nobody renews.
func (s *Service) renewLease(ctx context.Context) error {
	began := time.Now()
	me := s.ID()
	s.mu.Lock()
	known, draining := s.lease, s.state != Active
	s.mu.Unlock()
	var got leaseDoc
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		doc, err := tenant.Load[leaseDoc](tx, tenant.KindCluster, leaseID)
		if problem.Is(err, problem.NotFound) {
			doc = &leaseDoc{}
		} else if err != nil {
			return err
		}
		free := doc.Holder == "" || doc.Holder == known.holder && doc.Term == known.term && doc.Renewals == known.renewals &&
			!known.seen.IsZero() && time.Since(known.seen) >= waitFor
		switch {
		case doc.Holder == me && draining:
			doc.Holder = "" // somebody else may
		case doc.Holder == me:
			doc.Renewals++
		case free && !draining:
			doc.Holder, doc.Renewals = me, 0
			doc.Term++
		default:
			got = *doc
			return nil
		}
		got = *doc
		return tenant.Set(tx, tenant.KindCluster, leaseID, doc)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.lease
	if got.Holder != l.holder || got.Term != l.term {
		s.Logger.InfoContext(ctx, "the cluster's leader", "node", got.Holder, "term", got.Term, "self", got.Holder == me)
	}
	if got.Holder != l.holder || got.Term != l.term || got.Renewals != l.renewals {
		l.seen = time.Now()
	}
	l.holder, l.term, l.renewals = got.Holder, got.Term, got.Renewals
	l.until = time.Time{}
	if got.Holder == me {
		l.until = began.Add(leadFor)
	}
	return nil
}

// resign gives the lease back.
func (s *Service) resign(ctx context.Context) error {
	if !s.Leads() {
		return nil
	}
	return s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		if err := s.Guard(tx); err != nil {
			return nil // it is somebody else's already
		}
		_, err := tenant.Change(tx, tenant.KindCluster, leaseID, func(l *leaseDoc) error { l.Holder = ""; return nil })
		return err
	})
}
