package preflight

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
)

// finding puts what the probes saw and what the peer says into one sentence.
func (r *run) finding(c Check, o outcome) Finding {
	f := Finding{Check: c, Verdict: o.verdict, RTT: float64(o.rtt.Microseconds()) / 1000}
	if o.verdict == "" {
		f.Verdict, f.Sentence = Failed, "The run was broken off before this was looked at."
		return f
	}
	peer := r.evidence[c.To]
	if o.verdict == WrongService {
		if program, ok := peer.program(string(c.Protocol), c.Port); ok && r.busy(peer, c) {
			f.Verdict = Served
			o.text = program
		}
	}
	if c.Closed {
		r.negative(&f, o)
		return f
	}
	f.OK = f.Verdict == Open || f.Verdict == Served
	what := fmt.Sprintf("%s %s", c.Protocol, portText(c))
	where := fmt.Sprintf("%s (%s)", c.To, c.Address)
	if c.To == c.Address.String() {
		where = c.To
	}
	var from string
	for _, a := range r.Self.Addresses {
		if a.Is4() == c.Address.Is4() {
			from = a.String()
			break
		}
	}
	switch f.Verdict {
	case Open:
		f.Sentence = fmt.Sprintf("%s answers on %s.", where, what)
	case Served:
		f.Sentence = fmt.Sprintf("%s serves %s itself (%s).", c.To, what, o.text)
	case Closed:
		f.By = c.Address.String()
		program, listens := peer.program(string(c.Protocol), c.Port)
		switch {
		case peer == nil:
			f.Sentence = fmt.Sprintf("%s, or a firewall that answers in its name, refused %s with a reset.", where, what)
			f.Evidence = append(f.Evidence, "a reset came back; the other side's view is not known")
			f.Remedy = fmt.Sprintf("See on %s whether something listens on port %d (ss -ltnp), and whether its firewall rejects with a reset.", c.To, c.Port)
		case listens:
			f.Sentence = fmt.Sprintf("A firewall refused %s with a reset, although %s listens there on %s.", what, name(program), c.To)
			f.Evidence = append(f.Evidence, fmt.Sprintf("a reset came back, and on %s %s listens on the port", c.To, name(program)))
			f.Remedy = r.rule(peer, c, from)
		default:
			f.Sentence = fmt.Sprintf("Nobody listens on %s of %s.", what, where)
			f.Evidence = append(f.Evidence, fmt.Sprintf("a reset came back, and %s says that nothing listens there", c.To))
			f.Remedy = fmt.Sprintf("Start preflight, or the service itself, on %s.", c.To)
			if why := refusedThere(peer, c); why != "" {
				f.Evidence = append(f.Evidence, "preflight could not open the port there: "+why)
				f.Remedy = fmt.Sprintf("Run preflight on %s as a user that may open port %d (root, or CAP_NET_BIND_SERVICE).", c.To, c.Port)
			}
		}
	case Rejected:
		f.By = o.by.String()
		whose := o.by.String()
		if o.by == c.Address {
			whose = "the firewall of " + where
		}
		f.Sentence = fmt.Sprintf("%s rejects %s to %s: it sent ICMP %q.", whose, what, where, o.text)
		f.Evidence = append(f.Evidence, fmt.Sprintf("ICMP %q came from %s", o.text, o.by))
		if o.by == c.Address {
			f.Remedy = r.rule(peer, c, from)
		} else {
			f.Remedy = fmt.Sprintf("Allow %s from %s to %s on %s.", what, from, c.Address, o.by)
		}
	case Dropped:
		r.dropped(&f, o, what, where, from, peer)
	case Unreachable:
		f.Sentence = fmt.Sprintf("%s cannot be reached from here: no route leads there, or the host is down.", where)
		if o.err != nil {
			f.Evidence = append(f.Evidence, "the kernel says: "+o.err.Error())
		} else {
			f.Evidence = append(f.Evidence, "nobody on the link answers for the address")
		}
		f.Remedy = fmt.Sprintf("See whether %s is up and has the address %s, and what `ip route get %s` says here.", c.To, c.Address, c.Address)
	case WrongHost:
		f.By = o.text
		f.Sentence = fmt.Sprintf("%s is %s: it answers for %s.", c.Address, o.text, c.To)
		f.Evidence = append(f.Evidence, fmt.Sprintf("the answer is signed with the token by %s", o.text))
		f.Remedy = fmt.Sprintf("Correct the address of %s, or the address translation on the way.", c.To)
	case WrongService:
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("Something other than %s answers on %s of %s.", c.To, what, where)
		f.Evidence = append(f.Evidence, fmt.Sprintf("the connection opened, and no answer of this swarm came (%v)", o.err))
		if peer != nil {
			if program, listens := peer.program(string(c.Protocol), c.Port); listens {
				f.Evidence = append(f.Evidence, fmt.Sprintf("%s says that %s listens there", c.To, name(program)))
			} else {
				f.Evidence = append(f.Evidence, fmt.Sprintf("%s says that nothing listens there: it is another machine that answers", c.To))
			}
		}
		f.Remedy = fmt.Sprintf("Find out who answers for %s on port %d: address translation, a proxy, or a program that has taken the port.", c.Address, c.Port)
	case Intercepted:
		f.By = o.text
		f.Sentence = fmt.Sprintf("Somebody on the way ends TLS to %s on %s with certificates of %q.", where, what, o.text)
		f.Evidence = append(f.Evidence, fmt.Sprintf("the certificate is not the swarm's; its issuer is %q", o.text))
		f.Remedy = fmt.Sprintf("Exempt %s port %d from TLS inspection.", c.Address, c.Port)
	case TransparentProxy:
		f.Sentence = fmt.Sprintf("A transparent proxy accepts %s in place of %s.", what, where)
		f.Evidence = append(f.Evidence, "a connection whose packets live for one hop was accepted, and the host is farther away than that")
		if gateway := firstHop(o); gateway != "" {
			f.By = gateway
		}
		f.Remedy = fmt.Sprintf("Exempt %s port %d from the proxy.", c.Address, c.Port)
	case MTUBlackHole:
		f.Sentence = fmt.Sprintf("Small packets reach %s on %s and large ones are lost without a word.", where, what)
		f.Evidence = append(f.Evidence, "a message of 4,096 bytes got no answer where a short one did")
		if o.size > 0 {
			f.Evidence = append(f.Evidence, fmt.Sprintf("with segments of %d bytes it passes", o.size))
		}
		f.Remedy = "Let ICMP \"fragmentation needed\" and ICMPv6 \"packet too big\" through on the way, or lower the MTU of the hosts' interfaces."
	case Failed:
		f.Sentence = fmt.Sprintf("The check could not be made: %v.", o.err)
	}
	return f
}

