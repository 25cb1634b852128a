package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// owing is what all nodes have given out alone of a key and have not told yet.
func (w *world) owing(key string) (n int64) {
	for _, node := range w.nodes {
		n += node.debts.of(&item{bucket: "b", key: key})
	}
	return n
}

// arrive lets some of the questions arrive that nobody waits for any more.
func (w *world) arrive(all bool) {
	for len(w.late) > 0 && (all || w.rnd.IntN(3) == 0) {
		i := w.rnd.IntN(len(w.late))
		deliver := w.late[i]
		w.late = slices.Delete(w.late, i, i+1)
		deliver()
	}
}

// lossy loses and delays calls, by chance, a part of 100 each.
func (w *world) lossy(part int) {
	w.fate = func() fate {
		if w.rnd.IntN(100) >= 3*part {
			return arrives
		}
		return fate(1 + w.rnd.IntN(3))
	}
}

// pay lets every node tell what it owes, in an order that the seed decides.
func (w *world) pay() {
	for _, p := range w.live() {
		w.nodes[p.ID].payInTurn()
	}
}

func (n *simNode) payInTurn() {
	all := n.owing()
	for _, p := range n.w.live() {
		for to, items := range all {
			if to.ID == p.ID {
				slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
				for i := range items { // several of a lot are answered at the same time
					n.payTo(n.w.t.Context(), to, items[i:i+1])
				}
			}
		}
	}
}

// TestWhatIsGivenOutAloneIsCountedOnce loses questions, loses answers, and lets
// questions arrive when their askers have gone, in random orders. What the owner has
// counted in the end is what was admitted, to the token; and until then the limit is
// exceeded by no more than what it has not been told.
func TestWhatIsGivenOutAloneIsCountedOnce(t *testing.T) {
	for _, size := range []int64{60, 100_000} { // one is used up, the other is not
		for seed := range uint64(*seeds) {
			w := newWorld(t, seed, Bucket{Name: "b", Spec: Spec{Size: size}})
			w.cluster(3)
			w.lossy(1 + int(seed%12))
			keys := []string{"k0", "k1"}
			admitted, most := map[string]int64{}, map[string]int64{}
			for range 400 {
				w.now += w.rnd.Int64N(int64(50 * time.Millisecond))
				n, key := w.nodes[fmt.Sprint("node", w.rnd.IntN(3))], keys[w.rnd.IntN(2)]
				count := 1 + w.rnd.Int64N(3)
				d, err := n.Take(t.Context(), Request{Bucket: "b", Key: key, Count: count})
				if err != nil {
					t.Fatal(err)
				}
				if d.Conformant {
					admitted[key] += count
				}
				most[key] = max(most[key], w.owing(key))
				w.arrive(false)
				if w.rnd.IntN(5) == 0 {
					n.payInTurn()
				}
			}
			w.fate = nil
			w.arrive(true)
			w.pay()
			for _, key := range keys {
				d, err := w.nodes["node0"].Status(t.Context(), Request{Bucket: "b", Key: key})
				if err != nil || d.Fallback {
					t.Fatalf("%+v, %v", d, err)
				}
				switch taken := size - d.Remaining; {
				case w.owing(key) != 0:
					t.Errorf("size %d, seed %d, %s: %d tokens are still owed when everything arrives", size, seed, key, w.owing(key))
				case admitted[key] > size+most[key]:
					t.Errorf("size %d, seed %d, %s: %d were admitted, of which the owner did not know %d at most", size, seed, key, admitted[key], most[key])
				case taken < min(size, admitted[key]):
					t.Errorf("size %d, seed %d, %s: %d were admitted, and %d are counted", size, seed, key, admitted[key], taken)
				case taken > admitted[key]:
					t.Errorf("size %d, seed %d, %s: %d were admitted, and %d are counted: some twice, or for nobody", size, seed, key, admitted[key], taken)
				}
			}
		}
	}
}

