//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Host is one host of the lab.
type Host struct {
	lab     *Lab
	name    string
	ns      string // the namespace's name for `ip netns`
	file    *os.File
	network *network // nil for the router
	number  int      // of the host in its network
	v4, v6  netip.Addr
}

// Name is the host's name in the lab, such as node1.
func (h *Host) Name() string { return h.name }

// Namespace is the name by which `ip netns exec` knows the host.
func (h *Host) Namespace() string { return h.ns }

// Addr4 is the host's IPv4 address, the zero Addr in a lab without IPv4.
func (h *Host) Addr4() netip.Addr { return h.v4 }

// Addr6 is the host's IPv6 address, the zero Addr in a lab without IPv6.
func (h *Host) Addr6() netip.Addr { return h.v6 }

// Addrs are the host's addresses, IPv4 first.
func (h *Host) Addrs() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{h.v4, h.v6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// Gateway4 is the router's IPv4 address on the host's link: what is first on the
// way, and where the ICMP errors come from that the router sends to the host.
func (h *Host) Gateway4() netip.Addr {
	if h.network == nil || !h.v4.IsValid() {
		return netip.Addr{}
	}
	return h.network.gateway4()
}

// Gateway6 is Gateway4 for IPv6.
func (h *Host) Gateway6() netip.Addr {
	if h.network == nil || !h.v6.IsValid() {
		return netip.Addr{}
	}
	return h.network.gateway6()
}

// Do runs f on an OS thread inside the host's namespace. Sockets that f opens
// itself belong to the host for good, processes that it starts too; goroutines
// that it starts do not run there. So net/http, whose transport dials elsewhere,
// gets the host's Dial.
func (h *Host) Do(f func() error) error { return inNamespace(h.file, f) }

// Command is exec.CommandContext inside the host. The name server of the lab is
// in the program's /etc/resolv.conf. What still runs when the lab goes is killed.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.ns, name}, args...)...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Run runs a short command inside the host and returns what it printed; the test
// fails when the command does.
func (h *Host) Run(name string, args ...string) string {
	h.lab.helper()
	out, err := h.run("", name, args...)
	if err != nil {
		h.lab.fatal(err)
	}
	return out
}

// run starts the command from a thread in the namespace, which spares the mounts
// of `ip netns exec`.
func (h *Host) run(stdin, name string, args ...string) (string, error) {
	var out, fault bytes.Buffer
	err := h.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &fault
		return cmd.Run()
	})
	if err != nil {
		return "", fmt.Errorf("lab: %s: %s %s: %w: %s", h.name, name, strings.Join(args, " "), err, strings.TrimSpace(fault.String()))
	}
	return out.String(), nil
}

// Listen is net.Listen inside the host. The listener is closed with the lab.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = net.Listen(network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", h.name, err)
	}
	h.lab.closeLater(ln)
	return ln, nil
}

// ListenPacket is net.ListenPacket inside the host. The socket is closed with
// the lab.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var pc net.PacketConn
	err := h.Do(func() (err error) {
		pc, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", h.name, err)
	}
	h.lab.closeLater(pc)
	return pc, nil
}

// Dial connects from the host, and fits where a DialContext is asked for. The
// name of a host of the lab stands for its addresses; any other name is asked of
// the lab's DNS server.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("lab: dial from %s: %w", h.name, err)
	}
	addrs, err := h.lookup(ctx, network, name)
	if err != nil {
		return nil, fmt.Errorf("lab: dial %s from %s: %w", address, h.name, err)
	}
	var conn net.Conn
	var failed error
	for _, a := range addrs {
		// One address at a time: for several, net.Dialer opens sockets on
		// goroutines of its own, which are not in the namespace.
		err := h.Do(func() (err error) {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
			return err
		})
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, fmt.Errorf("lab: dial %s from %s: %w", address, h.name, failed)
}

// lookup gives the addresses of a name that suit the network: tcp4 has no use
// for an IPv6 one.
func (h *Host) lookup(ctx context.Context, network, name string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		addrs = []netip.Addr{a}
	} else if peer, ok := h.lab.hosts[name]; ok {
		addrs = peer.Addrs()
	} else if addrs, err = h.Resolver().LookupNetIP(ctx, "ip", name); err != nil {
		return nil, err
	}
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return strings.HasSuffix(network, "4") && !a.Unmap().Is4() || strings.HasSuffix(network, "6") && a.Unmap().Is4()
	})
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address for %s", name, network)
	}
	return addrs, nil
}

// Resolver asks the lab's DNS server from the host, whatever the machine's own
// /etc/resolv.conf says. The machine's /etc/hosts still comes first.
func (h *Host) Resolver() *net.Resolver {
	server := net.JoinHostPort(h.lab.Host("dns").Addrs()[0].String(), strconv.Itoa(dnsPort))
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return h.Dial(ctx, network, server)
		},
	}
}

// Nft loads a script of nftables into the host, as an operator's firewall would
// be. The undo removes the tables that the script brought.
func (h *Host) Nft(script string) (undo func()) {
	h.lab.helper()
	before, err := h.tables()
	if err != nil {
		h.lab.fatal(err)
	}
	if _, err := h.run(script, "nft", "-f", "-"); err != nil {
		h.lab.fatal(err)
	}
	after, err := h.tables()
	if err != nil {
		h.lab.fatal(err)
	}
	var remove strings.Builder
	for _, t := range after {
		if !slices.Contains(before, t) {
			fmt.Fprintf(&remove, "delete %s\n", t)
		}
	}
	return h.lab.undo(func() error {
		_, err := h.run(remove.String(), "nft", "-f", "-")
		return err
	})
}

// tables lists the host's tables of nftables, each as "table inet name".
func (h *Host) tables() ([]string, error) {
	out, err := h.run("", "nft", "list", "tables")
	return strings.Split(strings.TrimSpace(out), "\n"), err
}

// sysctl writes a setting below /proc/sys/net of the host.
func (h *Host) sysctl(name, value string) error {
	err := h.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644) })
	if err != nil {
		return fmt.Errorf("lab: %s: %w", h.name, err)
	}
	return nil
}
