package preflight

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	probing "github.com/prometheus-community/pro-bing"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/probe"
)

// The bounds of what is slow.
const (
	slowBetween = 100 * time.Millisecond // hosts of a run
	slowOutside = time.Second
	lossLimit   = 0.05 // of first packets
	sample      = 40   // connections that a path is judged by
	glance      = 20   // and those that show whether it has to be: one loss of 30 in 100 is missed in a thousand paths
	burst       = 5    // packets that are counted on their way
	burstTime   = 80 * time.Millisecond
)

// quality is what the connections to an address saw on the way.
type quality struct {
	connections, lost int // lost are those that sent a packet again, or did not come about
	rtts              []time.Duration
}

func (r *run) measured(a netip.Addr, one probe.Quality) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.quality[a]
	if all == nil {
		all = &quality{}
		r.quality[a] = all
	}
	all.add(one)
}

func (q *quality) add(one probe.Quality) {
	q.connections++
	if one.Lost > 0 {
		q.lost++
	}
	if one.RTT > 0 {
		q.rtts = append(q.rtts, one.RTT)
	}
}

// sample opens connections to the target of a check, and closes them at once.
func (q *quality) sample(ctx context.Context, c Check, connections int) {
	targets := make([]probe.Target, connections)
	for n := range targets {
		targets[n].Address = c.addrPort()
	}
	for _, p := range probe.TCP(ctx, targets, connectTime) {
		one := probe.Quality{Lost: 1}
		if p.Conn != nil {
			one, _ = probe.QualityOf(p.Conn)
			_ = p.Conn.Close()
		}
		q.add(one)
	}
}

// loss is the share of connections that saw one, 0 to 1.
func (q *quality) loss() float64 { return float64(q.lost) / float64(max(1, q.connections)) }

// within reports whether the path of a check keeps its bounds.
func (q *quality) within(c Check, loss float64) bool {
	return q.loss() <= loss && quantile(q.rtts, 0.9) <= c.limit()
}

// quantile is that of durations, by the nearest rank; 0 of none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// limit is what the round trip to the target of a check may take.
func (c Check) limit() time.Duration {
	if c.Outside {
		return slowOutside
	}
	return slowBetween
}

// look goes after what failed: the way of what was dropped, and the other side's
// view of it.
func (r *run) look(ctx context.Context, found []outcome) {
	var before map[string]*Evidence
	if len(r.failing(found)) > 0 {
		r.Progress("looking for who is to blame")
		r.own = r.looks.gather(ctx)
		before = r.ask(ctx, found)
		r.mu.Lock()
		for name, e := range before {
			r.evidence[name] = e
		}
		r.mu.Unlock()
	}
	links, known := onLinks()
	far := func(a netip.Addr) bool {
		return known && !slices.ContainsFunc(links, func(p netip.Prefix) bool { return p.Contains(a.WithZone("")) })
	}
	hops := make([][]probe.Hop, len(found))
	proxied := make([]bool, len(found))
	again := make([]outcome, len(found))
	var retry, nearIndex []int
	var near []probe.Target
	var wg sync.WaitGroup
	for i, c := range r.checks {
		target := probe.Target{Address: c.addrPort()}
		switch {
		case c.Closed:
		case r.refusedByOther(c, found[i]):
			wg.Go(func() { hops[i] = probe.Trace(ctx, target, traceTime) })
		case found[i].verdict == Dropped && c.Protocol == netcontract.TCP:
			wg.Go(func() { hops[i] = probe.Trace(ctx, target, traceTime) })
			if slices.ContainsFunc(found, func(o outcome) bool { return o.check.Address == c.Address && o.good() }) {
				retry = append(retry, i) // it may have been a loss
			}
		case found[i].verdict == Dropped && c.Protocol == netcontract.UDP:
			wg.Go(func() { hops[i] = probe.TraceUDP(ctx, target, []byte{0}, traceTime) })
		case found[i].verdict == Open && c.Protocol == netcontract.TCP && far(c.Address):
			// A peer that is not on this link is two hops away at least: whoever accepts after
			// one is not the peer, whatever it passes on.
			target.TTL = 1
			near, nearIndex = append(near, target), append(nearIndex, i)
		}
	}
	wg.Go(func() { r.connect(ctx, again, retry) })
	wg.Go(func() {
		probe.Each(ctx, near, traceTime, func(n int, p probe.Result) {
			if p.Conn != nil {
				_ = p.Conn.Close()
				proxied[nearIndex[n]] = true
			}
		})
	})
	wg.Wait()
	for i := range found {
		found[i].hops = hops[i]
		if proxied[i] {
			found[i].verdict = TransparentProxy
		}
		if again[i].good() {
			found[i] = again[i]
		}
	}
	r.paths(ctx, found)
	r.attribute(ctx, found)
}

// refusedByOther reports whether a reset came from a port on which the peer says
// that somebody listens: a firewall sent it.
func (r *run) refusedByOther(c Check, o outcome) bool {
	_, listens := r.evidence[c.To].program(string(c.Protocol), c.Port)
	return o.verdict == Closed && listens
}