// TestAloneIsAPartOfWhatIsThere: who is not answered gives out a part of what the
// owner has last said to be there, less what it owes by then.
func TestAloneIsAPartOfWhatIsThere(t *testing.T) {
	w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 60}})
	w.cluster(3)
	key := w.owned(w.nodes["node0"])
	other := w.nodes["node1"]
	if got := w.take(other, key, 42); got != 42 {
		t.Fatalf("%d of 42 were admitted", got)
	}
	w.now++
	w.fate = func() fate { return questionLost }
	if got := w.take(other, key, 30); got != 6 {
		t.Errorf("%d were admitted alone; want a third of the 18 that were there", got)
	}
	if got := w.take(w.nodes["node2"], key, 30); got != 20 {
		t.Errorf("%d were admitted by a node that has never asked; want a third of the limit", got)
	}
	w.fate = nil
	w.pay()
	if got := w.take(w.nodes["node0"], key, 30); got != 0 {
		t.Errorf("the owner admitted %d more, though 8 more than there were are gone", got)
	}
}

// TestAQuestionThatIsAskedTwiceCountsOnce: a connection that breaks under a call makes
// the line ask again.
func TestAQuestionThatIsAskedTwiceCountsOnce(t *testing.T) {
	w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 60, PerHour: 60}})
	w.cluster(2)
	key := w.owned(w.nodes["node0"])
	owner := w.nodes["node0"].Service
	for n, i := range []item{{op: opTake, n: 3, id: 11}, {op: opWait, n: 3, most: time.Hour, id: 12}, {op: opPut, n: 2, id: 13}, {op: opTake, n: 100, id: 14}} {
		i.bucket, i.key = "b", key
		first := owner.handle(t.Context(), "node1", []item{i})[0]
		again := owner.handle(t.Context(), "node1", []item{i})[0]
		if first.result != again.result || first.remaining != again.remaining {
			t.Errorf("question %d: first %+v, then %+v", n, first, again)
		}
	}
	if d, err := w.nodes["node0"].Status(t.Context(), Request{Bucket: "b", Key: key}); err != nil || d.Remaining != 56 {
		t.Errorf("%+v, %v; want the 60, less 3, less 3, and 2 again", d, err)
	}
}

// moving is a key that goes from node0 to node2 when that joins two others, and the
// three.
func (w *world) moving() (key string, all []Peer) {
	all = append(w.live(), Peer{ID: "node2", Host: "h"})
	later := newView(0, 0, all)
	for i := 0; ; i++ {
		key = fmt.Sprint("k", i)
		was, _ := w.nodes["node0"].past.Load().now().ranked(hash("b", key))
		if is, _ := later.ranked(hash("b", key)); was.ID == "node0" && is.ID == "node2" {
			return key, all
		}
	}
}

// TestAPullWhoseAnswerIsLost: who gave up a key says once more what it had counted,
// and until then nobody guesses.
func TestAPullWhoseAnswerIsLost(t *testing.T) {
	w := newWorld(t, 1, Bucket{Name: "b", Spec: Spec{Size: 60, PerMinute: 1}, OnFailure: Closed})
	w.cluster(2)
	key, all := w.moving()
	if got := w.take(w.nodes["node0"], key, 20); got != 20 {
		t.Fatalf("%d of 20 were admitted", got)
	}
	heir := w.start("node2", all)
	w.agree()
	w.fate, w.calls = func() fate { return answerLost }, 0
	if got := w.take(heir, key, 5); got != 0 {
		t.Errorf("%d were admitted before the one that counted had answered", got)
	}
	if w.calls != 1 {
		t.Errorf("it was asked %d times in a moment; want once", w.calls)
	}
	w.fate = nil
	w.now += int64(askAgain)
	if got := w.take(heir, key, 60); got != 40 {
		t.Errorf("%d were admitted after 20 of 60; want 40", got)
	}
}

// TestWhoIsSilentIsGuessedInTheEnd: a node that the control plane sees, and that does
// not answer, is waited for so long that a slow limit is not guessed, and no longer; a
// fast one is guessed at once.
func TestWhoIsSilentIsGuessedInTheEnd(t *testing.T) {
	for _, tt := range []struct {
		spec Spec
		want []int // after each second
	}{
		{Spec{Size: 60, PerMinute: 60}, []int{0, 0, 0, 0, 6}},
		{Spec{Size: 60, PerSecond: 60}, []int{6, 59}},
	} {
		w := newWorld(t, 1, Bucket{Name: "b", Spec: tt.spec, OnFailure: Closed})
		w.cluster(2)
		key, all := w.moving()
		w.take(w.nodes["node0"], key, 60)
		heir := w.start("node2", all)
		w.agree()
		w.parted = func(from, to string) bool { return from == "node0" || to == "node0" }
		for n, want := range tt.want {
			if got := w.take(heir, key, 60); got != want {
				t.Errorf("%+v, %d s after its owner went silent: %d were admitted, want %d", tt.spec, n, got, want)
			}
			w.now += int64(time.Second)
		}
	}
}

