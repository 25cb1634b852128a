package ratelimit

import (
	"slices"
	"time"
)

// Peer is a node of the cluster.
type Peer struct {
	ID   string
	Host string // address or name; the port is the row's
}

// Cluster says which nodes there are.
type Cluster interface {
	// Self is this node's id.
	Self() string
	// Peers are the nodes that are up and take work, this one included where it does.
	// It is asked several times a second.
	Peers() []Peer
}

// agreeTime is how long the nodes may need, at most, until they see the same members
// after a change. Where they need longer they are parted, and each part counts by
// itself.
const agreeTime = 30 * time.Second

// maxViews bounds how many changes of the members are remembered.
const maxViews = 16

// view is the membership as this node saw it from a time on.
type view struct {
	n     uint32
	since int64
	peers []Peer
	marks []uint64 // hashes of the peers' ids
}

// history is what this node has seen of the membership; the last view counts. It
// does not change.
type history struct {
	self  string
	views []view
	// cut is when the oldest view that is remembered began; before it nobody knows who
	// counted. Below 0 it is unknown to nobody.
	cut int64
	// born is when this node began to count in a cluster: what it had counted before
	// is lost. Below 0 nothing can be.
	born int64
	// alone is the last view of those in which this node has seen nobody else since its
	// start: it may have missed nodes that were there.
	alone uint32
	agree int64 // ns that the nodes may need until they see the same members
}

func (h *history) now() *view { return &h.views[len(h.views)-1] }

// hash is FNV-1a, the same on every node.
func hash(s ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, part := range s {
		for i := range len(part) {
			h = (h ^ uint64(part[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return h
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// ranked are the two peers that rendezvous hashing puts first for a key: its owner,
// and the one that owns it when the owner is gone. They are empty where there are
// none.
func (v *view) ranked(key uint64) (owner, second Peer) {
	var best, next uint64
	for i, m := range v.marks {
		score := mix(key ^ m)
		switch {
		case owner.ID == "" || score > best:
			second, next = owner, best
			owner, best = v.peers[i], score
		case second.ID == "" || score > next:
			second, next = v.peers[i], score
		}
	}
	return owner, second
}

func newView(n uint32, since int64, peers []Peer) view {
	v := view{n: n, since: since, peers: peers}
	for _, p := range peers {
		v.marks = append(v.marks, hash(p.ID))
	}
	return v
}

// begin is the history of a node that starts now. What the others counted while it
// was not there they know; what it counted itself before nobody does.
func begin(self string, peers []Peer, now, agree int64) *history {
	peers = sorted(peers)
	h := &history{self: self, cut: -1, born: -1, agree: agree}
	others := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.ID == self })
	if len(others) > 0 {
		h.views = append(h.views, newView(0, now-int64(maxFill), others))
		h.born = now
	} else {
		h.alone = 1
	}
	h.views = append(h.views, newView(1, now, peers))
	return h
}

func sorted(peers []Peer) []Peer {
	peers = slices.Clone(peers)
	slices.SortFunc(peers, func(a, b Peer) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return peers
}

// next is the history after a change; it is h itself where there was none.
func (h *history) next(peers []Peer, now int64) *history {
	peers = sorted(peers)
	last := h.now()
	if slices.Equal(last.peers, peers) {
		return h
	}
	out := &history{self: h.self, cut: h.cut, born: h.born, alone: h.alone, agree: h.agree, views: append(slices.Clone(h.views), newView(last.n+1, now, peers))}
	if h.alone == last.n {
		others := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.ID == h.self })
		if len(others) == 0 {
			out.alone = last.n + 1
		} else {
			// The others may have been there all the time, and have counted.
			out.born = h.views[0].since
			out.views = []view{newView(0, out.born-int64(maxFill), others), out.views[len(out.views)-1]}
		}
	}
	if len(out.views) > maxViews {
		out.views = slices.Clone(out.views[1:])
		out.cut = out.views[0].since
	}
	return out
}

// suspect is a node that may have counted a key.
type suspect struct {
	Peer
	until int64 // when it went, as far as this node knows
	// second says that this node was next in rank, for long enough that the other knew
	// it, and has the copies.
	second bool
	// copies says that the node can have copies at most.
	copies bool
}

// suspects are the other nodes that owned a key since this node settled it (in the
// view after; 0 for never), as far back as a bucket needs to fill. A node that is
// there may not know yet that it owns a key no more: it is suspect for as long as
// the nodes may need to agree.
func (h *history) suspects(key uint64, after uint32, fill, now int64) []suspect {
	var out []suspect
	for i := len(h.views) - 1; i >= 0; i-- {
		v := &h.views[i]
		if after > 0 && v.n <= after {
			break
		}
		owner, second := v.ranked(key)
		if owner.ID == "" || owner.ID == h.self {
			continue
		}
		if n := slices.IndexFunc(out, func(s suspect) bool { return s.ID == owner.ID }); n >= 0 {
			// What was counted before a view that has lasted was copied when it began.
			if next := h.views[i+1].since; next > out[n].until-h.agree/6 {
				out[n].second = out[n].second && second.ID == h.self
			}
			continue
		}
		until := h.until(owner.ID, now)
		if i+1 < len(h.views) {
			until = min(until, h.views[i+1].since+h.agree)
		}
		if until >= now-fill {
			out = append(out, suspect{Peer: owner, until: until, second: second.ID == h.self})
		}
	}
	return out
}

// blind reports whether nobody here remembers who owned a key at some time after it
// was settled, as far back as a bucket needs to fill.
func (h *history) blind(after uint32, fill, now int64) bool {
	return h.cut >= 0 && h.cut > now-fill && after+1 < h.views[0].n
}

// until is when a node was last seen.
func (h *history) until(id string, now int64) int64 {
	for i := len(h.views) - 1; i >= 0; i-- {
		if slices.ContainsFunc(h.views[i].peers, func(p Peer) bool { return p.ID == id }) {
			if i+1 == len(h.views) {
				return now
			}
			return h.views[i+1].since
		}
	}
	return 0
}

// present reports whether a node is there as far as this node knows.
func (h *history) present(id string) bool {
	return slices.ContainsFunc(h.now().peers, func(p Peer) bool { return p.ID == id })
}

// peer finds a node by its id, among those of now and of before.
func (h *history) peer(id string) (Peer, bool) {
	for i := len(h.views) - 1; i >= 0; i-- {
		for _, p := range h.views[i].peers {
			if p.ID == id {
				return p, true
			}
		}
	}
	return Peer{}, false
}

// nodes is the largest number of nodes that were seen at a time.
func (h *history) nodes() int {
	n := 1
	for _, v := range h.views {
		n = max(n, len(v.peers))
	}
	return n
}
