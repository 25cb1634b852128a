package main_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

// path is what a row has between two hosts. The name of an outside host stands in
// outside.
type path struct {
	row      netcontract.RowID
	from, to string
	port     int
	outside  string
}

// injection is a kind of fault.
type injection struct {
	name    string
	inject  func(l *lab.Lab, p path) (undo func())
	verdict preflight.Verdict
	by      func(l *lab.Lab, p path, v6 bool) string
	says    string
}

func byGateway(l *lab.Lab, p path, v6 bool) string { return gateway(p.from)(l, v6).String() }
func byTarget(l *lab.Lab, p path, v6 bool) string  { return address(p.to)(l, v6).String() }
func byName(name string) func(*lab.Lab, path, bool) string {
	return func(*lab.Lab, path, bool) string { return name }
}

// The faults that a path may have.
var (
	dropped = injection{"drop", func(l *lab.Lab, p path) func() { return l.Drop(p.from, p.to, "tcp", p.port) }, preflight.Dropped, byGateway, "is the last router that answers"}
	reject  = injection{"reject", func(l *lab.Lab, p path) func() {
		return l.Reject(p.from, p.to, "tcp", p.port, lab.AdminProhibited)
	}, preflight.Rejected, byGateway, "prohibited"}
	unreach = injection{"host unreachable", func(l *lab.Lab, p path) func() {
		return l.Reject(p.from, p.to, "tcp", p.port, lab.HostUnreachable)
	}, preflight.Rejected, byGateway, "unreachable"}
	reset        = injection{"RST", func(l *lab.Lab, p path) func() { return l.Reject(p.from, p.to, "tcp", p.port, lab.TCPReset) }, preflight.Closed, byGateway, "in the name of"}
	resetAway    = injection{"RST", reset.inject, preflight.Closed, byTarget, "a reset came back"}
	hostDrop     = injection{"drop by the host", func(l *lab.Lab, p path) func() { return l.DropByHost(p.from, p.to, "tcp", p.port) }, preflight.Dropped, byTarget, "packets arrived at"}
	hostDropAway = injection{"drop by the host", hostDrop.inject, preflight.Dropped, byGateway, "is the last router that answers"}
	hostReject   = injection{"reject by the host", func(l *lab.Lab, p path) func() {
		return l.RejectByHost(p.from, p.to, "tcp", p.port, lab.AdminProhibited)
	}, preflight.Rejected, byTarget, "the firewall of"}
	hostReset   = injection{"RST by the host", func(l *lab.Lab, p path) func() { return l.RejectByHost(p.from, p.to, "tcp", p.port, lab.TCPReset) }, preflight.Closed, byTarget, "although"}
	oneWay      = injection{"asymmetric drop", func(l *lab.Lab, p path) func() { return l.AsymmetricDrop(p.from, p.to, "tcp", p.port) }, preflight.Dropped, nil, "its answers are dropped on the way back"}
	oneWayAway  = injection{"asymmetric drop", oneWay.inject, preflight.Dropped, nil, "left this host, and no answer came"}
	foreign     = injection{"wrong service", func(l *lab.Lab, p path) func() { return l.DNAT(p.from, p.to, "tcp", p.port, "mitm", 2222) }, preflight.WrongService, byTarget, "answers on"}
	anotherNode = injection{"wrong host", func(l *lab.Lab, p path) func() { return l.DNAT(p.from, p.to, "tcp", p.port, "node5", p.port) }, preflight.WrongHost, byName("node5"), "node5"}
	anotherName = injection{"wrong host", func(l *lab.Lab, p path) func() { return l.DNAT(p.from, p.to, "tcp", p.port, "other", 443) }, preflight.WrongHost, byName("elsewhere.lab"), "elsewhere.lab"}
	inspection  = injection{"MITM", func(l *lab.Lab, p path) func() { return l.DNAT(p.from, p.to, "tcp", p.port, "mitm", 8443) }, preflight.Intercepted, byName("Corp Inspection CA"), "Corp Inspection CA"}
	shown       = injection{"exposed", func(*lab.Lab, path) func() { return func() {} }, preflight.Exposed, byTarget, "for the cluster's nodes alone"}
)

