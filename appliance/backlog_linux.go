package appliance

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// emptyBacklog keeps new connections from completing, and returns when those that
// have completed are accepted. A listener that is closed with connections in its
// backlog resets them, though their clients were told that they are connected; a
// balancer that only passes TCP through cannot mend that. What comes meanwhile is
// dropped by a filter on the socket; the client's kernel asks again after a second,
// and is refused, so that the balancer takes another node.
//
// It is a kindness at a stop: where the kernel does not help, the listener is closed
// as it is.
func emptyBacklog(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	conn, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	dropAll := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	if socket(conn, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &dropAll[0]})
	}) != nil {
		return
	}
	for range 100 { // at most half a second
		waiting := -1
		if err := socket(conn, func(fd int) error {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil {
				waiting = int(info.Unacked) // of a listener: the length of its backlog
			}
			return err
		}); err != nil || waiting == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func socket(conn syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}
