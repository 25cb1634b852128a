package preflight

import (
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// segmentSize bounds the TCP segments of a connection; 0 leaves it to the kernel.
func segmentSize(n int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if n == 0 {
			return nil
		}
		var setErr error
		err := c.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, n) })
		if err != nil {
			return err
		}
		return setErr
	}
}

// onLinks are the networks of this host's own: no router stands between.
func onLinks() (networks []netip.Prefix, known bool) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, false // nothing can be said about the way
	}
	for _, n := range all {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			networks = append(networks, p)
		}
	}
	return networks, true
}

// rawSockets reports whether this process may send ICMP by itself; without, the
// kernel's ping sockets have to be allowed (net.ipv4.ping_group_range).
func rawSockets() bool { return os.Geteuid() == 0 }