// faultCase is one line of the table.
type faultCase struct {
	path
	injection
	v4, v6 bool
	undo   func()
}

func (c faultCase) title(v6 bool) string {
	return fmt.Sprintf("%s, %s -> %s port %d%s: %s, IPv%d", c.row, c.from, c.to, c.port, c.outside, c.name, map[bool]int{false: 4, true: 6}[v6])
}

// find is the finding of a case.
func (c faultCase) find(l *lab.Lab, r *preflight.Report, v6 bool) (preflight.Finding, bool) {
	if r == nil {
		return preflight.Finding{}, false
	}
	to, protocol := c.to, netcontract.TCP
	if c.outside != "" {
		to = c.outside
	}
	if strings.HasPrefix(c.name, "UDP") {
		protocol = netcontract.UDP
	}
	if c.row == netcontract.DNS {
		to = address(c.to)(l, v6).String()
	}
	if c.row == netcontract.ICMPEcho {
		protocol = netcontract.ICMP
	}
	i := slices.IndexFunc(r.Findings, func(f preflight.Finding) bool {
		return f.From == c.from && f.To == to && f.Row == c.row && (f.Port == c.port || f.Port == 0) && f.Protocol == protocol && (!f.Address.IsValid() || f.Address.Is6() == v6)
	})
	if i < 0 {
		return preflight.Finding{}, false
	}
	return r.Findings[i], true
}

// check reads the verdict, who is blamed, and whether there is something to do.
func (c faultCase) check(t *testing.T, l *lab.Lab, r *preflight.Report, v6 bool) preflight.Finding {
	t.Helper()
	f, ok := c.find(l, r, v6)
	if !ok {
		t.Fatal("there is no finding")
	}
	if f.Verdict != c.verdict || f.OK {
		t.Errorf("the verdict is %q (ok %v), want %q\n%s", f.Verdict, f.OK, c.verdict, show(f))
	}
	if c.by != nil && f.By != c.by(l, c.path, v6) {
		t.Errorf("%q is blamed, want %q\n%s", f.By, c.by(l, c.path, v6), show(f))
	}
	if !strings.Contains(show(f), c.says) {
		t.Errorf("it does not say %q\n%s", c.says, show(f))
	}
	if len(f.Evidence) == 0 || f.Remedy == "" {
		t.Errorf("there is no evidence, or no remedy\n%s", show(f))
	}
	return f
}

