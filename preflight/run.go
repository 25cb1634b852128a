package preflight

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	probing "github.com/prometheus-community/pro-bing"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/probe"
)

// The times of a run. A whole matrix of three nodes takes less than ten seconds
// when everything is dropped: one round of connects, one of traces, one more look.
const (
	connectTime  = 2 * time.Second // one lost SYN is sent again after a second
	exchangeTime = 1500 * time.Millisecond
	traceTime    = 1200 * time.Millisecond
	collectTime  = 3 * time.Second
	hostTime     = 200 * time.Millisecond // more patience for each host of the run
	retryTime    = 250 * time.Millisecond
	attempts     = 3 // of a datagram
	fullSize     = 4096
	knocks       = 4  // ports of a host that are tried at a time until one answers
	talks        = 32 // exchanges at the same time: their time counts from their turn on
	maxPatience  = time.Minute
	fetches      = 4 // hosts whose findings are fetched at the same time
)

// Config of a run.
type Config struct {
	Table netcontract.Table
	Self  Host
	Peers []Host // others, and Self is ignored among them
	// Token is what the hosts of the run share; nil where this host is alone.
	Token *Token
	Options
	// Outsiders are hosts that take no part, on the other side of rows that lead out.
	Outsiders []Outsider
	// Notes are what the report has to say beside its findings.
	Notes []string
	// CA are roots that outside hosts' certificates may be of, beside the public ones.
	CA *x509.CertPool
	// Proxy is the HTTP proxy that the appliance is configured with, and EnvProxy the
	// one that the environment names for a URL; both may be nil.
	Proxy    *url.URL
	EnvProxy func(*url.URL) (*url.URL, error)
	// Wait is how long hosts that do not answer yet are waited for.
	Wait time.Duration
	// Linger is how long this host goes on answering others, at the most, after its own
	// work.
	Linger time.Duration
	// Progress is told what happens, for a terminal; nil means nobody is.
	Progress func(text string)
	// Now is the clock that is compared with others'; nil means the host's.
	Now func() time.Time
}

type run struct {
	Config
	checks []Check
	others []Host

	mu       sync.Mutex
	report   Report
	done     bool                      // own findings are complete
	working  map[string]netip.AddrPort // a port of each peer that answered
	clocks   map[string]Clock
	evidence map[string]*Evidence // of peers, after the probes
	fetched  map[string]bool      // peers that have this host's complete findings
	sealed   json.RawMessage      // this host's complete findings, as others get them
	own      *Evidence            // of this host
	looks    gatherer
	words    map[string]string    // those that come again and again in findings of others
	up       map[string]bool      // peers of which some port is open, whoever answers there
	holes    map[netip.Addr]*hole // whether the path to an address loses large packets
	quality  map[netip.Addr]*quality
}

func newRun(cfg Config) *run {
	r := &run{Config: cfg, working: map[string]netip.AddrPort{}, clocks: map[string]Clock{}, evidence: map[string]*Evidence{}, fetched: map[string]bool{},
		words: map[string]string{}, up: map[string]bool{}, holes: map[netip.Addr]*hole{}, quality: map[netip.Addr]*quality{}}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	return r
}

