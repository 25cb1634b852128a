//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/internal/lab"
)

func TestDrop(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 3})
	serve(t, l.Host("node2"), port)
	serve(t, l.Host("node3"), port)
	families(t, func(t *testing.T, v6 bool) {
		for _, proto := range []string{"tcp", "udp"} {
			undo := l.Drop("node1", "node2", proto, port)
			hearsNothing(t, l.Host("node1"), network(proto, v6), "node2:7777")
			for _, open := range [][2]string{{"node1", "node3:7777"}, {"node3", "node2:7777"}} {
				if _, _, err := ask(t, l.Host(open[0]), network(proto, v6), open[1]); err != nil {
					t.Errorf("%s from %s to %s: %v", proto, open[0], open[1], err)
				}
			}
			undo()
			undo() // does nothing
			if _, _, err := ask(t, l.Host("node1"), network(proto, v6), "node2:7777"); err != nil {
				t.Errorf("%s after undo: %v", proto, err)
			}
		}
	})
}

func TestDropFromANetwork(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	serve(t, l.Host("node1"), port)
	l.Drop("internet", "nodes", "tcp", 0)
	hearsNothing(t, l.Host("outside"), "tcp4", "node1:7777")
	if _, _, err := ask(t, l.Host("lb"), "tcp4", "node1:7777"); err != nil {
		t.Errorf("lb: %v", err)
	}
	l.DropByHost(lab.Any, "nodes", "", 0)
	hearsNothing(t, l.Host("lb"), "tcp4", "node1:7777")
}

func TestDropByHostReachesTheHost(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	serve(t, l.Host("node2"), port)
	l.Host("node2").Nft("table inet count {\n chain c {\n type filter hook prerouting priority 0;\n tcp dport 7777 counter\n }\n}\n")
	l.DropByHost("node1", "node2", "tcp", port)
	hearsNothing(t, l.Host("node1"), "tcp4", "node2:7777")
	if out := l.Host("node2").Run("nft", "list", "table", "inet", "count"); strings.Contains(out, "packets 0 ") {
		t.Errorf("nothing came to the host:\n%s", out)
	}
}

func TestReject(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	node1, node2 := l.Host("node1"), l.Host("node2")
	serve(t, node2, port)
	families(t, func(t *testing.T, v6 bool) {
		router, host, i := node1.Gateway4(), node2.Addr4(), 0
		if v6 {
			router, host, i = node1.Gateway6(), node2.Addr6(), 1
		}
		for _, c := range []struct {
			kind lab.Kind
			want [2]icmp // IPv4, IPv6
		}{
			{lab.AdminProhibited, [2]icmp{{3, 13}, {1, 1}}},
			{lab.PortUnreachable, [2]icmp{{3, 3}, {1, 4}}},
			{lab.HostUnreachable, [2]icmp{{3, 1}, {1, 3}}},
		} {
			for _, by := range []struct {
				name   string
				inject func(from, to, proto string, port int, kind lab.Kind) func()
				sender netip.Addr
			}{{"router", l.Reject, router}, {"host", l.RejectByHost, host}} {
				undo := by.inject("node1", "node2", "tcp", port, c.kind)
				e := provoke(t, patience, node1, at(node2, v6, port), nil)
				undo()
				if e.icmp != c.want[i] || e.offender != by.sender {
					t.Errorf("%s by the %s: %+v, want %v from %s", c.kind, by.name, e, c.want[i], by.sender)
				}
			}
		}
		for name, inject := range map[string]func(from, to, proto string, port int, kind lab.Kind) func(){"router": l.Reject, "host": l.RejectByHost} {
			undo := inject("node1", "node2", "tcp", port, lab.TCPReset)
			if _, _, err := ask(t, node1, network("tcp", v6), "node2:7777"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("reset by the %s: %v, want a refusal", name, err)
			}
			undo()
		}
		if _, _, err := ask(t, node1, network("tcp", v6), "node2:7777"); err != nil {
			t.Errorf("after undo: %v", err)
		}
	})
}

