package ratelimit

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

// run starts what Service.Run does, for as long as a test lasts.
func (n *lanNode) run(t *testing.T) {
	t.Helper()
	s := n.Service
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// again starts a node that was killed, on its old address, with nothing in memory.
func (n *lanNode) again(t *testing.T, rules *Rules) {
	t.Helper()
	listener, err := net.Listen("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	n.serve(listener, rules)
	n.look()
	n.run(t)
}

// TestKilledAtAnyToken kills the node that counts after each of many tokens, goes on
// with the others, and starts it again while the control plane has noticed nothing
// of all that. A limit that nothing refills gives out a tenth more at most, and one.
func TestKilledAtAnyToken(t *testing.T) {
	const size = 60
	rules := rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: size}})
	for _, at := range []int{1, 10, 25, 40, 58, 60, 70} {
		for _, pause := range []int{0, 1, 12} { // requests until it is there again
			l := newLAN(t, 3, rules)
			for _, n := range l.nodes {
				n.run(t)
			}
			key := fmt.Sprintf("k%d-%d", at, pause)
			owner, _ := l.nodes[0].past.Load().now().ranked(hash("b", key))
			victim := slices.IndexFunc(l.nodes, func(n *lanNode) bool { return n.id == owner.ID })
			admitted, alone, dead := 0, 0, false
			for i := range 150 {
				if i == at {
					_ = l.nodes[victim].server.Close()
					dead = true
				}
				if i == at+pause && dead {
					l.nodes[victim].again(t, rules)
					dead = false
				}
				n := l.nodes[i%3]
				if dead && i%3 == victim {
					continue
				}
				d, err := n.Take(t.Context(), Request{Bucket: "b", Key: key})
				if err != nil {
					t.Fatal(err)
				}
				if d.Conformant {
					admitted++
				}
				if d.Fallback {
					alone++
				}
			}
			// A busy machine may keep a node from hearing an answer.
			if admitted > size*11/10+1+alone {
				t.Errorf("killed after %d requests, there again %d later: %d were admitted of %d, %d decisions were made alone", at, pause, admitted, size, alone)
			}
		}
	}
}

