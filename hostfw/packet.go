package hostfw

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Packet is the first of a connection, seen from this host.
type Packet struct {
	Protocol string     // tcp or udp
	From     netip.Addr // the zero Addr: of nobody in particular
	To       netip.Addr
	Port     uint16
	// In and Out are names of interfaces; "" means of none in particular.
	In, Out string
}

// Result is what the rules do with a packet. Both Accepts and Drops mean that it
// depends on what a packet alone does not tell, such as the time or a mark.
type Result struct {
	Accepts, Drops bool
	By             string         // the rule or policy that drops it, or that lets it in
	To             netip.AddrPort // where a rule sends it instead, the zero AddrPort if none does
	Diverted       bool           // a rule sends it elsewhere, To or another port
	DivertedBy     string
}

// Open reports whether the packet passes whatever else is true.
func (r Result) Open() bool { return r.Accepts && !r.Drops }

// Closed reports whether it is dropped whatever else is true.
func (r Result) Closed() bool { return r.Drops && !r.Accepts }

// tri is the answer of a rule's conditions.
type tri int

const (
	no tri = iota
	maybe
	yes
)

func (t tri) not() tri { return yes - t }

func of(b bool) tri {
	if b {
		return yes
	}
	return no
}

// Ruleset is all rules of a host at one moment, of nftables and of the older
// iptables, that say something of packets.
type Ruleset struct {
	Docker bool // Docker's chains are there
	// Partial says what could not be read, or "".
	Partial string

	kept   tables
	chains map[string]*chain // by key
	hosts  []iface
}

// Kind is the firewall in use, as Firewall.Kind.
func (s *Ruleset) Kind() string { return s.kept.kind() }

// iface is an interface that packets from other hosts come in by.
type iface struct {
	name  string
	index int
	addrs []netip.Prefix
	// inside is one that leads to containers or virtual machines of this host.
	inside bool
}

type chain struct {
	key      string
	where    string
	hook     hook
	nat      bool
	v4, v6   bool
	priority int
	base     bool
	drops    bool // the policy
	rules    []rule
}

type hook int

const (
	none hook = iota
	prerouting
	input
	forward
	output
)

// rule is a rule in either language.
type rule struct {
	where string
	// judge says whether the packet matches, and what then.
	judge func(*walk) (tri, act)
	ports []uint16 // numbers that may be ports, for ports that differ
}

type kind int

const (
	pass kind = iota
	accept
	drop
	jump
	goTo
	back // return
	divert
	either // accept or drop, nobody knows
)

type act struct {
	kind  kind
	chain string
	to    netip.AddrPort
	more  []act // of a verdict map whose key is not known
}

// walk is a packet on its way.
type walk struct {
	set      *Ruleset
	p        Packet
	hook     hook
	port     uint16 // that it came to, before a rule sent it elsewhere
	diverted bool
	depth    int
	steps    int
}

// Bounds of a walk: rules may jump in ways that multiply.
const (
	maxDepth = 16 // as the kernel's own (NFT_JUMP_STACK_SIZE)
	maxSteps = 200_000
)

// end is how a chain may end.
type end struct {
	kind kind
	by   string
	to   netip.AddrPort
}

// Inbound walks a packet from another host through the rules that it would meet.
func (s *Ruleset) Inbound(p Packet) Result {
	w := &walk{set: s, p: p, port: p.Port}
	var r Result
	if s.hook(w, prerouting, &r) {
		return r
	}
	next := input
	if w.diverted {
		r.Diverted = true
		if r.To.IsValid() && r.To.Addr().IsValid() && !s.own(r.To.Addr()) {
			next = forward
			w.p.Out = s.towards(r.To.Addr())
		}
	}
	s.hook(w, next, &r)
	return r
}

// Undiverted walks a packet from another host through the rules for this host's own
// ports, as if no rule sent it elsewhere before.
func (s *Ruleset) Undiverted(p Packet) Result {
	var r Result
	s.hook(&walk{set: s, p: p, port: p.Port}, input, &r)
	return r
}

