package audit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/sockets"
)

// Expected is a flow that has to pass the host's firewall.
type Expected struct {
	Row      netcontract.RowID
	Out      bool // this host connects to the peers, and not they to it
	Protocol string
	Port     int
	// Peers are the addresses on the other side; none means that nobody has named
	// them, and that the flow has to be possible for somebody.
	Peers []netip.Prefix
	// Ours says that this process listens there: nobody else may get the traffic.
	Ours bool
}

// Host is what the contract wants of the firewall of a host.
type Host struct {
	Expected []Expected
	// Unjudged says why the firewall need not be looked at, or "".
	Unjudged string
	// Inbound are the ports that rows or the operator let in: nothing else is open.
	Inbound []Endpoint
}

// Kinds of drift.
const (
	Blocked   = "blocked"   // a flow of a row does not pass
	Open      = "open"      // a port of no row is let in
	Published = "published" // a port of no row, or for strangers, is sent on to a container before the rules are asked
	Wide      = "wide"      // a row's port is open to more than the row's peers
	Diverted  = "diverted"  // traffic for this process is sent elsewhere
)

// Drift is a difference between the host's firewall and the contract.
type Drift struct {
	Kind     string            `json:"kind"`
	Row      netcontract.RowID `json:"row,omitempty"`
	Protocol string            `json:"protocol"`
	Ports    string            `json:"ports"` // "5432" or "6000-6010"
	Families string            `json:"families"`
	Peer     string            `json:"peer,omitempty"`
	By       string            `json:"by,omitempty"` // the rule
	To       string            `json:"to,omitempty"` // where it is sent on to
	Sentence string            `json:"sentence"`
	Remedy   string            `json:"remedy,omitempty"`
}

// FirewallReport is the state of one look at the host's firewall.
type FirewallReport struct {
	At time.Time `json:"at"`
	// Firewall is nftables, iptables, firewalld, ufw or none, "" when it could not be read.
	Firewall string  `json:"firewall"`
	Docker   bool    `json:"docker"`
	Note     string  `json:"note,omitempty"` // why nothing, or not everything, was judged
	Findings []Drift `json:"findings"`
}

// strangers are addresses of documentation (RFC 5737, RFC 3849): no rule of an
// operator speaks of them.
var strangers = map[bool]netip.Addr{false: netip.MustParseAddr("192.0.2.201"), true: netip.MustParseAddr("2001:db8:ffff::c9")}

// CheckFirewall reads the firewall of this host and compares it with the contract.
// Without the right to read it the report says so.
func CheckFirewall(h Host, now time.Time) *FirewallReport {
	if h.Unjudged != "" {
		return &FirewallReport{At: now.UTC(), Findings: []Drift{}, Note: h.Unjudged}
	}
	set, err := hostfw.Load()
	switch {
	case errors.Is(err, hostfw.ErrNotAllowed):
		return &FirewallReport{At: now.UTC(), Findings: []Drift{}, Note: "The host's firewall is not compared with the contract: reading it wants CAP_NET_ADMIN (AmbientCapabilities=CAP_NET_ADMIN in the unit)."}
	case err != nil:
		return &FirewallReport{At: now.UTC(), Findings: []Drift{}, Note: "The host's firewall is not compared with the contract: " + err.Error() + "."}
	}
	return compareFirewall(set, h, listeners(), now)
}

// listeners are the programs that listen on this host, by protocol and port.
func listeners() map[string]string {
	out := map[string]string{}
	all, err := sockets.List()
	if err != nil {
		return out
	}
	programs := sockets.Programs()
	for _, s := range all {
		if s.Listening && !s.Local.Addr().IsLoopback() {
			name := programs[s.Inode].Name
			if name == "" {
				name = "a program"
			}
			out[fmt.Sprint(s.Protocol, " ", s.Local.Port())] = name
		}
	}
	return out
}

func compareFirewall(set *hostfw.Ruleset, h Host, listening map[string]string, now time.Time) *FirewallReport {
	r := &FirewallReport{At: now.UTC(), Firewall: set.Kind(), Docker: set.Docker, Findings: []Drift{}, Note: set.Partial}
	c := &comparison{set: set, host: h, listening: listening, report: r}
	entries := set.Entries()
	for _, e := range h.Expected {
		c.expected(e, entries)
	}
	filtered := false
	for _, entry := range entries {
		filtered = c.strangers(entry) || filtered
	}
	if !filtered && r.Note == "" {
		r.Note = "The host's firewall lets every port in: the network in front of this host alone holds the contract (portcullis network render writes rules for the host)."
	}
	r.Findings = c.merged()
	return r
}

