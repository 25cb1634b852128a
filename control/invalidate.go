package control

import (
	"context"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/tenant"
)

const (
	// lookBack is how far a node looks behind what it has read: a transaction commits
	// after the time that it carries, and clocks differ.
	lookBack = time.Minute
	// forgetAfter is how long a node may be cut off from the database before it forgets
	// everything; what it missed is kept there for twice as long.
	forgetAfter = 5 * time.Minute
	maxMissed   = 10_000
	maxQueue    = 4096 // invalidations that wait for one node
)

// Announce tells the other nodes, without waiting for them.
func (s *Service) Announce(v tenant.Invalidation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[v.ID] = time.Now() // this node has done it
	for _, p := range s.peers {
		p.push(v)
	}
}

// everything makes a node forget everything. It names no tenant.
func everything() tenant.Invalidation { return tenant.Invalidation{ID: tenant.RandomString(16)} }

// obey does what another node, or the database, says.
func (s *Service) obey(all []tenant.Invalidation) (done int) {
	s.mu.Lock()
	var fresh []tenant.Invalidation
	now := time.Now()
	for _, v := range all {
		if _, known := s.seen[v.ID]; !known {
			s.seen[v.ID] = now
			fresh = append(fresh, v)
		}
	}
	s.mu.Unlock()
	for _, v := range fresh {
		if v.Tenant == "" {
			s.Caches.InvalidateAll()
			continue
		}
		s.Caches.Invalidate(v.Tenant, v.Kinds...)
	}
	return len(fresh)
}

// catchUp returns what reads the invalidations that were not delivered.
func (s *Service) catchUp() func(ctx context.Context) error {
	var mu sync.Mutex
	last := time.Now() // of the last success; its wall clock too
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		began := time.Now()
		missed, err := s.Missed(ctx, s.Now().Add(-began.Sub(last)-lookBack), maxMissed)
		if err != nil {
			return err
		}
		if len(missed) == maxMissed || began.Sub(last) > forgetAfter {
			s.Caches.InvalidateAll()
		}
		last = began
		n := s.obey(missed)
		s.Caches.Checked(began)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pushed.caughtUp += int64(n)
		for id, at := range s.seen {
			if began.Sub(at) > 2*lookBack+forgetAfter {
				delete(s.seen, id)
			}
		}
		return nil
	}
}

// Pushed counts the invalidations that were sent to other nodes, that could not be
// sent, that came from others, and that were found in the database instead.
func (s *Service) Pushed() (sent, failed, received, caughtUp int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushed.sent, s.pushed.failed, s.pushed.received, s.pushed.caughtUp
}
