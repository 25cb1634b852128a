//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The faults below share their words. from and to are a host's name, a network's
// name (nodes, front, admin, services, internet) for all its hosts, or Any. proto
// is tcp, udp, icmp, or "" for everything; port is where `to` listens, and 0 is
// every port. Each holds for both families of addresses and for packets from
// `from` to `to`, not for the answers. Each returns its undo, which need not be
// called before the test ends.

// Kind is how a connection is refused.
type Kind string

// The answers that firewalls give.
const (
	// TCPReset is a reset, which reads as if nobody listened.
	TCPReset Kind = "tcp-rst"
	// AdminProhibited is ICMP 3/13 or ICMPv6 1/1.
	AdminProhibited Kind = "icmp-admin-prohibited"
	// PortUnreachable is ICMP 3/3 or ICMPv6 1/4.
	PortUnreachable Kind = "icmp-port"
	// HostUnreachable is ICMP 3/1 or ICMPv6 1/3.
	HostUnreachable Kind = "icmp-host"
)

// verdict is the kind in the language of nftables.
func (k Kind) verdict() (string, error) {
	switch k {
	case TCPReset:
		return "reject with tcp reset", nil
	case AdminProhibited:
		return "reject with icmpx type admin-prohibited", nil
	case PortUnreachable:
		return "reject with icmpx type port-unreachable", nil
	case HostUnreachable:
		return "reject with icmpx type host-unreachable", nil
	}
	return "", fmt.Errorf("lab: no kind of refusal is called %q", k)
}

const (
	onForward = "type filter hook forward priority 0; policy accept;"
	onInput   = "type filter hook input priority 0; policy accept;"
	onOutput  = "type filter hook output priority 0; policy accept;"
)

// Drop lets packets vanish in the router.
func (l *Lab) Drop(from, to, proto string, port int) (undo func()) {
	l.helper()
	return l.inject(l.Router(), onForward, flow{from: from, to: to, proto: proto, port: port}, "drop")
}

// AsymmetricDrop lets packets reach `to` and drops the answers in the router.
func (l *Lab) AsymmetricDrop(from, to, proto string, port int) (undo func()) {
	l.helper()
	return l.inject(l.Router(), onForward, flow{from: from, to: to, proto: proto, port: port, answers: true}, "drop")
}

// DropByHost lets packets vanish in the firewall of the host that they are for.
func (l *Lab) DropByHost(from, to, proto string, port int) (undo func()) {
	l.helper()
	return l.byHost(flow{from: from, to: to, proto: proto, port: port}, "drop")
}

// Reject makes the router refuse packets; an ICMP error comes from the router's
// address on the sender's link (Gateway4, Gateway6).
func (l *Lab) Reject(from, to, proto string, port int, kind Kind) (undo func()) {
	l.helper()
	verdict, err := kind.verdict()
	if err != nil {
		l.fatal(err)
	}
	return l.inject(l.Router(), onForward, flow{from: from, to: to, proto: proto, port: port, reset: kind == TCPReset}, verdict)
}

// RejectByHost is Reject by the firewall of the host that packets are for; an
// ICMP error comes from the host's own address.
func (l *Lab) RejectByHost(from, to, proto string, port int, kind Kind) (undo func()) {
	l.helper()
	verdict, err := kind.verdict()
	if err != nil {
		l.fatal(err)
	}
	return l.byHost(flow{from: from, to: to, proto: proto, port: port, reset: kind == TCPReset}, verdict)
}

// DNAT sends what is for `to` and the port on to another host and port, and its
// answers back under the name of `to`: an intercepting proxy or a wrong load
// balancer. What is connected already stays where it is, before and after undo.
func (l *Lab) DNAT(from, to, proto string, port int, toHost string, toPort int) (undo func()) {
	l.helper()
	target := l.Host(toHost)
	if from == toHost {
		l.fatal(fmt.Errorf("lab: DNAT from %s back to it: the host would drop packets that bear its own address", from))
	}
	if proto != "tcp" && proto != "udp" {
		l.fatal(fmt.Errorf("lab: DNAT wants tcp or udp, not %q", proto))
	}
	rules, err := l.rules(flow{from: from, to: to, proto: proto, port: port}, func(v6 bool) string {
		if v6 {
			return "dnat ip6 to " + netip.AddrPortFrom(target.v6, uint16(toPort)).String()
		}
		return "dnat ip to " + netip.AddrPortFrom(target.v4, uint16(toPort)).String()
	})
	if err != nil {
		l.fatal(err)
	}
	return l.load(l.Router(), "inet", "type nat hook prerouting priority -100; policy accept;", rules)
}

