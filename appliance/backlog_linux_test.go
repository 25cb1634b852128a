package appliance

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
)

// TestBacklogIsEmptiedBeforeAListenerCloses: who was connected is accepted, and who
// comes later is not told that it is connected.
func TestBacklogIsEmptiedBeforeAListenerCloses(t *testing.T) {
	l, err := listen(t.Context(), netcontract.LB, "127.0.0.1", 0) // without MPTCP, which knows no filters
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const early = 50
	clients := make([]net.Conn, early)
	for i := range clients { // nobody accepts yet
		if clients[i], err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	emptied := make(chan struct{})
	go func() {
		emptyBacklog(l)
		close(emptied)
	}()
	for range early {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	<-emptied
	d := net.Dialer{Timeout: 200 * time.Millisecond}
	if c, err := d.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("somebody was connected after the backlog was emptied")
	} else if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a late client is not left waiting: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("client %d was connected, and: %v", i, err)
		}
	}
	if c, err := d.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("somebody was connected to a closed listener")
	}
}
