package hostfw

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Allow is the command that lets a flow through the firewall of this host, in the
// language of the table whose rule drops it (Result.By), or, where by is "", of the
// firewall that is in use. peer is the zero Prefix for everybody.
func (s *Ruleset) Allow(by string, out bool, protocol string, peer netip.Prefix, port uint16, row string) string {
	family, word := "ip", ""
	if peer.IsValid() {
		word = peer.String()
		if peer.IsSingleIP() {
			word = peer.Addr().String()
		}
		if peer.Addr().Is6() {
			family = "ip6"
		}
	}
	comment := "portcullis " + row
	kind := s.kept.of(by)
	if kind == "" {
		kind = s.Kind()
	}
	switch kind {
	case "ufw":
		if word == "" {
			word = "any"
		}
		if out {
			return fmt.Sprintf("ufw allow out proto %s to %s port %d comment '%s'", protocol, word, port, comment)
		}
		return fmt.Sprintf("ufw allow in proto %s from %s to any port %d comment '%s'", protocol, word, port, comment)
	case "firewalld":
		version := map[string]string{"ip": "ipv4", "ip6": "ipv6"}[family]
		if out {
			return fmt.Sprintf("firewall-cmd --permanent --direct --add-rule %s filter OUTPUT 0 -p %s%s --dport %d -j ACCEPT && firewall-cmd --reload", version, protocol, opt(" -d ", word), port)
		}
		if word == "" {
			return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/%s && firewall-cmd --reload", port, protocol)
		}
		return fmt.Sprintf(`firewall-cmd --permanent --add-rich-rule='rule family="%s" source address="%s" port port="%d" protocol="%s" accept' && firewall-cmd --reload`, version, word, port, protocol)
	case "iptables":
		tool, chain, side := "iptables", "INPUT", " -s "
		if family == "ip6" {
			tool = "ip6tables"
		}
		if out {
			chain, side = "OUTPUT", " -d "
		}
		return fmt.Sprintf("%s -I %s%s -p %s --dport %d -m comment --comment %q -j ACCEPT", tool, chain, opt(side, word), protocol, port, comment)
	}
	side := map[bool]string{false: "saddr", true: "daddr"}[out]
	match := ""
	if word != "" {
		match = fmt.Sprintf("%s %s %s ", family, side, word)
	}
	chain := ChainOf(by)
	if chain == "" {
		chain = s.filterChain(out, family)
	}
	return fmt.Sprintf("nft insert rule %s %s%s dport %d accept comment '%q'", chain, match, protocol, port, comment)
}

func opt(flag, value string) string {
	if value == "" {
		return ""
	}
	return flag + value
}

// filterChain is the chain that an accepting rule belongs into: the one that drops
// by default, or the first of the hook.
func (s *Ruleset) filterChain(out bool, family string) string {
	want := input
	if out {
		want = output
	}
	var names []string
	for _, c := range s.chains {
		if c.base && !c.nat && c.hook == want && (family == "ip" && c.v4 || family == "ip6" && c.v6) {
			name := "b " + c.where
			if c.drops || len(c.rules) > 0 && s.dropsLast(c) {
				name = "a " + c.where
			}
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return map[bool]string{false: "inet filter input", true: "inet filter output"}[out]
	}
	return strings.TrimLeft(slices.Min(names)[1:], " ")
}

// dropsLast reports whether a chain ends with a rule that drops everything.
func (s *Ruleset) dropsLast(c *chain) bool {
	to := netip.MustParseAddr("192.0.2.1")
	if !c.v4 {
		to = netip.MustParseAddr("2001:db8::1")
	}
	t, a := c.rules[len(c.rules)-1].judge(&walk{set: s, hook: c.hook, p: Packet{Protocol: "tcp", To: to, Port: 1}})
	return t == yes && a.kind == drop
}

// Unpublish is the command that keeps strangers from a port that Docker or another
// program sends on before the host's own rules are asked.
func (s *Ruleset) Unpublish(in, protocol string, port uint16, v6 bool) string {
	tool := "iptables"
	if v6 {
		tool = "ip6tables"
	}
	if !s.Docker {
		return fmt.Sprintf("take the rule out, or add one to the chain forward that drops %s port %d", protocol, port)
	}
	return fmt.Sprintf("publish it on loopback alone (docker run -p 127.0.0.1:%d:…), or %s -I DOCKER-USER%s -p %s -m conntrack --ctorigdstport %d --ctdir ORIGINAL -j DROP", port, tool, opt(" -i ", in), protocol, port)
}