// TestAResetStays: a copy, or a node that has counted, from before a reset does not
// undo it, whoever takes the key over.
func TestAResetStays(t *testing.T) {
	for _, spec := range []Spec{{Size: 60}, {PerDay: 60}} {
		for seed := range uint64(*seeds) {
			w := newWorld(t, seed, Bucket{Name: "b", Spec: spec, OnFailure: Closed})
			w.cluster(4)
			key := fmt.Sprint("k", seed)
			for range 60 {
				w.take(w.nodes[fmt.Sprint("node", w.rnd.IntN(4))], key, 1)
			}
			w.now += int64(time.Second)
			if w.rnd.IntN(2) == 0 { // the copy of the reset may be lost
				lost := false
				w.fate = func() fate {
					if lost = !lost; lost {
						return arrives
					}
					return fate(w.rnd.IntN(3))
				}
			}
			owner, _ := w.nodes["node0"].past.Load().now().ranked(hash("b", key))
			if _, err := w.nodes[owner.ID].Reset(t.Context(), "b", key); err != nil {
				t.Fatal(err)
			}
			w.fate = nil
			w.now += int64(time.Second)
			for _, n := range w.nodes {
				n.sweep()
			}
			before := 10
			if got := w.take(w.nodes[owner.ID], key, before); got != before {
				t.Fatalf("seed %d: %d of %d were admitted after the reset", seed, got, before)
			}
			total := before
			for _, change := range [][]string{{"death", "join"}, {"return", "join"}}[seed%2] {
				owner, _ := w.nodes[w.live()[0].ID].past.Load().now().ranked(hash("b", key))
				switch change {
				case "death":
					w.nodes[owner.ID].dead = true
				case "join":
					w.start("node9", append(w.live(), Peer{ID: "node9", Host: "node9"}))
				default: // it is left out for a while, and counts again
					seen := slices.DeleteFunc(w.live(), func(p Peer) bool { return p.ID == owner.ID })
					for _, n := range w.nodes {
						n.peers = seen
						n.look()
					}
					total += w.take(w.nodes[seen[0].ID], key, 3)
				}
				w.now += int64(time.Second)
				w.agree()
				for _, p := range w.live() {
					w.nodes[p.ID].copyAll(t.Context())
					total += w.take(w.nodes[p.ID], key, 1)
				}
			}
			for range 100 {
				total += w.take(w.nodes[w.live()[w.rnd.IntN(2)].ID], key, 1)
			}
			if total < 60 || total > 61 {
				t.Fatalf("seed %d: %d were admitted of 60 after the reset", seed, total)
			}
		}
	}
}

// TestOneSlowQuestionIsNoAbsence: a call that fails while others are answered says
// nothing of the node; otherwise nobody waits in vain, and one finds out.
func TestOneSlowQuestionIsNoAbsence(t *testing.T) {
	l := &line{flying: 1}
	began := time.Now()
	l.good = began.Add(1)
	if l.judge(context.DeadlineExceeded, began); l.doubtful() {
		t.Error("a node that has answered others meanwhile is left alone")
	}
	l.queue = make([]question, 3)
	if vain := l.judge(context.DeadlineExceeded, l.good.Add(1)); len(vain) != 3 || !l.doubtful() {
		t.Errorf("a node does not answer; doubtful %t, and %d questions of 3 do not wait for it", l.doubtful(), len(vain))
	}
	if err := l.push(t.Context(), []item{{}}, nil); !errors.Is(err, errAway) {
		t.Errorf("a moment later: %v", err)
	}
	l.until = time.Time{}
	if err := l.push(t.Context(), []item{{}}, nil); !errors.Is(err, errAway) {
		t.Errorf("while another finds out: %v", err)
	}
	if l.judge(nil, time.Now()); l.doubtful() {
		t.Error("a node that answers again is left alone")
	}
}