// faultTable is every kind of row with the faults that it can have.
func faultTable(t *testing.T, l *lab.Lab) []faultCase {
	proxy := injection{"transparent proxy", func(l *lab.Lab, p path) func() {
		port := relayPort.next()
		relay(t, l, port, p.to, p.port)
		return l.DNAT(p.from, p.to, "tcp", p.port, lab.RouterName, port)
	}, preflight.TransparentProxy, nil, "live for one hop"}

	var all []faultCase
	add := func(p path, i injection) { all = append(all, faultCase{path: p, injection: i, v4: true, v6: true}) }

	// Between nodes: each row with each fault, on twelve ordered pairs.
	rows := []struct {
		id   netcontract.RowID
		port int
	}{{netcontract.Database, 27017}, {netcontract.Control, 7777}, {netcontract.RateLimit, 9001}, {netcontract.WebtaskLogs, 8721}, {netcontract.WebtaskControl, 8701},
		{netcontract.SearchHTTP, 9200}, {netcontract.SearchTransport, 9350}, {netcontract.Grafana, 3000}, {netcontract.Maintenance, 22}}
	faults := []injection{dropped, reject, reset, hostDrop, hostReject, oneWay, foreign, anotherNode, proxy}
	var pairs [][2]string
	for _, from := range []string{"node1", "node2", "node3", "node4"} {
		for _, to := range []string{"node1", "node2", "node3", "node4"} {
			if from != to {
				pairs = append(pairs, [2]string{from, to})
			}
		}
	}
	for r, row := range rows {
		for k, f := range faults {
			pair := pairs[(r+k)%len(pairs)]
			add(path{row: row.id, from: pair[0], to: pair[1], port: row.port}, f)
		}
	}
	icmp := func(p path) path { p.row, p.port = netcontract.ICMPEcho, 0; return p }
	add(icmp(path{from: "node1", to: "node5"}), injection{"ICMP off", func(l *lab.Lab, p path) func() { return l.DropICMP(p.from, p.to) }, preflight.Dropped, nil, "none arrived at node5"})
	add(icmp(path{from: "node2", to: "node5"}), injection{"ICMP off at the host", func(l *lab.Lab, p path) func() { return l.DropByHost(p.from, p.to, "icmp", 0) }, preflight.Dropped, byTarget, "packets arrived at node5"})

	// Who comes from outside, and whom nodes call.
	on := func(row netcontract.RowID, from string, port int, faults ...injection) {
		for i, f := range faults {
			add(path{row: row, from: from, to: fmt.Sprintf("node%d", i+1), port: port}, f)
		}
	}
	on(netcontract.LB, "lb", 80, dropped, reject, hostReset, hostDrop)
	on(netcontract.LB, "lb", 443, inspection, foreign, anotherNode, proxy)
	// These have one port each: where it fails, there is no way to ask the other side.
	on(netcontract.Health, "monitoring", 9110, dropped, unreach, resetAway, hostReject)
	on(netcontract.JumpHost, "jump", 22, dropped, reject, hostDropAway, foreign)
	on(netcontract.CLI, "cli", 10121, dropped, oneWayAway, inspection, anotherNode)
	for _, row := range rows[:6] {
		add(path{row: row.id, from: "outside", to: "node1", port: row.port}, shown)
	}
	to := func(row netcontract.RowID, host, name string, port int, faults ...injection) {
		for i, f := range faults {
			add(path{row: row, from: fmt.Sprintf("node%d", i+1), to: host, port: port, outside: name}, f)
		}
	}
	to(netcontract.WebtaskCallback, "lb", "", 443, dropped, hostReject, inspection, proxy)
	to(netcontract.UpdateImages, "depot", "depot.lab", 443, dropped, inspection, foreign, resetAway)
	to(netcontract.UpdatePackages, "depot", "depot.lab", 80, reject, proxy, oneWayAway, foreign)
	to(netcontract.Social, "idp", "idp.lab", 443, reject, proxy, dropped, anotherName)
	to(netcontract.SMTP, "mail", "mail.lab", 25, dropped, reject, foreign, resetAway)
	to(netcontract.Traces, "otel", "otel.lab", 4318, oneWayAway, dropped, foreign, reject)

	// The names of outside hosts.
	name := func(node, name, kind string, verdict preflight.Verdict, says string, inject func(node, name string) func()) {
		all = append(all, faultCase{v4: true, path: path{row: netcontract.Social, from: node, to: "idp", port: 443, outside: name},
			injection: injection{kind, func(*lab.Lab, path) func() { return inject(node, name) }, verdict, func(l *lab.Lab, _ path, _ bool) string { return l.Host("dns").Addrs()[0].String() }, says}})
	}
	d := l.DNS()
	name("node1", "lie.lab", "DNS lie", preflight.Differently, "on node1", func(node, name string) func() { return d.Lie(node, name, l.Host("mitm").Addrs()...) })
	name("node2", "gone.lab", "NXDOMAIN", preflight.NotResolving, "NXDOMAIN", func(node, name string) func() { return d.NXDomain(node, name) })
	name("node3", "fail.lab", "SERVFAIL", preflight.NotResolving, "SERVFAIL", func(node, name string) func() {
		return d.Answer(node, name, lab.Answer{Rcode: dns.RcodeServerFailure})
	})
	name("node4", "mute.lab", "no answer of the name server", preflight.NotResolving, "does not answer", func(node, name string) func() { return d.Silence(node, name) })
	for i := range all {
		if strings.Contains(all[i].says, "does not answer") || all[i].says == "SERVFAIL" {
			all[i].by = nil // the last one that was asked
		}
	}
	return all
}