// TestWhoComesBackIsAsked: who was killed and counts again is no longer left out.
func TestWhoComesBackIsAsked(t *testing.T) {
	rules := rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 10}})
	l := newLAN(t, 3, rules)
	_ = l.nodes[0].server.Close()
	for k := range 40 {
		for _, n := range l.nodes[1:] {
			if _, err := n.Take(t.Context(), Request{Bucket: "b", Key: fmt.Sprint("k", k)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range l.nodes[1:] {
		if got := len(n.past.Load().now().peers); got != 2 {
			t.Fatalf("%s counts with %d nodes after one of three was killed", n.id, got)
		}
	}
	l.nodes[0].again(t, rules)
	for k := range 40 { // it takes its keys back
		if _, err := l.nodes[0].Take(t.Context(), Request{Bucket: "b", Key: fmt.Sprint("k", k)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range l.nodes[1:] {
		n.look()
		if got := len(n.past.Load().now().peers); got != 3 {
			t.Errorf("%s counts with %d nodes; the third counts again, and has said so", n.id, got)
		}
	}
}

// owned is a key that a node owns.
func (w *world) owned(n *simNode) string {
	for i := range 1000 {
		key := fmt.Sprint("k", i)
		if owner, _ := n.past.Load().now().ranked(hash("b", key)); owner.ID == n.id {
			return key
		}
	}
	w.t.Fatal("the node owns nothing")
	return ""
}

func (w *world) take(n *simNode, key string, times int) (admitted int) {
	w.t.Helper()
	for range times {
		d, err := n.Take(w.t.Context(), Request{Bucket: "b", Key: key})
		if err != nil {
			w.t.Fatal(err)
		}
		if d.Conformant {
			admitted++
		}
	}
	return admitted
}

// TestWhoStartsAloneMayHaveMissedTheOthers: a node that has heard of nobody when it
// starts asks, once it has, even for what it has counted meanwhile.
func TestWhoStartsAloneMayHaveMissedTheOthers(t *testing.T) {
	for _, early := range []int{0, 5} {
		w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 60}, OnFailure: Closed})
		w.cluster(3)
		n := w.nodes["node1"]
		key := w.owned(n)
		admitted := w.take(w.nodes["node0"], key, 40)
		n.dead = true
		w.agree()
		admitted += w.take(w.nodes["node0"], key, 10)
		n = w.start("node1", []Peer{{ID: "node1", Host: "node1"}})
		admitted += w.take(n, key, early)
		n.peers = w.live()
		n.look()
		admitted += w.take(n, key, 30)
		w.agree()
		admitted += w.take(w.nodes["node2"], key, 30)
		if admitted < 60 || admitted > 60+early+1 {
			t.Errorf("%d were admitted of 60, %d of them by a node that had not heard of the others yet", admitted, early)
		}
	}
}

// TestWhoCannotHaveCountedIsNoReasonForCaution: a node that does not answer and that
// owned the key at no time has at most a copy.
func TestWhoCannotHaveCountedIsNoReasonForCaution(t *testing.T) {
	w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 60}, OnFailure: Closed})
	w.cluster(4)
	key := w.owned(w.nodes["node0"])
	_, second := w.nodes["node0"].past.Load().now().ranked(hash("b", key))
	heir := w.nodes[second.ID]
	admitted := w.take(w.nodes["node0"], key, 20)
	w.nodes["node0"].dead = true
	var slow string
	for _, p := range w.live() {
		if p.ID != heir.id {
			slow = p.ID
		}
	}
	w.parted = func(from, to string) bool { return from == slow || to == slow }
	w.agree()
	if admitted += w.take(heir, key, 100); admitted != 60 {
		t.Errorf("%d were admitted of 60, with one node dead and one that does not answer", admitted)
	}
}

// TestWhatIsUsedUpIsCopiedToo: a node that takes over a bucket in which nothing is
// left gives the copy on, before it dies in its turn.
func TestWhatIsUsedUpIsCopiedToo(t *testing.T) {
	w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 60}, OnFailure: Closed})
	w.cluster(4)
	key := w.owned(w.nodes["node0"])
	admitted := w.take(w.nodes["node0"], key, 80)
	for range 3 {
		owner, _ := w.nodes[w.live()[0].ID].past.Load().now().ranked(hash("b", key))
		w.nodes[owner.ID].dead = true
		w.agree()
		if len(w.live()) == 1 {
			break
		}
		for _, p := range w.live() {
			admitted += w.take(w.nodes[p.ID], key, 20)
		}
	}
	if last := w.nodes[w.live()[0].ID]; last != nil {
		admitted += w.take(last, key, 20)
	}
	if admitted != 60 {
		t.Errorf("%d were admitted of 60, while one node after the other died", admitted)
	}
}

// TestCautionLeavesAFairPart: after a death, who has used nothing is not refused for
// the time that a small bucket needs for its first token.
func TestCautionLeavesAFairPart(t *testing.T) {
	for _, tt := range []struct{ size, want int64 }{{1, 1}, {2, 1}, {5, 3}, {10, 5}, {20, 5}, {50, 5}, {60, 6}, {1500, 150}} {
		if got := (Limit{Size: tt.size}).kept(); got != tt.want {
			t.Errorf("of %d tokens %d are kept; want %d", tt.size, got, tt.want)
		}
	}
	w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 10, PerMinute: 5}, OnFailure: Closed})
	w.cluster(3)
	key := w.owned(w.nodes["node0"])
	w.take(w.nodes["node0"], key, 10)
	w.now += int64(time.Second)
	w.nodes["node0"].dead = true
	w.agree()
	if got := w.take(w.nodes["node1"], key, 10) + w.take(w.nodes["node2"], key, 10); got != 5 {
		t.Errorf("%d more were admitted after the owner's death; want the part that is kept, 5", got)
	}
}
