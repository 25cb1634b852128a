//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/internal/lab"
)

const port = 7777

const (
	// patience is how long a test waits for what should come: on a machine with
	// much else to do, too.
	patience = 5 * time.Second
	// moment is how long it waits for what should not.
	moment = 150 * time.Millisecond
)

// serve answers each TCP connection and each UDP packet with the host's name and
// the address that it saw.
func serve(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	for _, a := range h.Addrs() {
		address := netip.AddrPortFrom(a, uint16(port)).String()
		ln, err := h.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s %s\n", h.Name(), host)
				}()
			}
		}()
		pc, err := h.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 2000)
			for {
				_, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo([]byte(h.Name()), from)
			}
		}()
	}
}

// ask connects and returns what the other side says: its name, and by which
// address it knows us.
func ask(t *testing.T, h *lab.Host, network, address string) (name, seen string, err error) {
	t.Helper()
	return askWithin(t, patience, h, network, address)
}

// hearsNothing fails the test unless there is silence where it asks.
func hearsNothing(t *testing.T, h *lab.Host, network, address string) {
	t.Helper()
	if name, _, err := askWithin(t, moment, h, network, address); !timedOut(err) {
		t.Errorf("%s to %s, %s: %q, %v; want a timeout", h.Name(), address, network, name, err)
	}
}

func askWithin(t *testing.T, wait time.Duration, h *lab.Host, network, address string) (name, seen string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	c, err := h.Dial(ctx, network, address)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", "", err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		return string(buf[:n]), "", err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return "", "", err
	}
	name, seen, _ = strings.Cut(strings.TrimSpace(string(b)), " ")
	return name, seen, nil
}