// dropped says behind which hop a connection is silent, and whether it was the
// peer's own firewall.
func (r *run) dropped(f *Finding, o outcome, what, where, from string, peer *Evidence) {
	c := f.Check
	last := netip.Addr{}
	reached := false
	for _, h := range o.hops {
		if h.By.IsValid() {
			last, reached = h.By, h.Reached
		}
	}
	switch {
	case len(o.counted) > 0:
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("The firewall of %s drops %s from here.", where, what)
		f.Evidence = append(f.Evidence, fmt.Sprintf("its rule %s counted the packets", strings.Join(o.counted, ", ")))
		f.Remedy = r.rule(peer, c, from)
		return
	case peer != nil && peer.Firewall != nil:
		if d, ok := peer.Firewall.Policy("input"); ok {
			f.By = c.Address.String()
			f.Sentence = fmt.Sprintf("The firewall of %s most likely drops %s from here: what no rule accepts is dropped there.", where, what)
			f.Evidence = append(f.Evidence, fmt.Sprintf("the policy of its chain %s is drop, and policies do not count", d.Where))
			f.Remedy = r.rule(peer, c, from)
			break
		}
		f.Sentence = fmt.Sprintf("A firewall between here and %s drops %s; the host's own does not.", where, what)
		f.Evidence = append(f.Evidence, fmt.Sprintf("no dropping rule of %s counted a packet", c.To))
		f.Remedy = fmt.Sprintf("Allow %s from %s to %s on the firewall between them.", what, from, c.Address)
	default:
		f.Sentence = fmt.Sprintf("%s to %s is dropped without a word.", what, where)
		f.Remedy = fmt.Sprintf("Allow %s from %s to %s on the firewalls on the way and on %s.", what, from, c.Address, c.To)
	}
	switch {
	case c.Protocol == netcontract.ICMP:
		f.Evidence = append(f.Evidence, "no echo came back")
	case c.Protocol == netcontract.UDP:
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d datagrams got no answer", attempts))
	case last.IsValid() && !reached:
		if f.By == "" {
			f.By = last.String()
		}
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s is the last router that answers, at hop %d; behind it is silence", last, hopOf(o, last)))
	case last.IsValid():
		f.Evidence = append(f.Evidence, "with a short time to live an answer came: the way there works, the way back does not")
	default:
		f.Evidence = append(f.Evidence, "no router on the way answers either")
		// What never comes back may be dropped at this end too.
		if d, ok := r.own.Firewall.Policy("input"); ok {
			f.Evidence = append(f.Evidence, fmt.Sprintf("this host's own firewall drops what no rule accepts (chain %s), which may include the answers", d.Where))
			f.Remedy = fmt.Sprintf("Accept established connections and ICMP errors on this host first (%s), then %s%s", d.Where, strings.ToLower(f.Remedy[:1]), f.Remedy[1:])
		}
	}
}

