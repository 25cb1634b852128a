package ratelimit

import (
	"fmt"
	"testing"
	"time"
)

// TestWantsInAdvance: how many tokens are asked for in advance, by how often a key was
// asked for in a window and what its owner has last said to be in the bucket.
func TestWantsInAdvance(t *testing.T) {
	second := Limit{Size: 1000, Per: 1000, Interval: time.Second}
	for _, c := range []struct {
		asked     int
		remaining int64
		limit     Limit
		want      int64
	}{
		{asked: 1, remaining: 900, limit: second, want: 0},
		{asked: 2, remaining: 900, limit: second, want: 4},
		{asked: 30, remaining: 900, limit: second, want: 60},
		{asked: 80, remaining: 900, limit: second, want: 100}, // a tenth of the bucket
		{asked: 2, remaining: 500, limit: second, want: 0},
		{asked: 9, remaining: 500, limit: second, want: 0},
		{asked: 10, remaining: 500, limit: second, want: 5},
		{asked: 80, remaining: 10, limit: second, want: 40},
		{asked: 80, remaining: 900, limit: Limit{Size: 1000, Per: 9, Interval: time.Second}, want: 0}, // a lost token would be missed
		{asked: 80, remaining: 900, limit: Limit{Size: 1000}, want: 0},                                // nothing comes back
		{asked: 80, remaining: 5, limit: Limit{Size: 9, Per: 100, Interval: time.Second}, want: 0},    // too small
	} {
		t.Run(fmt.Sprintf("%d asked, %d of %d there", c.asked, c.remaining, c.limit.Size), func(t *testing.T) {
			ls, now := newLeases(), int64(time.Hour)
			key := item{op: opTake, bucket: "b", key: "k", n: 1}
			ask := func() item {
				i := key
				if _, ok := ls.use(&i, now); ok {
					t.Fatal("a decision without an owner, who has granted nothing")
				}
				ls.want(&i, c.limit, now)
				return i
			}
			for range c.asked - 1 {
				i := ask()
				ls.learn(&i, verdict{result: yes, limit: c.limit.Size, remaining: c.remaining}, now)
			}
			got := ask()
			if got.lease != c.want {
				t.Fatalf("%d tokens are asked for in advance, want %d", got.lease, c.want)
			}
			if c.want == 0 {
				return
			}
			if i := ask(); i.lease != 0 {
				t.Errorf("%d more are asked for while a question for %d is on its way", i.lease, c.want)
			}
			ls.learn(&got, verdict{result: yes, limit: c.limit.Size, remaining: c.remaining, lease: 2}, now)
			for n := range 2 {
				i := key
				if v, ok := ls.use(&i, now+int64(leaseLife)-1); !ok || v.result != yes {
					t.Errorf("token %d of 2 in hand is not used", n+1)
				}
			}
			if i := ask(); i.lease == 0 {
				t.Error("nothing is asked for in advance after all tokens in hand were used")
			}
		})
	}
}

// TestTokensInHandEnd: what was granted and not used in time is void.
func TestTokensInHandEnd(t *testing.T) {
	ls, now := newLeases(), int64(time.Hour)
	i := item{op: opTake, bucket: "b", key: "k", n: 1}
	ls.want(&i, Limit{Size: 1000, Per: 1000, Interval: time.Second}, now)
	ls.learn(&i, verdict{result: yes, limit: 1000, remaining: 900, lease: 5}, now)
	if _, ok := ls.use(&i, now+int64(leaseLife)); ok {
		t.Errorf("a token was used %v after it was granted; it lives for %v", leaseLife, leaseLife)
	}
}
