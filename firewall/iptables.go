package firewall

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// renderIPTables writes a file for each family, as iptables-restore and
// ip6tables-restore read them, under the names of Debian's iptables-persistent.
func renderIPTables(p Policy) ([]File, error) {
	var files []File
	for _, v6 := range families() {
		tool := map[bool]string{false: "iptables-restore", true: "ip6tables-restore"}[v6]
		b := &page{}
		b.header(p, "#", fmt.Sprintf("Check: %s --test FILE. Load: %s FILE, which replaces the table filter.", tool, tool))
		b.line("*filter")
		b.line(":INPUT DROP [0:0]")
		b.line(":FORWARD DROP [0:0]")
		b.line(":OUTPUT DROP [0:0]")
		for _, c := range []struct {
			chain     string
			direction Direction
		}{{"INPUT", In}, {"OUTPUT", Out}} {
			for _, r := range iptablesBase(c.direction, v6) {
				b.line("-A %s %s", c.chain, r)
			}
			p.each(c.direction, v6, func(f Flow, peers []netip.Prefix) {
				for _, peer := range peers {
					b.line("-A %s %s", c.chain, iptablesRule(f, peer))
				}
			})
			b.line("-A %s -m comment --comment \"no row\" -j DROP", c.chain)
		}
		b.line("COMMIT")
		files = append(files, File{Name: "rules.v" + familyDigit(v6), Content: b.String()})
	}
	return files, nil
}

// iptablesBase are the rules that stand before those of rows: the host itself,
// answers, errors and neighbours.
func iptablesBase(d Direction, v6 bool) []string {
	iface := map[Direction]string{In: "-i", Out: "-o"}[d]
	rules := []string{
		iface + ` lo -m comment --comment "the host itself" -j ACCEPT`,
		`-m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "answers, and ICMP errors about them" -j ACCEPT`,
	}
	if !v6 {
		rules = append(rules, `-m conntrack --ctstate INVALID -m comment --comment "no connection" -j DROP`)
		for _, t := range icmpErrors {
			rules = append(rules, fmt.Sprintf(`-p icmp -m icmp --icmp-type %d -m comment --comment "errors" -j ACCEPT`, t.number))
		}
		return rules
	}
	// Neighbour discovery has no connection: it has to stand before INVALID.
	neighbours := map[Direction][]icmpType{In: neighboursIn, Out: neighboursOut}[d]
	for _, t := range neighbours {
		rules = append(rules, fmt.Sprintf(`-p ipv6-icmp -m icmp6 --icmpv6-type %d -m hl --hl-eq 255 -m comment --comment "neighbours" -j ACCEPT`, t.number))
	}
	rules = append(rules, `-m conntrack --ctstate INVALID -m comment --comment "no connection" -j DROP`)
	for _, t := range icmpv6Errors {
		rules = append(rules, fmt.Sprintf(`-p ipv6-icmp -m icmp6 --icmpv6-type %d -m comment --comment "errors" -j ACCEPT`, t.number))
	}
	return rules
}

func iptablesRule(f Flow, peer netip.Prefix) string {
	side := map[Direction]string{In: "-s", Out: "-d"}[f.Direction]
	return fmt.Sprintf(`%s %s %s -m comment --comment "row %s" -j ACCEPT`, side, peer, iptablesMatch(f, peer.Addr().Is6()), f.Row)
}

func iptablesMatch(f Flow, v6 bool) string {
	switch {
	case f.Protocol == netcontract.ICMP && v6:
		return "-p ipv6-icmp -m icmp6 --icmpv6-type 128"
	case f.Protocol == netcontract.ICMP:
		return "-p icmp -m icmp --icmp-type 8"
	case len(f.Ports) == 1:
		return fmt.Sprintf("-p %s -m %s --dport %s", f.Protocol, f.Protocol, colon(f.Ports[0]))
	}
	s := make([]string, len(f.Ports))
	for i, r := range f.Ports {
		s[i] = colon(r)
	}
	return fmt.Sprintf("-p %s -m multiport --dports %s", f.Protocol, strings.Join(s, ","))
}

// colon is a range as iptables and ufw write it.
func colon(r netcontract.PortRange) string { return strings.ReplaceAll(r.String(), "-", ":") }
