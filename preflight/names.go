package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// resolved is what a name led to here.
func (r *run) resolved(host string) Resolved {
	for _, n := range r.report.Names {
		if n.Host == host && n.From == r.Self.Name {
			return n
		}
	}
	return Resolved{}
}

// unresolved says why a name leads nowhere.
func (r *run) unresolved(f *Finding) {
	n := r.resolved(f.Host)
	f.By = n.Server
	f.Sentence = fmt.Sprintf("%s does not resolve here: %s.", f.Host, n.Error)
	server := n.Server
	if server == "" {
		server = "this host's name servers (/etc/resolv.conf)"
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("asked was %s", server))
	switch n.Error {
	case nxdomain:
		f.Remedy = fmt.Sprintf("Add the name %s to the domain server %s, or let /etc/resolv.conf of this host name one that knows it.", f.Host, server)
	case noAnswer:
		f.Remedy = fmt.Sprintf("Allow ports 53/udp and 53/tcp from this host to %s (row %s), or correct /etc/resolv.conf.", server, netcontract.DNS)
	default:
		f.Remedy = fmt.Sprintf("See why %s cannot resolve %s: its forwarders, or its rights to ask outside.", server, f.Host)
	}
}

// proxied judges what works through a proxy alone.
func (r *run) proxied(f *Finding, o outcome) {
	f.Verdict = ProxyNeeded
	direct := string(o.direct)
	f.Evidence = append(f.Evidence, fmt.Sprintf("directly it is %q", direct), fmt.Sprintf("through the proxy %s it works", o.proxy.Redacted()))
	f.Sentence = fmt.Sprintf("%s is reached through the proxy %s, and not directly.", target(f.Check), o.proxy.Redacted())
	f.By = o.proxy.Host
	f.OK = r.Proxy != nil
	f.Remedy, f.Fix = "", nil
	if !f.OK {
		f.Remedy = fmt.Sprintf("Set network.proxy to %s in the appliance's configuration: it does not read the environment's.", o.proxy.Redacted())
	}
}

// proxyFailed says that the configured proxy does not let a call through.
func (r *run) proxyFailed(f *Finding, o outcome) {
	f.OK = false
	f.By = o.proxy.Host
	f.Evidence = append(f.Evidence, fmt.Sprintf("directly it is %q, which does not count: the appliance calls through the proxy", o.direct))
	switch o.verdict {
	case Rejected:
		f.Sentence = fmt.Sprintf("The proxy %s refuses %s: %s.", o.proxy.Redacted(), target(f.Check), o.text)
		f.Remedy = fmt.Sprintf("Allow %s on the proxy %s.", target(f.Check), o.proxy.Host)
		f.Evidence[0] = "the proxy's answer was " + o.text
	case Intercepted, WrongHost:
		f.Sentence = "Through the proxy " + o.proxy.Redacted() + ": " + f.Sentence
	default:
		f.Sentence = fmt.Sprintf("The proxy %s gives no way to %s: %v.", o.proxy.Redacted(), target(f.Check), o.err)
		f.Remedy = fmt.Sprintf("See that %s runs, and allow it from this host; or correct network.proxy.", o.proxy.Host)
	}
	f.Fix = nil
}

// compareNames holds what names led to against what is known of them, and each
// host's answers against the others'. Hosts that get other addresses are right
// where each address shows a certificate for the name: big sites answer
// differently in different places.
func (r *Report) compareNames(outsiders []Outsider) {
	hosts := map[string][]Resolved{}
	var order []string
	for _, n := range r.Names {
		if n.Error != "" {
			continue
		}
		if hosts[n.Host] == nil {
			order = append(order, n.Host)
		}
		hosts[n.Host] = append(hosts[n.Host], n)
	}
	slices.SortFunc(r.Names, func(a, b Resolved) int {
		if c := strings.Compare(a.Host, b.Host); c != 0 {
			return c
		}
		return strings.Compare(a.From, b.From)
	})
	for _, host := range order {
		var known []netip.Addr
		var rows []netcontract.RowID
		for _, o := range outsiders {
			if o.Name == host {
				known = append(known, o.Addresses...)
				rows = append(rows, o.Rows...)
			}
		}
		for _, n := range hosts[host] {
			if why := oddOne(n, hosts[host], known); why != "" && !n.Proved {
				r.differs(n, rows, hosts[host], why)
			}
		}
	}
}

// oddOne says why an answer is not to be believed, "" where nothing speaks against
// it.
func oddOne(n Resolved, all []Resolved, known []netip.Addr) string {
	for _, a := range n.Addresses {
		if len(known) > 0 && !slices.Contains(known, a) {
			return fmt.Sprintf("%s is none of the addresses that were said or published (%s)", a, addressList(known))
		}
	}
	if len(known) > 0 {
		return ""
	}
	alike, apart := 1, 0 // it is one of its own kind
	for _, other := range all {
		if other.From == n.From {
			continue
		}
		if slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return slices.Contains(other.Addresses, a) }) {
			alike++
		} else {
			apart++
		}
	}
	if apart > 0 && apart >= alike {
		return fmt.Sprintf("%d other hosts get none of these addresses", apart)
	}
	return ""
}

// differs takes the finding into the report, in place of what the wrong address
// did.
func (r *Report) differs(n Resolved, rows []netcontract.RowID, all []Resolved, why string) {
	var evidence []string
	for _, o := range all {
		evidence = append(evidence, fmt.Sprintf("%s leads to %s on %s (name server %s)", n.Host, addressList(o.Addresses), o.From, o.Server))
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.From != n.From || f.Host != n.Host || !slices.Contains(rows, f.Row) {
			continue
		}
		f.Verdict, f.OK, f.By, f.Fix = Differently, false, n.Server, nil
		f.Sentence = fmt.Sprintf("%s leads to %s on %s: %s.", n.Host, addressList(n.Addresses), n.From, why)
		f.Evidence = evidence
		f.Remedy = fmt.Sprintf("Correct %s on the name server %s, or let %s ask another one.", n.Host, n.Server, n.From)
	}
}

func addressList(all []netip.Addr) string {
	s := make([]string, len(all))
	for i, a := range all {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}