// Outbound walks a packet of this host's own.
func (s *Ruleset) Outbound(p Packet) Result {
	w := &walk{set: s, p: p, port: p.Port}
	if w.p.Out == "" {
		w.p.Out = s.towards(p.To)
	}
	var r Result
	s.hook(w, output, &r)
	return r
}

// hook walks the base chains of a hook, and reports whether the packet ends there.
func (s *Ruleset) hook(w *walk, h hook, r *Result) bool {
	var list []*chain
	for _, c := range s.chains {
		if c.base && c.hook == h && (w.p.To.Is4() && c.v4 || w.p.To.Is6() && c.v6) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *chain) int {
		if a.priority != b.priority {
			return a.priority - b.priority
		}
		return strings.Compare(a.key, b.key)
	})
	w.hook = h
	drops, may, by, passed := false, false, "", ""
	for _, c := range list {
		if c.nat && w.diverted {
			continue
		}
		// A chain is left by every way that the packet may take; it lives when one of
		// them leads on, and is in danger when one does not.
		lives, dies := false, false
		ends := w.walk(c, true)
		for _, e := range ends {
			switch e.kind {
			case drop:
				dies = true
				if by == "" || !drops {
					by = e.by
				}
			case divert:
				lives = true
				w.diverted, r.Diverted, r.DivertedBy = true, true, e.by
				may = may || len(ends) > 1 // it may as well not be sent elsewhere
				if e.to.Addr().IsValid() {
					r.To = e.to
					w.p.To = e.to.Addr()
				}
				if e.to.Port() != 0 {
					w.p.Port = e.to.Port()
				}
			default:
				lives = true
				if e.kind == accept && e.by != "" {
					passed = e.by
				}
			}
		}
		if dies && !lives {
			r.Drops, r.Accepts, r.By = true, false, by
			return true
		}
		may = may || dies
		drops = drops || dies
	}
	r.Accepts, r.Drops = true, r.Drops || may
	r.By = passed
	if r.Drops {
		r.By = by
	}
	return false
}

// walk goes through a chain and returns every way that it may end: by accept, drop
// or divert, or by back, which leads on in the chain that it came from.
func (w *walk) walk(c *chain, base bool) []end {
	var ends []end
	note := func(e end) {
		if !slices.ContainsFunc(ends, func(o end) bool { return o.kind == e.kind && (o.by == e.by || e.kind == back) }) {
			ends = append(ends, e)
		}
	}
	w.depth++
	defer func() { w.depth-- }()
	for _, r := range c.rules {
		if w.steps++; w.steps > maxSteps || w.depth > maxDepth {
			note(end{kind: accept})
			note(end{kind: drop, by: c.where})
			return ends
		}
		match, a := r.judge(w)
		if match == no {
			continue
		}
		over := true // nothing of the packet goes on to the next rule
		list := a.more
		if list == nil {
			list = []act{a}
		}
		for _, a := range list {
			by := c.where + " " + r.where
			switch a.kind {
			case pass:
				over = false
			case either:
				note(end{kind: accept, by: by})
				note(end{kind: drop, by: by})
			case accept, drop, divert:
				note(end{kind: a.kind, by: by, to: a.to})
			case back:
				note(end{kind: back})
			case jump, goTo:
				to := w.set.chains[a.chain]
				if to == nil {
					over = false
					continue
				}
				for _, e := range w.walk(to, false) {
					switch {
					case e.kind == back && a.kind == jump:
						over = false
					default:
						note(e)
					}
				}
			}
		}
		if over && match == yes {
			return w.policy(c, base, ends)
		}
	}
	note(end{kind: back})
	return w.policy(c, base, ends)
}

// policy is what becomes of packets that a base chain says nothing about.
func (w *walk) policy(c *chain, base bool, ends []end) []end {
	if !base {
		return ends
	}
	for i, e := range ends {
		if e.kind == back {
			ends[i] = end{kind: accept}
			if c.drops {
				ends[i] = end{kind: drop, by: c.where + " policy drop"}
			}
		}
	}
	return ends
}

