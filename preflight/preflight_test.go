package preflight

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

func table(t *testing.T) netcontract.Table {
	t.Helper()
	c, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPlanFollowsTheContract(t *testing.T) {
	node := func(name, address string) Host {
		return Host{name, Node, []netip.Addr{netip.MustParseAddr(address)}}
	}
	node2 := node("node2", "10.0.0.2")
	tests := []struct {
		role   Role
		want   string // rows and ports towards node2
		closed bool
	}{
		{Node, "control:7777 database:27017 grafana:3000 icmp:0 maintenance:22 rate-limit:9001 search-http:9200 search-transport:9300 search-transport:9350 search-transport:9400 webtask-control:8701 webtask-logs:8721", false},
		{Depot, "", false}, {DNSServer, "dns:53 dns:53", false},
		{LoadBalancer, "lb:443 lb:4443 lb:80", false},
		{CLI, "cli:10121", false},
		{Monitoring, "health:9110", false},
		{JumpHost, "jump-host:22", false},
		{Outside, "control:7777 database:27017 rate-limit:9001 search-http:9200 search-transport:9300 search-transport:9350 search-transport:9400 webtask-control:8701 webtask-logs:8721", true},
	}
	for _, tt := range tests {
		self := node("self", "10.0.0.1")
		self.Role = tt.role
		checks, err := Plan(table(t), self, []Host{self, node2, {"other", LoadBalancer, []netip.Addr{netip.MustParseAddr("10.0.0.9")}}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range checks {
			if c.To == "other" && c.Row == netcontract.WebtaskCallback && tt.role == Node {
				continue // the load balancer, which the node calls back
			}
			if c.To != "node2" || c.From != "self" || c.Closed != tt.closed {
				t.Errorf("%s: %+v", tt.role, c)
			}
			got = append(got, fmt.Sprintf("%s:%d", c.Row, c.Port))
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s probes %s\nwant %s", tt.role, s, tt.want)
		}
	}
	checks, err := Plan(table(t), node("node1", "10.0.0.1"), []Host{node2}, Options{Thorough: true, Rows: []netcontract.RowID{netcontract.SearchTransport}})
	if err != nil || len(checks) != 101 {
		t.Errorf("thorough: %d ports, %v", len(checks), err)
	}
	if checks, _ := Plan(table(t), node("node1", "10.0.0.1"), []Host{node("node3", "fd00::3")}, Options{}); len(checks) != 0 {
		t.Errorf("hosts without a common family: %d checks", len(checks))
	}
	if _, err := Plan(table(t), node("node1", "10.0.0.1"), nil, Options{Rows: []netcontract.RowID{"teleport"}}); problem.From(err).Kind != problem.Invalid {
		t.Errorf("an unknown row: %v", err)
	}
}

func TestClocksAreJudgedWithTheirError(t *testing.T) {
	for _, tt := range []struct {
		offset, bound time.Duration
		want          string
	}{
		{0, time.Millisecond, "PASS"}, {900 * time.Millisecond, 50 * time.Millisecond, "PASS"}, {-900 * time.Millisecond, 50 * time.Millisecond, "PASS"},
		{990 * time.Millisecond, 50 * time.Millisecond, "UNSURE"}, {1100 * time.Millisecond, 399 * time.Millisecond, "UNSURE"}, {300 * time.Millisecond, 800 * time.Millisecond, "UNSURE"},
		{2 * time.Second, 9 * time.Microsecond, "FAIL"}, {-2300 * time.Millisecond, time.Second, "FAIL"},
	} {
		c := Clock{Offset: tt.offset, Bound: tt.bound}
		if c.judge(); c.Verdict != tt.want {
			t.Errorf("%s, at most %s wrong: %s, want %s", tt.offset, tt.bound, c.Verdict, tt.want)
		}
	}
}

// TestClockOfAnotherHost runs two hosts whose clocks differ.
func TestClockOfAnotherHost(t *testing.T) {
	token, err := ParseToken(NewToken())
	if err != nil {
		t.Fatal(err)
	}
	for _, skew := range []time.Duration{0, 2300 * time.Millisecond, -2300 * time.Millisecond} {
		r := &Responder{token: token, self: Host{Name: "b"}, now: func() time.Time { return time.Now().Add(skew) }}
		client, server := net.Pipe()
		go func() { defer server.Close(); r.answer(server, time.Second) }()
		me := &run{Config: Config{Token: token, Self: Host{Name: "a"}, Now: time.Now}, clocks: map[string]Clock{}}
		if _, _, err := me.exchange(client, request{Kind: kindHello}); err != nil {
			t.Fatal(err)
		}
		c := me.clocks["b"]
		if off := (c.Offset - skew).Abs(); off > c.Bound {
			t.Errorf("injected %s, measured %s, at most %s wrong", skew, c.Offset, c.Bound)
		}
		if want := map[bool]string{true: "PASS", false: "FAIL"}[skew == 0]; c.Verdict != want {
			t.Errorf("injected %s: %s", skew, c.Verdict)
		}
	}
}

func TestMessagesOfStrangers(t *testing.T) {
	ours, err := ParseToken(NewToken())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ParseToken(NewToken())
	if err != nil {
		t.Fatal(err)
	}
	hello := request{Kind: kindHello, Nonce: make([]byte, 16), From: "a"}
	good, err := ours.encode(toResponder, hello)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := theirs.encode(toResponder, hello)
	if err != nil {
		t.Fatal(err)
	}
	reflected, err := ours.encode(toProber, hello)
	if err != nil {
		t.Fatal(err)
	}
	long := slices.Concat([]byte(magic), []byte{0x7f, 0xff, 0xff, 0xff}, make([]byte, 100))
	flipped := slices.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, packet := range map[string][]byte{"of another swarm": foreign, "an answer played back": reflected, "a length that is not there": long, "changed on the way": flipped,
		"cut off": good[:20], "empty": {}, "HTTP": []byte("GET / HTTP/1.1\r\n\r\n")} {
		var q request
		if err := ours.datagram(packet, toResponder, &q); err == nil {
			t.Errorf("%s: a datagram is taken", name)
		}
		if err := ours.read(bytes.NewReader(packet), toResponder, maxRequest, &q); err == nil {
			t.Errorf("%s: a stream is taken", name)
		}
	}
	var q request
	if err := ours.datagram(good, toResponder, &q); err != nil || q.From != "a" {
		t.Errorf("our own: %v", err)
	}
}

// TestResponderSaysNothingToStrangers opens connections that are not of the swarm.
func TestResponderSaysNothingToStrangers(t *testing.T) {
	token, err := ParseToken(NewToken())
	if err != nil {
		t.Fatal(err)
	}
	r := &Responder{token: token, self: Host{Name: "b"}, now: time.Now, slots: make(chan struct{}, 4)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.listeners = append(r.listeners, l)
	r.serve()
	// Eight hold connections open, twice what is allowed, and say nothing.
	var silent []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
			t.Errorf("a stranger got %d bytes, %v", n, err)
		}
		c.Close()
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	me := &run{Config: Config{Token: token, Self: Host{Name: "a"}, Now: time.Now}, clocks: map[string]Clock{}}
	if a, _, err := me.exchange(c, request{Kind: kindHello}); err != nil || a.Name != "b" {
		t.Errorf("after the strangers: %v", err)
	}
	if r.strangers.Load() < 8 {
		t.Errorf("%d strangers were counted", r.strangers.Load())
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	ok := Finding{OK: true}
	required := Finding{Check: Check{Need: netcontract.Required}}
	optional := Finding{Check: Check{Need: netcontract.Optional}}
	exposed := Finding{Check: Check{Need: netcontract.Optional, Closed: true}}
	for want, r := range map[int][]Report{
		ExitHolds:    {{}, {Findings: []Finding{ok}}, {Clocks: []Clock{{Verdict: "UNSURE"}}}},
		ExitFails:    {{Findings: []Finding{optional, required}}, {Findings: []Finding{ok, exposed}}, {Clocks: []Clock{{Verdict: "FAIL"}}}, {Silent: []string{"b"}}},
		ExitOptional: {{Findings: []Finding{ok, optional}}},
	} {
		for _, rep := range r {
			if got := rep.Exit(); got != want {
				t.Errorf("%+v: exit %d, want %d", rep, got, want)
			}
		}
	}
}

func TestReportsOfForeignNames(t *testing.T) {
	r := &Report{Host: "a", Findings: []Finding{{Check: Check{Row: "control", From: "a", To: `<b>&"`, Need: netcontract.Required}, Verdict: Closed,
		Sentence: `<script>alert(1)</script>`, Evidence: []string{"a,b\"c"}, Remedy: "x"}}}
	var page bytes.Buffer
	if err := r.Write(&page, "html", false); err != nil || strings.Contains(page.String(), "<script>") {
		t.Errorf("%v: a name makes markup", err)
	}
	for _, format := range Formats {
		if err := r.Write(io.Discard, format, true); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	if err := r.Write(io.Discard, "pdf", false); problem.From(err).Kind != problem.Invalid {
		t.Error(err)
	}
	var back Report
	var raw bytes.Buffer
	if err := r.Write(&raw, "json", false); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw.Bytes(), &back); err != nil || back.Findings[0].To != r.Findings[0].To {
		t.Errorf("%v %+v", err, back)
	}
}

func FuzzHosts(f *testing.F) {
	for _, s := range []string{"node1=10.0.0.1", "node1=10.0.0.1+fd00::1@lb", "fd00::1", "a=b", "=10.0.0.1", "a=10.0.0.1@", "a=::ffff:10.0.0.1", "a=fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hosts, err := ParseHosts([]string{s})
		if err != nil {
			return
		}
		for _, h := range hosts {
			if h.Name == "" || len(h.Addresses) == 0 || !slices.Contains(Roles(), h.Role) {
				t.Errorf("%q is read as %+v", s, h)
			}
			for _, a := range h.Addresses {
				if a.IsUnspecified() || a.Is4In6() {
					t.Errorf("%q has the address %s", s, a)
				}
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	// Each process of the fuzzer has a token of its own: what another one seeded is a
	// stranger's here.
	token, err := ParseToken(NewToken())
	if err != nil {
		f.Fatal(err)
	}
	good, err := token.encode(toResponder, request{Kind: kindHello})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, packet []byte) {
		var q request
		if token.datagram(packet, toResponder, &q) == nil && !bytes.Equal(packet, good) {
			t.Error("a message was made without the token")
		}
	})
}
