//go:build linux

package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/internal/pglab"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

// sites is two sites: a node and a database each, and a line of 10 ms between.
type sites struct {
	t      *testing.T
	lab    *lab.Lab
	a, b   *pglab.Server
	sealer *seal.Sealer
}

func newSites(t *testing.T, synchronous bool) *sites {
	t.Helper()
	pglab.Require(t)
	s := &sites{t: t, lab: lab.New(t, lab.Options{Nodes: 2, IPv4Only: true, Services: []string{"dba", "dbb"}})}
	s.a = pglab.Start(t, s.lab.Host("dba"))
	// The nodes' user has what docs/two-sites.md grants, and no more.
	s.a.Query("CREATE ROLE node LOGIN; ALTER DATABASE portcullis OWNER TO node; GRANT pg_monitor TO node; GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO node; GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO node")
	s.b = s.a.Replica(s.lab.Host("dbb"))
	if synchronous {
		s.a.Synchronous(s.b)
	}
	s.lab.Delay("dba", "dbb", 10*time.Millisecond)
	s.lab.Delay("dbb", "dba", 10*time.Millisecond)
	var err error
	if s.sealer, err = seal.New(make([]byte, seal.KeySize)); err != nil {
		t.Fatal(err)
	}
	return s
}

func dsn(db *pglab.Server) string { return strings.Replace(pglab.DSN(db), pglab.User+"@", "node@", 1) }

func (s *sites) database(host string) postgres.Config {
	return postgres.Config{Dial: s.lab.Host(host).Dial, ConnectTimeout: 2 * time.Second, FailoverTimeout: time.Second, StatementTimeout: 20 * time.Second}
}

// siteNode is what a node does with its site, without the rest of it.
type siteNode struct {
	watch *siteWatch
	store *store.Store
}

func (s *sites) watch(host string, db *pglab.Server, cfg SiteConfig) *siteWatch {
	return &siteWatch{cfg: cfg, database: s.database(host), dsn: dsn(db), logger: slog.New(slog.NewTextHandler(s.t.Output(), nil)).With("node", host)}
}

func (s *sites) node(host string, db *pglab.Server, cfg SiteConfig) *siteNode {
	s.t.Helper()
	n := &siteNode{watch: s.watch(host, db, cfg)}
	if err := n.watch.await(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	var err error
	if n.store, err = store.Open(s.t.Context(), dsn(db), store.Options{Sealer: s.sealer, Database: s.database(host)}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { n.store.Close() })
	if err := n.watch.start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(n.watch.stop)
	n.store.SetGuard(n.watch.Refusal)
	return n
}

func (s *sites) open(host string, db *pglab.Server) *postgres.Site {
	s.t.Helper()
	site, err := postgres.OpenSite(s.t.Context(), dsn(db), false, s.database(host))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { site.Close() })
	return site
}

// eventually asks until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// journal is the writes of one site.
type journal struct {
	mu    sync.Mutex
	acked map[string]time.Time
	last  time.Time
}

func (j *journal) write(ctx context.Context, db *store.Store, prefix string) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprint(prefix, i)
		err := db.Write(ctx, "t", func(tx tenant.Tx) error { return tx.Insert(tenant.KindRole, id, []byte(`{}`)) })
		if err == nil {
			j.mu.Lock()
			j.last = time.Now()
			j.acked[id] = j.last
			j.mu.Unlock()
		}
		time.Sleep(2 * time.Millisecond) // a bound on the load, for others share the machine
	}
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.acked)
}

// lost counts what was acknowledged and is not in db, and over which time.
func (j *journal) lost(t *testing.T, db *store.Store) (n int, span time.Duration) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var first time.Time
	for id, at := range j.acked {
		if _, err := db.Get(t.Context(), "t", tenant.KindRole, id); problem.Is(err, problem.NotFound) {
			if n++; first.IsZero() || at.Before(first) {
				first = at
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n > 0 {
		span = j.last.Sub(first)
	}
	return n, span
}

// TestSiteLost: the active site's database is killed; the operator says so, and the
// other site takes over. What is lost, and how long it takes, is printed.
func TestSiteLost(t *testing.T) {
	t.Parallel()
	for name, synchronous := range map[string]bool{"asynchronous": false, "synchronous": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSites(t, synchronous)
			a := s.node("node1", s.a, SiteConfig{Name: "a"})
			waits := make(chan error, 1)
			go func() { waits <- s.watch("node2", s.b, SiteConfig{Name: "b"}).await(t.Context()) }()
			j := &journal{acked: map[string]time.Time{}}
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() { j.write(ctx, a.store, fmt.Sprint("w", i, "-")) })
			}
			eventually(t, "200 writes", func() bool { return j.count() >= 200 })
			site := s.open("node2", s.b)
			if _, err := site.Promote(t.Context(), "b", false, func(string) {}); code(err) != "old_site_may_write" {
				t.Errorf("without a lease and without the operator's word: %v", err)
			}
			select {
			case err := <-waits:
				t.Fatalf("the passive site's node began to work: %v", err)
			default:
			}
			s.a.Kill()
			killed := time.Now()
			p, err := site.Promote(t.Context(), "b", true, func(what string) { t.Log(what) })
			if err != nil || p.Epoch != 2 || p.Outcome != "promoted" {
				t.Fatalf("%+v, %v", p, err)
			}
			if err := <-waits; err != nil {
				t.Fatal(err)
			}
			b := s.node("node2", s.b, SiteConfig{Name: "b"})
			if err := b.store.Write(t.Context(), "t", func(tx tenant.Tx) error { return tx.Insert(tenant.KindRole, "b", []byte(`{}`)) }); err != nil {
				t.Fatal(err)
			}
			took := time.Since(killed)
			stop()
			wg.Wait()
			lost, span := j.lost(t, b.store)
			t.Logf("%s replication, 10 ms between the sites: RPO %d of %d acknowledged writes (the last %s), RTO %s", name, lost, j.count(), span.Round(time.Millisecond), took.Round(time.Millisecond))
			if synchronous && lost > 0 {
				t.Errorf("%d acknowledged writes are lost", lost)
			}

			// The old site comes back, and nobody has told its node.
			s.a.Run()
			old := s.watch("node1", s.a, SiteConfig{Name: "a", Peer: config.Secret(dsn(s.b))})
			life, end := context.WithCancel(t.Context())
			defer end()
			go func() { _ = old.run(life) }()
			eventually(t, "the old site learns that it was replaced", func() bool { return code(old.Refusal()) == "site_replaced" })
		})
	}
}