func TestAsymmetricDrop(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	families(t, func(t *testing.T, v6 bool) {
		pc, err := l.Host("node2").ListenPacket("udp", at(l.Host("node2"), v6, 9001))
		if err != nil {
			t.Fatal(err)
		}
		undo := l.AsymmetricDrop("node1", "node2", "udp", 9001)
		hearsNothing(t, l.Host("node1"), network("udp", v6), "node2:9001")
		_ = pc.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 10)
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatalf("the question did not arrive: %v", err)
		}
		pc.Close()
		if host, _, _ := net.SplitHostPort(from.String()); !strings.Contains(at(l.Host("node1"), v6, 1), host) {
			t.Errorf("it came from %s", from)
		}
		undo()
		serve(t, l.Host("node2"), map[bool]int{false: 4001, true: 6001}[v6])
	})
	l.AsymmetricDrop("node1", "node2", "tcp", 4001)
	hearsNothing(t, l.Host("node1"), "tcp4", "node2:4001")
	if _, _, err := ask(t, l.Host("node1"), "tcp4", "node2:6001"); err != nil {
		t.Errorf("another port: %v", err)
	}
}

func TestDNAT(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	serve(t, l.Host("outside"), 443)
	serve(t, l.Host("depot"), 8443)
	families(t, func(t *testing.T, v6 bool) {
		for _, proto := range []string{"tcp", "udp"} {
			undo := l.DNAT("node1", "outside", proto, 443, "depot", 8443)
			if name, _, err := ask(t, l.Host("node1"), network(proto, v6), "outside:443"); err != nil || name != "depot" {
				t.Errorf("%s from node1: %q, %v; want the depot", proto, name, err)
			}
			if name, _, err := ask(t, l.Host("node2"), network(proto, v6), "outside:443"); err != nil || name != "outside" {
				t.Errorf("%s from node2: %q, %v", proto, name, err)
			}
			undo()
			if name, _, err := ask(t, l.Host("node1"), network(proto, v6), "outside:443"); err != nil || name != "outside" {
				t.Errorf("%s after undo: %q, %v", proto, name, err)
			}
		}
		serve(t, l.Router(), map[bool]int{false: 4443, true: 6443}[v6])
	})
	l.DNAT("nodes", lab.Any, "tcp", 443, lab.RouterName, 4443)
	if name, _, err := ask(t, l.Host("node2"), "tcp4", "outside:443"); err != nil || name != "router" {
		t.Errorf("a proxy on the router: %q, %v", name, err)
	}
}

func TestMTU(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 3})
	const n = 1400
	families(t, func(t *testing.T, v6 bool) {
		for _, way := range [][2]string{{"node1", "node2"}, {"node2", "node1"}} {
			from, to := l.Host(way[0]), l.Host(way[1])
			gateway := from.Gateway4()
			if v6 {
				gateway = from.Gateway6()
			}
			if e := send(t, patience, from, to, v6, 1500); e.err != nil || !e.arrived {
				t.Errorf("%s to %s, 1500 bytes, no MTU: %+v", way[0], way[1], e)
			}
			undo := l.MTU("node2", n)
			if e := send(t, patience, from, to, v6, n); e.err != nil || !e.arrived {
				t.Errorf("%s to %s, %d bytes: %+v", way[0], way[1], n, e)
			}
			if e := send(t, patience, from, to, v6, n+1); e.arrived || e.mtu != n || e.offender != gateway {
				t.Errorf("%s to %s, %d bytes: %+v; want to hear of %d from %s", way[0], way[1], n+1, e, n, gateway)
			}
			black := l.BlackHolePMTU(way[0])
			if e := send(t, patience, from, to, v6, n); e.err != nil || !e.arrived {
				t.Errorf("%s to %s, black hole, %d bytes: %+v", way[0], way[1], n, e)
			}
			if e := send(t, moment, from, to, v6, n+1); e.arrived || e.mtu != 0 || !errors.Is(e.err, unix.EAGAIN) {
				t.Errorf("%s to %s, black hole, %d bytes: %+v; want silence", way[0], way[1], n+1, e)
			}
			black()
			undo()
			if e := send(t, patience, from, to, v6, 1500); e.err != nil || !e.arrived {
				t.Errorf("%s to %s, 1500 bytes, after undo: %+v", way[0], way[1], e)
			}
		}
		if e := send(t, patience, l.Host("node1"), l.Host("node3"), v6, 1500); e.err != nil || !e.arrived {
			t.Errorf("another path: %+v", e)
		}
	})
}

