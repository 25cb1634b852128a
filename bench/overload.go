package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// overload drives a node with five times what it can serve, and looks at what is
// turned away, at who lives, at its memory, and at how soon it is over. The node
// runs at a lower priority than the clients: they stand for other machines, whose
// processors a node under load does not take away.
func (b *bench) overload(ctx context.Context, dir string) (err error) {
	if !b.wants("overload") {
		return nil
	}
	data := filepath.Join(dir, "overload")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	n, err := startAs(ctx, []string{"nice", "-n", "10", b.binary}, data, b.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	s, err := setUp(n, 1)
	if err != nil {
		return err
	}
	flood := s.clientCredentials("RS256")
	capacity := load{address: s.n.http, conns: b.conns, time: b.seconds, worker: always(flood)}.run(ctx).Rate
	admin, err := s.bearer("GET", "/api/v2/clients?per_page=1", s.n.token, nil)
	if err != nil {
		return err
	}
	probes := map[string]*probe{
		"admin":  {request: admin},
		"health": {request: request("GET", s.n.host, "/testall", "", nil)},
	}

	before, err := s.n.rss()
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, p := range probes {
		wg.Go(func() { p.run(running, s.n.http) })
	}
	peak := before
	wg.Go(func() {
		for running.Err() == nil {
			if mib, err := s.n.rss(); err == nil {
				peak = math.Max(peak, mib)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	var mu sync.Mutex
	var shed []time.Duration
	token := s.clientCredentialsRequest("RS256")
	served := 0
	load{address: s.n.http, conns: 512, time: 2 * b.seconds, rate: 5 * capacity, worker: func(int) operation {
		return func(c *conn) error {
			at := time.Now()
			a, err := c.do(token)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			switch a.status {
			case http.StatusOK:
				served++
			case http.StatusServiceUnavailable, http.StatusTooManyRequests:
				shed = append(shed, time.Since(at))
			default:
				return fmt.Errorf("answered %d", a.status)
			}
			return nil
		}
	}}.run(ctx)
	ended := time.Now()
	stop()
	wg.Wait()
	recovered, err := normal(ctx, s, flood)
	if err != nil {
		return err
	}

	slices.Sort(shed)
	b.add(Figure{Name: "overload: tokens served at 5 times capacity", Value: float64(served) / (2 * b.seconds).Seconds(), Unit: "/s", Limit: capacity, Of: "capacity"})
	if len(shed) > 0 {
		b.add(Figure{Name: "overload: turned away", Value: float64(len(shed)) / (2 * b.seconds).Seconds(), Unit: "/s", Target: "answered in under 50 ms",
			latency: &latency{quantile(shed, .5), quantile(shed, .99), quantile(shed, .999)}})
	}
	for _, name := range []string{"admin", "health"} {
		p := probes[name]
		slices.Sort(p.took)
		b.add(Figure{Name: "overload: " + name + " requests meanwhile", Value: float64(len(p.took)), Unit: "answered", Failed: p.failed, Target: "none fails",
			latency: &latency{quantile(p.took, .5), quantile(p.took, .99), quantile(p.took, .999)}})
	}
	b.add(Figure{Name: "overload: memory, most", Value: peak, Unit: "MiB"})
	b.add(Figure{Name: "overload: back to normal after", Value: ms(recovered.Sub(ended)), Unit: "ms", Target: "under 2,000"})
	return nil
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return ms(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))])
}

// probe is one client that asks again and again while others flood the node.
type probe struct {
	request []byte
	took    []time.Duration
	failed  int
}

func (p *probe) run(ctx context.Context, address string) {
	c := &conn{address: address}
	defer c.close()
	for ctx.Err() == nil {
		at := time.Now()
		if a, err := c.do(p.request); err != nil || a.status != http.StatusOK {
			p.failed++
		} else {
			p.took = append(p.took, time.Since(at))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// normal waits until twenty tokens in a row come without a wait, and returns when
// the first of them came.
func normal(ctx context.Context, s *scene, op operation) (time.Time, error) {
	c := &conn{address: s.n.http}
	defer c.close()
	var first time.Time
	for row := 0; row < 20; {
		if err := ctx.Err(); err != nil {
			return first, err
		}
		at := time.Now()
		if err := op(c); err != nil || time.Since(at) > 20*time.Millisecond {
			row = 0
			continue
		}
		if row == 0 {
			first = at
		}
		row++
	}
	return first, nil
}
