package egress

import (
	"net/netip"
	"slices"
)

// ranges are the addresses that lead inside, or nowhere, by IANA's registries of
// special-purpose addresses (RFC 6890). Order matters: the first that holds the
// address gives the reason.
var ranges = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers (RFC 6598)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible"},
	{netip.MustParsePrefix("64:ff9b::/96"), "translated to IPv4 (NAT64)"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "translated to IPv4 (NAT64)"},
	{netip.MustParsePrefix("100::/64"), "discarded"},
	{netip.MustParsePrefix("2001::/23"), "reserved"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("2002::/16"), "tunnelled to IPv4 (6to4)"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
	{netip.MustParsePrefix("5f00::/16"), "reserved"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// metadata are the addresses at which clouds hand credentials to a machine. A
// wide block or a host name does not open them; only the address itself does.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // AWS, Azure, Google, OpenStack and others
	netip.MustParseAddr("169.254.170.2"),   // AWS ECS
	netip.MustParseAddr("169.254.170.23"),  // AWS EKS
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd00:ec2::23"),    // AWS EKS
	netip.MustParseAddr("fd20:ce::254"),    // Google
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// special says why an address is not a place on the public internet, or "".
func special(a netip.Addr) string {
	if a.Is4In6() {
		return "IPv4-mapped"
	}
	if a.Zone() != "" {
		return "bound to a network interface"
	}
	if slices.Contains(metadata, a) {
		return "a cloud's metadata service"
	}
	for _, r := range ranges {
		if r.prefix.Contains(a) {
			return r.reason
		}
	}
	if a.Is6() && !netip.MustParsePrefix("2000::/3").Contains(a) {
		return "not assigned"
	}
	return ""
}

// refusal says why an address must not be dialled, or "". trusted is whether the
// operator named the host.
func (d *Dialer) refusal(a netip.Addr, trusted bool) string {
	reason := special(a)
	if reason == "" {
		return ""
	}
	plain := a.Unmap()
	inner := plain
	if nat64.Contains(a) { // an operator who opens the translator does not open what it hides
		b := a.As16()
		inner = netip.AddrFrom4([4]byte(b[12:]))
	}
	exact := slices.Contains(d.allowed.nets, netip.PrefixFrom(plain, plain.BitLen()))
	switch {
	case exact:
		return ""
	case slices.Contains(metadata, inner):
		return special(inner)
	case trusted && inner == plain:
		return ""
	case !slices.ContainsFunc(d.allowed.nets, func(p netip.Prefix) bool { return p.Contains(plain) }):
		return reason
	case inner != plain:
		return special(inner)
	}
	return ""
}
