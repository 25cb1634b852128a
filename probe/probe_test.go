package probe_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/probe"
)

func listen(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("%s cannot be listened on here: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestTCP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			open := listen(t, address)
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			closed := l.Addr().(*net.TCPAddr).AddrPort()
			l.Close()
			results := probe.TCP(t.Context(), []probe.Target{{Address: open}, {Address: closed}, {Address: open, Source: open.Addr()}}, 5*time.Second)
			for i, want := range []probe.Outcome{probe.Open, probe.Closed, probe.Open} {
				if results[i].Outcome != want {
					t.Errorf("probe %d: %s (%v), want %s", i, results[i].Outcome, results[i].Err, want)
				}
				if c := results[i].Conn; c != nil {
					if c.RemoteAddr().String() != open.String() {
						t.Errorf("probe %d is connected to %s", i, c.RemoteAddr())
					}
					c.Close()
				}
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	open := listen(t, "127.0.0.1:0")
	targets := make([]probe.Target, 1000)
	for i := range targets {
		targets[i].Address = open
	}
	for i, r := range probe.TCP(t.Context(), targets, 20*time.Second) {
		if r.Outcome != probe.Open {
			t.Fatalf("probe %d: %s %v", i, r.Outcome, r.Err)
		}
		r.Conn.Close()
	}
}

func TestSourceThatIsNotHere(t *testing.T) {
	open := listen(t, "127.0.0.1:0")
	r := probe.TCP(t.Context(), []probe.Target{{Address: open, Source: netip.MustParseAddr("192.0.2.1")}}, time.Second)[0]
	if r.Outcome != probe.Unreachable || r.Err == nil {
		t.Errorf("%s %v", r.Outcome, r.Err)
	}
}

func TestEndOfContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Nobody answers from a network that is kept for documents (RFC 5737).
	r := probe.TCP(ctx, []probe.Target{{Address: netip.MustParseAddrPort("192.0.2.1:9")}}, time.Hour)[0]
	if r.Outcome != probe.Dropped && r.Outcome != probe.Unreachable {
		t.Errorf("%s %v", r.Outcome, r.Err)
	}
}

func TestTraceOfThisHost(t *testing.T) {
	open := listen(t, "127.0.0.1:0")
	hops := probe.Trace(t.Context(), probe.Target{Address: open}, 5*time.Second)
	if len(hops) != 1 || !hops[0].Reached || hops[0].By != open.Addr() {
		t.Errorf("%+v", hops)
	}
}
