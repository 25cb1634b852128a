package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	free "github.com/portcullis-id/portcullis/internal/ports"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

func addrs(text ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range text {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestNamesAreCompared(t *testing.T) {
	for _, tt := range []struct {
		name   string
		known  []netip.Addr
		answer map[string][]netip.Addr
		proved string
		want   string // hosts with a finding
	}{
		{"all alike", nil, map[string][]netip.Addr{"a": addrs("192.0.2.1"), "b": addrs("192.0.2.1")}, "", ""},
		{"one of several is shared", nil, map[string][]netip.Addr{"a": addrs("192.0.2.1", "192.0.2.2"), "b": addrs("192.0.2.2", "192.0.2.3")}, "", ""},
		{"one lies", nil, map[string][]netip.Addr{"a": addrs("192.0.2.1"), "b": addrs("192.0.2.1"), "c": addrs("10.6.6.6")}, "", "c"},
		{"two of two differ", nil, map[string][]netip.Addr{"a": addrs("192.0.2.1"), "b": addrs("10.6.6.6")}, "", "a b"},
		{"another place, with the right certificate", nil, map[string][]netip.Addr{"a": addrs("192.0.2.1"), "b": addrs("192.0.2.1"), "c": addrs("192.0.2.9")}, "c", ""},
		{"none of what was published", addrs("192.0.2.1"), map[string][]netip.Addr{"a": addrs("192.0.2.1"), "b": addrs("192.0.2.1", "10.6.6.6")}, "", "b"},
		{"alone, as published", addrs("192.0.2.1", "192.0.2.2"), map[string][]netip.Addr{"a": addrs("192.0.2.1")}, "", ""},
		{"alone, and nothing is known", nil, map[string][]netip.Addr{"a": addrs("192.0.2.1")}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &Report{}
			for from, found := range tt.answer {
				r.Names = append(r.Names, Resolved{From: from, Host: "idp.example.com", Addresses: found, Server: "10.0.0.53", Proved: tt.proved == from})
				r.Findings = append(r.Findings, Finding{Check: Check{Row: "social", From: from, To: "idp.example.com", Host: "idp.example.com", Address: found[0]}, Verdict: Open, OK: true})
			}
			r.compareNames([]Outsider{{Rows: []netcontract.RowID{"social"}, Name: "idp.example.com", Addresses: tt.known}})
			var got []string
			for _, f := range r.Findings {
				if f.Verdict == Differently && !f.OK && f.By == "10.0.0.53" && f.Remedy != "" {
					got = append(got, f.From)
				}
			}
			slices.Sort(got)
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("%q have a finding, want %q", s, tt.want)
			}
		})
	}
}

func TestOutsidersThatAreNone(t *testing.T) {
	long := make([]Outsider, maxOutsiders+1)
	for i := range long {
		long[i] = Outsider{Name: "a.example.com"}
	}
	for name, list := range map[string][]Outsider{"too many": long, "neither name nor address": {{Rows: []netcontract.RowID{"social"}}},
		"a row between nodes": {{Rows: []netcontract.RowID{"control"}, Name: "a.example.com"}}, "no row": {{Rows: []netcontract.RowID{"teleport"}, Name: "a.example.com"}}} {
		if err := validateOutsiders(table(t), list); problem.From(err).Kind != problem.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswersOfNameServers(t *testing.T) {
	r := newRun(Config{Table: table(t)})
	answer := func(change func(m *dns.Msg)) func([]byte) ([]byte, error) {
		return func(q []byte) ([]byte, error) {
			var m dns.Msg
			if err := m.Unpack(q); err != nil {
				return nil, err
			}
			m.Response = true
			change(&m)
			return m.Pack()
		}
	}
	for name, tt := range map[string]struct {
		ask  func([]byte) ([]byte, error)
		want Verdict
	}{
		"answers":             {answer(func(*dns.Msg) {}), Open},
		"no such name":        {answer(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), Open},
		"refused":             {answer(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), NotResolving},
		"failed":              {answer(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), NotResolving},
		"to another question": {answer(func(m *dns.Msg) { m.Id++ }), WrongService},
		"a question back":     {answer(func(m *dns.Msg) { m.Response = false }), WrongService},
		"no DNS":              {func([]byte) ([]byte, error) { return []byte("SSH-2.0-x\r\n"), nil }, WrongService},
		"nothing":             {func([]byte) ([]byte, error) { return nil, nil }, WrongService},
	} {
		if o := r.dnsAnswer(outcome{}, tt.ask); o.verdict != tt.want {
			t.Errorf("%s: %s", name, o.verdict)
		}
	}
}

// TestNameServerThatHangsUp: one that ended a connection which waited is asked again.
func TestNameServerThatHangsUp(t *testing.T) {
	for _, tt := range []struct {
		times int // connections that it ends without an answer
		want  Verdict
	}{{0, Open}, {1, Open}, {2, WrongService}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for range tt.times {
				if c, err := l.Accept(); err == nil {
					c.Close()
				}
			}
			_ = (&dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				_ = w.WriteMsg(new(dns.Msg).SetReply(q))
			})}).ActivateAndServe() // until the listener ends
		}()
		at := netip.MustParseAddrPort(l.Addr().String())
		r := newRun(Config{})
		r.checks = []Check{{Row: netcontract.DNS, Address: at.Addr(), Protocol: netcontract.TCP, Port: int(at.Port()), Outside: true}}
		found := make([]outcome, 1)
		r.connect(t.Context(), found, []int{0})
		if found[0].verdict != tt.want {
			t.Errorf("after %d connections without an answer: %s, %v; want %s", tt.times, found[0].verdict, found[0].err, tt.want)
		}
	}
}

