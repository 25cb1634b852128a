package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Outcome is what became of a connection attempt.
type Outcome string

// The outcomes.
const (
	Open        Outcome = "open"        // somebody accepted
	Closed      Outcome = "closed"      // answered with a reset: nobody listens, or a firewall says so
	Rejected    Outcome = "rejected"    // an ICMP error came back; Result.By sent it
	Dropped     Outcome = "dropped"     // nothing came back
	Unreachable Outcome = "unreachable" // this host has no way there, or the neighbour is dead
	Failed      Outcome = "failed"      // the probe itself could not be made
)

// Result is what one probe found.
type Result struct {
	Outcome Outcome
	// By is the address that sent the ICMP error of Rejected.
	By netip.Addr
	// ICMP says in words what By sent, such as "administratively prohibited".
	ICMP string
	// Took is the time from the first packet to the answer; 0 for Dropped.
	Took time.Duration
	// Local is the address that the probe came from. An ICMP error by this address is
	// the own kernel's word: nobody on the link answers for the target.
	Local netip.Addr
	// Conn is the connection of Open; the caller closes it.
	Conn net.Conn
	Err  error // of Failed and Unreachable
}

// Target is where a probe goes to.
type Target struct {
	Address netip.AddrPort
	// Source is the address that the probe comes from; the zero Addr leaves it to the
	// kernel.
	Source netip.Addr
	// TTL is the time to live of its packets; 0 means the kernel's.
	TTL int
}

// maxEvents is how many sockets are looked at in one go.
const maxEvents = 256

type attempt struct {
	fd     int
	index  int
	v6     bool
	done   bool
	result Result
}

// TCP tries all targets at the same time, and returns when each has an outcome, at
// the latest after timeout. Results are in the order of the targets.
func TCP(ctx context.Context, targets []Target, timeout time.Duration) []Result {
	results := make([]Result, len(targets))
	Each(ctx, targets, timeout, func(i int, r Result) { results[i] = r })
	return results
}

// Each is TCP that hands each result over when it is there, to a function that
// must not wait: the other probes wait for it.
func Each(ctx context.Context, targets []Target, timeout time.Duration, settled func(i int, r Result)) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		for i := range targets {
			settled(i, Result{Outcome: Failed, Err: fmt.Errorf("make an epoll instance: %w", err)})
		}
		return
	}
	defer func() { _ = unix.Close(ep) }() // nothing is lost with it
	began := time.Now()
	open := map[int32]*attempt{}
	defer func() {
		for _, a := range open {
			settled(a.index, Result{Outcome: Dropped})
			_ = unix.Close(a.fd) // nothing was connected
		}
	}()
	for i, t := range targets {
		a, err := connect(t)
		if err != nil {
			settled(i, failed(err))
			continue
		}
		a.index = i
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, a.fd, &unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLERR, Fd: a.id()}); err != nil {
			settled(i, Result{Outcome: Failed, Err: err})
			_ = unix.Close(a.fd)
			continue
		}
		open[a.id()] = a
	}
	events := make([]unix.EpollEvent, maxEvents)
	for len(open) > 0 {
		if ctx.Err() != nil {
			return
		}
		// Woken often enough to notice the end of ctx. When the time is over, what has come
		// meanwhile still counts: a busy machine may not have looked.
		left := timeout - time.Since(began)
		wait := int(min(left, 50*time.Millisecond).Milliseconds()) + 1
		if left <= 0 {
			wait = 0
		}
		n, err := unix.EpollWait(ep, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) || left <= 0 && n <= 0 {
			return
		}
		for _, e := range events[:max(n, 0)] {
			a := open[e.Fd]
			if a == nil || !a.settle(time.Since(began)) {
				continue
			}
			delete(open, e.Fd)
			settled(a.index, a.result)
		}
	}
}

// id is the descriptor as epoll has it.
func (a *attempt) id() int32 { return int32(a.fd) } // #nosec G115 -- the kernel's descriptors are of this size

func failed(err error) Result {
	for _, e := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return Result{Outcome: Unreachable, Err: err}
		}
	}
	return Result{Outcome: Failed, Err: err}
}

// connect begins a connection.
func connect(t Target) (*attempt, error) {
	a := &attempt{v6: t.Address.Addr().Unmap().Is6()}
	family := unix.AF_INET
	if a.v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	a.fd = fd
	if err := prepare(fd, a.v6, t); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if err := unix.Connect(fd, sockaddr(t.Address)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), unix.Close(fd))
	}
	return a, nil
}