// relayPort hands out ports of the router.
var relayPort numbers = 20000

type numbers int

func (c *numbers) next() int { *c++; return int(*c) }

// outsideServices serves what the rows that lead out lead to.
func outsideServices(t *testing.T, l *lab.Lab) (roots string) {
	t.Helper()
	ca, key := authority(t, "Depot CA")
	roots = filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	web := func(host string, port int, names ...string) {
		for _, a := range l.Host(host).Addrs() {
			ln, err := l.Host(host).Listen("tcp", netip.AddrPortFrom(a, uint16(port)).String())
			if err != nil {
				t.Fatal(err)
			}
			if len(names) > 0 {
				ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{leaf(t, ca, key, names)}})
			}
			srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: quiet()}
			t.Cleanup(func() { srv.Close() })
			go func() { _ = srv.Serve(ln) }()
		}
	}
	web("depot", 443, "depot.lab")
	web("depot", 80)
	web("idp", 443, "idp.lab", "lie.lab", "gone.lab", "fail.lab", "mute.lab")
	web("other", 443, "elsewhere.lab")
	web("otel", 4318)
	speak(t, l.Host("mail"), 25, "220 mail.lab ESMTP\r\n")
	intercept(t, l.Host("mitm"))
	intercept443(t, l.Host("mitm"))
	speak(t, l.Host("mitm"), 2222, "SSH-2.0-Somebody\r\n")
	d := l.DNS()
	for _, n := range []string{"lie.lab", "gone.lab", "fail.lab", "mute.lab"} {
		d.Set(n, l.Host("idp").Addrs()...)
	}
	return roots
}

// outsideArgs name the hosts of outsideServices.
func outsideArgs(l *lab.Lab, roots string) []string {
	var servers []string
	for _, a := range l.Host("dns").Addrs() {
		servers = append(servers, a.String())
	}
	return []string{"--depot", "depot.lab", "--providers", "idp.lab,lie.lab,gone.lab,fail.lab,mute.lab", "--smtp", "mail.lab", "--traces", "otel.lab", "--dns", strings.Join(servers, ","), "--ca", roots}
}

