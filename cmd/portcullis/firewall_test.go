package main_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

// TestRenderedFirewallsHold loads each firewall that the program writes on every
// node of the lab: the whole matrix holds, and of all 65,535 TCP ports exactly
// those of the contract are open, from a node and from outside, in both
// directions.
func TestRenderedFirewallsHold(t *testing.T) {
	for _, f := range []struct {
		format string
		load   func(t *testing.T, l *lab.Lab, dir string)
	}{
		{"nftables", loadNFTables},
		{"iptables", loadIPTables},
		{"firewalld", loadFirewalld},
		{"ufw", loadUFW},
	} {
		t.Run(f.format, func(t *testing.T) {
			l := lab.New(t, lab.Options{Nodes: 3})
			dir := t.TempDir()
			nodes := []string{"node1", "node2", "node3"}
			if f.format == "ufw" {
				nodes = nil // it takes a moment for each rule: one for the network, and not three
			}
			renderFor(t, l, f.format, dir, nodes)
			f.load(t, l, dir)
			s := newSwarm(t, l, "node1", "node2", "node3", "lb", "monitoring", "jump", "cli", "outside")
			for name, r := range s.run("--wait", "2s") {
				if r.Exit() != preflight.ExitHolds {
					var b bytes.Buffer
					_ = r.Write(&b, "text", false)
					t.Errorf("%s: exit %d\n%s", name, r.Exit(), b.String())
				}
			}
			node1, node2, outside := l.Host("node1"), l.Host("node2"), l.Host("outside")
			nothing := map[int]bool{}
			for i, to := range node1.Addrs() {
				if got := openPorts(t, outside, to, nothing); !sameSet(got, nothing) {
					t.Errorf("from outside %s has %s open", to, sets(got))
				}
				unload(t, node2)
				want := nodePorts(t)
				if got := openPorts(t, node2, to, want); !sameSet(got, want) {
					t.Errorf("from a node %s has open %s, and the contract %s", to, sets(got), sets(want))
				}
				if got := openPorts(t, node1, node2.Addrs()[i], want); !sameSet(got, want) {
					t.Errorf("to a node %s may call %s, and the contract says %s", to, sets(got), sets(want))
				}
				if got := openPorts(t, node1, outside.Addrs()[i], nothing); !sameSet(got, nothing) {
					t.Errorf("%s may call %s of a stranger", to, sets(got))
				}
			}
			noDrift(t, l, f.format, nodes)
		})
	}
}

// nodePorts are the TCP ports that the contract declares between nodes.
func nodePorts(t *testing.T) map[int]bool {
	t.Helper()
	table, err := netcontract.Contract("")
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]bool{}
	for _, row := range table.Section(netcontract.BetweenNodes) {
		for _, r := range row.Ports {
			for p := int(r.From); p <= int(r.To); p++ {
				out[p] = true
			}
		}
	}
	return out
}

func sameSet(a, b map[int]bool) bool {
	for p := range a {
		if !b[p] {
			return false
		}
	}
	return len(a) == len(b)
}

func sets(ports map[int]bool) string {
	var list []int
	for p := range ports {
		list = append(list, p)
	}
	slices.Sort(list)
	if len(list) > 30 {
		return fmt.Sprintf("%v and %d more", list[:30], len(list)-30)
	}
	return fmt.Sprint(list)
}

// renderFor renders for the lab's hosts; no nodes means their network.
func renderFor(t *testing.T, l *lab.Lab, format, dir string, nodes []string) {
	t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		t.Fatal(err)
	}
	peers := func(hosts ...string) string {
		var all []string
		for _, h := range hosts {
			for _, a := range l.Host(h).Addrs() {
				all = append(all, a.String())
			}
		}
		return strings.Join(all, ",")
	}
	named := peers(nodes...)
	if len(nodes) == 0 {
		named = "10.77.1.0/24,fd77:0:0:1::/64"
	}
	cmd := exec.CommandContext(t.Context(), exe, "network", "render", "--format", format, "--dir", dir, "--nodes", named,
		"--lb", peers("lb"), "--depot", peers("depot"), "--cli", peers("cli"), "--monitoring", peers("monitoring"), "--jump-host", peers("jump"), "--dns", peers("dns"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func loadNFTables(t *testing.T, l *lab.Lab, dir string) {
	for _, h := range l.Nodes() {
		h.Run("nft", "-f", filepath.Join(dir, "portcullis.nft"))
		h.Run("nft", "-f", filepath.Join(dir, "portcullis.nft")) // a second load replaces the first
	}
}

func loadIPTables(t *testing.T, l *lab.Lab, dir string) {
	wants(t, "iptables-restore", "ip6tables-restore")
	for _, h := range l.Nodes() {
		h.Run("iptables-restore", filepath.Join(dir, "rules.v4"))
		h.Run("ip6tables-restore", filepath.Join(dir, "rules.v6"))
	}
}

// wants skips where a program is missing, and fails in CI, which installs them.
func wants(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is missing, and CI installs it", name)
			}
			t.Skipf("%s is not installed", name)
		}
	}
}