// paths looks more closely at the addresses to which packets were lost or late. Few
// connections may not show a loss: to a host of the run there are more.
func (r *run) paths(ctx context.Context, found []outcome) {
	var wg sync.WaitGroup
	for a, q := range r.quality {
		i := slices.IndexFunc(found, func(o outcome) bool { return o.check.Address == a && o.verdict == Open && !o.check.Closed })
		if i < 0 {
			continue
		}
		c := r.checks[i]
		wg.Go(func() {
			if more := glance - q.connections; more > 0 && !c.Outside && q.within(c, 0) {
				q.sample(ctx, c, more)
			}
			if q.within(c, 0) {
				return
			}
			judged := &quality{}
			judged.sample(ctx, c, sample)
			if judged.within(c, lossLimit) || ctx.Err() != nil {
				return
			}
			for n := range found {
				if o := &found[n]; o.check.Address == a && o.verdict == Open && !o.check.Closed {
					o.verdict, o.loss, o.rtts = Slow, judged.loss(), judged.rtts
				}
			}
		})
	}
	wg.Wait()
}

// attribute finds out how far packets come that are dropped: whether they leave this
// host, arrive at the other one, and whether answers come back. Both ends look at
// packets outside of their own firewalls.
func (r *run) attribute(ctx context.Context, found []outcome) {
	byPeer := map[string][]int{}
	for i, c := range r.checks {
		if (found[i].verdict == Dropped || r.refusedByOther(c, found[i])) && !c.Closed && c.Address.IsValid() {
			byPeer[c.To] = append(byPeer[c.To], i)
		}
	}
	if len(byPeer) == 0 {
		return
	}
	before, _ := hostfw.Read()                          // nil where it may not be read
	own, _ := newTap(2*watchTime, func(p packet) bool { // nil without the right to
		for _, list := range byPeer {
			for _, i := range list {
				if c := r.checks[i]; p.protocol == c.Protocol && (p.outgoing && p.target == c.Address && p.toPort == c.Port || !p.outgoing && p.source == c.Address && p.sourcePort == c.Port) {
					return true
				}
			}
		}
		return false
	})
	seen := map[string]*Watch{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, list := range byPeer {
		wg.Go(func() {
			var flows []Flow
			for _, i := range list {
				c := r.checks[i]
				flows = append(flows, Flow{r.Self.Addresses, c.Protocol, c.Port})
			}
			_, err := r.call(ctx, name, request{Kind: kindWatch, Flows: flows})
			var sent sync.WaitGroup
			for _, i := range list {
				sent.Go(func() { r.send(ctx, r.checks[i]) })
			}
			sent.Wait()
			if err != nil {
				return
			}
			if a, err := r.call(ctx, name, request{Kind: kindCount}); err == nil && a.Watch != nil {
				mu.Lock()
				seen[name] = a.Watch
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	var packets []packet
	looked := own != nil
	if looked {
		packets, looked = own.stop()
	}
	var counted []hostfw.Drop
	if after, err := hostfw.Read(); err == nil {
		counted = after.Since(before)
	}
	for name, list := range byPeer {
		for n, i := range list {
			found[i].trail = trailOf(r.checks[i], n, looked, packets, counted, seen[name])
		}
	}
}

// send sends a few packets of a check.
func (r *run) send(ctx context.Context, c Check) {
	if c.Protocol != netcontract.ICMP {
		probe.Burst(ctx, probe.Target{Address: c.addrPort()}, c.Protocol == netcontract.UDP, burst, burstTime)
		return
	}
	p := probing.New(c.Address.String())
	p.SetLogger(probing.NoopLogger{})
	p.Count, p.Interval, p.Timeout = burst, time.Millisecond, burstTime
	p.SetPrivileged(!pingSockets())
	_ = p.RunWithContext(ctx) // the answers are counted elsewhere
}

// trail is how far the packets of a check came.
type trail struct {
	looked         bool // this host may see its packets
	left, answered int  // packets that went out here, and that came back
	there          bool // the other host could look
	arrived        int
	here, at       []hostfw.Drop // rules that counted packets meanwhile, here and there
}

func trailOf(c Check, n int, looked bool, packets []packet, counted []hostfw.Drop, seen *Watch) trail {
	t := trail{looked: looked}
	for _, p := range packets {
		if p.protocol != c.Protocol {
			continue
		}
		switch {
		case p.outgoing && p.target == c.Address && p.toPort == c.Port:
			t.left++
		case !p.outgoing && p.source == c.Address && p.sourcePort == c.Port:
			t.answered++
		}
	}
	for _, d := range counted {
		if d.Hook == "output" && d.Concerns(string(c.Protocol), c.Port) && d.Packets >= burst {
			t.here = append(t.here, d)
		}
	}
	if seen != nil {
		t.there = seen.Looked
		if n < len(seen.Arrived) {
			t.arrived = seen.Arrived[n]
		}
		for _, d := range seen.Counted {
			if d.Hook == "input" && d.Concerns(string(c.Protocol), c.Port) && d.Packets >= burst {
				t.at = append(t.at, d)
			}
		}
	}
	return t
}
