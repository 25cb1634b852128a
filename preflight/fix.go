package preflight

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
)

// Fix is a remedy in parts: what has to be done where.
type Fix struct {
	// At is a host of the run, or the address of a device on the way; empty where it is
	// not known which device it is.
	At     string    `json:"at,omitempty"`
	Action FixAction `json:"action"`
	// Firewall is the one in use At, such as nftables or ufw.
	Firewall string   `json:"firewall,omitempty"`
	Traffic  *Traffic `json:"traffic,omitempty"`
	// Commands are for root At.
	Commands []string `json:"commands,omitempty"`
}

// FixAction is what a fix does.
type FixAction string

// The actions.
const (
	FixAllow  FixAction = "allow"  // let Traffic through
	FixExempt FixAction = "exempt" // leave Traffic as it is: no translation, no proxy, no inspection
	FixClose  FixAction = "close"  // let Traffic through no more
	FixMTU    FixAction = "mtu"    // send smaller packets
)

// Traffic is what a rule is for.
type Traffic struct {
	Protocol    netcontract.Protocol `json:"protocol"`
	Source      netip.Addr           `json:"source"`
	Destination netip.Addr           `json:"destination"`
	Port        int                  `json:"port,omitempty"`        // of the destination
	SourcePort  int                  `json:"source_port,omitempty"` // of answers
	// Answers means that nobody knows whether it is the traffic or its answers that are
	// dropped: a firewall without a state has to let both through.
	Answers bool `json:"answers,omitempty"`
}

func traffic(c Check, source netip.Addr) *Traffic {
	return &Traffic{Protocol: c.Protocol, Source: source, Destination: c.Address, Port: c.Port}
}

// source is this host's address of the same family as another one.
func (r *run) source(to netip.Addr) netip.Addr {
	for _, a := range r.Self.Addresses {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// deviceTo is the network device that has an address.
func deviceTo(own netip.Addr) string {
	all, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == own {
				return i.Name
			}
		}
	}
	return ""
}

// dropRule is a rule, or a policy, that may be the one.
type dropRule hostfw.Drop

func (d dropRule) evidence(host string) string {
	switch {
	case d.Policy:
		return fmt.Sprintf("the policy of %s's chain %s is drop, and policies do not count", host, d.Where)
	case d.Reject:
		return fmt.Sprintf("%s's rule %s rejects such packets", host, d.Where)
	}
	return fmt.Sprintf("%s's rule %s drops such packets", host, d.Where)
}

// dropping is the rule of a hook that most likely drops a check's packets: one that
// names the port before one that names nothing, and that before a policy.
func dropping(f *hostfw.Firewall, hook string, c Check) (dropRule, bool) {
	best, rank := dropRule{}, 0
	if f == nil {
		return best, false
	}
	for _, d := range f.Drops {
		if d.Hook != hook || !ofFamily(d, c.Address) || !d.Concerns(string(c.Protocol), c.Port) {
			continue
		}
		n := 1 // a rule that names nothing
		switch {
		case d.Names(string(c.Protocol), c.Port), d.Protocol == string(c.Protocol) && len(d.Ports) == 0:
			n = 3
		case d.Policy:
			n = 2 // more sure than a rule of which not everything is understood
		}
		if n > rank {
			best, rank = dropRule(d), n
		}
	}
	return best, rank > 0
}

func ofFamily(d hostfw.Drop, a netip.Addr) bool {
	family, _, _ := strings.Cut(d.Where, " ")
	return family == "inet" || (family == "ip") == a.Is4()
}

// counted puts rules that counted the packets into the evidence.
func (f *Finding) counted(rules []hostfw.Drop, host string) {
	for _, d := range rules {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s's rule %s counted the packets", host, d.Where))
	}
}

// allowThere proposes a rule for the firewall of the peer.
func (r *run) allowThere(f *Finding, peer *Evidence, source netip.Addr) {
	c := f.Check
	var fw *hostfw.Firewall
	if peer != nil {
		fw = peer.Firewall
	}
	f.Fix = allow(fw, c.To, "input", c, *traffic(c, source))
	f.Remedy = f.Fix.text()
	if _, found := dropping(fw, "input", c); fw == nil || !found && f.Fix.Firewall == "nftables" {
		// Which firewall it is, or which of its chains, nobody could look at.
		f.Remedy = fmt.Sprintf("On %s: allow %s %s from %s to %s in its firewall, with nftables for example: %s", c.To, c.Protocol, portText(c), source, c.Address, f.Fix.Commands[0])
		f.Fix.Commands, f.Fix.Firewall = nil, ""
	}
}

// allowHere proposes one for this host's own.
func (r *run) allowHere(f *Finding, hook string, source netip.Addr) {
	f.Fix = allow(r.own.Firewall, r.Self.Name, hook, f.Check, *traffic(f.Check, source))
	f.Remedy = f.Fix.text()
}

