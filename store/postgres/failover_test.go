//go:build linux

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/internal/pglab"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// writers write until they are stopped, and know what was acknowledged.
type writers struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	acked   map[string]bool // documents
	unknown map[string]bool // of which nobody knows
	times   []time.Time     // of acknowledgements
	counts  map[string][2]int
	refused int
}

func startWriters(t *testing.T, db tenant.Docs, n int) *writers {
	t.Helper()
	w := &writers{stop: make(chan struct{}), acked: map[string]bool{}, unknown: map[string]bool{}, counts: map[string][2]int{}}
	for i := range n {
		user := fmt.Sprintf("u%d", i)
		err := db.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindUser, user, []byte(`{"logins_count":0}`)) })
		if err != nil {
			t.Fatal(err)
		}
		w.wg.Go(func() { w.write(t, db, user) })
	}
	return w
}

// write makes a role and counts it at a user, in one transaction, again and again.
func (w *writers) write(t *testing.T, db tenant.Docs, user string) {
	for i := 0; ; i++ {
		select {
		case <-w.stop:
			return
		case <-time.After(2 * time.Millisecond): // a bound on the load, for others share the machine
		}
		id := fmt.Sprintf("%s-%d", user, i)
		err := db.Write(context.Background(), "a", func(tx tenant.Tx) error {
			if _, err := tenant.Change(tx, tenant.KindUser, user, func(u *tenant.User) error { u.LoginsCount++; return nil }); err != nil {
				return err
			}
			return tx.Insert(tenant.KindRole, id, []byte(`{"name":"`+id+`"}`))
		})
		w.mu.Lock()
		c := w.counts[user]
		switch e := problem.From(err); {
		case err == nil:
			w.acked[id] = true
			w.times = append(w.times, time.Now())
			c[0]++
		case unknownOutcome(err):
			w.unknown[id] = true
			c[1]++
		case e.Kind == problem.Unavailable:
			w.refused++
		default:
			t.Errorf("a write failed: %v", err)
		}
		w.counts[user] = c
		w.mu.Unlock()
	}
}

// unknownOutcome looks through the sentence for clients at the operator's.
func unknownOutcome(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		var e *problem.Error
		if errors.As(err, &e) && e.Code == "outcome_unknown" {
			return true
		}
	}
	return false
}

func (w *writers) acks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.times)
}

// until waits for n more acknowledgements.
func (w *writers) until(t *testing.T, n int) {
	t.Helper()
	want := w.acks() + n
	for deadline := time.Now().Add(time.Minute); w.acks() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d writes were acknowledged, and no more come", w.acks())
		}
	}
}

// check stops the writers and compares what they know with what is there.
func (w *writers) check(t *testing.T, db tenant.Docs) (acked, unknown int, pause time.Duration) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	there := map[string]bool{}
	for after := ""; ; {
		page, err := db.Find(t.Context(), "a", tenant.KindRole, tenant.Query{After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			there[r.ID] = true
			after = r.ID
			if !w.acked[r.ID] && !w.unknown[r.ID] {
				t.Errorf("%s was refused, and is there", r.ID)
			}
		}
		if len(page.Records) == 0 {
			break
		}
	}
	for id := range w.acked {
		if !there[id] {
			t.Errorf("%s was acknowledged, and is not there", id)
		}
	}
	for user, c := range w.counts {
		u, err := tenant.Get[tenant.User](t.Context(), db, "a", tenant.KindUser, user)
		if err != nil {
			t.Fatal(err)
		}
		if u.LoginsCount < c[0] || u.LoginsCount > c[0]+c[1] {
			t.Errorf("%s: %d writes were acknowledged and %d are unknown, %d were counted", user, c[0], c[1], u.LoginsCount)
		}
	}
	for i := 1; i < len(w.times); i++ {
		pause = max(pause, w.times[i].Sub(w.times[i-1]))
	}
	return len(w.acked), len(w.unknown), pause
}

