package ratelimit

import "time"

// cell is what is remembered of one key: the generic cell rate algorithm's
// theoretical arrival time, by a clock that only goes forward. The bucket is full
// from that time on; each token that is taken moves it a step into the future. Where
// nothing comes back (step 0) it is the number of tokens that are missing. The
// functions here are pure.
type cell struct {
	tat  int64 // ns of the node's clock, or tokens
	step int64 // of the limit that it was counted with
	size int64 // the same
	// gen is when the bucket was last filled by hand, in ms of the wall clock; 0 for
	// never. Of two cells that of the older filling is worth nothing.
	gen int64
}

// missing is how many tokens the bucket lacks at now, rounded up.
func (c cell) missing(now int64) int64 {
	if c.step == 0 {
		return c.tat
	}
	return max(0, (c.tat-now+c.step-1)/c.step)
}

// fit carries a cell over to a limit that may have been changed since: the tokens
// that are missing stay missing, as far as the bucket is that large.
func (c cell) fit(l Limit, now int64) cell {
	step := l.step()
	if c.step == step && c.size == l.Size {
		if step > 0 {
			c.tat = max(c.tat, now) // reservations may have moved it beyond an empty bucket
		}
		return c
	}
	m := min(c.missing(now), l.Size)
	if step > 0 {
		m = now + m*step
	}
	return cell{m, step, l.Size, c.gen}
}

// take takes n tokens at now, or none. wait is how long the bucket needs until they
// are there: 0 when they are; below 0 when they never will be without a Put.
func (c cell) take(l Limit, now, n int64) (next cell, wait time.Duration) {
	c = c.fit(l, now)
	if n > l.Size {
		return c, -1
	}
	if c.step == 0 {
		if c.tat+n > l.Size {
			return c, -1
		}
		c.tat += n
		return c, 0
	}
	if late := c.tat + n*c.step - now - l.Size*c.step; late > 0 {
		return c, time.Duration(late)
	}
	c.tat += n * c.step
	return c, 0
}

// reserve takes n tokens that will be there within most, and says when. Whoever
// comes later waits behind. wait is below 0 when it took nothing.
func (c cell) reserve(l Limit, now, n int64, most time.Duration) (next cell, wait time.Duration) {
	next, wait = c.take(l, now, n)
	if wait <= 0 {
		return next, wait
	}
	if wait > most {
		return next, -1
	}
	next.tat += n * next.step
	return next, wait
}

// put gives n tokens back, as far as the bucket is that large.
func (c cell) put(l Limit, now, n int64) cell {
	c = c.fit(l, now)
	if c.step == 0 {
		c.tat = max(0, c.tat-n)
		return c
	}
	n = min(n, (c.tat-now)/c.step+1)
	c.tat = max(now, c.tat-n*c.step)
	return c
}

// owe takes n tokens that were given out elsewhere, as far as they are there.
func (c cell) owe(l Limit, now, n int64) cell {
	c = c.fit(l, now)
	n = min(n, l.Size)
	if c.step == 0 {
		c.tat = max(c.tat, min(c.tat+n, l.Size))
		return c
	}
	c.tat = max(c.tat, min(c.tat+n*c.step, now+l.Size*c.step))
	return c
}

// filled is the bucket after it was filled by hand, at a time of the wall clock in
// ms.
func (c cell) filled(l Limit, now, wall int64) cell {
	next := cell{}.fit(l, now)
	next.gen = max(c.gen+1, wall)
	return next
}

// remaining is how many whole tokens are in the bucket.
func (c cell) remaining(l Limit, now int64) int64 {
	return max(0, l.Size-c.missing(now))
}

// full is how long the bucket needs to be full; below 0 where it never will be by
// itself.
func (c cell) full(now int64) time.Duration {
	if c.step == 0 {
		if c.tat == 0 {
			return 0
		}
		return -1
	}
	return time.Duration(max(0, c.tat-now))
}

// fair is what a bucket keeps of which nobody knows what was counted: of a small one
// so much that who has used nothing is not refused for long.
const fair = 5

// kept is how many tokens a bucket has left when nobody knows what was counted: a
// tenth, but of less than 50 five, and of less than 10 the half, rounded up.
func (l Limit) kept() int64 { return max(l.Size/10, min(fair, (l.Size+1)/2)) }

// over is the cell that stands for a bucket of which all but the part that it keeps
// is missing at since: where somebody else may have counted.
func (l Limit) over(since int64) cell {
	kept := l.kept()
	if l.step() == 0 {
		return cell{l.Size - kept, 0, l.Size, 0}
	}
	return cell{since + (l.Size-kept)*l.step(), l.step(), l.Size, 0}
}

// later is the one of two cells of one limit that was filled by hand later, and
// otherwise the one in which more is missing.
func later(a, b cell) cell {
	if b.gen > a.gen || b.gen == a.gen && b.tat > a.tat {
		return b
	}
	return a
}
