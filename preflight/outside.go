package preflight

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/probe"
	"github.com/portcullis-id/portcullis/problem"
)

// Outsider is a host that takes no part in the run, on the other side of rows that
// lead to it: a depot, an identity provider, a name server.
type Outsider struct {
	Rows []netcontract.RowID `json:"rows"`
	// Name is the host's name; empty where addresses are all that is known.
	Name string `json:"name,omitempty"`
	// Addresses are those that were published, or that the operator says.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// label is what the host is called in a report.
func (o Outsider) label() string {
	if o.Name != "" {
		return o.Name
	}
	return o.Addresses[0].String()
}

// maxOutsiders bounds the hosts outside, and maxResolved the addresses of one.
const (
	maxOutsiders = 256
	maxResolved  = 16
	lookupTime   = 3 * time.Second
)

// Validate reports what is wrong with outsiders, all at once.
func validateOutsiders(table netcontract.Table, list []Outsider) error {
	var faults []string
	if len(list) > maxOutsiders {
		faults = append(faults, fmt.Sprintf("there are %d; allowed are %d", len(list), maxOutsiders))
	}
	for _, o := range list {
		if o.Name == "" && len(o.Addresses) == 0 {
			faults = append(faults, fmt.Sprintf("a host of the rows %v has neither a name nor an address", o.Rows))
		}
		for _, id := range o.Rows {
			if row, ok := table.Row(id); !ok || !row.Dials() || row.Section != netcontract.External {
				faults = append(faults, fmt.Sprintf("%s: the row %q leads to no outside host", o.label(), clip(string(id))))
			}
		}
	}
	if len(faults) > 0 {
		return problem.New(problem.Invalid, "invalid_outside", "outside hosts: %s", strings.Join(faults, "; "))
	}
	return nil
}

// Resolved is what a name led to on one host.
type Resolved struct {
	From      string       `json:"from"`
	Host      string       `json:"host"`
	Addresses []netip.Addr `json:"addresses"`
	Server    string       `json:"server,omitempty"` // the name server that answered, or did not
	// Error is empty, or why the name leads nowhere.
	Error string `json:"error,omitempty"`
	// Proved means that each of the addresses showed a certificate for the name that is
	// trusted for its own sake.
	Proved bool `json:"proved,omitempty"`
}

// What a name server says when it does not say addresses.
const (
	nxdomain = "the name does not exist (NXDOMAIN)"
	servfail = "the name server failed (SERVFAIL)"
	noAnswer = "the name server does not answer"
)

// resolve asks this host's own name servers for a name, as its programs do.
func resolve(ctx context.Context, self, name string) Resolved {
	out := Resolved{From: self, Host: name, Addresses: []netip.Addr{}}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var mu sync.Mutex
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		out.Server = address
		mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	found, err := resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
	mu.Lock() // a slow question may still be dialling
	defer mu.Unlock()
	if host, _, e := net.SplitHostPort(out.Server); e == nil {
		out.Server = host
	}
	var e *net.DNSError
	switch {
	case err == nil:
		for _, a := range found {
			if a = a.Unmap(); !slices.Contains(out.Addresses, a) && len(out.Addresses) < maxResolved {
				out.Addresses = append(out.Addresses, a)
			}
		}
		slices.SortFunc(out.Addresses, netip.Addr.Compare)
	case errors.As(err, &e) && e.IsNotFound:
		out.Error = nxdomain
	case errors.As(err, &e) && e.IsTimeout, ctx.Err() != nil:
		out.Error = noAnswer
	case errors.As(err, &e) && strings.Contains(e.Err, "misbehaving"):
		out.Error = servfail
	default:
		out.Error = err.Error()
	}
	return out
}

// lookups resolves the names of the outside hosts and lists what to find out about
// them.
func (r *run) lookups(ctx context.Context) []Check {
	names := make([]Resolved, len(r.Outsiders))
	var wg sync.WaitGroup
	for i, o := range r.Outsiders {
		if o.Name != "" {
			wg.Go(func() { names[i] = resolve(ctx, r.Self.Name, o.Name) })
		}
	}
	wg.Wait()
	var checks []Check
	known := map[string]bool{}
	for i, o := range r.Outsiders {
		addresses := o.Addresses
		if o.Name != "" {
			if !known[o.Name] {
				r.report.Names = append(r.report.Names, names[i])
			}
			known[o.Name] = true
			if len(names[i].Addresses) > 0 {
				addresses = names[i].Addresses
			}
		}
		for _, id := range o.Rows {
			row, ok := r.Table.Row(id)
			if !ok || len(r.Options.Rows) > 0 && !slices.Contains(r.Options.Rows, id) {
				continue
			}
			base := Check{Row: id, From: r.Self.Name, To: o.label(), Host: o.Name, Need: row.Need(), Outside: true, Protocol: netcontract.TCP}
			if o.Name != "" && names[i].Error != "" {
				checks = append(checks, base) // that the name leads nowhere is a finding of its own
			}
			for _, a := range addresses {
				if len(r.Self.Addresses) > 0 && !slices.ContainsFunc(r.Self.Addresses, func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
					continue // this host does not speak the family
				}
				for _, protocol := range row.Protocols {
					for _, port := range ports(row, protocol, r.Thorough) {
						c := base
						c.Address, c.Protocol, c.Port = a, protocol, port
						checks = append(checks, c)
					}
				}
			}
		}
	}
	return checks
}

// speaks is what a port of an outside host has to speak.
func speaks(c Check) string {
	switch {
	case c.Row == netcontract.DNS:
		return "DNS"
	case c.Row == netcontract.SMTP && c.Port != 465:
		return "SMTP"
	case c.Row == netcontract.Traces, c.Port == 80:
		return "HTTP"
	}
	return "TLS"
}

// stranger finds out who is at the other end of a connection to an outside host.
func (r *run) outsider(ctx context.Context, c Check, conn net.Conn, o outcome) outcome {
	o.verdict = Open
	if err := conn.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return outcome{verdict: Failed, err: err}
	}
	switch speaks(c) {
	case "DNS":
		return r.dnsAnswer(o, func(q []byte) ([]byte, error) {
			out := append([]byte{byte(len(q) >> 8), byte(len(q))}, q...) // #nosec G115 -- the length in two bytes (RFC 1035 section 4.2.2); a message is no longer
			if _, err := conn.Write(out); err != nil {
				return nil, err
			}
			head := make([]byte, 2)
			if _, err := io.ReadFull(conn, head); err != nil {
				return nil, err
			}
			raw := make([]byte, int(head[0])<<8|int(head[1]))
			_, err := io.ReadFull(conn, raw)
			return raw, err
		})
	case "SMTP":
		line, err := bufio.NewReader(io.LimitReader(conn, 512)).ReadString('\n')
		if !strings.HasPrefix(line, "220") {
			return wrongService(o, "no greeting of a mail server (RFC 5321 section 3.1) came", err)
		}
	case "HTTP":
		host := c.Host
		if host == "" {
			host = c.addrPort().String()
		}
		_, err := fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: %s\r\nUser-Agent: portcullis-preflight\r\nConnection: close\r\n\r\n", host)
		head := make([]byte, 7)
		if err == nil {
			_, err = io.ReadFull(conn, head)
		}
		if string(head) != "HTTP/1." {
			return wrongService(o, "no answer in HTTP came", err)
		}
	case "TLS":
		return r.certificate(ctx, c, conn, o)
	}
	return o
}