func at(h *lab.Host, v6 bool, port int) string {
	a := h.Addr4()
	if v6 {
		a = h.Addr6()
	}
	return netip.AddrPortFrom(a, uint16(port)).String()
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// network is a Dial network for one family.
func network(proto string, v6 bool) string {
	if v6 {
		return proto + "6"
	}
	return proto + "4"
}

// families runs a test for IPv4 and for IPv6.
func families(t *testing.T, f func(t *testing.T, v6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

func TestEveryHostReachesEveryOther(t *testing.T) {
	l := lab.New(t, lab.Options{Services: []string{"db"}})
	var names []string
	for _, h := range l.Hosts() {
		names = append(names, h.Name())
		serve(t, h, port)
	}
	if want := []string{"node1", "node2", "node3", "lb", "jump", "monitoring", "cli", "dns", "depot", "db", "outside"}; !slices.Equal(names, want) {
		t.Fatalf("hosts %v, want %v", names, want)
	}
	for _, from := range l.Hosts() {
		for _, to := range l.Hosts() {
			for _, v6 := range []bool{false, true} {
				name, seen, err := ask(t, from, "tcp", at(to, v6, port))
				if err != nil || name != to.Name() {
					t.Errorf("%s to %s: %q, %v", from.Name(), to.Name(), name, err)
				}
				if want := from.Addrs()[map[bool]int{true: 1}[v6]].String(); seen != want {
					t.Errorf("%s to %s: seen as %s, want %s", from.Name(), to.Name(), seen, want)
				}
			}
		}
	}
}

func TestTheRouterIsOnTheWayFromNodeToNode(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	families(t, func(t *testing.T, v6 bool) {
		from, to := l.Host("node1"), l.Host("node2")
		e := provoke(t, patience, from, at(to, v6, port), func(fd int) {
			level, option := unix.IPPROTO_IP, unix.IP_TTL
			if v6 {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
			}
			if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
				t.Error(err)
			}
		})
		want, code := from.Gateway4(), icmp{11, 0}
		if v6 {
			want, code = from.Gateway6(), icmp{3, 0}
		}
		if e.offender != want || e.icmp != code {
			t.Errorf("a packet with one hop left: %+v, want %v from %s", e, code, want)
		}
	})
}

func TestOneFamily(t *testing.T) {
	for _, c := range []struct {
		name string
		o    lab.Options
	}{{"IPv4 alone", lab.Options{Nodes: 1, IPv4Only: true}}, {"IPv6 alone", lab.Options{Nodes: 1, IPv6Only: true}}} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, c.o)
			node, lb := l.Host("node1"), l.Host("lb")
			if node.Addr4().IsValid() == c.o.IPv6Only || node.Addr6().IsValid() == c.o.IPv4Only {
				t.Fatalf("addresses %v", node.Addrs())
			}
			serve(t, lb, port)
			undo := l.Drop("node1", "lb", "tcp", port)
			hearsNothing(t, node, "tcp", "lb:7777")
			undo()
			if name, _, err := ask(t, node, "tcp", "lb:7777"); err != nil || name != "lb" {
				t.Errorf("without: %q, %v", name, err)
			}
			l.MTU("node1", 1400)
			l.Delay("node1", "lb", time.Millisecond)
			l.DNS()
			if _, err := node.Resolver().LookupNetIP(t.Context(), "ip", "lb.lab"); err != nil {
				t.Error(err)
			}
			out := node.Run("ip", "-o", "addr", "show", "dev", "eth0")
			if strings.Contains(out, "inet6 ") && c.o.IPv4Only || strings.Contains(out, "inet ") && c.o.IPv6Only {
				t.Errorf("the host has an address of the other family:\n%s", out)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for _, c := range []struct {
		o    lab.Options
		want string
	}{
		{lab.Options{IPv4Only: true, IPv6Only: true}, "no address"},
		{lab.Options{Nodes: 201}, "1 to 200"},
		{lab.Options{Nodes: -1}, "1 to 200"},
		{lab.Options{Services: []string{"node1"}}, "taken"},
		{lab.Options{Services: []string{"router"}}, "taken"},
		{lab.Options{Services: []string{"nodes"}}, "taken"},
		{lab.Options{Services: []string{"a; reboot"}}, "a-z"},
	} {
		l, err := lab.Up(c.o)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

func TestUpAndDownIsQuick(t *testing.T) {
	lab.Require(t)
	for _, nodes := range []int{3, 25} {
		start := time.Now()
		l, err := lab.Up(lab.Options{Nodes: nodes})
		if err != nil {
			t.Fatal(err)
		}
		up := time.Since(start)
		if len(l.Nodes()) != nodes {
			t.Errorf("%d nodes, want %d", len(l.Nodes()), nodes)
		}
		start = time.Now()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error("closed again:", err)
		}
		t.Logf("%d nodes: up in %s, down in %s", nodes, up, time.Since(start))
		if all := up + time.Since(start); nodes == 3 && all > 2*time.Second {
			t.Errorf("three nodes took %s", all)
		}
	}
}

func TestLabsDoNotClash(t *testing.T) {
	lab.Require(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			l, err := lab.Up(lab.Options{Nodes: 2})
			if err != nil {
				t.Error(err)
				return
			}
			serve(t, l.Host("node2"), port)
			if name, _, err := ask(t, l.Host("node1"), "tcp4", "node2:7777"); err != nil || name != "node2" {
				t.Errorf("%q, %v", name, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestNothingStays(t *testing.T) {
	lab.Require(t)
	before := mine(t)
	var cmd *exec.Cmd
	t.Run("a test with a process that it forgets", func(t *testing.T) {
		l := lab.New(t, lab.Options{Nodes: 1})
		cmd = l.Host("node1").Command(context.Background(), "sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The command enters the namespace before it becomes the program.
		for range 100 {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)); strings.TrimSpace(string(b)) == "sleep" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error("the command did not start")
	})
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Errorf("the forgotten process ended with %v, want a kill", err)
	}
	if after := mine(t); !slices.Equal(before, after) {
		t.Errorf("namespaces %v, before %v", after, before)
	}
}

// mine lists what the labs of this process have in the machine's folders.
func mine(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, dir := range []string{"/run/netns", "/etc/netns"} {
		m, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("pclab-%d-*", os.Getpid())))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, m...)
	}
	return names
}

// TestPanicHelper is the other process of TestAPanicLeavesNothing and of
// TestSweepRemovesWhatAKilledRunLeft.
func TestPanicHelper(t *testing.T) {
	switch os.Getenv("LAB_TEST_END") {
	case "panic":
		l := lab.New(t, lab.Options{Nodes: 1})
		fmt.Println("namespace", l.Host("node1").Namespace())
		_ = l.Host("node1").Do(func() error { panic("from inside") })
	case "kill":
		l := lab.New(t, lab.Options{Nodes: 1})
		fmt.Println("namespace", l.Host("node1").Namespace())
		if err := l.Host("node1").Command(context.Background(), "sleep", "60").Start(); err != nil {
			t.Fatal(err)
		}
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	default:
		t.Skip("runs in a process of its own")
	}
}

func other(t *testing.T, end string) (namespace, out string) {
	t.Helper()
	lab.Require(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestPanicHelper$")
	cmd.Env = append(os.Environ(), "LAB_TEST_END="+end)
	b, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("the process ended well:\n%s", b)
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "namespace "); ok {
			namespace = strings.TrimSpace(name)
		}
	}
	if namespace == "" {
		t.Fatalf("the process made no lab:\n%s", b)
	}
	return namespace, string(b)
}

func exists(namespace string) bool {
	_, a := os.Stat("/run/netns/" + namespace)
	_, b := os.Stat("/etc/netns/" + namespace)
	return a == nil || b == nil
}

func TestAPanicLeavesNothing(t *testing.T) {
	namespace, out := other(t, "panic")
	if !strings.Contains(out, "panic: from inside") {
		t.Errorf("the panic is not told:\n%s", out)
	}
	if exists(namespace) {
		t.Errorf("%s is still there", namespace)
	}
}

func TestSweepRemovesWhatAKilledRunLeft(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1}) // before the other, and must stay
	namespace, _ := other(t, "kill")
	if err := lab.Sweep(); err != nil {
		t.Fatal(err)
	}
	if exists(namespace) {
		t.Errorf("%s is still there", namespace)
	}
	if !exists(l.Host("node1").Namespace()) {
		t.Error("a lab in use was swept")
	}
}