func authority(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func leaf(t *testing.T, ca *x509.Certificate, by *ecdsa.PrivateKey, names []string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPreflightOfNameServers has one node with each fault of a name server's row.
// Each is alone: no other host is needed to see them.
func TestPreflightOfNameServers(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 4})
	l.DNS()
	var servers []string
	for _, a := range l.Host("dns").Addrs() {
		servers = append(servers, a.String())
	}
	var cases []faultCase
	add := func(p path, i injection) {
		i.inject(l, p)
		cases = append(cases, faultCase{path: p, injection: i})
	}
	udp := func(name string, verdict preflight.Verdict, by func(*lab.Lab, path, bool) string, says string, inject func(p path) func()) injection {
		return injection{"UDP " + name, func(_ *lab.Lab, p path) func() { return inject(p) }, verdict, by, says}
	}
	from := func(node string) path { return path{row: netcontract.DNS, from: node, to: "dns", port: 53} }
	add(from("node1"), udp("drop", preflight.Dropped, byGateway, "is the last router that answers", func(p path) func() { return l.Drop(p.from, p.to, "udp", 53) }))
	add(from("node2"), udp("reject", preflight.Rejected, byGateway, "prohibited", func(p path) func() { return l.Reject(p.from, p.to, "udp", 53, lab.AdminProhibited) }))
	add(from("node3"), udp("closed", preflight.Closed, byTarget, "nobody listens there", func(p path) func() { return l.RejectByHost(p.from, p.to, "udp", 53, lab.PortUnreachable) }))
	add(from("node4"), dropped)
	run := func() map[string]*preflight.Report {
		reports := map[string]*preflight.Report{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, h := range l.Nodes() {
			wg.Go(func() {
				r := alone(t, h, nil, "--self", h.Name(), "--row", "dns", "--dns", strings.Join(servers, ","))
				mu.Lock()
				defer mu.Unlock()
				reports[h.Name()] = r
			})
		}
		wg.Wait()
		return reports
	}
	reports := run()
	fixes := &repair{t: t, l: l}
	for _, c := range cases {
		for _, v6 := range []bool{false, true} {
			t.Run(c.title(v6), func(t *testing.T) { fixes.apply(c.check(t, l, reports[c.from], v6)) })
		}
	}
	fixes.load()
	for name, r := range run() {
		if r == nil || r.Exit() != preflight.ExitHolds {
			t.Errorf("after the remedy %s still fails: %+v", name, r)
		}
	}
}

// alone runs the program on one host without others.
func alone(t *testing.T, h *lab.Host, env []string, args ...string) *preflight.Report {
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		t.Error(err)
		return nil
	}
	cmd := h.Command(t.Context(), exe, append([]string{"preflight", "-o", "json"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, runErr := cmd.Output()
	var r preflight.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Errorf("%s: %v: %v %s", h.Name(), err, runErr, errs.String())
		return nil
	}
	return &r
}

// TestPreflightFaultTable puts every kind of row under the faults that it can have,
// over IPv4 and IPv6, all in one network; reads the verdicts and who is blamed;
// does what the report proposes; and sees the rows hold.
func TestPreflightFaultTable(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 5, Services: []string{"idp", "mail", "otel", "mitm", "other"}})
	roots := outsideServices(t, l)
	cases := faultTable(t, l)
	for i := range cases {
		cases[i].undo = cases[i].inject(l, cases[i].path)
	}
	s := newSwarm(t, l, "node1", "node2", "node3", "node4", "node5", "lb", "monitoring", "jump", "cli", "outside")
	args := append(outsideArgs(l, roots), "--linger", "10s")
	request := t.TempDir()
	reports := s.run(append(args, "--change-request", request)...)
	families := func(c faultCase) []bool {
		if c.v6 {
			return []bool{false, true}
		}
		return []bool{false}
	}
	count := 0
	fixes := &repair{t: t, l: l}
	for _, c := range cases {
		for _, v6 := range families(c) {
			count++
			t.Run(c.title(v6), func(t *testing.T) {
				f := c.check(t, l, reports[c.from], v6)
				if f.Fix != nil {
					fixes.apply(f)
				} else if c.undo != nil {
					c.undo() // what a name server says, its operator corrects
				}
			})
		}
	}
	fixes.load()
	if count < 40 {
		t.Errorf("the table has %d cases", count)
	}
	// The same hosts again, and what became of it.
	reports = s.run(append(args, "--rerun", request)...)
	for _, c := range cases {
		for _, v6 := range families(c) {
			f, ok := c.find(l, reports[c.from], v6)
			if !ok || !f.OK {
				t.Errorf("after the remedy, %s: %s", c.title(v6), show(f))
			}
		}
	}
	for name, r := range reports {
		for _, f := range r.Failures() {
			if f.Required() && f.From == name && name != "outside" {
				t.Errorf("after all remedies %s still has: %s", name, show(f))
			}
		}
	}
	holds := 0
	for _, c := range reports["node1"].Before {
		if c.Holds {
			holds++
		}
	}
	if holds == 0 {
		t.Error("node1's second report shows no failure of the first that holds now")
	}
	t.Logf("%d cases", count)
}

// repair does what reports propose: commands on their host, and elsewhere what the
// administrator of the router or the host would do to let the traffic through.
type repair struct {
	t       *testing.T
	l       *lab.Lab
	rules   map[string]map[string]string // the tables of a host, by name
	scripts map[string]*strings.Builder
	done    []string
}

