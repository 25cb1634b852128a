package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

// swarm is a preflight in the lab.
type swarm struct {
	t     *testing.T
	l     *lab.Lab
	hosts []string // NAME=ADDRESS[+ADDRESS]@ROLE
	names []string
}

func newSwarm(t *testing.T, l *lab.Lab, names ...string) *swarm {
	t.Helper()
	s := &swarm{t: t, l: l, names: names}
	roles := map[string]preflight.Role{"lb": preflight.LoadBalancer, "outside": preflight.Outside, "jump": preflight.JumpHost, "monitoring": preflight.Monitoring, "cli": preflight.CLI}
	for _, name := range names {
		var addresses []string
		for _, a := range l.Host(name).Addrs() {
			if a.IsValid() {
				addresses = append(addresses, a.String())
			}
		}
		role := roles[name]
		if role == "" {
			role = preflight.Node
		}
		s.hosts = append(s.hosts, fmt.Sprintf("%s=%s@%s", name, strings.Join(addresses, "+"), role))
	}
	return s
}

// run runs the program on every host at the same time and returns their reports.
func (s *swarm) run(args ...string) map[string]*preflight.Report {
	s.t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		s.t.Fatal(err)
	}
	token := preflight.NewToken()
	reports := map[string]*preflight.Report{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range s.names {
		wg.Go(func() {
			all := append([]string{"preflight", "--peers", strings.Join(s.hosts, ","), "--self", name, "--token", token, "-o", "json", "--wait", "10s", "--linger", "4s"}, args...)
			cmd := s.l.Host(name).Command(s.t.Context(), exe, all...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			runErr := cmd.Run()
			var r preflight.Report
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				s.t.Errorf("%s: %v: %v %s", name, err, runErr, errs.String())
				return
			}
			mu.Lock()
			defer mu.Unlock()
			reports[name] = &r
		})
	}
	wg.Wait()
	return reports
}

// find returns what one host found out about another on a port.
func find(t *testing.T, r *preflight.Report, from, to string, row netcontract.RowID, port int, v6 bool) preflight.Finding {
	t.Helper()
	if r == nil {
		t.Fatal("there is no report")
	}
	i := slices.IndexFunc(r.Findings, func(f preflight.Finding) bool {
		return f.From == from && f.To == to && f.Row == row && (port == 0 || f.Port == port) && f.Address.Is6() == v6
	})
	if i < 0 {
		t.Fatalf("%s -> %s, row %s port %d: no finding", from, to, row, port)
	}
	return r.Findings[i]
}

func TestPreflightOfAGoodNetwork(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 3})
	s := newSwarm(t, l, "node1", "node2", "node3", "lb", "monitoring", "jump", "cli")
	for name, r := range s.run() {
		if r.Exit() != preflight.ExitHolds {
			var b bytes.Buffer
			_ = r.Write(&b, "text", false)
			t.Errorf("%s: exit %d\n%s", name, r.Exit(), b.String())
		}
		t.Logf("%s: %s, %d pairs", name, r.Summary(), len(r.Pairs()))
		if len(r.Missing)+len(r.Silent) > 0 || name == "node1" && len(r.Pairs()) < 6 {
			t.Errorf("%s knows only %v; missing %v, silent %v", name, r.Pairs(), r.Missing, r.Silent)
		}
	}
}

// fault is one thing that is wrong with the network, and what preflight has to say.
type fault struct {
	name    string
	row     netcontract.RowID
	from    string
	to      string
	port    int
	inject  func(l *lab.Lab, port int)
	verdict preflight.Verdict
	by      func(l *lab.Lab, v6 bool) netip.Addr // who is to blame; nil where nobody is named
	says    string                               // part of the sentence, the evidence or the remedy
}

// gateway is the router's address on a host's link.
func gateway(host string) func(*lab.Lab, bool) netip.Addr {
	return func(l *lab.Lab, v6 bool) netip.Addr {
		if v6 {
			return l.Host(host).Gateway6()
		}
		return l.Host(host).Gateway4()
	}
}

func address(host string) func(*lab.Lab, bool) netip.Addr {
	return func(l *lab.Lab, v6 bool) netip.Addr {
		if v6 {
			return l.Host(host).Addr6()
		}
		return l.Host(host).Addr4()
	}
}