// acceptAnswersHere proposes the rule that every firewall with a state begins with.
func (r *run) acceptAnswersHere(f *Finding) {
	kind, chain := place(r.own.Firewall, "input", Check{Address: f.Address, Protocol: f.Protocol, Port: -1})
	fix := &Fix{At: r.Self.Name, Action: FixAllow, Firewall: kind}
	tools := []string{"iptables", "ip6tables"}
	switch fix.Firewall {
	case "nftables", "none":
		fix.Commands = []string{fmt.Sprintf(`nft insert rule %s ct state established,related accept comment '"answers"'`, chain)}
	default:
		for _, t := range tools {
			fix.Commands = append(fix.Commands, t+" -I INPUT -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment answers -j ACCEPT")
		}
	}
	f.Fix, f.Remedy = fix, fix.text()
}

func (x *Fix) text() string { return fmt.Sprintf("On %s: %s", x.At, strings.Join(x.Commands, "; ")) }

// place is where the packets of a check have to be allowed: the kind of the firewall,
// and the chain for one that is nftables. It is the table that drops them, where that
// is known.
func place(fw *hostfw.Firewall, hook string, c Check) (kind, chain string) {
	if d, ok := dropping(fw, hook, c); ok {
		return d.Kind, hostfw.ChainOf(d.Where)
	}
	kind = "nftables" // not known: what current systems have
	if fw != nil {
		kind = fw.Kind
	}
	return kind, "inet filter " + hook
}

// allow is what lets the packets of a check through, in the language of the firewall
// that drops them on a host, or else of the one in use there.
func allow(fw *hostfw.Firewall, host, hook string, c Check, t Traffic) *Fix {
	kind, nftChain := place(fw, hook, c)
	fix := &Fix{At: host, Action: FixAllow, Firewall: kind, Traffic: &t}
	comment := fmt.Sprintf("portcullis %s", c.Row)
	in := hook == "input"
	v6 := !c.Address.Is4()
	pick := func(four, six string) string {
		if v6 {
			return six
		}
		return four
	}
	icmp := c.Protocol == netcontract.ICMP
	switch fix.Firewall {
	case "iptables":
		chain, side, who := "INPUT", "-s", t.Source
		if !in {
			chain, side, who = "OUTPUT", "-d", t.Destination
		}
		match := fmt.Sprintf("-p %s --dport %d", c.Protocol, c.Port)
		if icmp {
			match = pick("-p icmp --icmp-type echo-request", "-p ipv6-icmp --icmpv6-type echo-request")
		}
		fix.Commands = []string{fmt.Sprintf("%s -I %s %s %s %s -m comment --comment %q -j ACCEPT", pick("iptables", "ip6tables"), chain, side, who, match, comment)}
	case "ufw":
		switch {
		case icmp && in:
			fix.Commands = []string{fmt.Sprintf("%s -s %s %s -j ACCEPT", pick("iptables -I ufw-before-input", "ip6tables -I ufw6-before-input"), t.Source, pick("-p icmp --icmp-type echo-request", "-p ipv6-icmp --icmpv6-type echo-request"))}
		case icmp:
			fix.Commands = []string{fmt.Sprintf("%s -d %s %s -j ACCEPT", pick("iptables -I ufw-before-output", "ip6tables -I ufw6-before-output"), t.Destination, pick("-p icmp --icmp-type echo-request", "-p ipv6-icmp --icmpv6-type echo-request"))}
		case in:
			fix.Commands = []string{fmt.Sprintf("ufw prepend allow in proto %s from %s to any port %d comment '%s'", c.Protocol, t.Source, c.Port, comment)}
		default:
			fix.Commands = []string{fmt.Sprintf("ufw prepend allow out proto %s from any to %s port %d comment '%s'", c.Protocol, t.Destination, c.Port, comment)}
		}
	case "firewalld":
		if !in {
			match := fmt.Sprintf("-p %s --dport %d", c.Protocol, c.Port)
			if icmp {
				match = pick("-p icmp --icmp-type echo-request", "-p ipv6-icmp --icmpv6-type echo-request")
			}
			rule := fmt.Sprintf("--direct --add-rule %s filter OUTPUT 0 -d %s %s -j ACCEPT", pick("ipv4", "ipv6"), t.Destination, match)
			fix.Commands = []string{"firewall-cmd " + rule, "firewall-cmd --permanent " + rule}
			break
		}
		what := fmt.Sprintf(`port port="%d" protocol="%s"`, c.Port, c.Protocol)
		if icmp {
			what = `icmp-type name="echo-request"`
		}
		rule := fmt.Sprintf(`--add-rich-rule='rule priority="-100" family="%s" source address="%s" %s accept'`, pick("ipv4", "ipv6"), t.Source, what)
		fix.Commands = []string{"firewall-cmd " + rule, "firewall-cmd --permanent " + rule}
	default:
		side, who := "saddr", t.Source
		if !in {
			side, who = "daddr", t.Destination
		}
		match := fmt.Sprintf("%s dport %d", c.Protocol, c.Port)
		if icmp {
			match = pick("icmp type echo-request", "icmpv6 type echo-request")
		}
		fix.Commands = []string{fmt.Sprintf("nft insert rule %s %s %s %s %s accept comment '%q'", nftChain, pick("ip", "ip6"), side, who, match, comment)}
	}
	return fix
}