// Run takes part in a swarm until the report is complete, or ctx ends: then it
// returns what is known so far. The others may not have this host's findings yet:
// stay waits until they have, for Linger at the most, and ends the responders. It
// has to be called.
func Run(ctx context.Context, cfg Config) (report *Report, stay func(), err error) {
	r := newRun(cfg)
	for _, p := range cfg.Peers {
		if p.Name != cfg.Self.Name {
			r.others = append(r.others, p)
		}
	}
	if r.checks, err = Plan(cfg.Table, cfg.Self, r.others, cfg.Options); err != nil {
		return nil, nil, err
	}
	if err := validateOutsiders(cfg.Table, cfg.Outsiders); err != nil {
		return nil, nil, err
	}
	r.report = Report{Host: cfg.Self.Name, Role: cfg.Self.Role, Hosts: append([]Host{cfg.Self}, r.others...), Profile: string(cfg.Table.Profile()), Started: r.Now().UTC(), Outside: cfg.Outsiders, Notes: slices.Clone(cfg.Notes)}
	responder := &Responder{self: cfg.Self}
	if len(r.others) > 0 {
		if responder, err = newResponder(ctx, cfg.Token, cfg.Table, cfg.Self, cfg.Thorough); err != nil {
			return nil, nil, err
		}
		responder.now, responder.evidence, responder.results, responder.swarm = r.Now, r.looks.gather, r.shared, map[netip.Addr]bool{}
		for _, h := range r.report.Hosts {
			for _, a := range h.Addresses {
				responder.swarm[a] = true
			}
		}
		for _, b := range responder.bound {
			if b.Busy {
				r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s port %d (row %s) is in use by another program on this host; that program is probed", b.Protocol, b.Port, b.Row))
			} else if b.Refused != "" {
				r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s port %d (row %s) could not be opened here: %s", b.Protocol, b.Port, b.Row, b.Refused))
			}
		}
		responder.serve()
	}
	began := time.Now()
	var outside []Check
	var wg sync.WaitGroup
	wg.Go(func() { outside = r.lookups(ctx) })
	r.arrive(ctx)
	wg.Wait()
	r.checks = append(r.checks, outside...)
	r.Progress(fmt.Sprintf("probing %d connections to %d hosts", len(r.checks), len(r.others)+len(r.Outsiders)))
	r.work(ctx)
	if len(r.others) == 0 {
		r.local()
	}
	r.mu.Lock()
	r.done = true
	r.mu.Unlock()
	r.collect(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.compareNames(cfg.Outsiders)
	r.report.Took = time.Since(began).Seconds()
	r.report.Unfinished = ctx.Err() != nil
	if n := responder.strangers.Load(); n > 0 {
		r.report.Notes = append(r.report.Notes, fmt.Sprintf("%d connections and messages that were not of this run were dropped", n))
	}
	out := r.report
	sortFindings(out.Findings)
	return &out, func() {
		r.linger(ctx)
		_ = responder.close() // nobody asks any more
	}, nil
}

// linger waits until every host that works has fetched the findings.
func (r *run) linger(ctx context.Context) {
	for end := time.Now().Add(r.Linger); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		r.mu.Lock()
		left := 0
		for _, p := range r.others {
			if !r.fetched[p.Name] {
				left++
			}
		}
		r.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// shared is what another host gets when it asks for results.
func (r *run) shared(by string) json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.done {
		return json.RawMessage(`{}`)
	}
	r.fetched[by] = true
	if r.sealed != nil {
		return r.sealed
	}
	var own []Finding
	for _, f := range r.report.Findings {
		if f.From == r.Self.Name {
			own = append(own, f)
		}
	}
	var names []Resolved
	for _, n := range r.report.Names {
		if n.From == r.Self.Name {
			names = append(names, n)
		}
	}
	// Plain values: it cannot fail.
	r.sealed, _ = json.Marshal(results{Done: r.done, Findings: own, Clocks: ownClocks(r.report.Clocks, r.Self.Name), Names: names})
	return r.sealed
}

func ownClocks(all []Clock, host string) []Clock {
	var own []Clock
	for _, c := range all {
		if c.From == host {
			own = append(own, c)
		}
	}
	return own
}

type results struct {
	Done     bool      `json:"done"`
	Findings []Finding `json:"findings"`
	Clocks   []Clock   `json:"clocks"`

	Names []Resolved `json:"names"`
}

// arrive waits until every peer has answered on some port, or the time is over.
func (r *run) arrive(ctx context.Context) {
	deadline := time.Now().Add(r.Wait)
	for round := 0; ; round++ {
		missing := r.missing()
		if len(missing) == 0 || ctx.Err() != nil {
			return
		}
		var targets []probe.Target
		var names []string
		for _, name := range missing {
			var all []netip.AddrPort
			for _, c := range r.checks {
				if c.To == name && c.Protocol == netcontract.TCP {
					all = append(all, c.addrPort())
				}
			}
			for n := range min(knocks, len(all)) { // other ones each time
				targets, names = append(targets, probe.Target{Address: all[(round*knocks+n)%len(all)]}), append(names, name)
			}
		}
		if len(targets) == 0 {
			return
		}
		var wg sync.WaitGroup
		probe.Each(ctx, targets, min(connectTime, max(50*time.Millisecond, time.Until(deadline))), func(i int, p probe.Result) {
			if p.Conn == nil {
				return
			}
			wg.Go(func() {
				defer p.Conn.Close()
				a, _, err := r.exchange(p.Conn, request{Kind: kindHello})
				r.mu.Lock()
				defer r.mu.Unlock()
				if err == nil && a.Name == names[i] {
					r.working[names[i]] = targets[i].Address
				}
				r.up[names[i]] = true
			})
		})
		wg.Wait()
		if missing = r.missing(); len(missing) == 0 || !time.Now().Before(deadline) {
			return
		}
		r.Progress("waiting for " + strings.Join(missing, ", "))
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryTime):
		}
	}
}