// loadUFW lets ufw make its rules on one node, in folders of its own, and takes
// them over to the others.
func loadUFW(t *testing.T, l *lab.Lab, dir string) {
	wants(t, "ufw", "iptables-save", "ip6tables-save")
	etc := t.TempDir()
	for _, d := range []string{"/etc/ufw", "/etc/default", "/lib/ufw"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-r", d, filepath.Join(etc, strings.ReplaceAll(d[1:], "/", "-"))).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, f := range []string{"applications.d/portcullis", "before.rules", "before6.rules"} {
		raw, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(etc, "etc-ufw", f), raw, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	// The command has a view of the file system of its own: what is mounted there, the
	// machine does not see.
	script := fmt.Sprintf("set -e\nmount --bind %[1]s/etc-ufw /etc/ufw\nmount --bind %[1]s/etc-default /etc/default\nmount --bind %[1]s/lib-ufw /lib/ufw\nsh %[2]s/portcullis-ufw.sh\n", etc, dir)
	// Without the lab's own bound: ufw takes a moment for each of its rules.
	if out, err := l.Host("node1").Command(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("ufw: %v: %s", err, out)
	}
	copyTables(l)
}

// copyTables takes the rules of iptables from the first node to the others.
func copyTables(l *lab.Lab) {
	nodes := l.Nodes()
	for save, restore := range map[string]string{"iptables-save": "iptables-restore", "ip6tables-save": "ip6tables-restore"} {
		rules := nodes[0].Run(save)
		for _, h := range nodes[1:] {
			h.Run("sh", "-c", restore+" <<'EOF'\n"+rules+"\nEOF")
		}
	}
}

// loadFirewalld runs the real daemon on one node, with a message bus of its own,
// and takes its rules over to the others.
func loadFirewalld(t *testing.T, l *lab.Lab, dir string) {
	wants(t, "firewalld", "firewall-cmd", "dbus-daemon")
	conf, err := os.ReadFile("/etc/firewalld/firewalld.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "firewalld.conf"), conf, 0o640); err != nil {
		t.Fatal(err)
	}
	bus := "unix:path=" + filepath.Join(t.TempDir(), "bus")
	policy := filepath.Join(t.TempDir(), "bus.conf")
	if err := os.WriteFile(policy, []byte(`<busconfig><type>custom</type><listen>`+bus+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	node := l.Host("node1")
	start := func(name string, args ...string) {
		cmd := node.Command(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+bus)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		})
	}
	start("dbus-daemon", "--config-file="+policy, "--nofork")
	start("firewalld", "--nofork", "--nopid", "--system-config", dir, "--log-file", filepath.Join(t.TempDir(), "log"))
	deadline := time.Now().Add(30 * time.Second)
	for {
		cmd := node.Command(t.Context(), "firewall-cmd", "--state")
		cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+bus)
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("firewalld does not start: %v: %s", err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	rules := node.Run("nft", "-s", "list", "ruleset")
	for _, h := range l.Nodes()[1:] {
		h.Nft(rules)
	}
}

// unload takes every rule from a host.
func unload(t *testing.T, h *lab.Host) {
	t.Helper()
	h.Run("nft", "flush", "ruleset")
}

// openPorts sends a SYN to each of the 65,535 TCP ports of an address and returns
// those of which an answer came: whoever answers, with whatever, was let through.
// A packet may be lost: it asks once more before it returns less than is wanted.
func openPorts(t *testing.T, from *lab.Host, to netip.Addr, want map[int]bool) map[int]bool {
	t.Helper()
	open := map[int]bool{}
	for range 2 {
		if err := synScan(from, to, open); err != nil {
			t.Fatalf("scan %s from %s: %v", to, from.Name(), err)
		}
		if len(open) >= len(want) {
			break
		}
	}
	return open
}

const scanPort = 40123 // the source port of the scan

func synScan(from *lab.Host, to netip.Addr, open map[int]bool) error {
	own, family := from.Addr4(), unix.AF_INET
	if to.Is6() {
		own, family = from.Addr6(), unix.AF_INET6
	}
	fd := -1
	err := from.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}); err != nil {
		return err
	}
	for port := 1; port <= 65535; port++ {
		var target unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(to.AsSlice())}
		if to.Is6() {
			target = &unix.SockaddrInet6{Addr: to.As16()}
		}
		err := unix.Sendto(fd, syn(own, to, uint16(port)), 0, target)
		if err != nil && !errors.Is(err, unix.EPERM) { // its own firewall drops it
			return err
		}
	}
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		packet := buf[:n]
		if to.Is4() && n > 0 { // IPv4 comes with its header
			packet = packet[min(n, int(packet[0]&0xf)*4):]
		}
		if len(packet) >= 14 && binary.BigEndian.Uint16(packet[2:]) == scanPort {
			open[int(binary.BigEndian.Uint16(packet))] = true
		}
	}
}

// syn is a TCP segment that asks for a connection (RFC 9293 section 3.1).
func syn(from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, scanPort)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint32(b[4:], 1)
	b[12], b[13] = 5<<4, 0x02
	binary.BigEndian.PutUint16(b[14:], 1024)
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(b))
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), b} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}
