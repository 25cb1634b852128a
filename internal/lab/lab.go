//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	prefix         = "pclab-"
	namespaces     = "/run/netns"
	overlays       = "/etc/netns" // `ip netns exec` mounts what is here over /etc
	commandTimeout = 20 * time.Second
)

// Lab is a network that is up.
type Lab struct {
	id       string
	options  Options
	networks []*network
	hosts    map[string]*Host
	names    []string // of the hosts, in the order of the plan
	t        testing.TB

	mu     sync.Mutex
	closed bool
	later  []io.Closer
	faults int
	mtus   map[string]int

	dnsMu sync.Mutex
	dns   *DNS
}

// made counts the labs of this process, so that their names differ.
var made atomic.Int64

// New brings a lab up and removes it when the test ends, also when it panics.
// Where labs cannot be, the test is skipped, as by Require.
func New(t testing.TB, o Options) *Lab {
	t.Helper()
	Require(t)
	l, err := Up(o)
	if err != nil {
		t.Fatal(err)
	}
	l.t = t
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Up is New without a test, for work by hand: the caller closes the lab, and a
// fault that cannot be injected panics.
func Up(o Options) (*Lab, error) {
	if err := possible(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := Sweep(); err != nil {
		return nil, err
	}
	networks, err := plan(o)
	if err != nil {
		return nil, err
	}
	start, ok := startTime(os.Getpid())
	if !ok {
		return nil, errors.New("lab: /proc does not tell when this process started")
	}
	l := &Lab{
		id:      fmt.Sprintf("%s%d-%s-%d", prefix, os.Getpid(), strconv.FormatUint(start, 36), made.Add(1)),
		options: o, networks: networks, hosts: map[string]*Host{}, mtus: map[string]int{},
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Host is the host of that name: node1 and up, lb, outside, jump, monitoring,
// cli, dns, depot, what Options.Services names, and router.
func (l *Lab) Host(name string) *Host {
	h, ok := l.hosts[name]
	if !ok {
		l.helper()
		l.fatal(fmt.Errorf("lab: there is no host %q, only %s", name, strings.Join(l.names, ", ")))
	}
	return h
}

// Hosts are all hosts but the router, nodes first.
func (l *Lab) Hosts() []*Host {
	hosts := make([]*Host, 0, len(l.names))
	for _, n := range l.names {
		hosts = append(hosts, l.hosts[n])
	}
	return hosts
}

// Nodes are the nodes.
func (l *Lab) Nodes() []*Host { return l.Hosts()[:len(l.networks[0].hosts)] }

// Router is the host that every packet crosses.
func (l *Lab) Router() *Host { return l.hosts[RouterName] }

// build makes the namespaces, the links and the routes. Commands go to ip in
// batches, for a process for each of them would take seconds.
func (l *Lab) build() error {
	router := &Host{lab: l, name: RouterName, ns: l.id + "-" + RouterName}
	if !l.options.IPv6Only {
		router.v4 = netip.MustParseAddr("10.77.0.1")
	}
	if !l.options.IPv4Only {
		router.v6 = netip.MustParseAddr("fd77::1")
	}
	all := []*Host{router}
	for _, n := range l.networks {
		for i, name := range n.hosts {
			h := &Host{lab: l, name: name, ns: l.id + "-" + name, network: n, number: i + 1}
			if !l.options.IPv6Only {
				h.v4 = at(n.v4, i+1)
			}
			if !l.options.IPv4Only {
				h.v6 = at(n.v6, i+1)
			}
			all = append(all, h)
			l.names = append(l.names, name)
		}
	}

	var add strings.Builder
	for _, h := range all {
		l.hosts[h.name] = h
		fmt.Fprintf(&add, "netns add %s\n", h.ns)
	}
	if _, err := command(add.String(), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("lab: make the namespaces: %w", err)
	}
	for _, h := range all {
		var err error
		if h.file, err = os.Open(filepath.Join(namespaces, h.ns)); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := h.settings(); err != nil {
			return err
		}
		if err := l.resolvConf(h); err != nil {
			return err
		}
	}

	links := &strings.Builder{}
	fmt.Fprintln(links, "link set lo up")
	for _, a := range router.Addrs() {
		fmt.Fprintf(links, "addr add %s dev lo\n", a)
	}
	for _, h := range all[1:] {
		fmt.Fprintf(links, "link add name %s mtu 1500 address %s type veth peer name eth0 mtu 1500 address %s netns %s\n",
			h.name, h.mac(0), h.mac(1), h.ns)
		if h.v4.IsValid() {
			fmt.Fprintf(links, "addr add %s/32 dev %s\n", h.network.gateway4(), h.name)
		}
		if h.v6.IsValid() {
			fmt.Fprintf(links, "addr add %s/128 dev %s nodad\n", h.network.gateway6(), h.name)
		}
		fmt.Fprintf(links, "link set %s up\n", h.name)
	}
	for _, h := range all[1:] {
		links.WriteString(l.route(h, "main", 0))
	}
	if _, err := router.run(links.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	for _, h := range all[1:] {
		own := &strings.Builder{}
		fmt.Fprint(own, "link set lo up\nlink set eth0 up\n")
		if h.v4.IsValid() {
			gw := h.network.gateway4()
			fmt.Fprintf(own, "addr add %s/32 dev eth0\nroute add %s dev eth0\nroute add default via %s dev eth0\n", h.v4, gw, gw)
		}
		if h.v6.IsValid() {
			gw := h.network.gateway6()
			fmt.Fprintf(own, "addr add %s/128 dev eth0 nodad\nroute add %s/128 dev eth0\nroute add default via %s dev eth0\n", h.v6, gw, gw)
		}
		if _, err := h.run(own.String(), "ip", "-batch", "-"); err != nil {
			return err
		}
	}
	return nil
}

// settings are the kernel's settings of one namespace.
func (h *Host) settings() error {
	forward := "0"
	if h.name == RouterName {
		forward = "1"
	}
	settings := [][2]string{
		{"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/ip_forward", forward},
		// The kernel sends few ICMP errors a second, and a test wants each of its own.
		{"ipv4/icmp_ratelimit", "0"},
		// Lets an unprivileged process ping, as distributions set it.
		{"ipv4/ping_group_range", "0 2147483647"},
		// Black holes stay black: no guessing of smaller segments.
		{"ipv4/tcp_mtu_probing", "0"},
	}
	if h.v6.IsValid() {
		settings = append(settings, [][2]string{
			{"ipv6/conf/all/forwarding", forward},
			{"ipv6/conf/default/accept_dad", "0"}, {"ipv6/conf/default/accept_ra", "0"},
			{"ipv6/icmp/ratelimit", "0"},
		}...)
	} else if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		settings = append(settings, [2]string{"ipv6/conf/all/disable_ipv6", "1"}, [2]string{"ipv6/conf/default/disable_ipv6", "1"})
	}
	for _, s := range settings {
		if err := h.sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// resolvConf lets programs that Command starts ask the lab's DNS server.
func (l *Lab) resolvConf(h *Host) error {
	dir := filepath.Join(overlays, h.ns)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	b := &strings.Builder{}
	for _, a := range l.hosts["dns"].Addrs() {
		fmt.Fprintf(b, "nameserver %s\n", a)
	}
	fmt.Fprintln(b, "search lab\noptions timeout:1 attempts:1")
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// Close takes the lab away, and with it every process that still runs in it. It
// may be called again.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	later := l.later
	l.mu.Unlock()
	for i := len(later) - 1; i >= 0; i-- {
		later[i].Close() // a test may have closed its listener before
	}
	var names []string
	for _, h := range l.hosts {
		if h.file != nil {
			h.file.Close()
		}
		names = append(names, h.ns)
	}
	return remove(names)
}

// closeLater closes c with the lab.
func (l *Lab) closeLater(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.later = append(l.later, c)
}

// undo makes the function that takes a fault away: it works once, and is quiet
// when the lab has gone before.
func (l *Lab) undo(f func() error) func() {
	var once sync.Once
	return func() {
		l.helper()
		once.Do(func() {
			l.mu.Lock()
			closed := l.closed
			l.mu.Unlock()
			if closed {
				return
			}
			if err := f(); err != nil {
				l.fatal(err)
			}
		})
	}
}

func (l *Lab) helper() {
	if l.t != nil {
		l.t.Helper()
	}
}

func (l *Lab) fatal(err error) {
	if l.t == nil {
		panic(err)
	}
	l.t.Helper()
	l.t.Fatal(err)
}

// command runs a program in the machine's own namespace.
func command(stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	var out, fault bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &fault
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(fault.String()))
	}
	return out.String(), nil
}

// Sweep removes what labs left behind whose process was killed. Up does it first.
func Sweep() error {
	var left []string
	for _, dir := range []string{namespaces, overlays} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("lab: look for leftovers: %w", err)
		}
		for _, e := range entries {
			if abandoned(e.Name()) {
				left = append(left, e.Name())
			}
		}
	}
	return remove(left)
}

// abandoned tells whether a namespace is a lab's whose process is gone. The time
// at which the process started is in the name, because numbers come again.
func abandoned(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	parts := strings.Split(rest, "-")
	if !ours || len(parts) < 4 {
		return false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil {
		return false
	}
	start, err := strconv.ParseUint(parts[1], 36, 64)
	if err != nil {
		return false
	}
	now, alive := startTime(pid)
	return !alive || now != start
}

// startTime is when a process started, in the kernel's ticks (proc(5), field 22
// of /proc/pid/stat). A zombie counts as gone.
func startTime(pid int) (uint64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return 0, false
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return start, err == nil
}

// remove kills what runs in the namespaces and removes them. What is gone
// already, because another process swept at the same time, is no fault.
func remove(names []string) error {
	if len(names) == 0 {
		return nil
	}
	inodes := map[uint64]bool{}
	batch := &strings.Builder{}
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(namespaces, n), &st); err == nil {
			inodes[st.Ino] = true
			fmt.Fprintf(batch, "netns del %s\n", n)
		}
	}
	killInside(inodes)
	var failed error
	if batch.Len() > 0 {
		_, failed = command(batch.String(), "ip", "-force", "-batch", "-")
	}
	var faults []error
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(namespaces, n)); err == nil {
			faults = append(faults, fmt.Errorf("lab: the namespace %s stays: %w", n, failed))
		}
		if err := os.RemoveAll(filepath.Join(overlays, n)); err != nil {
			faults = append(faults, fmt.Errorf("lab: %w", err))
		}
	}
	return errors.Join(faults...)
}

// killInside ends every process whose network is one of the namespaces. Such a
// process was started by the lab; its owner's death does not end it.
func killInside(inodes map[uint64]bool) {
	if len(inodes) == 0 {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// The process is held before it is looked at, so that the number means
		// the same one when it is killed.
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err == nil && inodes[st.Ino] {
			_ = p.Kill() // it may have ended meanwhile
		}
		_ = p.Release()
	}
}