func (r *repair) apply(f preflight.Finding) {
	x := f.Fix
	switch {
	case len(x.Commands) > 0:
		for _, c := range x.Commands {
			if !slices.Contains(r.done, x.At+c) {
				r.l.Host(x.At).Run("sh", "-c", c)
				r.done = append(r.done, x.At+c)
			}
		}
	case x.Action == preflight.FixClose:
		r.l.Host(x.At).Nft(fmt.Sprintf("table inet closed%d { chain in { type filter hook input priority 0; policy accept; %s drop; }; }", relayPort.next(), match(*x.Traffic)))
	default:
		r.admit(r.l.Router(), "forward", *x.Traffic, x.Action)
		for _, h := range r.l.Hosts() {
			if slices.Contains(h.Addrs(), x.Traffic.Destination) {
				r.admit(h, "input", *x.Traffic, x.Action)
			}
		}
		if x.Traffic.Answers {
			t := *x.Traffic
			t.Source, t.Destination, t.Port, t.SourcePort = t.Destination, t.Source, 0, t.Port
			r.admit(r.l.Router(), "forward", t, x.Action)
		}
	}
}

func match(t preflight.Traffic) string {
	family := "ip"
	if t.Destination.Is6() {
		family = "ip6"
	}
	m := fmt.Sprintf("%s saddr %s %s daddr %s ", family, t.Source, family, t.Destination)
	switch {
	case t.Protocol == netcontract.ICMP && t.Destination.Is6():
		return m + "meta l4proto ipv6-icmp"
	case t.Protocol == netcontract.ICMP:
		return m + "meta l4proto icmp"
	case t.SourcePort > 0:
		return m + fmt.Sprintf("%s sport %d", t.Protocol, t.SourcePort)
	}
	return m + fmt.Sprintf("%s dport %d", t.Protocol, t.Port)
}

// admit puts an accepting rule before those of a host that are for the traffic. A
// proposal with a wrong address or port finds none, and mends nothing.
func (r *repair) admit(h *lab.Host, hook string, traffic preflight.Traffic, action preflight.FixAction) {
	if r.rules == nil {
		r.rules, r.scripts = map[string]map[string]string{}, map[string]*strings.Builder{}
	}
	if r.rules[h.Name()] == nil {
		tables, name := map[string]string{}, ""
		for s := bufio.NewScanner(strings.NewReader(h.Run("nft", "list", "ruleset"))); s.Scan(); {
			if rest, ok := strings.CutPrefix(s.Text(), "table inet "); ok {
				name = strings.TrimSuffix(rest, " {")
			}
			tables[name] += s.Text() + "\n"
		}
		r.rules[h.Name()], r.scripts[h.Name()] = tables, &strings.Builder{}
	}
	if action == preflight.FixExempt {
		hook = "prerouting"
	}
	p := fmt.Sprintf("dport %d ", traffic.Port)
	if traffic.SourcePort > 0 {
		p = fmt.Sprintf("sport %d ", traffic.SourcePort)
	}
	if traffic.Protocol == netcontract.ICMP {
		p = "icmp"
	}
	for name, text := range r.rules[h.Name()] {
		if strings.Contains(text, "hook "+hook) && strings.Contains(text, "saddr "+traffic.Source.String()+" ") && strings.Contains(text, "daddr "+traffic.Destination.String()+" ") && strings.Contains(text, p) {
			fmt.Fprintf(r.scripts[h.Name()], "insert rule inet %s fault %s accept\n", name, match(traffic))
		}
	}
}

func (r *repair) load() {
	r.t.Helper()
	for host, script := range r.scripts {
		file := filepath.Join(r.t.TempDir(), "rules.nft")
		if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
			r.t.Fatal(err)
		}
		r.l.Host(host).Run("nft", "-f", file)
	}
}