// missing are the hosts that have not answered yet. On a load balancer, a depot and
// a name server their own programs may answer; other roles open no ports.
func (r *run) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, p := range r.others {
		_, works := r.working[p.Name]
		asked := slices.ContainsFunc(r.checks, func(c Check) bool { return c.To == p.Name && c.Protocol == netcontract.TCP })
		if asked && !works && (p.Role == Node || !r.up[p.Name]) {
			out = append(out, p.Name)
		}
	}
	return out
}

// exchange sends a request and reads the answer on a stream.
func (r *run) exchange(c net.Conn, q request) (reply, time.Duration, error) {
	return r.exchangeWithin(c, q, exchangeTime)
}

func (r *run) exchangeWithin(c net.Conn, q request, limit time.Duration) (a reply, took time.Duration, err error) {
	q.Nonce, q.From = make([]byte, 16), r.Self.Name
	rand.Read(q.Nonce)
	out, err := r.Token.encode(toResponder, q)
	if err != nil {
		return a, 0, err
	}
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return a, 0, err
	}
	sent := r.Now()
	if _, err := c.Write(out); err != nil {
		return a, 0, err
	}
	if err := r.Token.read(c, toProber, maxMessage, &a); err != nil {
		return a, 0, err
	}
	took = r.Now().Sub(sent)
	if string(a.Nonce) != string(q.Nonce) {
		return a, took, errStranger
	}
	r.clock(a, sent, took)
	return a, took, nil
}

// clock keeps the comparison with the smallest error.
func (r *run) clock(a reply, sent time.Time, took time.Duration) {
	c := Clock{From: r.Self.Name, To: a.Name, Offset: a.At.Sub(sent.Add(took / 2)), Bound: took / 2}
	c.judge()
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.clocks[a.Name]; !ok || c.Bound < old.Bound {
		r.clocks[a.Name] = c
	}
}