// Loss drops packets at random, percent of each hundred. TCP repeats them, so a
// low loss shows as a long wait.
func (l *Lab) Loss(from, to string, percent int) (undo func()) {
	l.helper()
	if percent < 0 || percent > 100 {
		l.fatal(fmt.Errorf("lab: a loss of %d percent", percent))
	}
	return l.inject(l.Router(), onForward, flow{from: from, to: to}, fmt.Sprintf("numgen random mod 100 < %d drop", percent))
}

// DropICMP drops ICMP messages, echo and errors alike. With Any or the router as
// `from` the router's own go missing too, so that its refusals read as silence.
func (l *Lab) DropICMP(from, to string) (undo func()) {
	l.helper()
	if from != Any && from != RouterName {
		return l.Drop(from, to, "icmp", 0)
	}
	own := l.routerICMP(to, "icmp type { echo-request, echo-reply, destination-unreachable, time-exceeded, parameter-problem }",
		"icmpv6 type { echo-request, echo-reply, destination-unreachable, packet-too-big, time-exceeded, parameter-problem }")
	if from == RouterName {
		return own
	}
	passing := l.Drop(from, to, "icmp", 0)
	return func() { own(); passing() }
}

// BlackHolePMTU drops the ICMP messages by which `to` would learn that its
// packets are too big for the path (fragmentation needed, packet too big).
// Together with MTU, large packets vanish.
func (l *Lab) BlackHolePMTU(to string) (undo func()) {
	l.helper()
	if err := l.forgetPaths(); err != nil {
		l.fatal(err)
	}
	const v4, v6 = "icmp type destination-unreachable icmp code frag-needed", "icmpv6 type packet-too-big"
	own := l.routerICMP(to, v4, v6)
	rules, err := l.rules(flow{to: to}, func(six bool) string {
		if six {
			return v6 + " drop"
		}
		return v4 + " drop"
	})
	if err != nil {
		l.fatal(err)
	}
	passing := l.load(l.Router(), "inet", onForward, rules)
	return func() { own(); passing() }
}

// routerICMP drops what the router itself would send. It names the types, for
// the neighbour messages that IPv6 needs are ICMPv6 too.
func (l *Lab) routerICMP(to, v4, v6 string) (undo func()) {
	l.helper()
	rules, err := l.rules(flow{to: to}, func(six bool) string {
		if six {
			return v6 + " drop"
		}
		return v4 + " drop"
	})
	if err != nil {
		l.fatal(err)
	}
	return l.load(l.Router(), "inet", onOutput, rules)
}

// Unplug pulls the host's cable: nothing passes its link, ARP and neighbour
// discovery included, while both ends believe that the link is up. The sender
// hears of it from the router (host unreachable) after some three seconds.
func (l *Lab) Unplug(host string) (undo func()) {
	l.helper()
	h := l.Host(host)
	if h.network == nil {
		l.fatal(errors.New("lab: the router has no cable of its own"))
	}
	name := l.faultName()
	script := fmt.Sprintf(`table netdev %s {
	chain in {
		type filter hook ingress device %q priority -10; policy drop;
	}
	chain out {
		type filter hook egress device %q priority -10; policy drop;
	}
}
`, name, host, host)
	if _, err := l.Router().run(script, "nft", "-f", "-"); err != nil {
		l.fatal(err)
	}
	// Otherwise the ends would go on by what they know of each other, that they
	// reach each other now, and that they do not after undo.
	forget := func() error {
		_, err := l.Router().run("", "ip", "neigh", "flush", "dev", host, "nud", "all")
		_, err2 := h.run("", "ip", "neigh", "flush", "dev", "eth0", "nud", "all")
		return errors.Join(err, err2)
	}
	if err := forget(); err != nil {
		l.fatal(err)
	}
	return l.undo(func() error {
		if _, err := l.Router().run("delete table netdev "+name+"\n", "nft", "-f", "-"); err != nil {
			return err
		}
		return forget()
	})
}

// flow is what a fault is for.
type flow struct {
	from, to, proto string
	port            int
	answers         bool // the packets from `to` back to `from` instead
	reset           bool // TCP alone, for only TCP has resets
}