// Ports are one of each run of ports that no rule tells apart, from 1 on.
func (s *Ruleset) Ports() []uint16 {
	at := map[uint16]bool{1: true}
	for _, c := range s.chains {
		for _, r := range c.rules {
			for _, p := range r.ports {
				if p > 0 {
					at[p] = true
				}
				if p < 65535 {
					at[p+1] = true
				}
			}
		}
	}
	out := make([]uint16, 0, len(at))
	for p := range at {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// Entries are the interfaces that other hosts' packets come in by, each with an
// address of this host on it: of IPv4 and of IPv6 where it has both.
func (s *Ruleset) Entries() []Packet {
	var out []Packet
	for _, i := range s.hosts {
		if i.inside || i.name == "lo" {
			continue
		}
		v4, v6 := false, false
		for _, a := range i.addrs {
			seen := &v6
			if a.Addr().Is4() {
				seen = &v4
			}
			if !*seen && a.Addr().IsGlobalUnicast() {
				*seen = true
				out = append(out, Packet{In: i.name, To: a.Addr()})
			}
		}
	}
	return out
}

// Source is this host's address on the way to another, as far as it is plain; the
// zero Addr otherwise.
func (s *Ruleset) Source(to netip.Addr) netip.Addr {
	name := s.towards(to)
	for _, i := range s.hosts {
		if i.name != name {
			continue
		}
		for _, p := range i.addrs {
			if p.Addr().Is4() == to.Is4() && p.Addr().IsGlobalUnicast() {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

func (s *Ruleset) own(a netip.Addr) bool {
	return a.IsLoopback() || slices.ContainsFunc(s.hosts, func(i iface) bool {
		return slices.ContainsFunc(i.addrs, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// towards is the interface whose network an address is in; if none has it, the only
// one that leads outside.
func (s *Ruleset) towards(a netip.Addr) string {
	outside := ""
	for _, i := range s.hosts {
		for _, p := range i.addrs {
			if p.Masked().Contains(a) {
				return i.name
			}
		}
		if !i.inside && i.name != "lo" {
			if outside != "" {
				outside = "?"
			} else {
				outside = i.name
			}
		}
	}
	if outside == "?" {
		return ""
	}
	return outside
}

func (s *Ruleset) index(name string) (int, bool) {
	for _, i := range s.hosts {
		if i.name == name && name != "" {
			return i.index, true
		}
	}
	return 0, false
}

// bytes are the value of a field, as far as it is known.
type bytes struct {
	b     []byte
	known []bool
}

func known(b []byte) bytes {
	v := bytes{b: b, known: make([]bool, len(b))}
	for i := range v.known {
		v.known[i] = true
	}
	return v
}

func unknown(n int) bytes { return bytes{make([]byte, n), make([]bool, n)} }

func native32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func big16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// network is the IP header.
func (w *walk) network() bytes {
	proto := byte(unix.IPPROTO_TCP)
	if w.p.Protocol == "udp" {
		proto = unix.IPPROTO_UDP
	}
	put := func(v bytes, at int, b []byte) {
		for i, c := range b {
			v.b[at+i], v.known[at+i] = c, true
		}
	}
	if w.p.To.Is4() {
		v := unknown(20)
		put(v, 0, []byte{0x45})
		put(v, 9, []byte{proto})
		if w.p.From.Is4() {
			put(v, 12, w.p.From.AsSlice())
		}
		put(v, 16, w.p.To.AsSlice())
		return v
	}
	v := unknown(40)
	put(v, 0, []byte{0x60})
	put(v, 6, []byte{proto})
	if w.p.From.Is6() {
		put(v, 8, w.p.From.AsSlice())
	}
	put(v, 24, w.p.To.AsSlice())
	return v
}

// transport is the header of TCP or UDP.
func (w *walk) transport() bytes {
	v := unknown(20)
	copy(v.b[2:], big16(w.p.Port))
	v.known[2], v.known[3] = true, true
	if w.p.Protocol == "tcp" {
		v.b[13], v.known[13] = 0x02, true // SYN
	}
	return v
}

func name16(s string) bytes {
	if s == "" {
		return unknown(16)
	}
	b := make([]byte, 16)
	copy(b, s)
	return known(b)
}