// work makes all checks.
func (r *run) work(ctx context.Context) {
	found := make([]outcome, len(r.checks))
	var wg sync.WaitGroup
	wg.Go(func() { r.tcp(ctx, found) })
	for i, c := range r.checks {
		switch {
		case !c.Address.IsValid():
			found[i] = outcome{verdict: NotResolving}
		case c.Protocol == netcontract.UDP:
			wg.Go(func() { found[i] = r.udp(ctx, c) })
		case c.Protocol == netcontract.ICMP:
			wg.Go(func() { found[i] = r.icmp(ctx, c) })
		}
	}
	wg.Wait()
	if ctx.Err() == nil {
		r.look(ctx, found)
	}
	if ctx.Err() == nil {
		r.proxies(ctx, found)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own == nil {
		r.own = &Evidence{} // everything holds, and nobody asks
	}
	for i, c := range r.checks {
		r.report.Findings = append(r.report.Findings, r.finding(c, found[i]))
	}
	r.settleAlternatives()
	r.provedNames(found)
	for _, c := range r.clocks {
		r.report.Clocks = append(r.report.Clocks, c)
	}
	slices.SortFunc(r.report.Clocks, func(a, b Clock) int { return strings.Compare(a.To, b.To) })
	for _, p := range r.others {
		if _, ok := r.working[p.Name]; !ok && p.Role == Node {
			r.report.Silent = append(r.report.Silent, p.Name)
		}
	}
}

// settleAlternatives lets a port be closed where another one of its row is enough.
func (r *run) settleAlternatives() {
	type group struct {
		row     netcontract.RowID
		to      string
		address netip.Addr
		n       int
	}
	of := func(f Finding) (g group, ok bool) {
		row, known := r.Table.Row(f.Row)
		if !known || f.Protocol != netcontract.TCP || f.Closed {
			return g, false
		}
		n, is := alternatives(row, f.Port)
		return group{f.Row, f.To, f.Address, n}, is
	}
	holds := map[group]int{}
	for _, f := range r.report.Findings {
		if g, ok := of(f); ok && f.OK && f.From == r.Self.Name {
			holds[g] = f.Port
		}
	}
	for i := range r.report.Findings {
		f := &r.report.Findings[i]
		shut := f.Verdict == Closed || f.Verdict == Rejected || f.Verdict == Dropped || f.Verdict == Unreachable
		if g, ok := of(*f); ok && shut && f.From == r.Self.Name && holds[g] > 0 {
			f.OK = true
			f.Sentence += fmt.Sprintf(" Port %d of the row holds, and one of them is enough.", holds[g])
		}
	}
}

// provedNames marks the names whose addresses all showed a trusted certificate.
func (r *run) provedNames(found []outcome) {
	for i := range r.report.Names {
		n := &r.report.Names[i]
		for _, a := range n.Addresses {
			n.Proved = slices.ContainsFunc(r.checks, func(c Check) bool { return c.Host == n.Host && c.Address == a }) &&
				slices.ContainsFunc(found, func(o outcome) bool { return o.proved && o.check.Host == n.Host && o.check.Address == a })
			if !n.Proved {
				break
			}
		}
	}
}

// outcome is what the probes of one check saw.
type outcome struct {
	check   Check
	verdict Verdict
	by      netip.Addr
	text    string // of the ICMP error, the issuer, the other host
	rtt     time.Duration
	hops    []probe.Hop
	trail   trail
	err     error
	size    int      // largest segment that passed, for a black hole
	note    string   // evidence beside the verdict
	proved  bool     // a certificate that is trusted for its own sake came
	hungUp  bool     // the other side ended the connection instead of an answer
	proxy   *url.URL // that the check went through
	direct  Verdict  // without the proxy
	loss    float64  // of first packets, 0 to 1
	rtts    []time.Duration
}

// fromProbe is the outcome of a probe that opened nothing.
func fromProbe(p probe.Result) outcome {
	o := outcome{by: p.By, text: p.ICMP, rtt: p.Took, err: p.Err}
	switch p.Outcome {
	case probe.Closed:
		o.verdict = Closed
	case probe.Rejected:
		o.verdict = Rejected
		if p.By == p.Local {
			o.verdict = Unreachable // this host's own kernel: the neighbour does not answer
		}
	case probe.Dropped:
		o.verdict = Dropped
	case probe.Unreachable:
		o.verdict = Unreachable
	case probe.Failed:
		o.verdict = Failed
	}
	return o
}

func (r *run) tcp(ctx context.Context, found []outcome) {
	var index []int
	for i, c := range r.checks {
		if c.Protocol == netcontract.TCP && c.Address.IsValid() {
			index = append(index, i)
		}
	}
	r.connect(ctx, found, index)
}

// connect makes the checks of an index by TCP.
func (r *run) connect(ctx context.Context, found []outcome, index []int) {
	targets := make([]probe.Target, len(index))
	for n, i := range index {
		targets[n].Address = r.checks[i].addrPort()
	}
	var wg sync.WaitGroup
	turn := make(chan struct{}, talks)
	probe.Each(ctx, targets, connectTime, func(n int, p probe.Result) {
		i := index[n]
		if p.Outcome != probe.Open {
			found[i] = fromProbe(p)
			return
		}
		wg.Go(func() {
			defer p.Conn.Close()
			turn <- struct{}{}
			defer func() { <-turn }()
			o := outcome{rtt: p.Took}
			if r.checks[i].Outside {
				o = r.direct(ctx, r.checks[i], p.Conn, o)
			} else {
				o = r.identify(ctx, r.checks[i], p.Conn, o)
			}
			if q, ok := probe.QualityOf(p.Conn); ok {
				if q.RTT > 0 {
					o.rtt = q.RTT
				}
				r.measured(r.checks[i].Address, q)
			}
			o.check = r.checks[i]
			found[i] = o
		})
	})
	wg.Wait()
}

// tlsRows are those whose traffic is TLS, so that somebody who ends TLS on the way
// would show.
var tlsRows = map[netcontract.RowID]bool{netcontract.LB: true, netcontract.Control: true, netcontract.CLI: true, netcontract.WebtaskCallback: true,
	netcontract.UpdatePackages: true, netcontract.UpdateImages: true, netcontract.CDN: true, netcontract.Examples: true, netcontract.Telemetry: true}

// dialAgain connects to the target of a check once more, a little later.
func dialAgain(ctx context.Context, c Check) (net.Conn, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(retryTime):
	}
	d := net.Dialer{Timeout: exchangeTime}
	return d.DialContext(ctx, "tcp", c.addrPort().String())
}

