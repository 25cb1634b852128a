package probe_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/probe"
)

func TestUDPOfThisHost(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 100)
		for first := true; ; first = false {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if !first { // the first one is lost
				_, _ = pc.WriteTo(append([]byte("re: "), buf[:n]...), from)
			}
		}
	}()
	r, reply := probe.UDP(t.Context(), probe.Target{Address: pc.LocalAddr().(*net.UDPAddr).AddrPort()}, []byte("hello"), 20, 10*time.Second)
	if r.Outcome != probe.Open || string(reply) != "re: hello" || r.Took <= 0 {
		t.Errorf("%+v %q", r, reply)
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.LocalAddr().(*net.UDPAddr).AddrPort()
	free.Close()
	if r, _ := probe.UDP(t.Context(), probe.Target{Address: nobody}, []byte("hello"), 3, 10*time.Second); r.Outcome != probe.Closed || r.By != nobody.Addr() {
		t.Errorf("%+v", r)
	}
}

// TestUDPInTheLab tells apart who refuses a datagram.
func TestUDPInTheLab(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	ask := func(to netip.Addr) (r probe.Result) {
		t.Helper()
		target := probe.Target{Address: netip.AddrPortFrom(to, 53)}
		// Everything on one thread: what runs elsewhere is outside the namespace.
		if err := l.Host("node1").Do(func() error {
			r, _ = probe.UDP(t.Context(), target, []byte("x"), 2, 300*time.Millisecond)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	node2 := l.Host("node2")
	for i, to := range node2.Addrs() {
		gateway := []netip.Addr{l.Host("node1").Gateway4(), l.Host("node1").Gateway6()}[i]
		for _, tt := range []struct {
			name   string
			inject func() func()
			want   probe.Outcome
			by     netip.Addr
		}{
			{"nobody listens", func() func() { return func() {} }, probe.Closed, to},
			{"dropped", func() func() { return l.Drop("node1", "node2", "udp", 53) }, probe.Dropped, netip.Addr{}},
			{"rejected on the way", func() func() { return l.Reject("node1", "node2", "udp", 53, lab.AdminProhibited) }, probe.Rejected, gateway},
			{"rejected by the host", func() func() { return l.RejectByHost("node1", "node2", "udp", 53, lab.AdminProhibited) }, probe.Rejected, to},
		} {
			undo := tt.inject()
			if r := ask(to); r.Outcome != tt.want || tt.by.IsValid() && r.By != tt.by {
				t.Errorf("%s, %s: %+v", tt.name, to, r)
			}
			undo()
		}
	}
}

func TestQualityOfAConnection(t *testing.T) {
	open := listen(t, "127.0.0.1:0")
	c, err := net.Dial("tcp", open.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q, ok := probe.QualityOf(c)
	if !ok || q.RTT <= 0 || q.RTT > time.Second || q.Lost != 0 {
		t.Errorf("%+v %v", q, ok)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, ok := probe.QualityOf(a); ok {
		t.Error("a pipe has no network")
	}
}