// TestFailover: the primary of a synchronous pair goes while writers run, its
// replica is promoted; then the way back. Nothing acknowledged is lost, nothing is
// done twice.
func TestFailover(t *testing.T) {
	pglab.Require(t)
	for name, crash := range map[string]func(l *lab.Lab, s *pglab.Server) func(){
		"killed": func(_ *lab.Lab, s *pglab.Server) func() { s.Kill(); return func() {} },
		// No packet comes back from it: neither an answer nor a reset.
		"unplugged": func(l *lab.Lab, s *pglab.Server) func() {
			plug := l.Unplug(s.Host().Name())
			return func() { s.Kill(); plug() }
		},
		"frozen": func(_ *lab.Lab, s *pglab.Server) func() { resume := s.Pause(); return func() { resume(); s.Kill() } },
	} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t, lab.Options{Nodes: 1, IPv4Only: true, Services: []string{"db1", "db2"}})
			first := pglab.Start(t, l.Host("db1"))
			second := first.Replica(l.Host("db2"))
			first.Synchronous(second)
			db, err := store.Open(t.Context(), pglab.DSN(first, second), store.Options{Sealer: storetest.Sealer(t), Database: postgres.Config{
				Dial: l.Host("node1").Dial, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
				StatementTimeout: 5 * time.Second, FailoverTimeout: 30 * time.Second, ConnectTimeout: 2 * time.Second,
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			w := startWriters(t, db, 6)
			w.until(t, 100)
			after := crash(l, first)
			began := time.Now()
			second.Promote()
			promotion := time.Since(began)
			w.until(t, 100)
			after()

			first.Rejoin(second)
			second.Synchronous(first)
			w.until(t, 50)
			second.Stop()
			first.Promote()
			w.until(t, 50)

			acked, unknown, pause := w.check(t, db)
			t.Logf("%d writes acknowledged, 0 lost, 0 twice; %d unknown, %d refused; longest time without writes %s, of which the promotion %s",
				acked, unknown, w.refused, pause.Round(time.Millisecond), promotion.Round(time.Millisecond))
			if pause > time.Minute {
				t.Errorf("no write for %s", pause)
			}
		})
	}
}

// TestNoStandbyNoAcknowledgement: while the synchronous standby is away, no write is
// acknowledged, and none that was refused happens a second time later.
func TestNoStandbyNoAcknowledgement(t *testing.T) {
	pglab.Require(t)
	l := lab.New(t, lab.Options{Nodes: 1, IPv4Only: true, Services: []string{"db1", "db2"}})
	first := pglab.Start(t, l.Host("db1"))
	second := first.Replica(l.Host("db2"))
	db, err := store.Open(t.Context(), pglab.DSN(first, second), store.Options{Sealer: storetest.Sealer(t), Database: postgres.Config{
		Dial: l.Host("node1").Dial, FailoverTimeout: time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	unsafe := func(what, want string) {
		t.Helper()
		err := db.Synchronous(t.Context())
		if e := problem.From(err); e.Code != "not_synchronous" || !strings.Contains(e.Message, want) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	unsafe("an asynchronous standby", "synchronous_standby_names is empty")
	first.Synchronous(second)
	if err := db.Synchronous(t.Context()); err != nil {
		t.Errorf("a synchronous standby: %v", err)
	}
	if err := db.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindUser, "u", []byte(`{"logins_count":0}`)) }); err != nil {
		t.Fatal(err)
	}
	second.Kill()
	for first.Query("SELECT count(*) FROM pg_stat_replication") != "0" {
		time.Sleep(20 * time.Millisecond)
	}
	unsafe("a dead standby", "no standby is connected")
	if err := increment(t.Context(), db); !unknownOutcome(err) {
		t.Errorf("without a standby a write got %v", err)
	}
	second.Run()
	for !slices.Contains([]string{"sync", "quorum"}, first.Query("SELECT coalesce(max(sync_state), '') FROM pg_stat_replication")) {
		time.Sleep(20 * time.Millisecond)
	}
	if err := increment(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n < 1 || n > 2 {
		t.Errorf("one write was acknowledged and one is unknown, %d were counted", n)
	}
}
