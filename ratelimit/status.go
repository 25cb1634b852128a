package ratelimit

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/portcullis-id/portcullis/problem"
)

// Keys lists keys of a type whose buckets are not full, over all nodes, the emptiest
// first; at most 100 of each node. Away names nodes that did not answer.
func (s *Service) Keys(ctx context.Context, bucket, prefix string) (keys []KeyState, away []string, err error) {
	if keys, err = s.keys(bucket, prefix); err != nil {
		return nil, nil, err
	}
	n, ok := s.wire.(*network)
	h := s.past.Load()
	if !ok || h == nil {
		return keys, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range h.now().peers {
		if p.ID == s.self {
			continue
		}
		wg.Go(func() {
			more, err := n.line(p).keys(ctx, bucket, prefix)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				away = append(away, p.ID)
			}
			keys = append(keys, more...)
		})
	}
	wg.Wait()
	slices.SortStableFunc(keys, func(a, b KeyState) int { return int(b.FullIn - a.FullIn) })
	slices.Sort(away)
	return keys, away, nil
}

func (l *line) keys(ctx context.Context, bucket, prefix string) ([]KeyState, error) {
	u := url.URL{Scheme: "https", Host: l.peer.ID, Path: "/v1/keys", RawQuery: url.Values{"bucket": {bucket}, "prefix": {prefix}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := l.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", res.Status)
	}
	return decodeKeys(res.Body)
}

// Status is one key as its owner has it; nothing is taken.
func (s *Service) Status(ctx context.Context, r Request) (Decision, error) {
	return s.ask(ctx, r, item{op: opStatus})
}

// Totals are what the service has done since it started.
type Totals struct {
	// Calls went to other nodes, Failed of them had no answer in time.
	Calls  uint64 `json:"calls"`
	Failed uint64 `json:"failed"`
	// Leased decisions used tokens that this node had in hand.
	Leased uint64 `json:"leased"`
	// Settled keys came to this node from others; of Cautious ones nobody knew what had
	// been counted.
	Settled  uint64 `json:"settled"`
	Cautious uint64 `json:"cautious"`
	// Uncopied takes could not be copied to the next in rank.
	Uncopied uint64 `json:"uncopied"`
}

// Totals tells what the service has done since it started.
func (s *Service) Totals() Totals {
	c := &s.counts
	return Totals{Calls: c.calls.Load(), Failed: c.failed.Load(), Leased: c.leased.Load(), Settled: c.settled.Load(), Cautious: c.cautious.Load(), Uncopied: c.copyFails.Load()}
}

// State is what the service says of itself.
type State struct {
	Node string `json:"node,omitempty"`
	// Peers are the nodes that count, as this one sees them.
	Peers []string `json:"peers,omitempty"`
	View  uint32   `json:"view,omitempty"` // how often the members have changed
	Totals
	Buckets map[string]BucketState `json:"buckets"`
}

// BucketState is one type on this node since it started.
type BucketState struct {
	Allowed  uint64 `json:"allowed"`
	Limited  uint64 `json:"limited"`
	Fallback uint64 `json:"fallback"`
	Keys     int64  `json:"keys"`
	Pushed   uint64 `json:"pushed"` // keys that had to go for want of room
}

// State tells how the service is.
func (s *Service) State() State {
	st := State{Node: s.self, Totals: s.Totals(), Buckets: map[string]BucketState{}}
	if h := s.past.Load(); h != nil {
		st.View = h.now().n
		for _, p := range h.now().peers {
			st.Peers = append(st.Peers, p.ID)
		}
	}
	for _, name := range s.cfg.Rules().names {
		st.Buckets[name] = s.Bucket(name)
	}
	return st
}

// Bucket tells what became of the requests to one type.
func (s *Service) Bucket(name string) BucketState {
	c := s.counts.of(name)
	b := BucketState{Allowed: c.Allowed.Load(), Limited: c.Limited.Load(), Fallback: c.Fallback.Load()}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tables[name]; t != nil {
		b.Keys, b.Pushed = t.keys.Load(), t.pushed.Load()
	}
	return b
}

// Reset fills the bucket of a key.
func (s *Service) Reset(ctx context.Context, bucket, key string) (Decision, error) {
	d, err := s.Put(ctx, Request{Bucket: bucket, Key: key})
	if err == nil && d.Fallback {
		err = problem.New(problem.Unavailable, "owner_away", "the node that counts %s of %s did not answer; try again", key, bucket)
	}
	return d, err
}