func prepare(fd int, v6 bool, t Target) error {
	level, recverr, ttl := unix.IPPROTO_IP, unix.IP_RECVERR, unix.IP_TTL
	if v6 {
		level, recverr, ttl = unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.IPV6_UNICAST_HOPS
	}
	if err := unix.SetsockoptInt(fd, level, recverr, 1); err != nil {
		return fmt.Errorf("ask for ICMP errors: %w", err)
	}
	if t.TTL > 0 {
		if err := unix.SetsockoptInt(fd, level, ttl, t.TTL); err != nil {
			return fmt.Errorf("set the time to live: %w", err)
		}
	}
	if t.Source.IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(t.Source, 0))); err != nil {
			return fmt.Errorf("use the source address %s: %w", t.Source, err)
		}
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	addr := a.Addr().Unmap()
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: addr.As4()}
	}
	s := &unix.SockaddrInet6{Port: int(a.Port()), Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			s.ZoneId = uint32(i.Index) // #nosec G115 -- the kernel's own index
		}
	}
	return s
}

// settle reads what an event means, and reports whether the attempt is over.
func (a *attempt) settle(took time.Duration) bool {
	by, icmp, found := icmpError(a.fd, a.v6)
	local := localAddr(a.fd)
	code, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	switch {
	case found:
		a.result = Result{Outcome: Rejected, By: by, ICMP: icmp, Took: took}
	case err == nil:
		if _, e := unix.Getpeername(a.fd); e != nil {
			return false // not connected, and no error: something else was said
		}
		return a.connected(took)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		a.result = Result{Outcome: Closed, Took: took}
	case errors.Is(err, unix.ETIMEDOUT):
		a.result = Result{Outcome: Dropped}
	default:
		a.result = failed(err)
	}
	a.result.Local = local
	_ = unix.Close(a.fd) // it never was a connection
	return true
}

func localAddr(fd int) netip.Addr {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr).Unmap()
	}
	return netip.Addr{}
}

func (a *attempt) connected(took time.Duration) bool {
	f := os.NewFile(uintptr(a.fd), "probe")
	c, err := net.FileConn(f) // has a descriptor of its own
	_ = f.Close()
	if err != nil {
		a.result = Result{Outcome: Failed, Err: err}
		return true
	}
	a.result = Result{Outcome: Open, Took: took, Conn: c}
	return true
}

// icmpError reads the socket's error queue. It reports only errors that came from
// another host: those of this host's own stack have another origin.
func icmpError(fd int, v6 bool) (by netip.Addr, what string, found bool) {
	control := make([]byte, 512)
	for {
		_, n, _, _, err := unix.Recvmsg(fd, nil, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return by, what, found
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return by, what, found
		}
		for _, m := range messages {
			recverr := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
			if v6 {
				recverr = m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
			}
			size := int(unsafe.Sizeof(unix.SockExtendedErr{}))
			if !recverr || len(m.Data) < size {
				continue
			}
			e := *(*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0])) // #nosec G103 -- the length was checked
			if e.Origin != unix.SO_EE_ORIGIN_ICMP && e.Origin != unix.SO_EE_ORIGIN_ICMP6 {
				continue
			}
			// The offender's address follows (SO_EE_OFFENDER of ip(7)).
			addr := offender(m.Data[size:], v6)
			if !addr.IsValid() {
				continue
			}
			by, what, found = addr, icmpText(e.Origin == unix.SO_EE_ORIGIN_ICMP6, e.Type, e.Code), true
		}
	}
}

func offender(raw []byte, v6 bool) netip.Addr {
	if v6 {
		if len(raw) < 24 { // sockaddr_in6: family, port, flow, then the address
			return netip.Addr{}
		}
		return netip.AddrFrom16([16]byte(raw[8:24])).Unmap()
	}
	if len(raw) < 8 { // sockaddr_in: family, port, then the address
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(raw[4:8]))
}

// timeExceeded is what a router says of a packet whose time to live is over.
const timeExceeded = "time exceeded"

// icmpText is a type and code in words (RFC 792, RFC 1812 section 5.2.7.1; RFC 4443
// section 3).
func icmpText(v6 bool, typ, code uint8) string {
	if v6 {
		switch typ {
		case 1:
			if s, ok := map[uint8]string{0: "no route to destination", 1: "administratively prohibited", 2: "beyond scope of source", 3: "address unreachable",
				4: "port unreachable", 5: "source address failed policy", 6: "reject route"}[code]; ok {
				return s
			}
		case 2:
			return "packet too big"
		case 3:
			return timeExceeded
		}
		return fmt.Sprintf("ICMPv6 type %d code %d", typ, code)
	}
	switch typ {
	case 3:
		if s, ok := map[uint8]string{0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 4: "fragmentation needed",
			9: "network administratively prohibited", 10: "host administratively prohibited", 13: "administratively prohibited"}[code]; ok {
			return s
		}
	case 11:
		return timeExceeded
	}
	return fmt.Sprintf("ICMP type %d code %d", typ, code)
}
