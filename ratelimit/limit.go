package ratelimit

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The bounds of a Limit.
const (
	MaxSize = 1_000_000_000 // tokens
	maxRate = 1_000_000     // tokens a second
	maxFill = 366 * 24 * time.Hour
)

// Limit is a token bucket: it holds Size tokens, and Per of them come back in each
// Interval, evenly spread. With Per 0 nothing comes back but by Put.
type Limit struct {
	Size      int64         // tokens, 1 to MaxSize
	Per       int64         // tokens that come back in Interval
	Interval  time.Duration // 1ms to 366 days; 0 with Per 0
	Unlimited bool          // every request conforms, and nothing is counted
}

// Spec is a Limit as people write it, in limitd's words.
type Spec struct {
	Size        int64 `yaml:"size" json:"size,omitempty" doc:"Tokens that the bucket holds: how many requests may come at once. 0 means as many as come back in one interval."`
	PerInterval int64 `yaml:"per_interval" json:"per_interval,omitempty" doc:"Tokens that come back in each interval."`
	Interval    int64 `yaml:"interval" json:"interval,omitempty" doc:"Length of the interval in milliseconds."`
	PerSecond   int64 `yaml:"per_second" json:"per_second,omitempty" doc:"Tokens that come back in each second."`
	PerMinute   int64 `yaml:"per_minute" json:"per_minute,omitempty" doc:"Tokens that come back in each minute."`
	PerHour     int64 `yaml:"per_hour" json:"per_hour,omitempty" doc:"Tokens that come back in each hour."`
	PerDay      int64 `yaml:"per_day" json:"per_day,omitempty" doc:"Tokens that come back in each day."`
	Unlimited   bool  `yaml:"unlimited" json:"unlimited,omitempty" doc:"Nothing is counted."`
}

// Zero reports whether the spec says nothing at all.
func (s Spec) Zero() bool { return s == Spec{} }

// Limit checks a spec. The error names the field, what was wrong and what is
// allowed.
func (s Spec) Limit() (Limit, error) {
	if s.Unlimited {
		if s != (Spec{Unlimited: true}) {
			return Limit{}, fmt.Errorf("unlimited stands beside other values; allowed is unlimited alone")
		}
		return Limit{Unlimited: true}, nil
	}
	type refill struct {
		field    string
		per      int64
		interval time.Duration
	}
	var named []string
	l := Limit{Size: s.Size}
	for _, r := range []refill{
		{"per_interval", s.PerInterval, 0}, {"per_second", s.PerSecond, time.Second}, {"per_minute", s.PerMinute, time.Minute},
		{"per_hour", s.PerHour, time.Hour}, {"per_day", s.PerDay, 24 * time.Hour},
	} {
		if r.per == 0 {
			continue
		}
		if r.per < 0 || r.per > MaxSize {
			return Limit{}, fmt.Errorf("%s is %d; allowed are 1 to %d", r.field, r.per, MaxSize)
		}
		named = append(named, r.field)
		l.Per, l.Interval = r.per, r.interval
	}
	switch {
	case len(named) > 1:
		return Limit{}, fmt.Errorf("%s stand together; allowed is one of them", strings.Join(named, " and "))
	case s.PerInterval != 0:
		if s.Interval < 1 || s.Interval > maxFill.Milliseconds() {
			return Limit{}, fmt.Errorf("interval is %d ms; allowed beside per_interval are 1 to %d", s.Interval, maxFill.Milliseconds())
		}
		l.Interval = time.Duration(s.Interval) * time.Millisecond
	case s.Interval != 0:
		return Limit{}, fmt.Errorf("interval stands without per_interval; it is the length of the interval in milliseconds")
	}
	if l.Size == 0 {
		l.Size = l.Per
	}
	return l, l.check()
}

func (l Limit) check() error {
	switch {
	case l.Unlimited:
		return nil
	case l.Size < 1 || l.Size > MaxSize:
		return fmt.Errorf("size is %d; allowed are 1 to %d, or a refill such as per_second alone", l.Size, MaxSize)
	case l.Per == 0 && l.Interval == 0:
		return nil
	case l.Per < 1 || l.Interval < time.Millisecond || l.Interval > maxFill:
		return fmt.Errorf("%d tokens in %s come back; allowed are 1 token and more in 1ms to %s", l.Per, l.Interval, maxFill)
	case float64(l.Per)/l.Interval.Seconds() > maxRate:
		return fmt.Errorf("%d tokens in %s come back; allowed are at most %d in a second", l.Per, l.Interval, maxRate)
	case float64(l.Size)*float64(l.step()) > float64(maxFill):
		return fmt.Errorf("a bucket of %d tokens fills in %.0f days; allowed are at most 366", l.Size, float64(l.Size)*float64(l.step())/float64(24*time.Hour))
	}
	return nil
}

// step is the time in which one token comes back, in ns, rounded up: a limit is
// never exceeded by rounding. 0 means that none comes back.
func (l Limit) step() int64 {
	if l.Per == 0 {
		return 0
	}
	return int64(math.Ceil(float64(l.Interval) / float64(l.Per)))
}

// Fill is how long an empty bucket takes to fill; 0 where nothing comes back.
func (l Limit) Fill() time.Duration { return time.Duration(l.Size * l.step()) }

// share is the part of one of n nodes: what it may admit by itself.
func (l Limit) share(n int) Limit {
	if n <= 1 || l.Unlimited {
		return l
	}
	l.Size = max(1, l.Size/int64(n))
	if l.Per > 0 {
		l.Interval *= time.Duration(n) // n below 1000, the interval at most 366 days
	}
	return l
}

// String is the limit in words, such as "100 at once, 15 a second".
func (l Limit) String() string {
	switch {
	case l.Unlimited:
		return "unlimited"
	case l.Per == 0:
		return fmt.Sprintf("%d, refilled by hand", l.Size)
	}
	every, ok := map[time.Duration]string{time.Second: "a second", time.Minute: "a minute", time.Hour: "an hour", 24 * time.Hour: "a day"}[l.Interval]
	if !ok {
		every = "in " + l.Interval.String()
	}
	if l.Size == l.Per {
		return fmt.Sprintf("%d %s", l.Per, every)
	}
	return fmt.Sprintf("%d at once, %d %s", l.Size, l.Per, every)
}