// identify finds out who is at the other end of a connection.
func (r *run) identify(ctx context.Context, c Check, conn net.Conn, o outcome) outcome {
	a, _, err := r.exchange(conn, request{Kind: kindHello})
	if err != nil {
		// A host that is flooded hangs up on some.
		if second, e := dialAgain(ctx, c); e == nil {
			a, _, err = r.exchangeWithin(second, request{Kind: kindHello}, 2*exchangeTime)
			_ = second.Close() // everything was said
		}
	}
	switch {
	case err == nil && a.Name != c.To:
		o.verdict, o.text = WrongHost, a.Name
		return o
	case err == nil:
		o.verdict = Open
		r.mu.Lock()
		r.working[c.To] = c.addrPort()
		r.mu.Unlock()
	case c.Row == netcontract.DNS && r.role(c.To) == DNSServer:
		return r.nameServer(ctx, c, o, err)
	default:
		// Whether the port's own program or somebody else answers shows when the peer says
		// who listens there.
		o.verdict, o.err = WrongService, err
	}
	if c.Closed {
		return o // that it is open is all there is to say
	}
	if tlsRows[c.Row] && c.Port != 80 {
		if issuer, by, intercepted := r.intercepted(ctx, c); intercepted {
			o.verdict, o.text, o.by = Intercepted, issuer, by
			return o
		}
	}
	if o.verdict == Open {
		if size, hole := r.blackHole(ctx, c); hole {
			o.verdict, o.size = MTUBlackHole, size
		}
	}
	return o
}

// intercepted opens TLS and looks whose certificate comes back: the responder has
// the swarm's own.
func (r *run) intercepted(ctx context.Context, c Check) (issuer string, by netip.Addr, is bool) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	raw, err := d.DialContext(ctx, "tcp", c.addrPort().String())
	if err != nil {
		return "", by, false
	}
	defer raw.Close()
	var seen *x509.Certificate
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "preflight.invalid", CurvePreferences: []tls.CurveID{tls.X25519}, // #nosec G402 -- it is the certificate that is looked at, and nothing is sent
		VerifyConnection: func(s tls.ConnectionState) error { seen = s.PeerCertificates[0]; return nil }})
	if err := conn.HandshakeContext(ctx); seen == nil || err != nil && seen == nil {
		return "", by, false // no TLS here: whoever answers is found out otherwise
	}
	if r.Token.own(seen) {
		return "", by, false
	}
	name := seen.Issuer.CommonName
	if name == "" {
		name = seen.Issuer.String()
	}
	return name, by, true
}

// nameServer asks a host of the run that is a name server what a name server is
// for.
func (r *run) nameServer(ctx context.Context, c Check, o outcome, hello error) outcome {
	d := net.Dialer{Timeout: exchangeTime}
	conn, err := d.DialContext(ctx, "tcp", c.addrPort().String())
	if err != nil {
		return wrongService(o, "no answer of this run came", hello)
	}
	defer conn.Close()
	return r.outsider(ctx, c, conn, o)
}

func (r *run) role(host string) Role {
	for _, p := range r.others {
		if p.Name == host {
			return p.Role
		}
	}
	return ""
}

// hole is whether a path loses large packets: it is the same for all ports of an
// address.
type hole struct {
	once sync.Once
	size int
	is   bool
}

