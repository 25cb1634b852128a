package appliance

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// drain is how a node leaves without a failed request: it says at /testall (404)
// and /readyz (503) that it is not ready, asks clients and balancers to open no more
// requests on their connections, and goes on serving until the balancers' checks
// have noticed.
type drain struct {
	stopping atomic.Bool // the process is about to end
	hurry    chan struct{}
	// handOver gives away what other nodes need, while every listener is open; nil
	// where there is nothing.
	handOver func(context.Context)
	cluster  func() bool // whether the control plane has drained this node; nil on a single node
}

func newDrain() *drain { return &drain{hurry: make(chan struct{}, 1)} }

func (d *drain) on() bool {
	return d.stopping.Load() || d.cluster != nil && d.cluster()
}

// Hurry ends the wait of a stop: the listeners close at once, requests in flight
// still end.
func (n *Node) Hurry() {
	select {
	case n.drain.hurry <- struct{}{}:
	default: // asked before
	}
}

// wait lets balancers notice, once a stop has begun, for as long as configured or
// until something fails.
func (d *drain) wait(failed context.Context, log *slog.Logger, how time.Duration) {
	d.stopping.Store(true)
	if how <= 0 {
		return
	}
	log.Info("the node drains: it says that it is not ready, and still serves", "seconds", how.Seconds())
	timer := time.NewTimer(how)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.hurry:
		log.Info("the drain ends early")
	case <-failed.Done():
	}
}

// closing asks the other side to end its connection after each answer, while the
// node drains. On HTTP/2 net/http sends GOAWAY for it (RFC 9113 section 6.8): what
// the client has begun still ends.
func (d *drain) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.on() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
