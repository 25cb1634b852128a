package preflight

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
)

// finding puts what the probes saw and what the peer says into one sentence.
func (r *run) finding(c Check, o outcome) Finding {
	f := Finding{Check: c, Verdict: o.verdict, RTT: milliseconds(o.rtt)}
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
	if !c.Address.IsValid() {
		r.unresolved(&f)
		if o.proxy != nil {
			r.proxied(&f, o)
		}
		return f
	}
	what := fmt.Sprintf("%s %s", c.Protocol, portText(c))
	where := fmt.Sprintf("%s (%s)", c.To, c.Address)
	if c.To == c.Address.String() {
		where = c.To
	}
	source := r.source(c.Address)
	from := source.String()
	if !source.IsValid() {
		from = r.Self.Name
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
		case peer == nil && !c.Outside:
			f.Sentence = fmt.Sprintf("%s, or a firewall that answers in its name, refused %s with a reset.", where, what)
			f.Evidence = append(f.Evidence, "a reset came back; the other side's view is not known")
			f.Remedy = fmt.Sprintf("See on %s whether something listens on port %d (ss -ltnp), and whether its firewall rejects with a reset.", c.To, c.Port)
		case listens && o.trail.there && o.trail.arrived == 0:
			f.Sentence = fmt.Sprintf("A firewall on the way refused %s to %s with a reset, in the name of %s.", what, where, c.To)
			f.Evidence = append(f.Evidence, fmt.Sprintf("a reset came back, %s listens on the port of %s, and none of %d packets arrived there", name(program), c.To, o.trail.left))
			f.Remedy = fmt.Sprintf("Allow %s from %s to %s on the firewall between them.", what, from, c.Address)
			f.Fix = &Fix{Action: FixAllow, Traffic: traffic(c, source)}
			f.By = ""
			for _, h := range o.hops {
				if h.By.IsValid() && !h.Reached {
					f.By = h.By.String()
				}
			}
			if f.By != "" {
				f.Evidence = append(f.Evidence, fmt.Sprintf("the last router before the reset is %s", f.By))
			}
		case listens:
			f.Sentence = fmt.Sprintf("A firewall refused %s with a reset, although %s listens there on %s.", what, name(program), c.To)
			f.Evidence = append(f.Evidence, fmt.Sprintf("a reset came back, and on %s %s listens on the port", c.To, name(program)))
			r.allowThere(&f, peer, source)
		case c.Outside:
			answer := map[netcontract.Protocol]string{netcontract.TCP: "a reset", netcontract.UDP: "ICMP \"port unreachable\""}[c.Protocol]
			f.Sentence = fmt.Sprintf("%s refuses %s with %s: nobody listens there, or a firewall answers in its name.", where, what, answer)
			f.Evidence = append(f.Evidence, answer+" came back")
			f.Remedy = fmt.Sprintf("See whether %s is the right host, and whether its service runs; allow %s from %s to %s on a firewall that resets.", c.To, what, from, c.Address)
			f.Fix = &Fix{Action: FixAllow, Traffic: traffic(c, source)}
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
		if o.by == c.Address && !c.Outside {
			r.allowThere(&f, peer, source)
		} else {
			f.Remedy = fmt.Sprintf("Allow %s from %s to %s on %s.", what, from, c.Address, o.by)
			f.Fix = &Fix{At: o.by.String(), Action: FixAllow, Traffic: traffic(c, source)}
		}
	case Dropped:
		r.dropped(&f, o, what, where, source, peer)
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
		f.Fix = &Fix{Action: FixExempt, Traffic: traffic(c, source)}
		if c.Outside {
			f.Sentence = fmt.Sprintf("%s is not %s: its certificate is for %s.", c.Address, c.To, o.text)
			f.Evidence = []string{fmt.Sprintf("a trusted certificate came, for %q and not for %q", o.text, c.Host)}
			f.Remedy = fmt.Sprintf("Correct where %s leads to, or the address translation on the way.", c.To)
		}
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
		f.Fix = &Fix{Action: FixExempt, Traffic: traffic(c, source)}
		if c.Outside {
			f.Sentence = fmt.Sprintf("What answers on %s of %s does not speak %s.", what, where, speaks(c))
			f.Evidence = []string{fmt.Sprintf("the connection opened, and %v", o.err)}
		}
	case Intercepted:
		f.By = o.text
		f.Sentence = fmt.Sprintf("Somebody on the way ends TLS to %s on %s with certificates of %q.", where, what, o.text)
		f.Evidence = append(f.Evidence, fmt.Sprintf("the certificate is not the swarm's; its issuer is %q", o.text))
		f.Remedy = fmt.Sprintf("Exempt %s port %d from TLS inspection.", c.Address, c.Port)
		f.Fix = &Fix{Action: FixExempt, Traffic: traffic(c, source)}
		if c.Outside {
			f.Evidence = []string{fmt.Sprintf("the certificate for %s is of the issuer %q, whom neither the public roots nor --ca know", c.Host, o.text)}
			f.Remedy += fmt.Sprintf(" If %s has a certificate of your own authority, name that with --ca FILE.", c.To)
		}
	case TransparentProxy:
		f.Sentence = fmt.Sprintf("A transparent proxy accepts %s in place of %s.", what, where)
		f.Evidence = append(f.Evidence, "a connection whose packets live for one hop was accepted, and the host is farther away than that")
		if gateway := firstHop(o); gateway != "" {
			f.By = gateway
		}
		f.Remedy = fmt.Sprintf("Exempt %s port %d from the proxy.", c.Address, c.Port)
		f.Fix = &Fix{Action: FixExempt, Traffic: traffic(c, source)}
	case ProxyNeeded:
		r.proxied(&f, o)
	case NotResolving:
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("The name server %s answers %s, and does not resolve names for this host (%s).", c.Address, what, o.text)
		f.Evidence = append(f.Evidence, fmt.Sprintf("its answer has the code %s (RFC 1035 section 4.1.1)", o.text))
		f.Remedy = fmt.Sprintf("Let %s resolve for %s (access list of recursion), or correct its forwarders.", c.Address, from)
	case Slow:
		p50, p90, p99 := quantile(o.rtts, 0.5), quantile(o.rtts, 0.9), quantile(o.rtts, 0.99)
		f.RTTs, f.Loss = []float64{milliseconds(p50), milliseconds(p90), milliseconds(p99)}, o.loss
		f.Sentence = fmt.Sprintf("%s answers on %s, but the path is bad: half of the round trips take at most %s, nine of ten %s, and %.0f%% of first packets are lost.", where, what, p50.Round(100*time.Microsecond), p90.Round(100*time.Microsecond), 100*o.loss)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d connections, timed by the kernel; allowed are %s for nine of ten, and %.0f%% lost", sample, c.limit(), 100*lossLimit))
		f.Remedy = fmt.Sprintf("Look for an overloaded or damaged link between %s and %s (`mtr -T -P %d %s`).", from, c.Address, c.Port, c.Address)
	case MTUBlackHole:
		f.Sentence = fmt.Sprintf("Small packets reach %s on %s and large ones are lost without a word.", where, what)
		f.Evidence = append(f.Evidence, "a message of 4,096 bytes got no answer where a short one did")
		if o.size > 0 {
			mtu := o.size + 40 // the headers of TCP and IPv4
			if !c.Address.Is4() {
				mtu += 20
			}
			f.Evidence = append(f.Evidence, fmt.Sprintf("with segments of %d bytes it passes, which packets of %d bytes carry", o.size, mtu))
			if device := deviceTo(source); device != "" {
				f.Fix = &Fix{At: r.Self.Name, Action: FixMTU, Commands: []string{fmt.Sprintf("ip link set dev %s mtu %d", device, mtu)}}
			}
		}
		f.Remedy = "Let ICMP \"fragmentation needed\" and ICMPv6 \"packet too big\" through on the way, or lower the MTU of the hosts' interfaces."
		if f.Fix != nil {
			f.Remedy = fmt.Sprintf("Let ICMP \"fragmentation needed\" and ICMPv6 \"packet too big\" through on the way, or on %s: %s", f.Fix.At, f.Fix.Commands[0])
		}
	case Failed:
		f.Sentence = fmt.Sprintf("The check could not be made: %v.", o.err)
		f.Evidence = append(f.Evidence, "the kernel says: "+fmt.Sprint(o.err))
		f.Remedy = "See that this host's own firewall lets the packets out, and that the process may open enough files (ulimit -n)."
	}
	if o.note != "" {
		f.Evidence = append(f.Evidence, o.note)
	}
	if o.proxy != nil && o.verdict != ProxyNeeded {
		r.proxyFailed(&f, o)
	}
	return f
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// dropped says how far the packets come, and whose rule ends them.
func (r *run) dropped(f *Finding, o outcome, what, where string, source netip.Addr, peer *Evidence) {
	c, t := f.Check, o.trail
	from := source.String()
	last := netip.Addr{}
	reached := false
	for _, h := range o.hops {
		if h.By.IsValid() {
			last, reached = h.By, h.Reached
		}
	}
	var theirs *hostfw.Firewall
	if peer != nil {
		theirs = peer.Firewall
	}
	matching, matches := dropping(theirs, "input", c)
	mine, dropsHere := dropping(r.own.Firewall, "output", c)
	switch {
	case t.looked && t.left == 0 && !dropsHere && c.Address.Is6() && r.neighboursDropped(f, where, what, source):
		return
	case t.looked && t.left == 0 && !dropsHere:
		f.Verdict = Unreachable
		f.Sentence = fmt.Sprintf("%s cannot be reached from here: packets do not leave this host, and its firewall does not keep them.", where)
		f.Evidence = append(f.Evidence, fmt.Sprintf("of %d packets none went out: the next hop does not answer", burst))
		f.Remedy = fmt.Sprintf("See what `ip route get %s` and `ip neigh` say here: the gateway is down, or the route leads to the wrong one.", c.Address)
		return
	case t.looked && t.left == 0:
		f.By = source.String()
		f.Sentence = fmt.Sprintf("This host's own firewall drops %s to %s: the packets do not leave.", what, where)
		f.Evidence = append(f.Evidence, fmt.Sprintf("of %d packets none went out", burst))
		if f.counted(t.here, r.Self.Name); len(t.here) == 0 {
			f.Evidence = append(f.Evidence, mine.evidence(r.Self.Name))
		}
		r.allowHere(f, "output", source)
		return
	case t.looked && t.answered > 0:
		f.By = source.String()
		f.Sentence = fmt.Sprintf("This host's own firewall drops the answers of %s on %s.", where, what)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d answers came back to this host, and none to the program", t.answered))
		r.acceptAnswersHere(f)
		return
	case len(t.at) > 0 && (t.arrived > 0 || !t.there):
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("The firewall of %s drops %s from here.", where, what)
		f.counted(t.at, c.To)
		r.allowThere(f, peer, source)
		return
	case peer.halfOpen(r.Self.Addresses, c.Port) && c.Protocol == netcontract.TCP:
		f.Sentence = fmt.Sprintf("%s gets %s from here, and its answers are dropped on the way back.", where, what)
		f.Evidence = append(f.Evidence, fmt.Sprintf("the first packet arrived: %s keeps a half-open connection from %s", c.To, from), "no answer came back to this host: the host's own firewall does not drop it")
		f.Remedy = fmt.Sprintf("Allow the answers from %s port %d to %s (established connections) on the firewall between them.", c.Address, c.Port, from)
		f.Fix = &Fix{Action: FixAllow, Traffic: &Traffic{Protocol: c.Protocol, Source: c.Address, Destination: source, SourcePort: c.Port}}
		if last.IsValid() && !reached {
			f.By = last.String()
			f.Evidence = append(f.Evidence, fmt.Sprintf("%s is the last router that answers, at hop %d", last, hopOf(o, last)))
		}
		return
	case t.arrived > 0:
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("The firewall of %s drops %s from here.", where, what)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d of %d packets arrived at %s, and were not answered", t.arrived, burst, c.To))
		if matches {
			f.Evidence = append(f.Evidence, matching.evidence(c.To))
		}
		r.allowThere(f, peer, source)
		return
	case t.there:
		f.Sentence = fmt.Sprintf("A firewall between here and %s drops %s; the host's own does not.", where, what)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d packets left this host, and none arrived at %s", t.left, c.To))
		f.Remedy = fmt.Sprintf("Allow %s from %s to %s on the firewall between them.", what, from, c.Address)
		f.Fix = &Fix{Action: FixAllow, Traffic: traffic(c, source)}
	case matches:
		f.By = c.Address.String()
		f.Sentence = fmt.Sprintf("The firewall of %s most likely drops %s from here.", where, what)
		f.Evidence = append(f.Evidence, matching.evidence(c.To))
		r.allowThere(f, peer, source)
	default:
		f.Sentence = fmt.Sprintf("%s to %s is dropped without a word.", what, where)
		f.Remedy = fmt.Sprintf("Allow %s from %s to %s, and the answers, on the firewalls on the way and on %s.", what, from, c.Address, c.To)
		f.Fix = &Fix{Action: FixAllow, Traffic: traffic(c, source)}
		f.Fix.Traffic.Answers = true
		if t.looked {
			f.Evidence = append(f.Evidence, fmt.Sprintf("%d packets left this host, and no answer came", t.left))
		}
	}
	switch {
	case last.IsValid() && !reached:
		if f.By == "" {
			f.By = last.String()
		}
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s is the last router that answers, at hop %d; behind it is silence", last, hopOf(o, last)))
	case last.IsValid():
		f.Evidence = append(f.Evidence, "with a short time to live an answer came: the way there works, the way back does not")
	case c.Protocol == netcontract.ICMP:
		f.Evidence = append(f.Evidence, "no echo came back")
	case c.Protocol == netcontract.UDP:
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d datagrams got no answer", attempts))
	default:
		f.Evidence = append(f.Evidence, "no router on the way answers either")
		// What never comes back may be dropped at this end too.
		if d, ok := r.own.Firewall.Policy("input"); ok {
			f.Evidence = append(f.Evidence, fmt.Sprintf("this host's own firewall drops what no rule accepts (chain %s), which may include the answers and the errors of routers", d.Where))
			f.Remedy = fmt.Sprintf("Accept established connections and ICMP errors on this host first (%s), then %s%s", d.Where, strings.ToLower(f.Remedy[:1]), f.Remedy[1:])
		}
	}
}

// neighboursDropped blames this host's own firewall where IPv6 packets do not leave
// because nobody's answer to neighbour discovery is let in (RFC 4890 section 4.4.1).
func (r *run) neighboursDropped(f *Finding, where, what string, source netip.Addr) bool {
	d, ok := r.own.Firewall.Policy("input")
	if !ok {
		return false
	}
	f.By = source.String()
	f.Sentence = fmt.Sprintf("%s to %s does not leave this host: neighbour discovery gets no answer, most likely because this host's own firewall drops it.", what, where)
	f.Evidence = append(f.Evidence, fmt.Sprintf("of %d packets none went out, and this host's own firewall drops what no rule accepts (chain %s)", burst, d.Where))
	f.Fix = &Fix{At: r.Self.Name, Action: FixAllow, Firewall: d.Kind}
	if f.Fix.Firewall == "nftables" {
		f.Fix.Commands = []string{fmt.Sprintf("nft insert rule %s ip6 hoplimit 255 icmpv6 type '{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }' accept", hostfw.ChainOf(d.Where))}
	} else {
		f.Fix.Commands = []string{"ip6tables -I INPUT -p ipv6-icmp --icmpv6-type neighbour-solicitation -m hl --hl-eq 255 -j ACCEPT", "ip6tables -I INPUT -p ipv6-icmp --icmpv6-type neighbour-advertisement -m hl --hl-eq 255 -j ACCEPT"}
	}
	f.Remedy = f.Fix.text()
	return true
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
		f.Fix = &Fix{At: c.To, Action: FixClose, Traffic: traffic(c, r.source(c.Address))}
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
