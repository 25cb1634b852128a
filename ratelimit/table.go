package ratelimit

import (
	"hash/maphash"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

const shards = 64

// table is the memory of one bucket type on one node. It is bounded: when a shard is
// full, keys whose buckets are full again go first, then, of a few that chance
// picks, the one whose bucket is nearest to full. Who makes up keys in order to push
// others out pushes out its own.
type table struct {
	most   int // keys of one shard
	seed   maphash.Seed
	keys   atomic.Int64
	pushed atomic.Uint64 // keys that had to go before their buckets were full
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	cells map[string]entry
}

// entry is one key on one node.
type entry struct {
	cell
	view uint32 // the newest view of the cluster that it was settled in; see ownership.go
	held holder
	to   string // the node that has taken it over, where held is gone
	at   int64  // when it did
	keep int64  // until when it is remembered even where it is full: when it was filled by hand
}

// holder says who has the right to count.
type holder uint8

const (
	mine    holder = iota // this node
	pulling               // this node, as soon as another has answered
	gone                  // the node that entry.to names
	copied                // another; this is a copy for the case that it dies
)

func newTable(most int) *table {
	t := &table{most: max(1, most/shards), seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].cells = map[string]entry{}
	}
	return t
}

func (t *table) shard(key string) *shard {
	return &t.shards[maphash.String(t.seed, key)%shards]
}

// do runs fn on the entry of a key, which is absent when ok is false, and keeps what
// it returns, unless that is not worth keeping.
func (t *table) do(key string, now int64, fn func(e entry, ok bool) (next entry, keep bool)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.cells[key]
	next, keep := fn(e, ok)
	switch {
	case keep && ok:
		s.cells[key] = next
	case keep:
		if len(s.cells) >= t.most {
			t.makeRoom(s, now)
		}
		s.cells[strings.Clone(key)] = next
		t.keys.Add(1)
	case ok:
		delete(s.cells, key)
		t.keys.Add(-1)
	}
}

// tries is how many entries are looked at where one has to go: few enough to cost
// nothing, enough that the busiest of a shard are never the nearest to full.
const tries = 16

// makeRoom deletes at least one entry of a full shard, whose lock is held.
func (t *table) makeRoom(s *shard, now int64) {
	var victim string
	var least int64
	n, deleted := 0, false
	for k, e := range s.cells { // Go begins at a place of its own choice each time
		if e.spent(now) {
			delete(s.cells, k)
			t.keys.Add(-1)
			deleted = true
		} else if lack := e.lack(now); n == 0 || lack < least {
			victim, least = k, lack
		}
		if n++; n >= tries {
			break
		}
	}
	if !deleted {
		delete(s.cells, victim)
		t.keys.Add(-1)
		t.pushed.Add(1)
	}
}

// spent reports whether the bucket is full, so that nothing is lost with it.
func (e entry) spent(now int64) bool {
	switch {
	case e.held == pulling || now < e.keep:
		return false
	case e.held == gone && now-e.at < int64(agreeTime):
		return false
	}
	return e.full(now) == 0
}

// lack is how much is missing, to be compared within one type.
func (e entry) lack(now int64) int64 {
	if e.step == 0 {
		return e.tat
	}
	return e.tat - now
}

// sweep deletes what is full again.
func (t *table) sweep(now int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for k, e := range s.cells {
			if e.spent(now) {
				delete(s.cells, k)
				t.keys.Add(-1)
			}
		}
		s.mu.Unlock()
	}
}

// named is an entry with its key.
type named struct {
	key string
	entry
}

// list returns the entries that this node counts and whose keys begin with a prefix,
// those with the most missing first, at most n.
func (t *table) list(prefix string, now int64, n int) []named {
	all := slices.DeleteFunc(t.listAll(prefix, now), func(e named) bool { return e.held != mine })
	sort.Slice(all, func(i, j int) bool {
		if a, b := all[i].lack(now), all[j].lack(now); a != b {
			return a > b
		}
		return all[i].key < all[j].key
	})
	return all[:min(n, len(all))]
}

// listAll returns what this node counts and the copies that it keeps, in no order.
func (t *table) listAll(prefix string, now int64) []named {
	var all []named
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for k, e := range s.cells {
			if strings.HasPrefix(k, prefix) && (e.held == mine || e.held == copied) && !e.spent(now) {
				all = append(all, named{k, e})
			}
		}
		s.mu.Unlock()
	}
	return all
}