// direct finds out who is at the other end of a connection, once more where that
// side hung up: it may have waited for a question for no longer than the connection
// waited for its turn.
func (r *run) direct(ctx context.Context, c Check, conn net.Conn, o outcome) outcome {
	first := r.outsider(ctx, c, conn, o)
	if !first.hungUp {
		return first
	}
	second, err := dialAgain(ctx, c)
	if err != nil {
		return first
	}
	defer second.Close()
	return r.outsider(ctx, c, second, o)
}

func wrongService(o outcome, what string, err error) outcome {
	o.verdict, o.err = WrongService, errors.New(what)
	o.hungUp = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	if err != nil && !errors.Is(err, io.EOF) {
		o.err = fmt.Errorf("%s: %w", what, err)
	}
	return o
}

// publicRoots are the roots that browsers trust. They come with the program: a
// company's own root in this host's store would make its inspection look right.
var publicRoots = sync.OnceValue(func() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		if c, err := x509.ParseCertificate(root.Certificate); err == nil {
			if root.Constraint != nil {
				pool.AddCertWithConstraint(c, root.Constraint)
			} else {
				pool.AddCert(c)
			}
		}
	}
	return pool
})

// certificate opens TLS and judges whose certificate comes back.
func (r *run) certificate(ctx context.Context, c Check, conn net.Conn, o outcome) outcome {
	var chain []*x509.Certificate
	name := c.Host
	if name == "" {
		name = c.Address.String()
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: name, // #nosec G402 -- the certificate is judged below, and nothing is sent
		VerifyConnection: func(s tls.ConnectionState) error { chain = s.PeerCertificates; return nil }})
	err := client.HandshakeContext(ctx)
	if len(chain) == 0 {
		return wrongService(o, "no TLS answer came", err)
	}
	o.text = issuerOf(chain[0])
	if c.Host == "" {
		o.note = fmt.Sprintf("its certificate is of %q; without a host name there is nothing to hold it against", o.text)
		return o
	}
	trust := func(roots *x509.CertPool, host string) error {
		middle := x509.NewCertPool()
		for _, m := range chain[1:] {
			middle.AddCert(m)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: middle, CurrentTime: r.Now()})
		return err
	}
	given := r.CA
	if given == nil {
		given = x509.NewCertPool()
	}
	for _, pool := range []*x509.CertPool{given, publicRoots()} {
		if trust(pool, c.Host) == nil {
			o.proved = true
			return o
		}
	}
	var invalid x509.CertificateInvalidError
	for _, pool := range []*x509.CertPool{given, publicRoots()} {
		if trust(pool, "") == nil {
			o.verdict, o.text = WrongHost, strings.Join(chain[0].DNSNames, ", ")
			return o
		}
		if errors.As(trust(pool, ""), &invalid) && invalid.Reason == x509.Expired {
			return wrongService(o, fmt.Sprintf("its certificate is valid from %s to %s only", chain[0].NotBefore.UTC().Format(time.RFC3339), chain[0].NotAfter.UTC().Format(time.RFC3339)), nil)
		}
	}
	if trust(nil, c.Host) == nil { // nil are the roots of this host
		if c.Address.IsPrivate() || c.Address.IsLoopback() {
			o.note = fmt.Sprintf("its certificate is of %q, which this host's own store trusts", o.text)
			return o
		}
		o.note = "this host's own store trusts that issuer, as it would a company's inspection; no public store does"
	}
	o.verdict = Intercepted
	return o
}

