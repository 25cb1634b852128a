//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/pglab"
)

// betweenSites is how long a packet takes from one site to the other.
const betweenSites = 10 * time.Millisecond

// Sites are an appliance on two sites, as docs/two-sites.md has it: two nodes and a
// database each, the second database a synchronous standby of the first, one balancer
// outside with the nodes of both. The nodes of the Cluster are those of the site that
// works.
type Sites struct {
	*Cluster
	A, B *Side
}

// Side is one of the sites.
type Side struct {
	Name     string
	Nodes    []*Node
	Database *pglab.Server

	hosts []string
}

// NewSites brings both up: A works, B waits. The lease is that of both.
func NewSites(t testing.TB, lease time.Duration) *Sites {
	t.Helper()
	pglab.Require(t)
	c := newHosts(t, Options{Nodes: 4, External: true})
	s := &Sites{Cluster: c, A: &Side{Name: "a", hosts: []string{"node1", "node2", "db1"}}, B: &Side{Name: "b", hosts: []string{"node3", "node4", "db2"}}}
	for _, a := range s.A.hosts {
		for _, b := range s.B.hosts {
			c.Lab.Delay(a, b, betweenSites)
			c.Lab.Delay(b, a, betweenSites)
		}
	}
	s.A.Database = pglab.Start(t, c.Lab.Host("db1"))
	// The nodes' user has what docs/two-sites.md grants, and no more.
	s.A.Database.Query("CREATE ROLE node LOGIN; ALTER DATABASE portcullis OWNER TO node; GRANT pg_monitor TO node; GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO node; GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO node")
	s.B.Database = s.A.Database.Replica(c.Lab.Host("db2"))
	s.A.Database.Synchronous(s.B.Database)
	for i, h := range c.Lab.Nodes() {
		side, other := s.A, s.B
		if i >= 2 {
			side, other = s.B, s.A
		}
		n := c.newNode(h)
		c.Database = &Database{t: t, servers: []*pglab.Server{side.Database, other.Database}}
		c.dsn = side.dsn()
		site := []string{"site.name=" + side.Name, "site.standbys=" + other.Database.Host().Name(), "site.peer=" + other.dsn(), "site.lease=" + lease.String(),
			// Who watches a node does so from its own host.
			"trusted_proxies.networks=" + c.Lab.Host("lb").Addr4().String() + "," + c.Lab.Nodes()[0].Addr4().String() + "/24"}
		switch {
		case i == 0:
			c.options.Settings = site
			n.found()
		case side == s.B:
			n.join(append(site, "database.dsn="+side.dsn())...)
		default:
			n.join() // what it needs to know of its site it is handed
		}
		side.Nodes = append(side.Nodes, n)
		if side == s.A {
			n.Start()
			c.Nodes = side.Nodes
		} else if _, err := n.launch(); err != nil {
			t.Fatal(err)
		}
	}
	s.works(s.A, s.B)
	c.balance()
	c.Settled()
	return s
}

// dsn is the database of the site, as its nodes are told it.
func (s *Side) dsn() string {
	return strings.Replace(pglab.DSN(s.Database), pglab.User+"@", "node@", 1) + "&connect_timeout=2"
}

// config is the file of a node, for commands.
func (n *Node) config() string { return n.Data + "/portcullis.yaml" }

// works makes a site the one that the cluster's harness looks at.
func (s *Sites) works(now, other *Side) {
	s.Nodes = now.Nodes
	s.Database = &Database{t: s.t, servers: []*pglab.Server{now.Database, other.Database}}
}

// Follow makes a site's database a standby of the other one's, as an operator does
// after a change, and waits until its loss would cost nothing.
func (s *Sites) Follow(waits, works *Side) {
	s.t.Helper()
	waits.Database.Rejoin(works.Database)
	works.Database.Synchronous(waits.Database)
}

// Change hands over in order from one site to the other.
func (s *Sites) Change(r *Run, from, to *Side) {
	s.t.Helper()
	w := s.watch(r, from, to)
	began := r.Now()
	from.Nodes[0].must("site", "demote", "--yes", "--config", from.Nodes[0].config())
	demoted := r.Now()
	to.Nodes[0].must("site", "promote", "--config", to.Nodes[0].config())
	promoted := r.Now()
	r.Notef("the old site had acknowledged %d writes", acknowledged(r))
	s.works(to, from)
	write := s.firstWrite(r, promoted)
	r.Notef("site demote took %.1fs, site promote %.1fs; the first write through the balancer was acknowledged %.1fs after the hand-over had ended, and %.1fs after it had begun",
		(demoted - began).Seconds(), (promoted - demoted).Seconds(), (write - demoted).Seconds(), (write - began).Seconds())
	r.Hold(3 * time.Second)
	w.judge()
}

