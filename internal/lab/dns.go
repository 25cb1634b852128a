//go:build linux

package lab

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const dnsPort = 53

// DNS is the name server on the host dns, over UDP and TCP. It knows every host
// of the lab as name.lab; all other names do not exist until they are set.
type DNS struct {
	lab *Lab

	mu    sync.Mutex
	rules []*dnsRule // the newest that fits answers
	asked []Question
}

// Answer is what a client gets to hear.
type Answer struct {
	// Addrs are the addresses. A question of a type that none of them has gets an
	// empty answer.
	Addrs []netip.Addr
	// CNAME names another name instead, whose own answer follows.
	CNAME string
	// Rcode is the answer's code, such as dns.RcodeServerFailure.
	Rcode int
	// Silent leaves the question without an answer.
	Silent bool
	// Truncated answers over UDP that the client should come by TCP.
	Truncated bool
	// Delay is how long the answer takes.
	Delay time.Duration
	// TTL is 60 seconds when it is 0.
	TTL time.Duration
}

// Question is one that a client asked.
type Question struct {
	Client  string // the host's name, or its address if it is none of the lab's
	Name    string // without the final dot
	Type    string // A, AAAA, …
	Network string // udp or tcp
}

type dnsRule struct {
	clients []netip.Addr // none: every client
	name    string
	answer  Answer
}

// DNS starts the name server at its first call and returns it.
func (l *Lab) DNS() *DNS {
	l.helper()
	l.dnsMu.Lock()
	defer l.dnsMu.Unlock()
	if l.dns != nil {
		return l.dns
	}
	d := &DNS{lab: l}
	for _, h := range append(l.Hosts(), l.Router()) {
		d.Set(h.name+".lab", h.Addrs()...)
	}
	host := l.Host("dns")
	for _, a := range host.Addrs() {
		address := net.JoinHostPort(a.String(), strconv.Itoa(dnsPort))
		pc, err := host.ListenPacket("udp", address)
		if err != nil {
			l.fatal(err)
		}
		ln, err := host.Listen("tcp", address)
		if err != nil {
			l.fatal(err)
		}
		// Both end with their sockets, which the lab closes.
		go func() { _ = (&dns.Server{PacketConn: pc, Handler: d}).ActivateAndServe() }()
		go func() { _ = (&dns.Server{Listener: ln, Handler: d}).ActivateAndServe() }()
	}
	l.dns = d
	return d
}

// Set gives a name addresses, for every client. A name *.x stands for all names
// below x, and Any for all names.
func (d *DNS) Set(name string, addrs ...netip.Addr) (undo func()) {
	return d.Answer(Any, name, Answer{Addrs: addrs})
}

// Lie tells one client (a host, a network or Any) other addresses.
func (d *DNS) Lie(client, name string, addrs ...netip.Addr) (undo func()) {
	d.lab.helper()
	return d.Answer(client, name, Answer{Addrs: addrs})
}

// NXDomain tells the client that the name does not exist.
func (d *DNS) NXDomain(client, name string) (undo func()) {
	d.lab.helper()
	return d.Answer(client, name, Answer{Rcode: dns.RcodeNameError})
}

// Silence leaves the client's questions for the name without an answer.
func (d *DNS) Silence(client, name string) (undo func()) {
	d.lab.helper()
	return d.Answer(client, name, Answer{Silent: true})
}

// Answer decides what the client hears when it asks for the name. The newest
// rule that fits both counts.
func (d *DNS) Answer(client, name string, a Answer) (undo func()) {
	d.lab.helper()
	r := &dnsRule{name: canonical(name), answer: a}
	if client != Any && client != "" {
		hosts, err := d.lab.members(client)
		if err != nil {
			d.lab.fatal(err)
		}
		for _, h := range hosts {
			r.clients = append(r.clients, h.Addrs()...)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, r)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rules = slices.DeleteFunc(d.rules, func(other *dnsRule) bool { return other == r })
	}
}

// Asked are the questions so far, those too that got no answer.
func (d *DNS) Asked() []Question {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.asked)
}

// find is the answer for a client that asks for a name.
func (d *DNS) find(client netip.Addr, name string) (Answer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range slices.Backward(d.rules) {
		if r.covers(name) && (len(r.clients) == 0 || slices.Contains(r.clients, client)) {
			return r.answer, true
		}
	}
	return Answer{}, false
}

func (r *dnsRule) covers(name string) bool {
	if below, ok := strings.CutPrefix(r.name, "*."); ok {
		return strings.HasSuffix(name, "."+below)
	}
	return r.name == Any || r.name == name
}

// ServeDNS answers one question, by the contract of dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	}
	client, network := peer(w.RemoteAddr())
	name, qtype := canonical(q.Question[0].Name), q.Question[0].Qtype
	d.note(client, Question{Name: name, Type: dns.TypeToString[qtype], Network: network})

	answer, ok := d.find(client, name)
	if !ok {
		answer.Rcode = dns.RcodeNameError
	}
	if answer.Silent {
		return
	}
	if answer.Delay > 0 {
		time.Sleep(answer.Delay)
	}
	m.Rcode = answer.Rcode
	if answer.Truncated && network == "udp" {
		m.Truncated = true
	} else {
		m.Answer = d.records(client, q.Question[0].Name, qtype, answer)
	}
	_ = w.WriteMsg(m) // the client may have gone
}

// records are the answer's, and those of the name that a CNAME leads to. A chain
// ends after a few steps, for a test may close it to a circle.
func (d *DNS) records(client netip.Addr, name string, qtype uint16, a Answer) []dns.RR {
	var records []dns.RR
	for range 8 {
		header := func(t uint16) dns.RR_Header {
			ttl := a.TTL
			if ttl == 0 {
				ttl = time.Minute
			}
			return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: t, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
		}
		for _, addr := range a.Addrs {
			switch {
			case addr.Is4() && qtype == dns.TypeA:
				records = append(records, &dns.A{Hdr: header(dns.TypeA), A: addr.AsSlice()})
			case !addr.Is4() && qtype == dns.TypeAAAA:
				records = append(records, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: addr.AsSlice()})
			}
		}
		if a.CNAME == "" {
			break
		}
		records = append(records, &dns.CNAME{Hdr: header(dns.TypeCNAME), Target: dns.Fqdn(a.CNAME)})
		name = a.CNAME
		a, _ = d.find(client, canonical(name))
	}
	return records
}

func (d *DNS) note(client netip.Addr, q Question) {
	q.Client = client.String()
	for _, h := range d.lab.hosts {
		if slices.Contains(h.Addrs(), client) {
			q.Client = h.name
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, q)
}

// peer is the address of a client and the protocol that it came by.
func peer(a net.Addr) (netip.Addr, string) {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap(), "udp"
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap(), "tcp"
	}
	return netip.Addr{}, ""
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
