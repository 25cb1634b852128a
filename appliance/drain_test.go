package appliance

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
)

// TestWhoWasConnectedBeforeAStopIsAnswered: the request of a connection that was
// there before the listener closed, and that comes only afterwards.
func TestWhoWasConnectedBeforeAStopIsAnswered(t *testing.T) {
	l, err := listen(t.Context(), netcontract.LB, "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	d := newDrain()
	conns := newConnections(100)
	handler := d.closing(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answered") }))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, slog.New(slog.DiscardHandler), []surface{{name: "http", listener: l, handler: handler, port: l}}, map[string]*connections{"http": conns}, d, 0)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for conns.open() == 0 { // it is accepted
		time.Sleep(time.Millisecond)
	}
	stop()
	for { // and nobody is any more
		late, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond)
		if err != nil {
			break
		}
		late.Close()
		time.Sleep(time.Millisecond)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("the request was not answered: %v", err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "answered" || !resp.Close {
		t.Errorf("%q, close %v, %v", body, resp.Close, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRowsAreOpenWhileANodeHandsOver: other nodes ask until they know who counts from
// now on.
func TestRowsAreOpenWhileANodeHandsOver(t *testing.T) {
	l, err := listen(t.Context(), netcontract.RateLimit, "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	d := newDrain()
	var answered error
	d.handOver = func(context.Context) {
		var resp *http.Response
		if resp, answered = http.Get("http://" + l.Addr().String()); answered == nil {
			answered = resp.Body.Close()
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	answered = context.Canceled // until it was asked
	if err := serve(ctx, slog.New(slog.DiscardHandler), []surface{{name: "rate limits", listener: l, handler: handler}}, nil, d, 0); err != nil {
		t.Fatal(err)
	}
	if answered != nil {
		t.Errorf("while the node handed over, its row was closed: %v", answered)
	}
}