func (f fault) check(t *testing.T, l *lab.Lab, r *preflight.Report, v6 bool) {
	t.Helper()
	got := find(t, r, f.from, f.to, f.row, f.port, v6)
	raw, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if got.Verdict != f.verdict {
		t.Errorf("the verdict is %q, want %q\n%s", got.Verdict, f.verdict, raw)
	}
	if f.by != nil && got.By != f.by(l, v6).String() {
		t.Errorf("%q is blamed, want %q\n%s", got.By, f.by(l, v6), raw)
	}
	if f.says != "" && !strings.Contains(string(raw), f.says) {
		t.Errorf("it does not say %q\n%s", f.says, raw)
	}
	if bad := f.verdict != preflight.Open && f.verdict != preflight.Served && f.verdict != preflight.Shut; bad == got.OK {
		t.Errorf("ok is %v\n%s", got.OK, raw)
	} else if bad && (len(got.Evidence) == 0 || got.Remedy == "") {
		t.Errorf("there is no evidence, or no remedy\n%s", raw)
	}
}

// speak answers every connection with a banner.
func speak(t *testing.T, h *lab.Host, port int, banner string) {
	t.Helper()
	for _, a := range h.Addrs() {
		l, err := h.Listen("tcp", netip.AddrPortFrom(a, uint16(port)).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(banner))
				_ = c.Close()
			}
		}()
	}
}

func show(f preflight.Finding) string {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// quiet swallows what a server says of clients that hang up.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func intercept(t *testing.T, h *lab.Host)    { interceptOn(t, h, 8443) }
func intercept443(t *testing.T, h *lab.Host) { interceptOn(t, h, 443) }

// interceptOn ends TLS as a company's inspection does, with a certificate of its own.
func interceptOn(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corp Inspection CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range h.Addrs() {
		l, err := h.Listen("tcp", netip.AddrPortFrom(a, uint16(port)).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		tl := tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		go func() {
			for {
				c, err := tl.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(io.Discard, c)
				}()
			}
		}()
	}
}

// TestPreflightOfHardNetworks has one fault for the whole network each.
func TestPreflightOfHardNetworks(t *testing.T) {
	t.Run("a path that loses large packets", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 2})
		l.MTU("node2", 1300)
		l.BlackHolePMTU(lab.Any)
		r := newSwarm(t, l, "node1", "node2").run("--row", "control")
		for _, v6 := range []bool{false, true} {
			fault{row: netcontract.Control, from: "node1", to: "node2", port: 7777, verdict: preflight.MTUBlackHole, says: "ip link set dev eth0 mtu"}.check(t, l, r["node1"], v6)
		}
		fixes := &repair{t: t, l: l}
		fixes.apply(find(t, r["node1"], "node1", "node2", netcontract.Control, 7777, true))
		r = newSwarm(t, l, "node1", "node2").run("--row", "control")
		for _, v6 := range []bool{false, true} {
			fault{row: netcontract.Control, from: "node1", to: "node2", port: 7777, verdict: preflight.Open}.check(t, l, r["node1"], v6)
		}
	})
	t.Run("a path that is far, and loses packets", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 3})
		l.Delay("node1", "node2", 120*time.Millisecond)
		l.Loss("node1", "node3", 30)
		r := newSwarm(t, l, "node1", "node2", "node3").run("--row", "control", "--row", "database", "--row", "search-transport")
		for _, to := range []string{"node2", "node3"} {
			f := find(t, r["node1"], "node1", to, netcontract.Control, 7777, false)
			if f.Verdict != preflight.Slow || f.OK || f.Required() || len(f.RTTs) != 3 {
				t.Errorf("%s", show(f))
			}
			if to == "node2" && f.RTTs[1] < 120 || to == "node3" && f.Loss < 0.1 {
				t.Errorf("%s", show(f))
			}
		}
		if f := find(t, r["node2"], "node2", "node3", netcontract.Control, 7777, false); f.Verdict != preflight.Open {
			t.Errorf("a good path: %s", show(f))
		}
	})
	t.Run("a host that is off", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 3})
		l.Unplug("node3")
		s := newSwarm(t, l, "node1", "node2", "node3")
		s.names = []string{"node1", "node2"} // nothing runs where nothing is on
		r := s.run("--wait", "1s")
		if !slices.Contains(r["node1"].Silent, "node3") || r["node1"].Exit() != preflight.ExitFails {
			t.Errorf("silent are %v, exit %d", r["node1"].Silent, r["node1"].Exit())
		}
		if f := find(t, r["node1"], "node1", "node2", netcontract.Control, 7777, false); !f.OK {
			t.Errorf("node2 is blamed too: %+v", f)
		}
		if f := find(t, r["node1"], "node1", "node3", netcontract.Control, 7777, false); f.OK || f.Remedy == "" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("a host without preflight", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 2})
		s := newSwarm(t, l, "node1", "node2")
		s.names = []string{"node1"}
		r := s.run("--wait", "1s")
		fault{row: netcontract.Control, from: "node1", to: "node2", port: 7777, verdict: preflight.Closed, by: address("node2"), says: "refused"}.check(t, l, r["node1"], false)
	})
	t.Run("a port that its program has", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 2})
		speak(t, l.Host("node2"), 7777, "hello\r\n")
		r := newSwarm(t, l, "node1", "node2").run()
		fault{row: netcontract.Control, from: "node1", to: "node2", port: 7777, verdict: preflight.Served, says: "itself"}.check(t, l, r["node1"], false)
	})
	t.Run("everything dropped", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 2})
		for _, h := range l.Nodes() {
			h.Nft("table inet filter { chain input { type filter hook input priority 0; policy drop; }; }")
		}
		r := newSwarm(t, l, "node1", "node2").run("--wait", "1s")
		for _, v6 := range []bool{false, true} {
			fault{row: netcontract.Control, from: "node1", to: "node2", port: 7777, verdict: preflight.Dropped, says: "own firewall drops"}.check(t, l, r["node1"], v6)
		}
	})
	t.Run("a transparent proxy", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 2})
		relay(t, l, 9999, "node2", 9001)
		l.DNAT("node1", "node2", "tcp", 9001, lab.RouterName, 9999)
		r := newSwarm(t, l, "node1", "node2").run()
		for _, v6 := range []bool{false, true} {
			fault{row: netcontract.RateLimit, from: "node1", to: "node2", port: 9001, verdict: preflight.TransparentProxy, says: "Exempt"}.check(t, l, r["node1"], v6)
		}
	})
	t.Run("IPv6 alone", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 2, IPv6Only: true})
		l.Reject("node1", "node2", "tcp", 9001, lab.AdminProhibited)
		r := newSwarm(t, l, "node1", "node2").run()
		fault{row: netcontract.RateLimit, from: "node1", to: "node2", port: 9001, verdict: preflight.Rejected, by: gateway("node1")}.check(t, l, r["node1"], true)
		fault{row: netcontract.Control, from: "node1", to: "node2", port: 7777, verdict: preflight.Open}.check(t, l, r["node1"], true)
	})
}