// TestSiteLease: the line between the sites is cut, and nobody tells the old site of
// the promotion. It stops by itself before the other one begins.
func TestSiteLease(t *testing.T) {
	t.Parallel()
	const lease = 3 * time.Second
	s := newSites(t, false)
	a := s.node("node1", s.a, SiteConfig{Name: "a", Standbys: []string{"dbb"}, Lease: lease})
	site := s.open("node2", s.b)
	eventually(t, "the lease is in force at the other site", func() bool {
		st, err := site.State(t.Context())
		return err == nil && st != nil && st.Lease == lease
	})
	j := &journal{acked: map[string]time.Time{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { j.write(ctx, a.store, "w") })
	eventually(t, "50 writes", func() bool { return j.count() >= 50 })
	healAB, healBA := s.lab.Drop("dba", "dbb", "tcp", 0), s.lab.Drop("dbb", "dba", "tcp", 0)
	cut := time.Now()
	p, err := site.Promote(t.Context(), "b", false, func(what string) { t.Log(what) })
	if err != nil {
		t.Fatal(err)
	}
	promoted := time.Now()
	if code(a.watch.Refusal()) != "site_lease_ended" {
		t.Errorf("after the promotion the old site says %v", a.watch.Refusal())
	}
	before := j.count()
	b := s.node("node2", s.b, SiteConfig{Name: "b"})
	stop()
	wg.Wait()
	if j.count() != before || !j.last.Before(promoted.Add(-postgres.InFlight/2)) {
		t.Errorf("the old site acknowledged a write %s before the promotion ended, and %d after it", promoted.Sub(j.last), j.count()-before)
	}
	lost, span := j.lost(t, b.store)
	t.Logf("line cut, lease %s, asynchronous: RPO %d of %d acknowledged writes (the last %s), RTO %s, of which %s waited for the lease",
		lease, lost, j.count(), span.Round(time.Millisecond), promoted.Sub(cut).Round(time.Millisecond), p.Waited)
	if span > lease+siteFresh {
		t.Errorf("writes of %s are lost; the lease bounds them to %s", span, lease)
	}
	healAB()
	healBA()
}

// TestSiteHandsOver: a planned change loses nothing, and needs no word of the
// operator's.
func TestSiteHandsOver(t *testing.T) {
	t.Parallel()
	s := newSites(t, false)
	a := s.node("node1", s.a, SiteConfig{Name: "a"})
	j := &journal{acked: map[string]time.Time{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { j.write(ctx, a.store, "w") })
	eventually(t, "50 writes", func() bool { return j.count() >= 50 })
	from, to := s.open("node1", s.a), s.open("node2", s.b)
	if _, err := from.Demote(t.Context(), "b", []string{"dbb"}, func(string) {}); code(err) != "not_active" {
		t.Errorf("the wrong site hands over: %v", err)
	}
	if _, err := from.Demote(t.Context(), "a", []string{"dbb"}, func(what string) { t.Log(what) }); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	if code(a.watch.Refusal()) != "site_passive" {
		t.Errorf("after it has handed over, the site says %v", a.watch.Refusal())
	}
	if _, err := to.Promote(t.Context(), "b", false, func(what string) { t.Log(what) }); err != nil {
		t.Fatal(err)
	}
	b := s.node("node2", s.b, SiteConfig{Name: "b"})
	stop()
	wg.Wait()
	lost, _ := j.lost(t, b.store)
	t.Logf("handed over: RPO %d of %d, RTO %s after the hand-over, which waits %s", lost, j.count(), time.Since(ended).Round(time.Millisecond), postgres.InFlight)
	if lost > 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
	st, err := to.Status(t.Context())
	if err != nil || st.Standby || st.State.Active != "b" || st.State.Epoch != 2 {
		t.Errorf("the new site says %+v, %v", st, err)
	}
}

// TestSiteMarks: with synchronous replication to the other site every commit waits for
// the line; the marks of the lease do not, or a site without the line would not know its
// own state.
func TestSiteMarks(t *testing.T) {
	t.Parallel()
	s := newSites(t, true)
	s.b.Kill()
	site := s.open("node1", s.a)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	before, err := site.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	after, err := site.Mark(ctx)
	if err != nil || after == before {
		t.Errorf("the mark after the one at %s is at %s: %v", before, after, err)
	}
}