func TestDo(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	node := l.Host("node1")
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	here := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	inside := ""
	for range 200 { // often enough that the main thread gets its turn
		if err := node.Do(func() error { inside = here(); return nil }); err != nil {
			t.Fatal(err)
		}
		if inside == outside {
			t.Fatal("f ran outside")
		}
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			runtime.LockOSThread() // a thread each, so that all of the pool are seen
			defer runtime.UnlockOSThread()
			if s := here(); s != outside {
				t.Errorf("a goroutine runs in %s", s)
			}
			time.Sleep(time.Millisecond)
		})
	}
	wg.Wait()
	if s, _ := os.Readlink("/proc/self/ns/net"); s != outside {
		t.Error("the main thread is inside")
	}
	want := errors.New("told")
	if err := node.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("f's error: %v", err)
	}
	done := make(chan bool)
	go func() { // as t.FailNow within f ends the test's goroutine
		defer close(done)
		_ = node.Do(func() error { runtime.Goexit(); return nil })
		t.Error("Goexit within f did not end the caller")
	}()
	<-done
}

func TestCommandRunsInside(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	out, err := l.Host("node2").Command(t.Context(), "ip", "-o", "-4", "addr", "show", "dev", "eth0").Output()
	if err != nil || !strings.Contains(string(out), l.Host("node2").Addr4().String()) {
		t.Errorf("%s, %v", out, err)
	}
	out, err = l.Host("node2").Command(t.Context(), "cat", "/etc/resolv.conf").Output()
	if err != nil || !strings.Contains(string(out), "nameserver "+l.Host("dns").Addr4().String()) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestWordsThatMeanNothingFailTheTest(t *testing.T) {
	lab.Require(t)
	l, err := lab.Up(lab.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, f := range map[string]func(){
		"no host":          func() { l.Drop("node9", "lb", "tcp", 1) },
		"no protocol":      func() { l.Drop("node1", "lb", "sctp", 1) },
		"port of nothing":  func() { l.Drop("node1", "lb", "", 1) },
		"no kind":          func() { l.Reject("node1", "lb", "tcp", 1, "politely") },
		"reset of UDP":     func() { l.Reject("node1", "lb", "udp", 1, lab.TCPReset) },
		"DNAT of ICMP":     func() { l.DNAT("node1", "lb", "icmp", 0, "cli", 1) },
		"DNAT to the self": func() { l.DNAT("node1", "lb", "tcp", 1, "node1", 1) },
		"tiny MTU":         func() { l.MTU("node1", 100) },
		"loss of all":      func() { l.Loss("node1", "lb", 101) },
		"bad script":       func() { l.Host("node1").Nft("table inet {") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it passed")
				}
			}()
			f()
		})
	}
}
