package hostfw

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// legacyTime bounds one call of iptables-legacy-save.
const legacyTime = 5 * time.Second

// loadLegacy reads the rules of the older iptables, which nftables does not show.
// The kernel names the tables that exist, so that asking brings none into being.
func (s *Ruleset) loadLegacy() error {
	var faults []string
	for _, f := range []struct{ names, program, family string }{
		{"/proc/thread-self/net/ip_tables_names", "iptables-legacy-save", "legacy"},
		{"/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-save", "legacy6"},
	} {
		names, err := os.ReadFile(f.names)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
			continue
		}
		if err != nil {
			faults = append(faults, "the rules of iptables-legacy could not be read: "+err.Error())
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), legacyTime)
		out, err := exec.CommandContext(ctx, f.program).Output() // #nosec G204 -- one of two names above
		cancel()
		if err != nil {
			faults = append(faults, fmt.Sprintf("there are rules of iptables-legacy, and %s could not read them: %v", f.program, err))
			continue
		}
		s.addLegacy(f.family, string(out))
	}
	return errors.Join(toErrors(faults)...)
}

func toErrors(list []string) []error {
	var out []error
	for _, s := range list {
		out = append(out, errors.New(s))
	}
	return out
}

// builtin are the chains that packets come to by themselves, with their hooks.
var builtin = map[string]hook{"PREROUTING": prerouting, "INPUT": input, "FORWARD": forward, "OUTPUT": output}

// priorities of the tables (NF_IP_PRI_…; nat as it is before routing).
var priorities = map[string]int{"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}

// addLegacy reads what iptables-legacy-save printed.
func (s *Ruleset) addLegacy(family, text string) {
	table := ""
	count := map[string]int{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			f := strings.Fields(line[1:])
			if len(f) < 2 {
				continue
			}
			c := &chain{key: family + " " + table + " " + f[0], where: "iptables-legacy " + table + " " + f[0], v4: family == "legacy", v6: family == "legacy6"}
			if h, ok := builtin[f[0]]; ok {
				c.base, c.hook, c.nat, c.priority, c.drops = true, h, table == "nat", priorities[table], f[1] == "DROP"
			}
			s.chains[c.key] = c
			s.Docker = s.Docker || strings.HasPrefix(f[0], "DOCKER")
			kind := "iptables"
			if strings.HasPrefix(f[0], "ufw") {
				kind = "ufw"
			}
			s.kept.set(tableOf(c.where), kind)
		case strings.HasPrefix(line, "-A "):
			args := words(line)
			c := s.chains[family+" "+table+" "+args[1]]
			if c == nil {
				continue
			}
			count[c.key]++
			c.rules = append(c.rules, legacyRule(family+" "+table+" ", count[c.key], args[2:]))
		}
	}
}

// words takes a line apart as a shell would: blanks between, quotes around.
func words(line string) []string {
	var out []string
	var b strings.Builder
	quoted, open := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		case c == '"':
			quoted, open = !quoted, true
		case c == ' ' && !quoted:
			if b.Len() > 0 || open {
				out = append(out, b.String())
			}
			b.Reset()
			open = false
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() > 0 || open {
		out = append(out, b.String())
	}
	return out
}

