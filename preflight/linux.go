package preflight

import (
	"fmt"
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

// pingSockets reports whether the kernel lets this process send echoes by sockets
// of their own (net.ipv4.ping_group_range): they see their own answers alone, and
// not every ICMP message of the host as raw ones do.
func pingSockets() bool {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ping_group_range")
	var from, to int64
	if err != nil {
		return os.Geteuid() != 0
	}
	if _, err := fmt.Sscan(string(raw), &from, &to); err != nil {
		return os.Geteuid() != 0
	}
	gid := int64(os.Getegid())
	return from <= gid && gid <= to || os.Geteuid() != 0
}