type comparison struct {
	set       *hostfw.Ruleset
	host      Host
	listening map[string]string
	report    *FirewallReport
	found     []found
}

// found is a finding of one family, before those of both are put together.
type found struct {
	drift    Drift
	from, to uint16
	v6       bool
	row      netcontract.RowID
}

// expected looks at a flow, for each peer and family; it is blocked when no
// interface lets it pass.
func (c *comparison) expected(e Expected, entries []hostfw.Packet) {
	peers := e.Peers
	if len(peers) == 0 {
		peers = []netip.Prefix{{}}
	}
	for _, peer := range peers {
		for _, v6 := range []bool{false, true} {
			if peer.IsValid() && peer.Addr().Is6() != v6 {
				continue
			}
			c.flow(e, peer, v6, entries)
		}
	}
}

func (c *comparison) flow(e Expected, peer netip.Prefix, v6 bool, entries []hostfw.Packet) {
	port := uint16(e.Port) // #nosec G115 -- a port of the contract or of the checked configuration
	who := peer.Addr()
	var results []hostfw.Result
	for _, entry := range entries {
		if entry.To.Is6() != v6 {
			continue
		}
		p := hostfw.Packet{Protocol: e.Protocol, Port: port}
		if e.Out {
			if !who.IsValid() {
				return // where it goes is not known
			}
			p.From, p.To = entry.To, who
			results = append(results, c.set.Outbound(p))
			continue
		}
		p.From, p.To, p.In = who, entry.To, entry.In
		results = append(results, c.set.Inbound(p))
	}
	if len(results) == 0 {
		return
	}
	peerText := "anybody"
	if peer.IsValid() {
		peerText = prefixText(peer)
	}
	if i := slices.IndexFunc(results, func(r hostfw.Result) bool { return r.Diverted && r.Open() }); i >= 0 && e.Ours && !e.Out {
		r := results[i]
		c.add(found{drift: Drift{Kind: Diverted, Row: e.Row, Protocol: e.Protocol, Peer: peerText, By: r.DivertedBy, To: text(r.To),
			Sentence: fmt.Sprintf("Traffic for %s port %d of row %s does not reach this node: %s sends it to %s.", e.Protocol, e.Port, e.Row, r.DivertedBy, text(r.To)),
			Remedy:   "stop publishing that port, or choose another in `listen`"}, from: port, to: port, v6: v6, row: e.Row})
		return
	}
	if slices.ContainsFunc(results, func(r hostfw.Result) bool { return !r.Closed() }) {
		return
	}
	way := fmt.Sprintf("from %s to %s port %d", peerText, e.Protocol, e.Port)
	if e.Out {
		way = fmt.Sprintf("to %s, %s port %d", peerText, e.Protocol, e.Port)
	}
	c.add(found{drift: Drift{Kind: Blocked, Row: e.Row, Protocol: e.Protocol, Peer: peerText, By: results[0].By,
		Sentence: fmt.Sprintf("The host's firewall blocks row %s %s: %s.", e.Row, way, results[0].By),
		Remedy:   c.set.Allow(results[0].By, e.Out, e.Protocol, peer, port, "row "+string(e.Row))}, from: port, to: port, v6: v6, row: e.Row})
}

// strangers looks at every port for a stranger, and reports whether the firewall
// keeps any closed.
func (c *comparison) strangers(entry hostfw.Packet) (filtered bool) {
	reps := c.set.Ports()
	var list []found
	for _, protocol := range []string{"tcp", "udp"} {
		for _, run := range c.runs(reps, protocol) {
			p := entry
			p.Protocol, p.Port, p.From = protocol, run.from, strangers[entry.To.Is6()]
			r := c.set.Inbound(p)
			if r.Closed() {
				filtered = true
			}
			if !r.Open() {
				continue
			}
			f := found{from: run.from, to: run.to, v6: entry.To.Is6(), row: run.row,
				drift: Drift{Protocol: protocol, By: r.By, Row: run.row}}
			switch {
			case r.Diverted:
				f.drift.Kind, f.drift.By, f.drift.To = Published, r.DivertedBy, text(r.To)
				if run.declared && !run.wanted {
					continue // a row's port, in a container, for whom nobody has named
				}
				f.drift.Remedy = c.set.Unpublish(entry.In, protocol, run.from, entry.To.Is6())
			case !run.declared:
				f.drift.Kind = Open
			case run.wanted:
				f.drift.Kind = Wide
			default:
				continue
			}
			list = append(list, f)
		}
	}
	if filtered {
		for _, f := range list {
			c.add(f)
		}
	}
	return filtered
}

