package ratelimit

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestSpecs(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec Spec
		want string // the limit, or a part of the error
	}{
		{"size and refill", Spec{Size: 100, PerSecond: 15}, "100 at once, 15 a second"},
		{"refill alone", Spec{PerMinute: 50}, "50 a minute"},
		{"interval", Spec{Size: 3, PerInterval: 1, Interval: 500}, "3 at once, 1 in 500ms"},
		{"size alone", Spec{Size: 5}, "5, refilled by hand"},
		{"hour", Spec{PerHour: 50}, "50 an hour"},
		{"day", Spec{PerDay: 5}, "5 a day"},
		{"unlimited", Spec{Unlimited: true}, "unlimited"},
		{"nothing", Spec{}, "size is 0; allowed are 1 to"},
		{"unlimited and more", Spec{Unlimited: true, Size: 1}, "unlimited stands beside"},
		{"two refills", Spec{PerSecond: 1, PerDay: 1}, "per_second and per_day stand together"},
		{"no interval", Spec{PerInterval: 1}, "interval is 0 ms"},
		{"interval alone", Spec{Size: 1, Interval: 5}, "interval stands without per_interval"},
		{"negative size", Spec{Size: -1, PerSecond: 1}, "size is -1"},
		{"negative refill", Spec{PerSecond: -1}, "per_second is -1"},
		{"too fast", Spec{Size: 5, PerSecond: 2_000_000}, "at most 1000000 in a second"},
		{"too large", Spec{Size: MaxSize + 1, PerSecond: 1}, "size is 1000000001"},
		{"too slow", Spec{Size: 1000, PerDay: 1}, "fills in 1000 days; allowed are at most 366"},
		{"too long", Spec{PerInterval: 1, Interval: 1 << 60}, "interval is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := tt.spec.Limit()
			got := l.String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDefaultsAreRules(t *testing.T) {
	for _, tier := range Tiers() {
		if _, err := NewRules(Defaults(tier), nil); err != nil {
			t.Errorf("tier %s: %v", tier, err)
		}
	}
}

// limitFrom makes some allowed limit of numbers.
func limitFrom(size, per, interval uint32) Limit {
	l := Limit{Size: int64(size%1000) + 1, Per: int64(per % 2000), Interval: time.Duration(interval%600_000+1) * time.Millisecond}
	if l.Per == 0 {
		l.Interval = 0
	}
	if l.check() != nil {
		l = Limit{Size: l.Size, Per: 1, Interval: time.Second}
	}
	return l
}

// FuzzNeverMoreThanTheLimit drives one cell by a script and checks, for all pairs of
// times, that what was admitted between them is at most size + rate * time.
func FuzzNeverMoreThanTheLimit(f *testing.F) {
	f.Add(uint32(10), uint32(5), uint32(1000), uint64(1), []byte{1, 2, 3, 200, 4, 0, 0, 0, 9})
	f.Add(uint32(1), uint32(1999), uint32(7), uint64(2), []byte{0, 0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, size, per, interval uint32, seed uint64, script []byte) {
		l := limitFrom(size, per, interval)
		rnd := rand.New(rand.NewPCG(seed, 1))
		type taken struct{ at, n int64 }
		var c cell
		var all []taken
		now := int64(1 << 50)
		fill := max(int64(time.Second), int64(l.Fill()))
		for _, b := range script[:min(len(script), 300)] {
			now += rnd.Int64N(fill) * int64(b%8) / 32
			n := rnd.Int64N(l.Size)/4 + 1
			before := c
			switch {
			case b >= 240:
				next, wait := c.reserve(l, now, n, time.Duration(rnd.Int64N(fill)))
				if c = next; wait >= 0 {
					all = append(all, taken{now + int64(wait), n})
				}
			default:
				next, wait := c.take(l, now, n)
				if c = next; wait == 0 {
					all = append(all, taken{now, n})
				} else if next.missing(now) != before.fit(l, now).missing(now) {
					t.Fatalf("a request that was refused took tokens: %+v, %+v", before, next)
				}
				if wait > 0 { // what was promised holds
					if _, again := c.take(l, now+int64(wait), n); again != 0 {
						t.Fatalf("%s: after the wait of %s that it named, it names %s", l, wait, again)
					}
				}
			}
			if r := c.remaining(l, now); r < 0 || r > l.Size {
				t.Fatalf("%d of %d remain", r, l.Size)
			}
		}
		for i := range all {
			sum := int64(0)
			for j := i; j < len(all); j++ {
				if all[j].at < all[i].at {
					continue
				}
				sum += all[j].n
				allowed := float64(l.Size)
				if l.Per > 0 {
					allowed += float64(all[j].at-all[i].at) * float64(l.Per) / float64(l.Interval)
				}
				if float64(sum) > allowed+1e-6 {
					t.Fatalf("%s: %d tokens between %d and %d, allowed are %.3f", l, sum, all[i].at, all[j].at, allowed)
				}
			}
		}
	})
}

func TestPut(t *testing.T) {
	for _, l := range []Limit{{Size: 10, Per: 1, Interval: time.Hour}, {Size: 10}} {
		now := int64(1 << 50)
		c, wait := cell{}.take(l, now, 10)
		if wait != 0 || c.remaining(l, now) != 0 {
			t.Fatalf("%s: %v, %d remain", l, wait, c.remaining(l, now))
		}
		if c = c.put(l, now, 3); c.remaining(l, now) != 3 {
			t.Errorf("%s: %d remain after a put of 3", l, c.remaining(l, now))
		}
		if c = c.put(l, now, MaxSize); c.remaining(l, now) != 10 || c.full(now) != 0 {
			t.Errorf("%s: %d remain after a put of very many", l, c.remaining(l, now))
		}
		if _, wait = c.take(l, now, 11); wait >= 0 {
			t.Errorf("%s: more than the bucket holds is to come in %s", l, wait)
		}
	}
}

func TestALimitThatChanges(t *testing.T) {
	now := int64(1 << 50)
	slow, fast := Limit{Size: 10, Per: 1, Interval: time.Hour}, Limit{Size: 10, Per: 1, Interval: time.Second}
	c, _ := cell{}.take(slow, now, 4)
	for _, l := range []Limit{fast, {Size: 10}, slow} {
		if c = c.fit(l, now); c.remaining(l, now) != 6 {
			t.Errorf("%s: %d remain of the 6", l, c.remaining(l, now))
		}
	}
	if c = c.fit(Limit{Size: 2, Per: 1, Interval: time.Hour}, now); c.missing(now) != 2 {
		t.Errorf("a smaller bucket lacks %d of its 2", c.missing(now))
	}
}

// FuzzItems feeds what another node could send.
func FuzzItems(f *testing.F) {
	f.Add(encodeItems([]item{{op: opTake, bucket: "a", key: "b", n: 3, lease: 2, limit: &Limit{Size: 3, Per: 1, Interval: time.Second}}, {op: opBye}}))
	f.Add(encodeVerdicts([]verdict{{result: yes, limit: 3, cell: relative{5, 6, 7, 8}, to: "node"}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if items, err := decodeItems(raw); err == nil {
			again, err := decodeItems(encodeItems(items))
			if err != nil || len(again) != len(items) {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			s := lone(t, Bucket{Name: "a", Spec: Spec{Size: 3, PerSecond: 1}})
			if got := s.handle(t.Context(), "other", items); len(got) != len(items) {
				t.Fatalf("%d answers to %d items", len(got), len(items))
			}
		}
		if all, err := decodeVerdicts(raw); err == nil {
			if _, err := decodeVerdicts(encodeVerdicts(all)); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
		}
	})
}

// lone is a service of one node.
func lone(t testing.TB, buckets ...Bucket) *Service {
	t.Helper()
	rules, err := NewRules(buckets, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Rules: func() *Rules { return rules }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
