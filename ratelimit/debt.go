package ratelimit

import (
	"slices"
	"sync"
	"sync/atomic"
)

// What a node gives out alone, because the owner of a key did not answer, it owes: it
// tells the owner with the next question about the key, and Run tells it without one.
// Each debt has the id of the question that had no answer, so that the owner counts it
// once: however often it is told, and even if it had counted the question after all.
// In the same way it learns what was refused alone, and gives back what it had counted.

const (
	maxOwed    = 32      // debts of one key; further ones are added up
	maxDebtors = 20_000  // keys of one node
	claims     = 1 << 16 // questions whose ids an owner remembers
)

// owed are tokens that were given out alone; below 0, refused alone.
type owed struct {
	id  uint64
	n   int64
	sum bool // of questions that cannot have arrived; here alone, not on the wire
}

type debts struct {
	some  atomic.Bool   // whether there are any; most of the time there are none
	first chan struct{} // says that there are some, where there were none
	mu    sync.Mutex
	keys  map[string]*debt
}

type debt struct {
	bucket, key string
	limit       *Limit
	owed        []owed
	told        int   // so many of them are on their way, and do not grow
	since       int64 // of the first
}

func newDebts() *debts { return &debts{first: make(chan struct{}, 1), keys: map[string]*debt{}} }

// add notes that n tokens were given out, or refused with n below 0, without the owner
// of an item's key. Where the owner may have counted
// the question all the same, the debt has the question's id, and otherwise a fresh one.
func (ds *debts) add(i *item, n int64, arrived bool, fresh uint64, now int64) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	name := i.bucket + " " + i.key
	d := ds.keys[name]
	if d == nil {
		if len(ds.keys) >= maxDebtors {
			return // what many keys got alone is bounded by the parts of their limits
		}
		d = &debt{bucket: i.bucket, key: i.key, limit: i.limit, since: now}
		ds.keys[name] = d
		if !ds.some.Swap(true) {
			nudge(ds.first)
		}
	}
	if arrived && len(d.owed) < maxOwed {
		d.owed = append(d.owed, owed{id: i.id, n: n})
		return
	}
	if n < 0 {
		return
	}
	if last := len(d.owed) - 1; last >= d.told && d.owed[last].sum {
		d.owed[last].n = min(d.owed[last].n+n, MaxSize)
		return
	}
	if len(d.owed) <= maxOwed {
		d.owed = append(d.owed, owed{id: fresh, n: n, sum: true})
	}
}

// carry lets an item tell what is owed of its key.
func (ds *debts) carry(i *item) {
	if !ds.some.Load() {
		return
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if d := ds.keys[i.bucket+" "+i.key]; d != nil {
		d.told = min(len(d.owed), maxOwed)
		i.owed = slices.Clone(d.owed[:d.told])
	}
}

// paid forgets what the owner has counted.
func (ds *debts) paid(i *item) {
	if len(i.owed) == 0 {
		return
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	name := i.bucket + " " + i.key
	d := ds.keys[name]
	if d == nil {
		return
	}
	for at := 0; at < len(d.owed); {
		if slices.Contains(i.owed, d.owed[at]) {
			d.owed = slices.Delete(d.owed, at, at+1)
			if at < d.told {
				d.told--
			}
			continue
		}
		at++
	}
	if len(d.owed) == 0 {
		ds.drop(name)
	}
}

// drop deletes a key. The caller holds ds.mu.
func (ds *debts) drop(name string) {
	delete(ds.keys, name)
	ds.some.Store(len(ds.keys) > 0)
}

// of is how many tokens of an item's key are owed.
func (ds *debts) of(i *item) (n int64) {
	if !ds.some.Load() {
		return 0
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if d := ds.keys[i.bucket+" "+i.key]; d != nil {
		for _, o := range d.owed {
			n += max(0, o.n)
		}
	}
	return n
}

// all are questions that tell every debt, each key with one.
func (ds *debts) all() (out []item) {
	if !ds.some.Load() {
		return nil
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.keys {
		d.told = min(len(d.owed), maxOwed)
		out = append(out, item{op: opStatus, bucket: d.bucket, key: d.key, limit: d.limit, owed: slices.Clone(d.owed[:d.told])})
	}
	return out
}

// void forgets debts that are older than their buckets need to fill, by what fill
// says.
func (ds *debts) void(now int64, fill func(bucket, key string, limit *Limit) int64) {
	if !ds.some.Load() {
		return
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for name, d := range ds.keys {
		if now-d.since > fill(d.bucket, d.key, d.limit) {
			ds.drop(name)
		}
	}
}

// counted remembers the last questions whose tokens were counted here, by their ids.
type counted [claims]atomic.Uint64

func (c *counted) has(id uint64) bool { return c != nil && id != 0 && c[id%claims].Load() == id }

func (c *counted) add(id uint64) {
	if c != nil && id != 0 {
		c[id%claims].Store(id)
	}
}

// settle counts what is owed, once.
func (c *counted) settle(e cell, l Limit, now int64, all []owed) cell {
	for _, o := range all {
		switch {
		case o.n > 0 && !c.has(o.id):
			e = e.owe(l, now, o.n)
		case o.n < 0 && c.has(o.id) && !c.has(^o.id):
			e = e.put(l, now, -o.n)
		}
		c.add(o.id) // it may still be on its way
		if o.n < 0 {
			c.add(^o.id)
		}
	}
	return e
}