// Lose lets a site disappear, as cut does and undoes it, and the other one take its
// place without a word of the operator's. After it the old site is there again, as it
// was, and its first node has begun anew.
func (s *Sites) Lose(r *Run, from, to *Side, cut func() (undo func())) {
	s.t.Helper()
	w := s.watch(r, from, to)
	began := r.Now()
	heal := cut()
	to.Nodes[0].must("site", "promote", "--config", to.Nodes[0].config())
	promoted := r.Now()
	r.Notef("the old site had acknowledged %d writes", acknowledged(r))
	s.works(to, from)
	write := s.firstWrite(r, promoted)
	r.Notef("site promote took %.1fs; the first write through the balancer was acknowledged %.1fs after the fault", (promoted - began).Seconds(), (write - began).Seconds())
	heal()
	from.Nodes[0].Kill()
	again, err := from.Nodes[0].launch()
	if err != nil {
		s.t.Fatal(err)
	}
	r.Hold(10 * time.Second) // twice as often as a site looks at the other one
	select {
	case <-again:
		r.T.Errorf("%s of the site that was replaced began to answer", from.Nodes[0].Host.Name())
	default:
	}
	w.judge()
	for _, n := range from.Nodes {
		r.Notef("%s, of the old site, which is there again, says: %s", n.Host.Name(), n.lastWord("this site works no more"))
	}
}

// lastWord is the error of the last line of the node's log that says msg.
func (n *Node) lastWord(msg string) string {
	n.c.t.Helper()
	raw, err := os.ReadFile(n.log)
	if err != nil {
		n.c.t.Fatal(err)
	}
	word := "nothing"
	for line := range strings.Lines(string(raw)) {
		var e struct{ Msg, Error string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == msg {
			word = e.Error
		}
	}
	return word
}

// Cut is the loss of every line between two sites; both live.
func (s *Sites) Cut() (undo func()) {
	var undos []func()
	for _, a := range s.A.hosts {
		for _, b := range s.B.hosts {
			undos = append(undos, s.Lab.Drop(a, b, "", 0), s.Lab.Drop(b, a, "", 0))
		}
	}
	return all(undos)
}

// Unplug takes every host of a site off the network, and its balancer's way there.
func (s *Sites) Unplug(side *Side) (undo func()) {
	var undos []func()
	for _, h := range side.hosts {
		undos = append(undos, s.Lab.Unplug(h))
	}
	return all(undos)
}

func all(undos []func()) func() {
	return func() {
		for _, undo := range undos {
			undo()
		}
	}
}

// firstWrite waits for a write that began after a moment and was acknowledged, and
// says when it was.
func (s *Sites) firstWrite(r *Run, after time.Duration) time.Duration {
	s.t.Helper()
	at := time.Duration(0)
	s.Eventually("a write at the new site", func() error {
		for _, op := range r.Ops() {
			if op.Kind == Write && op.Outcome == OK && op.Call > after {
				at = op.Return
				return nil
			}
		}
		return fmt.Errorf("none was acknowledged")
	})
	return at
}

// acknowledged counts the writes that were, up to now.
func acknowledged(r *Run) (n int) {
	for _, op := range r.Ops() {
		switch op.Kind {
		case Create, Write, Redeem, Refresh, Revoke, Rotate:
			if op.Outcome == OK {
				n++
			}
		}
	}
	return n
}

// fence knows when the nodes of two sites gave out tokens. It asks each on its own
// host, which no fault of the network keeps from it.
type fence struct {
	r        *Run
	from, to *Side
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu   sync.Mutex
	last time.Duration // when the old site answered last
	said int           // how often
	next time.Duration // when a question began that the new site answered; 0 before
	both int           // answers of the old site after that
}

func (s *Sites) watch(r *Run, from, to *Side) *fence {
	ctx, stop := context.WithCancel(r.T.Context())
	f := &fence{r: r, from: from, to: to, stop: stop}
	for _, side := range []*Side{from, to} {
		for _, n := range side.Nodes {
			f.wg.Go(func() { f.ask(ctx, side, n, s.local(r.Load.Scene, n)) })
		}
	}
	return f
}

// local is the scene as it is reached on a node from the node's own host.
func (s *Sites) local(scene *Scene, n *Node) *Scene {
	to := net.JoinHostPort(n.Host.Addr4().String(), "80")
	local := *scene
	local.base, local.balanced = "http://"+domain, true
	local.transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.Host.Dial(ctx, "tcp4", to) }}
	return &local
}

func (f *fence) ask(ctx context.Context, side *Side, n *Node, s *Scene) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		call := f.r.Now()
		if !s.MachineToken(ctx) {
			continue
		}
		f.mu.Lock()
		switch {
		case side == f.from:
			f.last, f.said = f.r.Now(), f.said+1
			if f.next != 0 && f.last > f.next {
				f.both++
			}
		case f.next == 0 || call < f.next:
			f.next = call
		}
		f.mu.Unlock()
	}
}

// judge ends the watch: no answer of the old site came after the first one of the new.
func (f *fence) judge() {
	f.stop()
	f.wg.Wait()
	switch {
	case f.said == 0:
		f.r.T.Errorf("site %s never answered: nothing was watched", f.from.Name)
	case f.next == 0:
		f.r.T.Errorf("site %s never answered", f.to.Name)
	case f.both > 0 || f.last > f.next:
		f.r.T.Errorf("site %s gave out %d tokens, the last one at %.3fs, after site %s had begun at %.3fs", f.from.Name, f.both, f.last.Seconds(), f.to.Name, f.next.Seconds())
	default:
		f.r.Notef("the old site's last token came %.1fs before the new one's first", (f.next - f.last).Seconds())
	}
}