// A black hole as operators meet it: the connection opens, small messages pass,
// and a large one hangs.
func TestBlackHoleHangsTCP(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	families(t, func(t *testing.T, v6 bool) {
		ln, err := l.Host("node2").Listen("tcp", at(l.Host("node2"), v6, port))
		if err != nil {
			t.Fatal(err)
		}
		received := make(chan int, 10)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					buf, all := make([]byte, 1<<16), 0
					for all < 20_003 {
						n, err := c.Read(buf)
						if err != nil {
							return
						}
						if all += n; all == 3 || all == 20_003 {
							received <- all
						}
					}
				}()
			}
		}()
		transfer := func(wait time.Duration) (small, large bool) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c, err := l.Host("node1").Dial(ctx, "tcp", at(l.Host("node2"), v6, port))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got := func(wait time.Duration, message []byte) bool {
				if _, err := c.Write(message); err != nil {
					t.Error(err)
				}
				select {
				case <-received:
					return true
				case <-time.After(wait):
					return false
				}
			}
			return got(patience, []byte("abc")), got(wait, make([]byte, 20_000))
		}
		defer l.MTU("node2", 1300)()
		if small, large := transfer(patience); !small || !large {
			t.Errorf("with path MTU discovery: small %v, large %v", small, large)
		}
		defer l.BlackHolePMTU(lab.Any)()
		if small, large := transfer(moment); !small || large {
			t.Errorf("black hole: small %v, large %v", small, large)
		}
	})
}

func TestDelay(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 3})
	serve(t, l.Host("node2"), port)
	serve(t, l.Host("node3"), port)
	// The least of three: a busy machine adds to some.
	roundTrip := func(to string, v6 bool) time.Duration {
		least := time.Hour
		for range 3 {
			start := time.Now()
			if _, _, err := ask(t, l.Host("node1"), network("udp", v6), to+":7777"); err != nil {
				t.Error(err)
			}
			least = min(least, time.Since(start))
		}
		return least
	}
	families(t, func(t *testing.T, v6 bool) {
		near := func(got, want time.Duration) bool { return got >= want && got < want+40*time.Millisecond }
		roundTrip("node2", v6) // neighbours are found
		there := l.Delay("node1", "node2", 30*time.Millisecond)
		if d := roundTrip("node2", v6); !near(d, 30*time.Millisecond) {
			t.Errorf("one way delayed by 30 ms: %s", d)
		}
		back := l.Delay("node2", lab.Any, 20*time.Millisecond)
		if d := roundTrip("node2", v6); !near(d, 50*time.Millisecond) {
			t.Errorf("30 ms there, 20 ms back: %s", d)
		}
		if d := roundTrip("node3", v6); !near(d, 0) {
			t.Errorf("another host: %s", d)
		}
		if name, _, err := ask(t, l.Host("node1"), network("tcp", v6), "node2:7777"); err != nil || name != "node2" {
			t.Errorf("TCP over a slow link: %q, %v", name, err)
		}
		if err := upload(t, l.Host("node1"), l.Host("node2"), v6, 256<<10); err != nil {
			t.Errorf("256 KiB over a slow link: %v", err)
		}
		there()
		back()
		if d := roundTrip("node2", v6); !near(d, 0) {
			t.Errorf("after undo: %s", d)
		}
	})
}