// blackHole sends and asks for as much as needs full packets, after a small
// message has passed.
func (r *run) blackHole(ctx context.Context, c Check) (size int, is bool) {
	r.mu.Lock()
	h := r.holes[c.Address]
	if h == nil {
		h = &hole{}
		r.holes[c.Address] = h
	}
	r.mu.Unlock()
	h.once.Do(func() { h.size, h.is = r.findHole(ctx, c) })
	return h.size, h.is
}

// segments are tried when full ones do not pass. From the one that does follows the
// MTU of the path, or a little less.
var segments = []int{1440, 1420, 1400, 1380, 1360, 1340, 1320, 1300, 1280, 1260, 1240, 1220, 1200, 1000, 536}

func (r *run) findHole(ctx context.Context, c Check) (size int, is bool) {
	address := c.addrPort().String()
	resent := false // the kernel sent large packets again: they got no acknowledgement
	try := func(segment int, limit time.Duration) bool {
		d := net.Dialer{Timeout: limit, Control: segmentSize(segment)}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		defer conn.Close()
		_, _, err = r.exchangeWithin(conn, request{Kind: kindHello, Padding: strings.Repeat("x", fullSize), Pad: fullSize}, limit)
		if q, ok := probe.QualityOf(conn); ok && segment == 0 && q.Lost > 1 {
			resent = true
		}
		return err == nil
	}
	if try(0, exchangeTime) || !resent && try(0, 3*exchangeTime) { // else the host may be busy
		return 0, false
	}
	// Smaller segments show whether it is the size that matters, and about which. Full
	// ones are tried again with them, for longer: a path may lose packets of every size,
	// and a host may be busy.
	passed := make([]bool, len(segments))
	full := false
	var wg sync.WaitGroup
	for i, s := range segments {
		wg.Go(func() { passed[i] = try(s, exchangeTime) })
	}
	wg.Go(func() { full = try(0, 2*exchangeTime) })
	wg.Wait()
	if i := slices.Index(passed, true); i >= 0 && !full {
		return segments[i], true
	}
	return 0, false
}

func (r *run) udp(ctx context.Context, c Check) outcome {
	if c.Outside {
		return r.udpQuestion(ctx, c)
	}
	q := request{Kind: kindHello, Nonce: make([]byte, 16), From: r.Self.Name}
	rand.Read(q.Nonce)
	out, err := r.Token.encode(toResponder, q)
	if err != nil {
		return outcome{verdict: Failed, err: err}
	}
	sent := r.Now()
	p, raw := probe.UDP(ctx, probe.Target{Address: c.addrPort()}, out, attempts, connectTime)
	if p.Outcome != probe.Open {
		o := fromProbe(p)
		if c.Row == netcontract.DNS && p.Outcome == probe.Dropped {
			if own := r.udpQuestion(ctx, c); own.verdict != Dropped {
				return own // a name server's own program does not answer to us
			}
		}
		return o
	}
	took := r.Now().Sub(sent)
	var a reply
	if err := r.Token.datagram(raw, toProber, &a); err != nil || string(a.Nonce) != string(q.Nonce) {
		if c.Row == netcontract.DNS {
			return r.udpQuestion(ctx, c)
		}
		return outcome{verdict: WrongService, err: errStranger}
	}
	if a.Name != c.To {
		return outcome{verdict: WrongHost, text: a.Name}
	}
	r.clock(a, sent, took)
	return outcome{verdict: Open, rtt: p.Took}
}

func (r *run) icmp(ctx context.Context, c Check) outcome {
	p := probing.New(c.Address.String())
	p.SetLogger(probing.NoopLogger{})
	p.Count, p.Interval, p.Timeout = 2, 200*time.Millisecond, connectTime
	p.SetPrivileged(!pingSockets())
	if err := p.RunWithContext(ctx); err != nil && ctx.Err() == nil {
		return outcome{verdict: Failed, err: err}
	}
	if s := p.Statistics(); s.PacketsRecv > 0 {
		return outcome{verdict: Open, rtt: s.AvgRtt}
	}
	return outcome{verdict: Dropped}
}