// TestPreflightThroughAProxy has a network whose way out is a proxy.
func TestPreflightThroughAProxy(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1, Services: []string{"idp", "mail", "otel", "mitm", "other", "proxy"}})
	roots := outsideServices(t, l)
	node, address := l.Host("node1"), l.Host("proxy").Addr4()
	httpProxy(t, l.Host("proxy"), 3128, "idp.lab:443")
	undo := l.Drop("node1", "idp", "tcp", 443)
	url := "http://" + netip.AddrPortFrom(address, 3128).String()
	look := func(env []string, args ...string) preflight.Finding {
		t.Helper()
		r := alone(t, node, env, append([]string{"--self", "node1", "--row", "social", "--providers", "idp.lab", "--ca", roots}, args...)...)
		if r == nil {
			t.FailNow()
		}
		return find(t, r, "node1", "idp.lab", netcontract.Social, 443, false)
	}
	if f := look(nil); f.OK || f.Verdict != preflight.Dropped {
		t.Errorf("without a proxy: %s", show(f))
	}
	if f := look([]string{"HTTPS_PROXY=" + url}); f.OK || f.Verdict != preflight.ProxyNeeded || !strings.Contains(f.Remedy, "network.proxy") {
		t.Errorf("the environment's proxy: %s", show(f))
	}
	if f := look([]string{"HTTPS_PROXY=" + url, "NO_PROXY=idp.lab"}); f.OK || f.Verdict != preflight.Dropped {
		t.Errorf("NO_PROXY: %s", show(f))
	}
	if f := look(nil, "--proxy", url); !f.OK || f.Verdict != preflight.ProxyNeeded {
		t.Errorf("the appliance's proxy: %s", show(f))
	}
	undo()
	if f := look(nil, "--proxy", url); !f.OK || f.Verdict != preflight.Open {
		t.Errorf("both ways work: %s", show(f))
	}
	refuse := "http://" + netip.AddrPortFrom(address, 3129).String()
	httpProxy(t, l.Host("proxy"), 3129, "nothing:1")
	if f := look(nil, "--proxy", refuse); f.OK || f.Verdict != preflight.Rejected || !strings.Contains(f.Sentence, "403") {
		t.Errorf("a proxy that refuses: %s", show(f))
	}
	if f := look(nil, "--proxy", "http://"+netip.AddrPortFrom(address, 1).String()); f.OK || !strings.Contains(f.Sentence, "gives no way") {
		t.Errorf("a proxy that is not there: %s", show(f))
	}
}

// httpProxy tunnels to one target alone (CONNECT, RFC 9110 section 9.3.6).
func httpProxy(t *testing.T, h *lab.Host, port int, target string) {
	t.Helper()
	ln, err := h.Listen("tcp", netip.AddrPortFrom(h.Addr4(), uint16(port)).String())
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ErrorLog: quiet(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != target {
			http.Error(w, "not here", http.StatusForbidden)
			return
		}
		up, err := h.Dial(r.Context(), "tcp4", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(up, down) }()
		_, _ = io.Copy(down, up)
	})}
	t.Cleanup(func() { srv.Close() })
	go func() { _ = srv.Serve(ln) }()
}

// TestPreflightFindsThisHostsOwnFirewall has a host that keeps its own packets, in
// the language of each firewall that it may have, and does what is proposed.
func TestPreflightFindsThisHostsOwnFirewall(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1, Services: []string{"idp", "mail", "otel", "mitm", "other"}})
	roots := outsideServices(t, l)
	node := l.Host("node1")
	look := func() *preflight.Report {
		return alone(t, node, nil, "--self", "node1", "--row", "update-images", "--depot", "depot.lab", "--ca", roots)
	}
	table := func() func() {
		return node.Nft(`table inet mine { chain out { type filter hook output priority 0; policy accept; tcp dport 443 counter drop; }; }`)
	}
	for _, tt := range []struct {
		name, kind string
		load       func() func()
	}{
		{"nftables", "nftables", table},
		{"iptables", "iptables", func() func() {
			for _, tool := range []string{"iptables", "ip6tables"} {
				node.Run(tool, "-A", "OUTPUT", "-p", "tcp", "--dport", "443", "-j", "DROP")
			}
			return func() {
				for _, tool := range []string{"iptables", "ip6tables"} {
					node.Run(tool, "-F", "OUTPUT")
				}
			}
		}},
		// The tables of iptables stay, empty: the rule to add belongs to the table that drops.
		{"nftables beside iptables", "nftables", table},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.name, "iptables") {
				wants(t, "iptables", "ip6tables")
			}
			defer tt.load()()
			r := look()
			fixes := &repair{t: t, l: l}
			for _, v6 := range []bool{false, true} {
				f := find(t, r, "node1", "depot.lab", netcontract.UpdateImages, 443, v6)
				if f.OK || f.Fix == nil || f.Fix.At != "node1" || f.Fix.Firewall != tt.kind || !strings.Contains(f.Sentence, "own firewall drops") {
					t.Fatalf("%s", show(f))
				}
				fixes.apply(f)
			}
			if r := look(); r == nil || r.Exit() != preflight.ExitHolds {
				t.Errorf("after the remedy: %+v", r)
			}
		})
	}
}