// upload sends size bytes over TCP and compares what arrives.
func upload(t *testing.T, from, to *lab.Host, v6 bool, size int) error {
	t.Helper()
	ln, err := to.Listen("tcp", at(to, v6, 0))
	if err != nil {
		return err
	}
	defer ln.Close()
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i >> 8)
	}
	c, err := from.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	go func() {
		_, _ = c.Write(sent)
		c.Close()
	}()
	in, err := ln.Accept()
	if err != nil {
		return err
	}
	defer in.Close()
	_ = in.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(in)
	if err == nil && !bytes.Equal(sent, got) {
		err = fmt.Errorf("%d bytes arrived, changed or not all of %d", len(got), size)
	}
	return err
}

func TestLoss(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	node1, node2 := l.Host("node1"), l.Host("node2")
	pc, err := node2.ListenPacket("udp", at(node2, false, port))
	if err != nil {
		t.Fatal(err)
	}
	count := func() int {
		c, err := node1.Dial(t.Context(), "udp", at(node2, false, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n, buf := 0, make([]byte, 10)
		for range 500 {
			if _, err := c.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			_ = pc.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, _, err := pc.ReadFrom(buf); err == nil {
				n++
			}
		}
		for { // those that came late
			_ = pc.SetReadDeadline(time.Now().Add(moment))
			if _, _, err := pc.ReadFrom(buf); err != nil {
				return n
			}
			n++
		}
	}
	undo := l.Loss("node1", "node2", 30)
	if n := count(); n < 275 || n > 425 { // 350, and seven standard deviations
		t.Errorf("%d of 500 arrive at a loss of 30 %%", n)
	}
	undo()
	if n := count(); n != 500 {
		t.Errorf("%d of 500 arrive after undo", n)
	}
}

func TestDropICMP(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	families(t, func(t *testing.T, v6 bool) {
		node1, node2 := l.Host("node1"), l.Host("node2")
		if err := ping(t, patience, node1, node2, v6); err != nil {
			t.Errorf("ping: %v", err)
		}
		l.Reject("node1", "node2", "tcp", 1, lab.AdminProhibited)
		undo := l.DropICMP(lab.Any, "node1")
		if err := ping(t, moment, node1, node2, v6); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ping without answers: %v", err)
		}
		if e := provoke(t, moment, node1, at(node2, v6, 1), nil); e.offender.IsValid() {
			t.Errorf("the router's refusal came through: %+v", e)
		}
		undo()
		defer l.DropICMP("node1", "node2")()
		if err := ping(t, moment, node1, node2, v6); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ping without questions: %v", err)
		}
		if e := provoke(t, patience, node1, at(node2, v6, 1), nil); !e.offender.IsValid() {
			t.Errorf("the router's refusal is missing: %+v", e)
		}
	})
}

func TestUnplug(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 3})
	serve(t, l.Host("node2"), port)
	families(t, func(t *testing.T, v6 bool) {
		undo := l.Unplug("node2")
		hearsNothing(t, l.Host("node1"), network("tcp", v6), "node2:7777")
		hearsNothing(t, l.Host("node2"), network("udp", v6), "node1:7777")
		undo()
		if _, _, err := ask(t, l.Host("node3"), network("tcp", v6), "node2:7777"); err != nil {
			t.Errorf("after undo: %v", err)
		}
	})
}

func TestNftOfAHost(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	serve(t, l.Host("node2"), port)
	serve(t, l.Host("node2"), 22)
	undo := l.Host("node2").Nft(`table inet firewall {
		chain in {
			type filter hook input priority 0; policy drop;
			icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
			ct state established,related accept
			tcp dport 7777 accept
		}
	}
`)
	families(t, func(t *testing.T, v6 bool) {
		if _, _, err := ask(t, l.Host("node1"), network("tcp", v6), "node2:7777"); err != nil {
			t.Errorf("the open port: %v", err)
		}
		hearsNothing(t, l.Host("node1"), network("tcp", v6), "node2:22")
	})
	undo()
	if _, _, err := ask(t, l.Host("node1"), "tcp4", "node2:22"); err != nil {
		t.Errorf("after undo: %v", err)
	}
}