func issuerOf(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}

// question is what a name server is asked: a name that matters here, or the root.
func (r *run) question() *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(".", dns.TypeNS)
	for _, o := range r.Outsiders {
		if o.Name != "" {
			m.SetQuestion(dns.Fqdn(o.Name), dns.TypeA)
			break
		}
	}
	return m
}

// dnsAnswer asks a question and judges the answer. That a name does not exist is
// an answer.
func (r *run) dnsAnswer(o outcome, ask func(q []byte) ([]byte, error)) outcome {
	m := r.question()
	raw, err := m.Pack()
	if err != nil {
		return outcome{verdict: Failed, err: err}
	}
	answer, err := ask(raw)
	var a dns.Msg
	if err != nil || a.Unpack(answer) != nil || !a.Response || a.Id != m.Id {
		return wrongService(o, "no answer in DNS came", err)
	}
	switch a.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		o.verdict = Open
	default:
		o.verdict, o.text = NotResolving, dns.RcodeToString[a.Rcode]
	}
	return o
}

// httpRow reports whether the appliance calls a row over HTTP, so that a proxy may
// stand in between.
func httpRow(c Check) bool { return c.Outside && c.Row != netcontract.DNS && c.Row != netcontract.SMTP }

// proxies tries the HTTP rows through a proxy: the one that the appliance is
// configured with for all of them, else the environment's for those that fail.
func (r *run) proxies(ctx context.Context, found []outcome) {
	var wg sync.WaitGroup
	for i, c := range r.checks {
		if !httpRow(c) || ctx.Err() != nil {
			continue
		}
		proxy := r.Proxy
		if proxy == nil && !found[i].good() && r.EnvProxy != nil {
			scheme := "https"
			if speaks(c) == "HTTP" {
				scheme = "http"
			}
			proxy, _ = r.EnvProxy(&url.URL{Scheme: scheme, Host: target(c)}) // an environment without sense names none
		}
		if proxy == nil {
			continue
		}
		wg.Go(func() {
			direct := found[i]
			o := r.throughProxy(ctx, c, proxy)
			switch {
			case o.good() && direct.good():
				direct.note = "through the proxy " + proxy.Redacted() + " it works too"
				found[i] = direct
			case o.good():
				direct.direct, direct.verdict, direct.proxy = direct.verdict, ProxyNeeded, proxy
				found[i] = direct
			case r.Proxy != nil:
				o.proxy, o.direct = proxy, direct.verdict
				found[i] = o
			}
		})
	}
	wg.Wait()
}

