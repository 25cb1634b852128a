package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDatagram is what a reply may have at the most, in bytes.
const maxDatagram = 64 << 10

// UDP sends a datagram and waits for a reply, and sends it again a few times while
// none comes. Open means that a reply came; it is the second result. Silence is
// Dropped. An ICMP error is Closed where the target says that nobody has the port,
// and Rejected otherwise; Result.By sent it. Result.Took counts from the first
// datagram.
func UDP(ctx context.Context, t Target, message []byte, attempts int, timeout time.Duration) (Result, []byte) {
	v6 := t.Address.Addr().Unmap().Is6()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = prepare(int(fd), v6, t) }); e != nil {
			return e
		}
		return err
	}}
	conn, err := d.DialContext(ctx, "udp", t.Address.String())
	if err != nil {
		return failed(err), nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, maxDatagram)
	began := time.Now()
	for i := range max(attempts, 1) {
		if ctx.Err() != nil {
			break
		}
		if err := conn.SetReadDeadline(began.Add(timeout * time.Duration(i+1) / time.Duration(max(attempts, 1)))); err != nil {
			return Result{Outcome: Failed, Err: err}, nil
		}
		// What an earlier datagram was answered with may come with this call.
		if _, err := conn.Write(message); err != nil {
			if r, ok := refusal(conn, t, v6, err, began); ok {
				return r, nil
			}
		}
		n, err := conn.Read(buf)
		if err == nil {
			return Result{Outcome: Open, Took: time.Since(began)}, buf[:n]
		}
		if r, ok := refusal(conn, t, v6, err, began); ok {
			return r, nil
		}
	}
	return Result{Outcome: Dropped}, nil
}

// refusal reads an error of a socket, and reports whether it is an answer.
func refusal(conn net.Conn, t Target, v6 bool, err error, began time.Time) (Result, bool) {
	raw, e := conn.(syscall.Conn).SyscallConn()
	if e != nil {
		return Result{Outcome: Failed, Err: e}, true
	}
	r := Result{Took: time.Since(began)}
	var found bool
	if e := raw.Control(func(fd uintptr) { r.By, r.ICMP, found = icmpError(int(fd), v6); r.Local = localAddr(int(fd)) }); e != nil {
		return Result{Outcome: Failed, Err: e}, true
	}
	switch {
	case found && r.ICMP == "port unreachable" && r.By == t.Address.Addr().Unmap():
		r.Outcome = Closed
	case found:
		r.Outcome = Rejected
	case errors.Is(err, unix.ECONNREFUSED):
		r.Outcome = Closed
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		// The own firewall's word: the packet never left.
		return Result{Outcome: Failed, Err: fmt.Errorf("this host's own firewall: %w", err)}, true
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return failed(err), true
	default:
		return r, false // nothing came in time
	}
	return r, true
}

// TraceUDP is Trace with a datagram.
func TraceUDP(ctx context.Context, t Target, message []byte, timeout time.Duration) []Hop {
	results := make([]Result, maxHops)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			one := t
			one.TTL = i + 1
			results[i], _ = UDP(ctx, one, message, 1, timeout)
		})
	}
	wg.Wait()
	return hops(t.Address.Addr(), results)
}

// Burst sends n first packets of connections, or n datagrams, waits for a moment
// and forgets them: so that a counter on the way can be read before and after.
func Burst(ctx context.Context, t Target, udp bool, n int, wait time.Duration) {
	if udp {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { UDP(ctx, t, []byte{0}, 1, wait) })
		}
		wg.Wait()
		return
	}
	targets := make([]Target, n)
	for i := range targets {
		targets[i] = t
	}
	for _, r := range TCP(ctx, targets, wait) {
		if r.Conn != nil {
			_ = r.Conn.Close() // nobody speaks over it
		}
	}
}

// Quality is what the kernel has measured on a connection.
type Quality struct {
	RTT  time.Duration // 0 where no packet could be timed
	Lost int           // packets that were sent again
}

// QualityOf asks the kernel (TCP_INFO of tcp(7)): how busy this process is plays no
// part.
func QualityOf(conn net.Conn) (q Quality, ok bool) {
	sc, is := conn.(syscall.Conn)
	if !is {
		return q, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return q, false
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		q = Quality{RTT: time.Duration(info.Rtt) * time.Microsecond, Lost: int(info.Total_retrans)}
		if info.Min_rtt != 0 && info.Min_rtt != ^uint32(0) {
			q.RTT = time.Duration(info.Min_rtt) * time.Microsecond
		}
		ok = true
	})
	return q, ok && err == nil
}
