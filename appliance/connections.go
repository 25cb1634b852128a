package appliance

import (
	"container/list"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// connections bounds the connections of a listener. When one more comes, the one
// that has been idle for the longest time is closed: a browser or a client opens
// another when it needs one. Where none is idle, it is the oldest of those that
// have sent no request yet, which is what slow senders of headers look like. Only
// when all are at work is the new one closed.
//
// It is http.Server's ConnState hook, so that no connection is wrapped.
type connections struct {
	max int

	mu     sync.Mutex
	all    map[net.Conn]*connection
	fresh  *list.List // no request yet, the oldest first
	idle   *list.List // between requests, the longest idle first
	closed uint64
}

type connection struct {
	in    *list.List // fresh, idle, or nil for one at work
	at    *list.Element
	since time.Time // when it was accepted
}

func newConnections(limit int) *connections {
	return &connections{max: limit, all: map[net.Conn]*connection{}, fresh: list.New(), idle: list.New()}
}

// state follows a connection; see http.Server.ConnState.
func (c *connections) state(nc net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.all[nc]
	if known != nil && known.in != nil {
		known.in.Remove(known.at)
		known.in = nil
	}
	switch s {
	case http.StateNew:
		if len(c.all) >= c.max && !c.makeRoom() {
			c.closed++
			_ = nc.Close() // its server goroutine ends with the first read
			return
		}
		known = &connection{in: c.fresh, since: time.Now()}
		c.all[nc] = known
		known.at = c.fresh.PushBack(nc)
	case http.StateIdle:
		if known != nil {
			known.in, known.at = c.idle, c.idle.PushBack(nc)
		}
	case http.StateHijacked, http.StateClosed:
		delete(c.all, nc)
	}
}

// makeRoom closes a connection that nobody uses at this moment.
func (c *connections) makeRoom() bool {
	for _, l := range []*list.List{c.idle, c.fresh} {
		if e := l.Front(); e != nil {
			nc := l.Remove(e).(net.Conn)
			delete(c.all, nc)
			c.closed++
			_ = nc.Close() // the server notices at its read
			return true
		}
	}
	return false
}

// firstRequestTime is how old a connection may be without a request for a stop to
// wait for one; as old as http.Server takes it. Browsers and clients open some that
// they never use.
const firstRequestTime = 5 * time.Second

// answer waits until every young connection has been answered once, or has gone:
// http.Server drops an HTTP/1 request that it reads after its Shutdown has begun. The
// listener has to be closed. It may be called on nil.
func (c *connections) answer(young time.Duration) {
	if c == nil {
		return
	}
	for ; c.newest() < young; time.Sleep(5 * time.Millisecond) {
	}
}

// newest is the age of the youngest connection that has sent no request yet.
func (c *connections) newest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.fresh.Back()
	if e == nil {
		return time.Duration(math.MaxInt64)
	}
	return time.Since(c.all[e.Value.(net.Conn)].since)
}

func (c *connections) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

func (c *connections) closedForRoom() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// maxConnections is the bound of a listener that the process can keep: a
// connection costs a descriptor and about 20 KiB, and the rest of the node needs
// some descriptors too.
func maxConnections(configured int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur > 0 {
		return min(configured, max(16, int(min(limit.Cur, 1<<31))/2))
	}
	return configured
}