// relay is a proxy on the router that passes on what it gets.
func relay(t *testing.T, l *lab.Lab, port int, to string, toPort int) {
	t.Helper()
	r := l.Router()
	for _, v6 := range []bool{false, true} {
		listenOn := "0.0.0.0"
		if v6 {
			listenOn = "::"
		}
		ln, err := r.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(listenOn), uint16(port)).String())
		if err != nil {
			if v6 {
				return // the first takes both families
			}
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					target := address(to)(l, c.RemoteAddr().(*net.TCPAddr).IP.To4() == nil)
					up, err := r.Dial(t.Context(), "tcp", netip.AddrPortFrom(target, uint16(toPort)).String())
					if err != nil {
						return
					}
					defer up.Close()
					go func() { _, _ = io.Copy(up, c) }()
					_, _ = io.Copy(c, up)
				}()
			}
		}()
	}
}

// TestOutsideHostsThatMoved asks a name server that has news.
func TestOutsideHostsThatMoved(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() map[string]string {
		t.Helper()
		raw, _ := l.Host("node1").Command(t.Context(), exe, "network", "addresses", "--profile", "psaas", "-o", "json").Output() // exit 1 is an answer
		var hosts []struct {
			Host   string
			Gained []string
			Gone   []string
			Error  string
		}
		if err := json.Unmarshal(raw, &hosts); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		out := map[string]string{}
		for _, h := range hosts {
			out[h.Host] = fmt.Sprint(h.Gained, h.Gone, h.Error)
		}
		return out
	}
	table, err := netcontract.Contract(netcontract.ProfilePSaaS)
	if err != nil {
		t.Fatal(err)
	}
	dns := l.DNS()
	var moved netcontract.Host
	for _, row := range table.Rows() {
		for _, h := range row.Hosts {
			addrs := h.Addresses
			if len(addrs) == 0 {
				addrs = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
			} else {
				moved = h
			}
			dns.Set(h.Name, addrs...)
		}
	}
	for host, got := range ask() {
		if got != "[] []" {
			t.Errorf("%s, as published: %s", host, got)
		}
	}
	dns.Set(moved.Name, netip.MustParseAddr("198.51.100.99"))
	if got := ask()[moved.Name]; got != fmt.Sprint([]string{"198.51.100.99"}, moved.Addresses, "") {
		t.Errorf("moved: %s", got)
	}
	dns.NXDomain("node1", moved.Name)
	if got := ask()[moved.Name]; got != "[] []the name does not resolve" {
		t.Errorf("gone: %s", got)
	}
}
