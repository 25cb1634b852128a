package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"
)

// idleConnections is how many connections the flood opens.
const idleConnections = 100_000

// kept is how many of them this side holds at a time: more than a node allows.
const kept = 14_000

// idle opens many more connections than a node allows, leaves them, and looks at
// the node's memory and at whether a new client is served.
func (b *bench) idle(ctx context.Context, dir string) (err error) {
	const name = "idle: 100,000 connections opened"
	if !b.wants(name) {
		return nil
	}
	data := filepath.Join(dir, "idle")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	n, err := start(ctx, b.binary, data, b.settings...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	before, err := n.rss()
	if err != nil {
		return err
	}
	// The node closes the longest idle one for each that is too many; so does this
	// side, some thousand later, or its own descriptors would end.
	conns := make([]net.Conn, kept)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close() // many are closed by the node already
			}
		}
	}()
	accepted, refused := 0, 0
	for i := range idleConnections {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// One address has about 28,000 ports; the loopback has addresses enough.
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/20_000))}
		c, err := (&net.Dialer{LocalAddr: from, Timeout: 10 * time.Second}).DialContext(ctx, "tcp", n.http)
		if err != nil {
			refused++
			continue
		}
		accepted++
		if old := conns[i%kept]; old != nil {
			_ = old.Close() // closed by the node already
		}
		conns[i%kept] = c
	}
	b.add(Figure{Name: name, Value: float64(accepted), Unit: "accepted", Failed: refused})
	r := load{address: n.http, conns: 4, time: b.seconds, worker: always(expect(request("GET", n.host, "/.well-known/jwks.json", "", nil), 200))}.run(ctx)
	b.add(Figure{Name: "idle: jwks beside them", Value: r.Rate, Unit: "/s", Failed: r.Failed, latency: &r.latency})
	after, err := n.rss()
	b.add(Figure{Name: "idle: memory they cost", Value: after - before, Unit: "MiB"})
	return err
}
