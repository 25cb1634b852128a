package ratelimit

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var seeds = flag.Int("seeds", 60, "histories of each kind that are tried")

// world is a cluster without a network and without time of its own: everything
// happens in one goroutine, in an order that a seed decides.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	now    int64
	rules  *Rules
	nodes  map[string]*simNode
	parted func(from, to string) bool
	// fate says what becomes of a call; nil lets all arrive.
	fate  func() fate
	late  []func() // questions that are still on their way, though nobody waits
	calls int
}

type fate int

const (
	arrives fate = iota
	questionLost
	answerLost
	tooLate // the question arrives when the test says so
)

type simNode struct {
	*Service
	w     *world
	id    string
	dead  bool
	peers []Peer // as it sees them
}

func (n *simNode) Self() string  { return n.id }
func (n *simNode) Peers() []Peer { return n.peers }

func (n *simNode) call(ctx context.Context, p Peer, items []item) ([]verdict, error) {
	n.w.calls++
	to := n.w.nodes[p.ID]
	if to == nil || to.dead || n.dead || n.w.parted != nil && n.w.parted(n.id, p.ID) {
		return nil, errors.New("it does not answer")
	}
	// The form is that of the wire, so that it is tried too.
	asked, err := decodeItems(encodeItems(items))
	if err != nil {
		return nil, err
	}
	what := arrives
	if n.w.fate != nil {
		what = n.w.fate()
	}
	switch what {
	case questionLost:
		return nil, errors.New("the question was lost")
	case tooLate:
		n.w.late = append(n.w.late, func() {
			if !to.dead {
				to.handle(context.WithoutCancel(ctx), n.id, asked)
			}
		})
		return nil, errors.New("the question is late")
	}
	answers, err := decodeVerdicts(encodeVerdicts(to.handle(ctx, n.id, asked)))
	if what == answerLost {
		return nil, errors.New("the answer was lost")
	}
	return answers, err
}

func (n *simNode) heard(string) {}

func newWorld(t *testing.T, seed uint64, buckets ...Bucket) *world {
	rules, err := NewRules(buckets, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: 2 * int64(maxFill), rules: rules, nodes: map[string]*simNode{}}
}

// start makes a node, or starts one again that has died.
func (w *world) start(id string, peers []Peer) *simNode {
	n := &simNode{w: w, id: id, peers: peers}
	s, err := New(Config{Rules: func() *Rules { return w.rules }, Cluster: n, Now: func() time.Time { return time.Unix(0, w.now) }})
	if err != nil {
		w.t.Fatal(err)
	}
	s.wire, s.mono = n, func() int64 { return w.now }
	n.Service, s.agree = s, int64(maxFill) // how long they need is up to the test
	w.nodes[id] = n
	s.look()
	return n
}

func (w *world) live() (out []Peer) {
	for id, n := range w.nodes {
		if !n.dead {
			out = append(out, Peer{ID: id, Host: id})
		}
	}
	return sorted(out)
}

// agree lets every node see who lives.
func (w *world) agree() {
	for _, p := range w.live() {
		w.nodes[p.ID].peers = w.live()
		w.nodes[p.ID].look()
	}
}

func (w *world) cluster(n int) {
	var all []Peer
	for i := range n {
		all = append(all, Peer{ID: fmt.Sprintf("node%d", i), Host: "h"})
	}
	for _, p := range all {
		w.start(p.ID, all)
	}
	w.now += int64(400 * 24 * time.Hour) // what new nodes do not know is long ago
}

// TestOwnersChange drives clusters through joins, leaves, deaths and restarts, while
// nodes see the changes at different times, under more requests than the limit
// allows. What is admitted, between any two times, is at most size + rate * time, and
// what a bucket keeps more for each node that took what it knew with it (and one
// token, where nothing ever comes back).
func TestOwnersChange(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec Spec
	}{
		{"fast", Spec{Size: 100, PerSecond: 20}},
		{"burst", Spec{Size: 1000, PerSecond: 1}},
		{"minute", Spec{Size: 10, PerMinute: 5}},
		{"slow", Spec{PerDay: 20}},
		{"by hand", Spec{Size: 50}},
	} {
		for seed := range uint64(*seeds) {
			if !ownersChange(t, tt.name, tt.spec, seed) {
				return
			}
		}
	}
}

func ownersChange(t *testing.T, name string, spec Spec, seed uint64) bool {
	w := newWorld(t, seed, Bucket{Name: "b", Spec: spec, OnFailure: Closed})
	l, err := spec.Limit()
	if err != nil {
		t.Fatal(err)
	}
	size := 3 + w.rnd.IntN(3)
	w.cluster(size)
	keys := []string{"a", "b", "c"}
	type admitted struct{ at, losses int64 }
	log := map[string][]admitted{}
	losses := int64(0)
	// lag is the nodes that have not seen the last change yet.
	var lag []string
	fill := int64(l.Fill())
	if fill == 0 {
		fill = int64(time.Minute)
	}
	next := size
	for range 600 {
		w.now += w.rnd.Int64N(fill/50 + 1)
		if w.rnd.IntN(3) == 0 && len(lag) > 0 { // one more sees it
			i := w.rnd.IntN(len(lag))
			if n := w.nodes[lag[i]]; n != nil && !n.dead {
				n.peers = w.live()
				n.look()
				n.copyAll(t.Context())
			}
			lag = append(lag[:i], lag[i+1:]...)
		}
		if w.rnd.IntN(60) == 0 && len(lag) == 0 {
			live := w.live()
			victim := w.nodes[live[w.rnd.IntN(len(live))].ID]
			switch kind := w.rnd.IntN(4); {
			case kind == 0 && len(live) < 6: // join
				id := fmt.Sprintf("node%d", next)
				next++
				w.start(id, append(live, Peer{ID: id, Host: "h"}))
			case kind == 1 && len(live) > 2: // leave
				if err := victim.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				victim.dead = true
			case kind == 2 && len(live) > 2: // death
				victim.dead = true
				losses++
			case kind == 3 && len(live) > 2: // a start again that nobody saw
				w.start(victim.id, live)
				losses++
			}
			for _, p := range w.live() {
				lag = append(lag, p.ID)
			}
		}
		live := w.live()
		n := w.nodes[live[w.rnd.IntN(len(live))].ID]
		key := keys[w.rnd.IntN(len(keys))]
		d, err := n.Take(t.Context(), Request{Bucket: "b", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if d.Conformant {
			log[key] = append(log[key], admitted{w.now, losses})
		}
	}
	for key, all := range log {
		for i := range all {
			for j := i; j < len(all); j++ {
				lost := float64(all[j].losses - all[i].losses)
				allowed := float64(l.Size) + lost*float64(l.kept())
				if l.Per == 0 {
					allowed += lost // a take whose copy was on its way
				}
				if l.Per > 0 {
					allowed += float64(all[j].at-all[i].at) / float64(l.step())
				}
				if float64(j-i+1) > allowed+1e-6 {
					t.Errorf("%s, seed %d, key %s: %d were admitted in %s with %.0f losses, allowed are %.2f", name, seed, key, j-i+1, time.Duration(all[j].at-all[i].at), lost, allowed)
					return false
				}
			}
		}
	}
	return true
}