func TestPortsOfThisHost(t *testing.T) {
	r := newRun(Config{Table: table(t), Self: Host{Name: "a", Role: Node}})
	e := &Evidence{Listens: []Listener{{"tcp", "0.0.0.0", 9200, "java"}, {"tcp", "0.0.0.0", 7777, "nginx"}, {"tcp", "::", 22, "sshd"}, {"tcp", "::", 443, "portcullis"}, {"tcp", "::", 80, ""}}}
	for port, want := range map[int]Verdict{9200: Served, 7777: Taken, 22: Served, 443: Served, 80: Taken, 9001: Free} {
		row := map[int]netcontract.RowID{9200: netcontract.SearchHTTP, 7777: netcontract.Control, 22: netcontract.Maintenance, 443: netcontract.LB, 80: netcontract.LB, 9001: netcontract.RateLimit}[port]
		f := r.ownPort(e, Check{Row: row, Protocol: netcontract.TCP, Port: port, Local: true})
		if f.Verdict != want || f.OK != (want != Taken) || !f.OK && (f.Remedy == "" || f.By == "") {
			t.Errorf("port %d: %+v", port, f)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)*time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.9: 91, 0.99: 100, 1: 100} {
		if got := quantile(all, q); got != want*time.Millisecond {
			t.Errorf("%v: %s", q, got)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}

// TestClocksOfARun has two hosts with clocks apart go through whole runs.
func TestClocksOfARun(t *testing.T) {
	for _, skew := range []time.Duration{0, 2300 * time.Millisecond, -2300 * time.Millisecond} {
		t.Run(skew.String(), func(t *testing.T) {
			port, err := free.Free()
			if err != nil {
				t.Fatal(err)
			}
			// The contract with one row, on a port that is free here.
			saved := fmt.Sprintf(`{"schema":1,"profile":"portcullis","between_nodes":[{"id":"control","ports":[{"from":%d,"to":%d}],"protocols":["tcp"],"direction":"mutual","required":true}],"external":[]}`, port, port)
			small, err := netcontract.ParseTable([]byte(saved))
			if err != nil {
				t.Fatal(err)
			}
			token, err := ParseToken(NewToken())
			if err != nil {
				t.Fatal(err)
			}
			hosts := []Host{{"a", Node, addrs("127.0.0.1")}, {"b", Node, addrs("127.0.0.2")}}
			reports := make([]*Report, 2)
			var wg sync.WaitGroup
			for i, self := range hosts {
				wg.Go(func() {
					cfg := Config{Table: small, Self: self, Peers: hosts, Token: token, Wait: 20 * time.Second, Linger: 5 * time.Second, Now: time.Now}
					if i == 1 {
						cfg.Now = func() time.Time { return time.Now().Add(skew) }
					}
					r, stay, err := Run(t.Context(), cfg)
					if err != nil {
						t.Error(err)
						return
					}
					reports[i] = r
					stay()
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			want, exit := "PASS", ExitHolds
			if skew != 0 {
				want, exit = "FAIL", ExitFails
			}
			for i, r := range reports {
				k := slices.IndexFunc(r.Clocks, func(c Clock) bool { return c.From == r.Host })
				if k < 0 {
					t.Fatalf("%s has no clock of the other", r.Host)
				}
				c, injected := r.Clocks[k], skew
				if i == 1 {
					injected = -skew
				}
				if c.Verdict != want || r.Exit() != exit || (c.Offset-injected).Abs() > c.Bound {
					t.Errorf("%s: %+v, exit %d; injected was %s", r.Host, c, r.Exit(), injected)
				}
			}
		})
	}
}

// TestDatagramsOfStrangers floods a responder's UDP port: it answers nobody, says
// how many there were, and still answers its own.
func TestDatagramsOfStrangers(t *testing.T) {
	token, err := ParseToken(NewToken())
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Responder{token: token, self: Host{Name: "b"}, now: time.Now, packets: []net.PacketConn{pc}, results: func(string) json.RawMessage { return nil }}
	r.serve()
	flood, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	for range 1000 {
		_, _ = flood.Write([]byte("who is there?"))
	}
	me := newRun(Config{Token: token, Self: Host{Name: "a"}})
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	if o := me.udp(context.Background(), Check{To: "b", Address: at.Addr(), Port: int(at.Port()), Protocol: netcontract.UDP}); o.verdict != Open {
		t.Errorf("after the flood: %+v", o)
	}
	if r.strangers.Load() == 0 {
		t.Error("no stranger was counted")
	}
	if err := flood.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := flood.Read(make([]byte, 100)); err == nil {
		t.Errorf("a stranger got %d bytes", n)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x1e, 0x61, 0x1e, 0x61})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 20, 17, 64}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parsePacket(b); ok && (!p.source.IsValid() || p.toPort > 65535) {
			t.Errorf("%x is read as %+v", b, p)
		}
	})
}