func TestDNS(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	d := l.DNS()
	node1, node2 := l.Host("node1"), l.Host("node2")
	lookup := func(h *lab.Host, name string) ([]netip.Addr, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return h.Resolver().LookupNetIP(ctx, "ip4", name)
	}
	expect := func(h *lab.Host, name string, want netip.Addr) {
		t.Helper()
		addrs, err := lookup(h, name)
		if err != nil || len(addrs) != 1 || addrs[0].Unmap() != want {
			t.Errorf("%s asks for %s: %v, %v; want %s", h.Name(), name, addrs, err, want)
		}
	}
	notFound := func(h *lab.Host, name string) {
		t.Helper()
		_, err := lookup(h, name)
		var e *net.DNSError
		if !errors.As(err, &e) || !e.IsNotFound {
			t.Errorf("%s asks for %s: %v, want that it does not exist", h.Name(), name, err)
		}
	}
	lb, outside, depot := l.Host("lb"), l.Host("outside"), l.Host("depot")

	expect(node1, "lb.lab.", lb.Addr4())
	if addrs, err := node1.Resolver().LookupNetIP(t.Context(), "ip6", "lb.lab."); err != nil || len(addrs) != 1 || addrs[0] != lb.Addr6() {
		t.Errorf("AAAA: %v, %v", addrs, err)
	}
	notFound(node1, "auth.example.com.")
	d.Set("auth.example.com", lb.Addr4(), lb.Addr6())
	d.Set("*.auth.example.com", lb.Addr4())
	expect(node1, "auth.example.com.", lb.Addr4())
	expect(node1, "Tenant.auth.example.com.", lb.Addr4())
	notFound(node1, "other.example.com.")

	undo := d.Lie("node1", "auth.example.com", outside.Addr4())
	expect(node1, "auth.example.com.", outside.Addr4())
	expect(node2, "auth.example.com.", lb.Addr4())
	undo()
	expect(node1, "auth.example.com.", lb.Addr4())

	undo = d.NXDomain("nodes", lab.Any)
	notFound(node2, "auth.example.com.")
	expect(outside, "auth.example.com.", lb.Addr4())
	undo()

	undo = d.Silence("node2", "auth.example.com")
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if _, err := node2.Resolver().LookupNetIP(ctx, "ip4", "auth.example.com."); !timedOut(err) {
		t.Errorf("silence: %v, want a timeout", err)
	}
	expect(node1, "auth.example.com.", lb.Addr4())
	undo()

	undo = d.Answer("node1", "auth.example.com", lab.Answer{Rcode: dns.RcodeServerFailure})
	var failure *net.DNSError
	if _, err := lookup(node1, "auth.example.com."); !errors.As(err, &failure) || !failure.IsTemporary || failure.IsNotFound {
		t.Errorf("a failure of the server: %v", err)
	}
	undo()

	d.Answer(lab.Any, "www.example.com", lab.Answer{CNAME: "depot.lab"})
	expect(node1, "www.example.com.", depot.Addr4())

	d.Answer(lab.Any, "big.example.com", lab.Answer{Addrs: []netip.Addr{depot.Addr4()}, Truncated: true})
	expect(node1, "big.example.com.", depot.Addr4())
	byTCP := false
	for _, q := range d.Asked() {
		byTCP = byTCP || q == lab.Question{Client: "node1", Name: "big.example.com", Type: "A", Network: "tcp"}
	}
	if !byTCP {
		t.Errorf("nobody came by TCP: %v", d.Asked())
	}

	serve(t, lb, port)
	if name, _, err := ask(t, node1, "tcp", "auth.example.com:7777"); err != nil || name != "lb" {
		t.Errorf("Dial by name: %q, %v", name, err)
	}
	out, err := node1.Command(t.Context(), "getent", "ahostsv4", "auth.example.com").Output()
	if err != nil || !strings.Contains(string(out), lb.Addr4().String()) {
		t.Errorf("a program in the host: %s, %v", out, err)
	}
}

