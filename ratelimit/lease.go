package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

// Keys that are asked for often need not ask their owner each time: it grants tokens
// in advance, which it has taken out of the bucket, so that the sum is as exact as
// without; and who was refused does not ask again before there can be a token.
//
// Tokens in hand that nobody uses are lost. While the bucket is more than half full
// they are not missed, so that a key which is asked for more than once in a window gets
// as many as it may need while they live. Below, only a key that is asked for very often
// gets any, and few.

const (
	leaseLife   = 2 * leaseWindow // then tokens in hand are void
	leaseWindow = 100 * time.Millisecond
	leaseFrom   = 2                      // requests in a window get tokens out of a bucket that is more than half full
	leaseHot    = 10                     // requests in a window get tokens out of each
	refusalLife = 100 * time.Millisecond // so a Put elsewhere is seen soon
	lastLife    = time.Minute            // what the owner has said last is remembered so long
	leaseShards = 32
	leaseMost   = 1024                   // keys of one shard
	leaseStep   = 100 * time.Millisecond // slower limits lease nothing: a token that was lost would be missed
)

type leases struct {
	seed   maphash.Seed
	shards [leaseShards]leaseShard
}

type leaseShard struct {
	mu   sync.Mutex
	keys map[string]*lease
}

// makeRoom deletes a key, if possible one without tokens in hand.
func (s *leaseShard) makeRoom() {
	var victim string
	n := 0
	for id, l := range s.keys {
		victim = id
		if n++; l.tokens == 0 || n >= tries {
			break
		}
	}
	delete(s.keys, victim)
}

type lease struct {
	tokens  int64
	until   int64 // of the tokens
	last    verdict
	at      int64 // of last
	refused int64 // until when
	least   int64 // tokens that were refused: fewer may be there
	wanted  int64 // until when a question for tokens may be on its way: one is enough

	window int64 // its start
	asked  int64 // requests in it
	rate   int64 // requests in the one before
}

func newLeases() *leases {
	l := &leases{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].keys = map[string]*lease{}
	}
	return l
}

// on runs fn on the lease of an item's key. A key that is new is kept with add.
func (ls *leases) on(i *item, add bool, fn func(l *lease)) {
	id := i.bucket + " " + i.key
	s := &ls.shards[maphash.String(ls.seed, id)%leaseShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.keys[id]
	if l == nil {
		if !add {
			return
		}
		if len(s.keys) >= leaseMost {
			s.makeRoom()
		}
		l = &lease{}
		s.keys[id] = l
	}
	fn(l)
}

// use answers out of what is in hand.
func (ls *leases) use(i *item, now int64) (v verdict, ok bool) {
	if i.op != opTake || i.limit != nil {
		return v, false
	}
	ls.on(i, false, func(l *lease) {
		if now-l.window >= int64(leaseWindow) {
			l.rate = l.asked
			if now-l.window >= 2*int64(leaseWindow) {
				l.rate = 0
			}
			l.window, l.asked = now, 0
		}
		l.asked++
		switch {
		case now < l.until && l.tokens >= i.n:
			l.tokens -= i.n
			v, ok = l.last, true
			v.result, v.wait, v.remaining = yes, 0, v.remaining+l.tokens
		case now < l.refused && i.n >= l.least:
			v, ok = l.last, true
			v.result, v.wait = no, max(1, v.wait-time.Duration(now-l.at))
		}
		if ok && v.full > 0 {
			v.full = max(0, v.full-time.Duration(now-l.at))
		}
	})
	return v, ok
}

// want asks for tokens in hand where a key is asked for often.
func (ls *leases) want(i *item, limit Limit, now int64) {
	if i.op != opTake || i.limit != nil {
		return
	}
	ls.on(i, true, func(l *lease) {
		if l.window == 0 {
			l.window, l.asked = now, 1
		}
		if limit.Per == 0 || limit.step() > int64(leaseStep) || now < l.wanted || now < l.until && l.tokens > 0 {
			return
		}
		switch hot := max(l.rate, l.asked); {
		case hot >= leaseFrom && l.last.remaining > limit.Size/2:
			i.lease = min(hot*int64(leaseLife/leaseWindow), limit.Size/10)
		case hot >= leaseHot:
			i.lease = min(hot/2, limit.Size/10)
		}
		if i.lease > 0 {
			l.wanted = now + int64(leaseLife)
		}
	})
}

// learn keeps what the owner has answered.
func (ls *leases) learn(i *item, v verdict, now int64) {
	if i.limit != nil {
		return
	}
	ls.on(i, false, func(l *lease) {
		if i.op == opPut {
			l.refused = 0
			return
		}
		if i.op != opTake {
			return
		}
		if i.lease > 0 {
			l.wanted = 0
		}
		if v.lease > 0 {
			if now >= l.until {
				l.tokens = 0
			}
			l.tokens += v.lease
			l.until = now + int64(leaseLife)
		}
		if v.result == no && v.wait > 0 {
			l.refused, l.least = now+int64(min(v.wait, refusalLife)), i.n
		}
		l.last, l.at = v, now
	})
}

// last is how many tokens the owner has last said to be there, and when.
func (ls *leases) last(i *item) (remaining, at int64, ok bool) {
	if i.limit != nil {
		return 0, 0, false
	}
	ls.on(i, false, func(l *lease) {
		remaining, at, ok = l.last.remaining, l.at, l.at > 0
	})
	return remaining, at, ok
}

func (ls *leases) sweep(now int64) {
	for i := range ls.shards {
		s := &ls.shards[i]
		s.mu.Lock()
		for id, l := range s.keys {
			if now-l.window > int64(10*leaseWindow) && now > l.until && now > l.refused && now-l.at > int64(lastLife) {
				delete(s.keys, id)
			}
		}
		s.mu.Unlock()
	}
}