// target is where a check goes to, by the name where there is one: that is what a
// proxy is asked for.
func target(c Check) string {
	host, p := c.Host, c.Port
	if host == "" {
		host = c.Address.String()
	}
	if p == 0 {
		p = 443
	}
	return net.JoinHostPort(host, port(p))
}

// throughProxy makes a check through an HTTP proxy: CONNECT (RFC 9110 section
// 9.3.6), and for plain HTTP the request itself.
func (r *run) throughProxy(ctx context.Context, c Check, proxy *url.URL) outcome {
	ctx, cancel := context.WithTimeout(ctx, connectTime+exchangeTime)
	defer cancel()
	address := proxy.Host
	if proxy.Port() == "" {
		address = net.JoinHostPort(proxy.Hostname(), map[string]string{"http": "80", "https": "443"}[proxy.Scheme])
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return outcome{verdict: Dropped, err: fmt.Errorf("the proxy %s cannot be reached: %w", proxy.Redacted(), err)}
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return outcome{verdict: Failed, err: err}
	}
	o := outcome{verdict: Open}
	o.by, _ = netip.ParseAddr(hostOf(conn.RemoteAddr().String()))
	stream := conn
	if proxy.Scheme == "https" {
		stream = tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), RootCAs: r.CA, MinVersion: tls.VersionTLS12})
	}
	ask, to := "CONNECT "+target(c), target(c)
	if speaks(c) == "HTTP" {
		ask = "HEAD http://" + target(c) + "/"
	}
	auth := ""
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)) + "\r\n"
	}
	if _, err := fmt.Fprintf(stream, "%s HTTP/1.1\r\nHost: %s\r\n%sUser-Agent: portcullis-preflight\r\n\r\n", ask, to, auth); err != nil {
		return outcome{verdict: Dropped, by: o.by, err: fmt.Errorf("the proxy %s: %w", proxy.Redacted(), err)}
	}
	br := bufio.NewReader(stream)
	method := http.MethodConnect
	if speaks(c) == "HTTP" {
		method = http.MethodHead
	}
	response, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		return outcome{verdict: WrongService, by: o.by, err: fmt.Errorf("the proxy %s gives no answer in HTTP: %w", proxy.Redacted(), err)}
	}
	_ = response.Body.Close() // it has none
	if method == http.MethodHead {
		if response.StatusCode >= 500 || response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusProxyAuthRequired {
			o.verdict, o.text = Rejected, response.Status
		}
		return o
	}
	if response.StatusCode != http.StatusOK {
		o.verdict, o.text = Rejected, response.Status
		return o
	}
	return r.certificate(ctx, c, buffered{stream, br}, o)
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// udpQuestion asks a name server by a datagram.
func (r *run) udpQuestion(ctx context.Context, c Check) outcome {
	var res probe.Result
	o := outcome{}
	asked := r.dnsAnswer(o, func(q []byte) (reply []byte, err error) {
		res, reply = probe.UDP(ctx, probe.Target{Address: c.addrPort()}, q, attempts, connectTime)
		return reply, res.Err
	})
	if res.Outcome != probe.Open {
		return fromProbe(res)
	}
	asked.rtt = res.Took
	return asked
}