// legacyRule reads a rule's words. A condition that it does not know may hold or
// not.
func legacyRule(prefix string, number int, args []string) rule {
	out := rule{where: fmt.Sprintf("rule %d", number)}
	var conds []func(w *walk) tri
	a := act{kind: pass}
	target := ""
	invert := false
	value := func(i int) string {
		if i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	for i := 0; i < len(args); i++ {
		word, v := args[i], value(i)
		not := invert
		invert = false
		cond := func(f func(w *walk) tri) {
			i++
			if not {
				g := f
				f = func(w *walk) tri { return g(w).not() }
			}
			conds = append(conds, f)
		}
		switch word {
		case "!":
			invert = true
		case "-m", "--match":
			i++
		case "--comment":
			i++
			out.where = strconv.Quote(v)
		case "-s", "--source":
			cond(func(w *walk) tri { return inNetwork(w.p.From, v) })
		case "-d", "--destination":
			cond(func(w *walk) tri { return inNetwork(w.p.To, v) })
		case "-i", "--in-interface":
			cond(func(w *walk) tri { return isInterface(w.p.In, v, w.hook == output) })
		case "-o", "--out-interface":
			cond(func(w *walk) tri { return isInterface(w.p.Out, v, w.hook == input || w.hook == prerouting) })
		case "-p", "--protocol":
			cond(func(w *walk) tri { return of(v == w.p.Protocol || v == "all") })
		case "--dport", "--dports", "--ctorigdstport":
			list := portList(v)
			for _, r := range list {
				out.ports = append(out.ports, before(r[0], true), r[1])
			}
			cond(func(w *walk) tri {
				port := w.p.Port
				if word == "--ctorigdstport" {
					port = w.port
				}
				return of(slices.ContainsFunc(list, func(r [2]uint16) bool { return port >= r[0] && port <= r[1] }))
			})
		case "--ctstate", "--state":
			cond(func(w *walk) tri {
				states := strings.Split(v, ",")
				return of(slices.Contains(states, "NEW") || slices.Contains(states, "DNAT") && w.diverted)
			})
		case "--dst-type":
			cond(func(w *walk) tri { return of((v == "LOCAL") == w.set.own(w.p.To) && (v == "LOCAL" || v == "UNICAST")) })
		case "--limit":
			i++ // the first packet is within every limit
		case "--limit-burst", "--log-prefix", "--log-level", "--reject-with", "--set-xmark", "--set-mark", "--icmp-type", "--icmpv6-type":
			i++
		case "--syn":
			conds = append(conds, func(w *walk) tri { return of((w.p.Protocol == "tcp") != not) })
		case "-j", "--jump":
			i++
			target = v
			a = legacyTarget(prefix, v, jump)
		case "-g", "--goto":
			i++
			a = act{kind: goTo, chain: prefix + v}
		case "--to-destination", "--to-ports", "--to-port":
			i++
			if a.kind == divert {
				a.to = legacyTo(v)
			}
		default:
			if strings.HasPrefix(word, "-") && target == "" {
				conds = append(conds, func(*walk) tri { return maybe })
				if !strings.HasPrefix(v, "-") && v != "!" {
					i++
				}
			}
		}
	}
	out.judge = func(w *walk) (tri, act) {
		match := yes
		for _, c := range conds {
			if match = min(match, c(w)); match == no {
				break
			}
		}
		return match, a
	}
	return out
}

func legacyTarget(prefix, name string, how kind) act {
	switch {
	case name == "ACCEPT" || name == "MASQUERADE" || name == "SNAT":
		return act{kind: accept}
	case name == "DROP" || name == "REJECT" || name == "TARPIT":
		return act{kind: drop}
	case name == "RETURN":
		return act{kind: back}
	case name == "DNAT" || name == "REDIRECT":
		return act{kind: divert}
	case slices.Contains(passing, name):
		return act{kind: pass}
	case name == "QUEUE" || name == "NFQUEUE":
		return act{kind: either}
	}
	return act{kind: how, chain: prefix + name}
}

// legacyTo reads 172.17.0.2:80, [fd00::2]:80, 172.17.0.2, and 80.
func legacyTo(v string) netip.AddrPort {
	if ap, err := netip.ParseAddrPort(v); err == nil {
		return ap
	}
	if a, err := netip.ParseAddr(v); err == nil {
		return netip.AddrPortFrom(a, 0)
	}
	first, _, _ := strings.Cut(v, "-")
	if n, err := strconv.ParseUint(first, 10, 16); err == nil {
		return netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(big16(uint16(n))))
	}
	return netip.AddrPort{}
}

func inNetwork(a netip.Addr, network string) tri {
	if !a.IsValid() {
		return maybe
	}
	p, err := netip.ParsePrefix(network)
	if err != nil {
		one, err := netip.ParseAddr(network)
		if err != nil {
			return maybe // a mask that is no prefix
		}
		p = netip.PrefixFrom(one, one.BitLen())
	}
	return of(p.Contains(a))
}

// isInterface compares names as iptables does: a plus at the end stands for any
// rest. absent says that the packet has no such interface at this hook.
func isInterface(have, want string, absent bool) tri {
	switch {
	case absent:
		return no
	case have == "":
		return maybe
	}
	if start, ok := strings.CutSuffix(want, "+"); ok {
		return of(strings.HasPrefix(have, start))
	}
	return of(have == want)
}

func portList(v string) [][2]uint16 {
	var out [][2]uint16
	for part := range strings.SplitSeq(v, ",") {
		from, to, ranged := strings.Cut(part, ":")
		a, err := strconv.ParseUint(from, 10, 16)
		if from == "" {
			a, err = 0, nil
		}
		b := a
		if ranged {
			if b = 65535; to != "" {
				if b, err = strconv.ParseUint(to, 10, 16); err != nil {
					continue
				}
			}
		}
		if err == nil {
			out = append(out, [2]uint16{uint16(a), uint16(b)})
		}
	}
	return out
}