// rules writes one rule for each family of the lab, ending in what verdict says.
func (l *Lab) rules(f flow, verdict func(v6 bool) string) ([]string, error) {
	if f.reset && f.proto == "" {
		f.proto = "tcp"
	}
	switch {
	case f.reset && f.proto != "tcp":
		return nil, fmt.Errorf("lab: a reset refuses TCP, not %s", f.proto)
	case !slices.Contains([]string{"", "tcp", "udp", "icmp"}, f.proto):
		return nil, fmt.Errorf("lab: no protocol %q; there are tcp, udp, icmp and \"\" for all", f.proto)
	case f.port < 0 || f.port > 65535:
		return nil, fmt.Errorf("lab: no port %d", f.port)
	case f.port != 0 && f.proto != "tcp" && f.proto != "udp":
		return nil, fmt.Errorf("lab: port %d needs tcp or udp", f.port)
	}
	var rules []string
	for _, v6 := range []bool{false, true} {
		if v6 && l.options.IPv4Only || !v6 && l.options.IPv6Only {
			continue
		}
		ip, icmp := "ip", "icmp"
		if v6 {
			ip, icmp = "ip6", "ipv6-icmp"
		}
		source, destination, port := "saddr", "daddr", "dport"
		if f.answers {
			source, destination, port = "daddr", "saddr", "sport"
		}
		parts := []string{"meta protocol " + ip}
		for _, side := range []struct{ name, word string }{{f.from, source}, {f.to, destination}} {
			addr, err := l.match(side.name, v6)
			if err != nil {
				return nil, err
			}
			if addr != "" {
				parts = append(parts, ip+" "+side.word+" "+addr)
			}
		}
		switch {
		case f.proto == "icmp":
			parts = append(parts, "meta l4proto "+icmp)
		case f.port != 0:
			parts = append(parts, fmt.Sprintf("%s %s %d", f.proto, port, f.port))
		case f.proto != "":
			parts = append(parts, "meta l4proto "+f.proto)
		}
		rules = append(rules, strings.Join(append(parts, verdict(v6)), " "))
	}
	return rules, nil
}

// match is the address or prefix of a name in a fault, "" for Any.
func (l *Lab) match(name string, v6 bool) (string, error) {
	if name == Any || name == "" {
		return "", nil
	}
	if h, ok := l.hosts[name]; ok {
		if v6 {
			return h.v6.String(), nil
		}
		return h.v4.String(), nil
	}
	for _, n := range l.networks {
		if n.name == name && v6 {
			return n.v6.String(), nil
		} else if n.name == name {
			return n.v4.String(), nil
		}
	}
	return "", fmt.Errorf("lab: %q is neither a host nor a network", name)
}

// members are the hosts that a name in a fault stands for.
func (l *Lab) members(name string) ([]*Host, error) {
	if name == Any || name == "" {
		return l.Hosts(), nil
	}
	if h, ok := l.hosts[name]; ok {
		return []*Host{h}, nil
	}
	var hosts []*Host
	for _, h := range l.Hosts() {
		if h.network.name == name {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("lab: %q is neither a host nor a network", name)
	}
	return hosts, nil
}

// inject loads rules for a flow that end in one verdict.
func (l *Lab) inject(h *Host, hook string, f flow, verdict string) (undo func()) {
	l.helper()
	rules, err := l.rules(f, func(bool) string { return verdict })
	if err != nil {
		l.fatal(err)
	}
	return l.load(h, "inet", hook, rules)
}

// byHost injects into the input of each host that the flow is for.
func (l *Lab) byHost(f flow, verdict string) (undo func()) {
	l.helper()
	hosts, err := l.members(f.to)
	if err != nil {
		l.fatal(err)
	}
	var undos []func()
	for _, h := range hosts {
		undos = append(undos, l.inject(h, onInput, f, verdict))
	}
	return func() {
		for _, u := range undos {
			u()
		}
	}
}

// load puts rules into a table of their own, so that faults come and go without
// regard to each other.
func (l *Lab) load(h *Host, family, hook string, rules []string) (undo func()) {
	l.helper()
	name := l.faultName()
	script := fmt.Sprintf("table %s %s {\n\tchain fault {\n\t\t%s\n\t\t%s\n\t}\n}\n", family, name, hook, strings.Join(rules, "\n\t\t"))
	if _, err := h.run(script, "nft", "-f", "-"); err != nil {
		l.fatal(err)
	}
	return l.undo(func() error {
		_, err := h.run("delete table "+family+" "+name+"\n", "nft", "-f", "-")
		return err
	})
}

func (l *Lab) faultName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults++
	return fmt.Sprintf("fault%d", l.faults)
}