// negative judges a row that has to be closed.
func (r *run) negative(f *Finding, o outcome) {
	c := f.Check
	what := fmt.Sprintf("%s %s", c.Protocol, portText(c))
	switch o.verdict {
	case Open, Served, WrongService, WrongHost, Intercepted, TransparentProxy, MTUBlackHole:
		f.Verdict = Exposed
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("%s of %s (%s) is open to %s, and is for the cluster's nodes alone.", what, c.To, c.Address, r.Self.Name)
		f.Evidence = append(f.Evidence, "a connection opened")
		f.Remedy = fmt.Sprintf("Close %s on %s to everybody but the nodes: `portcullis network render` writes the rules.", what, c.To)
	case Failed:
		f.Sentence = fmt.Sprintf("The check could not be made: %v.", o.err)
	default:
		f.Verdict, f.OK = Shut, true
		f.Sentence = fmt.Sprintf("%s of %s is shut to %s, as it has to be (%s).", what, c.To, r.Self.Name, o.verdict)
	}
}

func (r *run) busy(e *Evidence, c Check) bool {
	for _, b := range e.Bound {
		if b.Busy && b.Port == c.Port && b.Protocol == c.Protocol {
			return true
		}
	}
	return false
}

func refusedThere(e *Evidence, c Check) string {
	for _, b := range e.Bound {
		if b.Port == c.Port && b.Protocol == c.Protocol && b.Address == c.Address {
			return b.Refused
		}
	}
	return ""
}

func name(program string) string {
	if program == "" {
		return "a program"
	}
	return program
}

func portText(c Check) string {
	if c.Protocol == netcontract.ICMP {
		return "echo"
	}
	return "port " + port(c.Port)
}

func hopOf(o outcome, by netip.Addr) int {
	for _, h := range o.hops {
		if h.By == by {
			return h.TTL
		}
	}
	return 0
}

func firstHop(o outcome) string {
	if len(o.hops) > 0 && o.hops[0].By.IsValid() {
		return o.hops[0].By.String()
	}
	return ""
}

// rule is what makes the row hold on the peer's own firewall, in the language of
// the one that is in use there.
func (r *run) rule(peer *Evidence, c Check, from string) string {
	kind, chain := "nftables", "inet filter input"
	if peer != nil && peer.Firewall != nil {
		kind = peer.Firewall.Kind
		chain = inputChain(peer.Firewall, c)
	}
	family := "ip"
	if !c.Address.Is4() {
		family = "ip6"
	}
	comment := fmt.Sprintf("portcullis %s", c.Row)
	switch kind {
	case "iptables":
		tool := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[family]
		if c.Protocol == netcontract.ICMP {
			return fmt.Sprintf("On %s: %s -I INPUT -s %s -p %s -m comment --comment %q -j ACCEPT", c.To, tool, from, icmpName(family), comment)
		}
		return fmt.Sprintf("On %s: %s -I INPUT -s %s -p %s --dport %d -m comment --comment %q -j ACCEPT", c.To, tool, from, c.Protocol, c.Port, comment)
	case "ufw":
		if c.Protocol == netcontract.ICMP {
			return fmt.Sprintf("On %s: allow ICMP echo from %s in /etc/ufw/before.rules, then ufw reload", c.To, from)
		}
		return fmt.Sprintf("On %s: ufw allow proto %s from %s to any port %d comment '%s'", c.To, c.Protocol, from, c.Port, comment)
	case "firewalld":
		ipv := map[string]string{"ip": "ipv4", "ip6": "ipv6"}[family]
		if c.Protocol == netcontract.ICMP {
			return fmt.Sprintf(`On %s: firewall-cmd --add-rich-rule='rule family="%s" source address="%s" icmp-type name="echo-request" accept'`, c.To, ipv, from)
		}
		return fmt.Sprintf(`On %s: firewall-cmd --add-rich-rule='rule family="%s" source address="%s" port port="%d" protocol="%s" accept'`, c.To, ipv, from, c.Port, c.Protocol)
	}
	if c.Protocol == netcontract.ICMP {
		return fmt.Sprintf("On %s: nft insert rule %s %s saddr %s meta l4proto %s accept comment '%q'", c.To, chain, family, from, icmpName(family), comment)
	}
	return fmt.Sprintf("On %s: nft insert rule %s %s saddr %s %s dport %d accept comment '%q'", c.To, chain, family, from, c.Protocol, c.Port, comment)
}

func icmpName(family string) string {
	if family == "ip6" {
		return "ipv6-icmp"
	}
	return "icmp"
}

// inputChain is the chain that drops what comes in, so that a rule in front of it
// counts.
func inputChain(f *hostfw.Firewall, c Check) string {
	for _, d := range f.Drops {
		fields := strings.Fields(d.Where)
		if d.Hook == "input" && len(fields) >= 3 && (fields[0] == "inet" || (fields[0] == "ip") == c.Address.Is4()) {
			return strings.Join(fields[:3], " ")
		}
	}
	return "inet filter input"
}

// sortFindings puts what fails first, then by host, row and port.
func sortFindings(all []Finding) {
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		switch {
		case a.OK != b.OK:
			return !a.OK
		case a.From != b.From:
			return a.From < b.From
		case a.To != b.To:
			return a.To < b.To
		case a.Row != b.Row:
			return a.Row < b.Row
		case a.Port != b.Port:
			return a.Port < b.Port
		case a.Protocol != b.Protocol:
			return a.Protocol < b.Protocol
		}
		return a.Address.Less(b.Address)
	})
}
