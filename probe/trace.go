package probe

import (
	"context"
	"net/netip"
	"time"
)

// maxHops bounds a trace: a site's own network has few.
const maxHops = 16

// Hop is what answered to a packet of one time to live.
type Hop struct {
	TTL int
	// By is the router that said that the time was exceeded; the zero Addr for silence.
	By netip.Addr
	// Reached means that the target itself answered, with whatever outcome.
	Reached bool
	Outcome Outcome
}

// Trace finds the way of a TCP connection, hop by hop, all at the same time. The
// hops end with the first that the target answered to, or with the last that
// anybody answered to.
func Trace(ctx context.Context, t Target, timeout time.Duration) []Hop {
	targets := make([]Target, maxHops)
	for i := range targets {
		targets[i] = t
		targets[i].TTL = i + 1
	}
	return hops(t.Address.Addr(), TCP(ctx, targets, timeout))
}

// hops reads the results of packets with rising times to live.
func hops(target netip.Addr, results []Result) []Hop {
	var all []Hop
	last := 0
	for i, r := range results {
		if r.Conn != nil {
			_ = r.Conn.Close() // it was opened to be seen
		}
		h := Hop{TTL: i + 1, Outcome: r.Outcome}
		switch {
		case r.Outcome == Rejected && r.ICMP == timeExceeded:
			h.By = r.By
		case r.Outcome == Rejected:
			h.By, h.Reached = r.By, true
		case r.Outcome == Open || r.Outcome == Closed:
			h.By, h.Reached = target, true
		}
		all = append(all, h)
		if h.By.IsValid() {
			last = len(all)
		}
		if h.Reached {
			break
		}
	}
	for _, r := range results[len(all):] {
		if r.Conn != nil {
			_ = r.Conn.Close() // farther than the target
		}
	}
	return all[:last]
}