// run is a run of ports that neither the rules nor the contract tell apart.
type run struct {
	from, to uint16
	declared bool
	wanted   bool // its row's peers are named, so that strangers are none of them
	row      netcontract.RowID
}

func (c *comparison) runs(reps []uint16, protocol string) []run {
	starts := map[uint16]bool{1: true}
	for _, p := range reps {
		starts[p] = true
	}
	declared := map[uint16]netcontract.RowID{}
	for _, e := range c.host.Inbound {
		if e.Protocol != protocol || e.Port < 1 || e.Port > 65535 {
			continue
		}
		p := uint16(e.Port)
		if _, ok := declared[p]; !ok {
			declared[p] = e.Row
		}
		starts[p] = true
		if p < 65535 {
			starts[p+1] = true
		}
	}
	named := map[uint16]bool{}
	for _, e := range c.host.Expected {
		if !e.Out && e.Protocol == protocol && len(e.Peers) > 0 {
			named[uint16(e.Port)] = true // #nosec G115 -- as above
		}
	}
	for _, e := range c.host.Expected { // a row that anybody may use
		if !e.Out && e.Protocol == protocol && len(e.Peers) == 0 {
			named[uint16(e.Port)] = false // #nosec G115 -- as above
		}
	}
	var order []uint16
	for p := range starts {
		order = append(order, p)
	}
	slices.Sort(order)
	out := make([]run, len(order))
	for i, p := range order {
		row, ok := declared[p]
		out[i] = run{from: p, to: 65535, declared: ok, wanted: named[p], row: row}
		if i > 0 {
			out[i-1].to = p - 1
		}
	}
	return out
}

func (c *comparison) add(f found) { c.found = append(c.found, f) }

// merged puts together what differs in the family or in the next port alone.
func (c *comparison) merged() []Drift {
	type group struct {
		found
		v4, v6 bool
	}
	var groups []*group
	for _, f := range c.found {
		i := slices.IndexFunc(groups, func(g *group) bool {
			return g.from == f.from && g.to == f.to && g.drift.Kind == f.drift.Kind && g.row == f.row && g.drift.Protocol == f.drift.Protocol && (g.drift.Peer == f.drift.Peer)
		})
		if i < 0 {
			groups = append(groups, &group{found: f})
			i = len(groups) - 1
		}
		groups[i].v4 = groups[i].v4 || !f.v6
		groups[i].v6 = groups[i].v6 || f.v6
	}
	slices.SortStableFunc(groups, func(a, b *group) int {
		if n := strings.Compare(a.drift.Kind+a.drift.Protocol, b.drift.Kind+b.drift.Protocol); n != 0 {
			return n
		}
		return int(a.from) - int(b.from)
	})
	out := []Drift{}
	var last *group
	for _, g := range groups {
		// Runs beside each other are one finding.
		if last != nil && g.drift.Kind == Open && last.drift.Kind == Open && last.to+1 == g.from && last.v4 == g.v4 && last.v6 == g.v6 && last.drift.Protocol == g.drift.Protocol {
			last.to = g.to
			out[len(out)-1] = c.worded(last.found, last.v4, last.v6)
			continue
		}
		out = append(out, c.worded(g.found, g.v4, g.v6))
		last = g
	}
	return out
}

