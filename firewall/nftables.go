package firewall

import (
	"net/netip"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// renderNFTables writes a table of its own, inet portcullis, which a load replaces
// as a whole.
func renderNFTables(p Policy) ([]File, error) {
	b := &page{}
	b.line("#!/usr/sbin/nft -f")
	b.header(p, "#", "Check: nft -c -f FILE. Load: nft -f FILE, which replaces the table inet portcullis and no other.")
	b.line("table inet portcullis")
	b.line("delete table inet portcullis")
	b.line("")
	b.line("table inet portcullis {")
	for _, g := range p.Groups {
		for _, v6 := range families() {
			list := g.prefixes(v6)
			if len(list) == 0 {
				continue
			}
			b.line("\tset %s {", nftSet(g.Name, v6))
			b.line("\t\ttype ipv%s_addr", familyDigit(v6))
			b.line("\t\tflags interval")
			b.line("\t\telements = { %s }", strings.Join(prefixTexts(list), ", "))
			b.line("\t}")
		}
	}
	b.chain(p, In, "input", "iifname", "saddr", []string{"nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert"})
	b.chain(p, Out, "output", "oifname", "daddr", []string{"nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"})
	b.line("\tchain forward {")
	b.line("\t\ttype filter hook forward priority filter; policy drop;")
	b.line("\t\tcounter drop comment \"a node is no router\"")
	b.line("\t}")
	b.line("}")
	return []File{{Name: "portcullis.nft", Content: b.String(), Executable: true}}, nil
}

func (b *page) chain(p Policy, d Direction, hook, iface, addr string, neighbours []string) {
	b.line("\tchain %s {", hook)
	b.line("\t\ttype filter hook %s priority filter; policy drop;", hook)
	b.line("\t\t%s \"lo\" accept comment \"the host itself\"", iface)
	b.line("\t\tct state established,related accept comment \"answers, and ICMP errors about them\"")
	b.line("\t\tct state invalid counter drop comment \"no connection\"")
	b.line("\t\ticmp type { %s } accept comment \"errors\"", names(icmpErrors))
	b.line("\t\ticmpv6 type { %s } accept comment \"errors\"", names(icmpv6Errors))
	b.line("\t\tip6 hoplimit 255 icmpv6 type { %s } accept comment \"neighbours\"", strings.Join(neighbours, ", "))
	for _, v6 := range families() {
		p.each(d, v6, func(f Flow, _ []netip.Prefix) {
			family := map[bool]string{false: "ip", true: "ip6"}[v6]
			match := string(f.Protocol) + " dport " + nftPorts(f.Ports)
			if f.Protocol == netcontract.ICMP {
				match = map[bool]string{false: "icmp", true: "icmpv6"}[v6] + " type echo-request"
			}
			b.line("\t\t%s %s @%s %s counter accept comment \"row %s\"", family, addr, nftSet(f.Group, v6), match, f.Row)
		})
	}
	b.line("\t\tcounter drop comment \"no row\"")
	b.line("\t}")
}

func nftSet(group string, v6 bool) string {
	return strings.ReplaceAll(group, "-", "_") + "_v" + familyDigit(v6)
}

func nftPorts(ranges []netcontract.PortRange) string {
	if len(ranges) == 1 {
		return ranges[0].String()
	}
	s := make([]string, len(ranges))
	for i, r := range ranges {
		s[i] = r.String()
	}
	return "{ " + strings.Join(s, ", ") + " }"
}

func names(types []icmpType) string {
	s := make([]string, len(types))
	for i, t := range types {
		s[i] = t.name
	}
	return strings.Join(s, ", ")
}