// TestPreflightOnOtherFirewalls proposes rules for the firewall that a peer has.
func TestPreflightOnOtherFirewalls(t *testing.T) {
	for kind, load := range map[string]func(h *lab.Host){
		"iptables": func(h *lab.Host) {
			for _, tool := range []string{"iptables", "ip6tables"} {
				h.Run(tool, "-A", "INPUT", "-p", "tcp", "--dport", "7777", "-j", "DROP")
				h.Run(tool, "-A", "INPUT", "-p", "tcp", "--dport", "9001", "-j", "REJECT")
			}
		},
		"nftables": func(h *lab.Host) {
			h.Nft(`table inet mine { chain in { type filter hook input priority 0; policy drop; ct state established,related accept; meta l4proto { icmp, ipv6-icmp } accept; tcp dport { 27017, 8701 } accept; }; }`)
		},
	} {
		t.Run(kind, func(t *testing.T) {
			if kind == "iptables" {
				wants(t, "iptables", "ip6tables")
			}
			l := lab.New(t, lab.Options{Nodes: 2})
			load(l.Host("node2"))
			s := newSwarm(t, l, "node1", "node2")
			args := []string{"--row", "control", "--row", "rate-limit", "--row", "database"}
			r := s.run(args...)
			fixes := &repair{t: t, l: l}
			for _, row := range []struct {
				id   netcontract.RowID
				port int
			}{{netcontract.Control, 7777}, {netcontract.RateLimit, 9001}} {
				for _, v6 := range []bool{false, true} {
					f := find(t, r["node1"], "node1", "node2", row.id, row.port, v6)
					if f.OK || f.Fix == nil || f.Fix.At != "node2" || f.Fix.Firewall != kind || f.By != f.Address.String() {
						t.Fatalf("%s", show(f))
					}
					fixes.apply(f)
				}
			}
			if r := s.run(args...)["node1"]; r == nil || r.Exit() != preflight.ExitHolds {
				t.Errorf("after the remedy: %s", show(r.Failures()[0]))
			}
		})
	}
}

// TestPreflightOfAnotherSwarm runs two hosts with different tokens, while a
// stranger floods one of them.
func TestPreflightOfAnotherSwarm(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	s := newSwarm(t, l, "node1", "node2")
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	reports := make([]preflight.Report, 2)
	for i, name := range s.names {
		wg.Go(func() {
			out, _ := l.Host(name).Command(t.Context(), exe, "preflight", "--peers", strings.Join(s.hosts, ","), "--self", name, "--token", preflight.NewToken(),
				"-o", "json", "--row", "control", "--wait", "2s", "--linger", "1s").Output() // exit 1 is an answer
			if err := json.Unmarshal(out, &reports[i]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	for i, r := range reports {
		if r.Exit() != preflight.ExitFails || len(r.Silent) != 1 {
			t.Errorf("%s: exit %d, silent %v", s.names[i], r.Exit(), r.Silent)
		}
		if !strings.Contains(strings.Join(r.Notes, "\n"), "not of this run were dropped") {
			t.Errorf("%s does not say that it dropped messages: %q", s.names[i], r.Notes)
		}
	}
}