type icmp struct{ kind, code uint8 }

// outcome is what a socket's error queue tells of a packet.
type outcome struct {
	icmp
	offender netip.Addr // who sent the ICMP message
	mtu      int        // what the path carries, by that message
	arrived  bool
	err      error
}

// provoke connects a TCP socket and returns the ICMP error that comes back, none
// when nothing comes in that time.
func provoke(t *testing.T, wait time.Duration, h *lab.Host, address string, setup func(fd int)) outcome {
	t.Helper()
	var got outcome
	err := h.Do(func() error {
		to := netip.MustParseAddrPort(address)
		fd, err := socket(to.Addr(), unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if setup != nil {
			setup(fd)
		}
		if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return os.NewSyscallError("connect", err)
		}
		got = errorQueue(fd, wait)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// send sends one UDP packet of the whole size given, headers included, that must
// not be fragmented, and tells whether it arrived or what came back.
func send(t *testing.T, wait time.Duration, from, to *lab.Host, v6 bool, size int) outcome {
	t.Helper()
	pc, err := to.ListenPacket("udp", at(to, v6, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	target := netip.MustParseAddrPort(pc.LocalAddr().String())
	var got outcome
	err = from.Do(func() error {
		fd, err := socket(target.Addr(), unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		header := 28
		level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
		if v6 {
			header = 48
			level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
		}
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
			return err
		}
		if err := unix.Connect(fd, sockaddr(target)); err != nil {
			return err
		}
		if _, err := unix.Write(fd, make([]byte, size-header)); err != nil {
			return os.NewSyscallError("write", err)
		}
		for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
			_ = pc.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
			if n, _, err := pc.ReadFrom(make([]byte, 2000)); err == nil && n == size-header {
				got = outcome{arrived: true}
				return nil
			}
			if got = errorQueue(fd, time.Millisecond); got.offender.IsValid() {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func socket(to netip.Addr, kind int) (int, error) {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVERR
	if to.Is6() {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// errorQueue waits for the first ICMP error of a socket (ip(7), IP_RECVERR).
func errorQueue(fd int, wait time.Duration) outcome {
	var got outcome
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 1); err != nil && !errors.Is(err, unix.EINTR) {
			return outcome{err: err}
		}
		control := make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 2000), control, unix.MSG_ERRQUEUE)
		if err != nil {
			got.err = err
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return outcome{err: err}
		}
		for _, m := range messages {
			v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
			v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
			size := int(unsafe.Sizeof(unix.SockExtendedErr{}))
			if !v4 && !v6 || len(m.Data) < size+8 {
				continue
			}
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
			got = outcome{icmp: icmp{e.Type, e.Code}, err: unix.Errno(e.Errno)}
			if errors.Is(got.err, unix.EMSGSIZE) {
				got.mtu = int(e.Info)
			}
			if a := m.Data[size:]; v4 {
				got.offender, _ = netip.AddrFromSlice(a[4:8])
			} else if len(a) >= 24 {
				got.offender, _ = netip.AddrFromSlice(a[8:24])
			}
			return got
		}
	}
	return got
}

// ping sends one echo request as an unprivileged program may.
func ping(t *testing.T, wait time.Duration, from, to *lab.Host, v6 bool) error {
	t.Helper()
	var f *os.File
	err := from.Do(func() error {
		family, proto, addr, request := unix.AF_INET, unix.IPPROTO_ICMP, to.Addr4(), byte(8)
		if v6 {
			family, proto, addr, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, to.Addr6(), 128
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		f = os.NewFile(uintptr(fd), "ping")
		return unix.Sendto(fd, []byte{request, 0, 0, 0, 0, 0, 0, 1}, 0, sockaddr(netip.AddrPortFrom(addr, 0)))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(wait))
	_, err = f.Read(make([]byte, 100))
	return err
}