// worded fills in what depends on the whole run and on both families.
func (c *comparison) worded(f found, v4, v6 bool) Drift {
	d := f.drift
	d.Ports = fmt.Sprint(f.from)
	if f.to != f.from {
		d.Ports += fmt.Sprintf("-%d", f.to)
	}
	d.Families = map[[2]bool]string{{true, false}: "IPv4", {false, true}: "IPv6", {true, true}: "IPv4 and IPv6"}[[2]bool{v4, v6}]
	who := ""
	for p := int(f.from); p <= int(f.to); p++ {
		if name, ok := c.listening[fmt.Sprint(d.Protocol, " ", p)]; ok {
			who = fmt.Sprintf(" %s listens on port %d.", name, p)
			break
		}
	}
	switch d.Kind {
	case Open:
		d.Sentence = fmt.Sprintf("The host's firewall lets strangers in to %s port %s (%s), and no row of the contract declares it.%s", d.Protocol, d.Ports, d.Families, who)
		if d.By != "" {
			d.Sentence += " The rule: " + d.By + "."
		}
		d.Remedy = "take the rule out; if it is meant for another program of this host, name the port in network.host_ports"
	case Wide:
		d.Sentence = fmt.Sprintf("The host's firewall lets strangers in to %s port %s of row %s (%s), which is for the row's peers alone.", d.Protocol, d.Ports, d.Row, d.Families)
		d.Remedy = "narrow the rule to the row's peers; portcullis network render writes it"
	case Published:
		why := "no row of the contract declares it"
		if d.Row != "" {
			why = fmt.Sprintf("row %s is for its peers alone", d.Row)
		}
		d.Sentence = fmt.Sprintf("%s port %s is open to strangers (%s) although the rules for this host's own ports are not asked: %s sends it to %s before, as Docker does for a published port; %s.", strings.ToUpper(d.Protocol), d.Ports, d.Families, d.By, d.To, why)
		if c.closedForHost(f) {
			d.Sentence = fmt.Sprintf("%s says that %s port %s is closed, and strangers get in (%s): %s sends it to %s before the rules are asked, as Docker does for a published port; %s.", c.set.Kind(), d.Protocol, d.Ports, d.Families, d.By, d.To, why)
		}
	}
	return d
}

// closedForHost reports whether the rules would drop the packet if nothing sent it
// elsewhere.
func (c *comparison) closedForHost(f found) bool {
	for _, e := range c.set.Entries() {
		if e.To.Is6() != f.v6 {
			continue
		}
		e.Protocol, e.Port, e.From = f.drift.Protocol, f.from, strangers[f.v6]
		if c.set.Undiverted(e).Closed() {
			return true
		}
	}
	return false
}

func text(a netip.AddrPort) string {
	switch {
	case a.Addr().IsValid() && a.Port() != 0:
		return a.String()
	case a.Addr().IsValid():
		return a.Addr().String()
	case a.Port() != 0:
		return fmt.Sprintf("port %d", a.Port())
	}
	return "another place"
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// FirewallWatch looks at the host's firewall again and again, and tells of what is
// new.
type FirewallWatch struct {
	host  func() Host
	every time.Duration
	told  func(ctx context.Context, d Drift)
	note  func(ctx context.Context, note string)
	look  func(Host, time.Time) *FirewallReport

	mu   sync.Mutex
	last *FirewallReport
}

// NewFirewallWatch looks each interval; told is called once for each new finding,
// and note when a look begins or ceases to say why it did not judge everything.
func NewFirewallWatch(host func() Host, every time.Duration, told func(ctx context.Context, d Drift), note func(ctx context.Context, note string)) *FirewallWatch {
	return &FirewallWatch{host: host, every: every, told: told, note: note, look: CheckFirewall}
}

// Run looks until ctx ends.
func (w *FirewallWatch) Run(ctx context.Context) error {
	known, note := map[string]bool{}, ""
	for {
		r := w.Look()
		now := map[string]bool{}
		for _, d := range r.Findings {
			now[d.Sentence] = true
			if !known[d.Sentence] {
				w.told(ctx, d)
			}
		}
		known = now
		if r.Note != note {
			note = r.Note
			w.note(ctx, note)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.every):
		}
	}
}

// Look looks now.
func (w *FirewallWatch) Look() *FirewallReport {
	r := w.look(w.host(), time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = r
	return r
}

// Findings is how many findings the last look had.
func (w *FirewallWatch) Findings() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return 0
	}
	return len(w.last.Findings)
}

// Problem is the last look's findings in words, or "".
func (w *FirewallWatch) Problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return ""
	}
	var all []string
	for i, d := range w.last.Findings {
		if i == maxProblems {
			all = append(all, fmt.Sprintf("And %d more: portcullis network audit lists them.", len(w.last.Findings)-i))
			break
		}
		all = append(all, d.Sentence)
	}
	return strings.Join(all, " ")
}

// maxProblems bounds the sentence of the health check.
const maxProblems = 5

// Note is why the last look did not judge everything, or "".
func (w *FirewallWatch) Note() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return ""
	}
	return w.last.Note
}
