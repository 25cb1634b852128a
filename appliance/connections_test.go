package appliance

import (
	"net"
	"net/http"
	"testing"
)

// pipe is a connection that remembers its end.
type pipe struct {
	net.Conn
	closed bool
}

func (p *pipe) Close() error { p.closed = true; return nil }

func TestConnectionsMakeRoom(t *testing.T) {
	c := newConnections(3)
	fresh, idle, busy := &pipe{}, &pipe{}, &pipe{}
	for _, p := range []*pipe{fresh, idle, busy} {
		c.state(p, http.StateNew)
	}
	c.state(idle, http.StateActive)
	c.state(idle, http.StateIdle)
	c.state(busy, http.StateActive)

	next := &pipe{}
	c.state(next, http.StateNew)
	if !idle.closed || fresh.closed || busy.closed || next.closed {
		t.Error("not the idle one was closed")
	}
	c.state(idle, http.StateClosed) // the server says so later
	c.state(next, http.StateActive)

	last := &pipe{}
	c.state(last, http.StateNew)
	if !fresh.closed || last.closed {
		t.Error("not the one without a request was closed")
	}
	c.state(last, http.StateActive)

	refused := &pipe{}
	c.state(refused, http.StateNew)
	if !refused.closed || busy.closed || next.closed || last.closed {
		t.Error("a connection at work was closed, or one too many was let in")
	}
	c.state(refused, http.StateClosed)
	if c.open() != 3 || c.closedForRoom() != 3 {
		t.Errorf("%d open, %d closed", c.open(), c.closedForRoom())
	}
	c.state(busy, http.StateClosed)
	if c.open() != 2 || c.idle.Len() != 0 || c.fresh.Len() != 0 {
		t.Error("a connection that ended is still counted")
	}
}