func (o outcome) good() bool { return o.verdict == Open || o.verdict == Served || o.verdict == Slow }

// ask gets the evidence of the peers to which something failed, over any port that
// works.
func (r *run) ask(ctx context.Context, found []outcome) map[string]*Evidence {
	var mu sync.Mutex
	out := map[string]*Evidence{}
	var wg sync.WaitGroup
	for _, p := range r.others {
		if !slices.ContainsFunc(r.failing(found), func(i int) bool { return r.checks[i].To == p.Name }) {
			continue
		}
		wg.Go(func() {
			if a, err := r.call(ctx, p.Name, request{Kind: kindEvidence}); err == nil && a.Evidence != nil {
				mu.Lock()
				out[p.Name] = a.Evidence
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// failing are the checks that do not hold so far.
func (r *run) failing(found []outcome) []int {
	var out []int
	for i, o := range found {
		if o.verdict != "" && !o.good() && !r.checks[i].Closed {
			out = append(out, i)
		}
	}
	return out
}

var errNoWay = errors.New("no port of the host answers")

// call asks a peer over a port that is known to work.
func (r *run) call(ctx context.Context, name string, q request) (reply, error) {
	r.mu.Lock()
	address, ok := r.working[name]
	r.mu.Unlock()
	if !ok {
		return reply{}, errNoWay
	}
	d := net.Dialer{Timeout: exchangeTime}
	conn, err := d.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	a, _, err := r.exchangeWithin(conn, q, collectTime)
	if err == nil && a.Name != name {
		err = errStranger
	}
	return a, err
}

// collect gets the findings of the other hosts that work.
func (r *run) collect(ctx context.Context) {
	arrived := map[string]bool{}
	turn := make(chan struct{}, fetches)
	latest := time.Now().Add(maxPatience)
	for deadline := time.Now().Add(r.patience()); ; {
		var wg sync.WaitGroup
		var mu sync.Mutex
		waiting := 0
		for _, p := range r.others {
			r.mu.Lock()
			_, works := r.working[p.Name]
			r.mu.Unlock()
			if arrived[p.Name] || !works {
				continue
			}
			waiting++
			wg.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				a, err := r.call(ctx, p.Name, request{Kind: kindResults})
				var got results
				if err != nil || json.Unmarshal(a.Results, &got) != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if !got.Done { // it lives, and is at work
					deadline = time.Now().Add(r.patience())
					return
				}
				arrived[p.Name] = true
				waiting--
				r.adopt(p.Name, got)
			})
		}
		wg.Wait()
		if waiting == 0 || ctx.Err() != nil || !time.Now().Before(deadline) || !time.Now().Before(latest) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, p := range r.others {
		if !arrived[p.Name] && p.Role == Node {
			r.report.Missing = append(r.report.Missing, p.Name)
		}
	}
}

// patience is how long others are waited for who probe more than this host does:
// about as long as a round takes in which everything is dropped.
func (r *run) patience() time.Duration {
	if len(r.others) == 0 {
		return 0
	}
	return connectTime + traceTime + collectTime + time.Duration(len(r.others))*hostTime
}

// adopt takes the findings of a host into the report. A host speaks for itself
// alone.
func (r *run) adopt(host string, got results) {
	r.mu.Lock()
	defer r.mu.Unlock()
	word := func(s string) string {
		if w, ok := r.words[s]; ok {
			return w
		}
		r.words[s] = s
		return s
	}
	r.report.Findings = slices.Grow(r.report.Findings, len(got.Findings))
	for _, f := range got.Findings {
		f.Row, f.From, f.To, f.Protocol = netcontract.RowID(word(string(f.Row))), word(f.From), word(f.To), netcontract.Protocol(word(string(f.Protocol)))
		f.Need, f.Verdict, f.By = netcontract.Need(word(string(f.Need))), Verdict(word(string(f.Verdict))), word(f.By)
		if f.From == host {
			r.report.Findings = append(r.report.Findings, f)
		}
	}
	for _, c := range got.Clocks {
		if c.From == host {
			r.report.Clocks = append(r.report.Clocks, c)
		}
	}
	for _, n := range got.Names {
		if n.From == host {
			r.report.Names = append(r.report.Names, n)
		}
	}
}
