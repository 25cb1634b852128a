package deploy_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/internal/patronilab"
)

// TestDatabaseReference starts Debian's etcd, Patroni and PostgreSQL from the files
// that were rendered, on three hosts. The primary is killed with SIGKILL, Patroni
// with it, under writes: another takes over, everything that was acknowledged is
// there, and the old primary comes back as a standby.
func TestDatabaseReference(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	patronilab.Require(t)
	l := lab.New(t, lab.Options{Nodes: 3, IPv4Only: true})
	r := &reference{patronilab.Start(t, l.Nodes()), t, l}
	primary := r.Primary()
	t.Logf("%s is the primary", primary)

	ctx := t.Context()
	db := r.connect(ctx)
	if _, err := db.Exec(ctx, "CREATE TABLE writes (n bigint PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	db.Close(ctx)
	r.refuses()

	// One writer; a write counts when it was acknowledged.
	load, stop := context.WithCancel(ctx)
	defer stop()
	var acked []int64
	var last time.Time // when the last write was acknowledged
	var longest time.Duration
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		var db *pgx.Conn
		for n := int64(1); load.Err() == nil; n++ {
			attempt, cancel := context.WithTimeout(load, 5*time.Second)
			var err error
			if db == nil {
				db, err = r.dial(attempt)
			}
			if err == nil {
				_, err = db.Exec(attempt, "INSERT INTO writes VALUES ($1)", n)
			}
			cancel()
			if err != nil {
				if db != nil {
					_ = db.Close(context.Background()) // it is broken
					db = nil
				}
				time.Sleep(50 * time.Millisecond)
				continue
			}
			now := time.Now()
			if !last.IsZero() {
				longest = max(longest, now.Sub(last))
			}
			last = now
			acked = append(acked, n)
		}
		if db != nil {
			_ = db.Close(context.Background())
		}
	}()
	time.Sleep(3 * time.Second) // a load before the kill
	start := time.Now()
	r.Kill(primary)
	next := r.Another(primary)
	t.Logf("%s is the primary %.1f s after the kill", next, time.Since(start).Seconds())
	r.writable(ctx)
	time.Sleep(2 * time.Second) // a load after it
	stop()
	<-writer
	t.Logf("measured: %d writes acknowledged, the longest time without one %.1f s", len(acked), longest.Seconds())

	db = r.connect(ctx)
	defer db.Close(ctx)
	rows, err := db.Query(ctx, "SELECT n FROM writes")
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]bool{}
	for _, n := range found {
		there[n] = true
	}
	for _, n := range acked {
		if !there[n] {
			t.Errorf("write %d was acknowledged and is lost", n)
		}
	}
	if len(acked) == 0 || acked[len(acked)-1] < 10 {
		t.Errorf("%d writes are no load", len(acked))
	}

	r.Patroni(primary)
	r.Whole()
	if now := r.Primary(); now != next {
		t.Errorf("%s is the primary after the return of %s, and was %s", now, primary, next)
	}
}

// reference is the database, and how it is reached.
type reference struct {
	*patronilab.Database
	t *testing.T
	l *lab.Lab
}

// dial connects as a node of the appliance does.
func (r *reference) dial(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(r.DSN())
	if err != nil {
		return nil, err
	}
	cfg.Password = r.Password()
	cfg.DialFunc = r.l.Host("node2").Dial
	return pgx.ConnectConfig(ctx, cfg)
}

func (r *reference) connect(ctx context.Context) *pgx.Conn {
	r.t.Helper()
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		db, err := r.dial(ctx)
		if err == nil {
			return db
		}
		last = err
	}
	r.t.Fatalf("the database takes no writes after a minute: %v", last)
	return nil
}

// writable waits until a connection to a primary is there.
func (r *reference) writable(ctx context.Context) {
	r.t.Helper()
	db := r.connect(ctx)
	_ = db.Close(ctx)
}

// refuses shows that nobody gets in without TLS, without the password, or from
// elsewhere than the nodes.
func (r *reference) refuses() {
	r.t.Helper()
	for name, change := range map[string]func(c *pgx.ConnConfig){
		"without TLS":         func(c *pgx.ConnConfig) { c.TLSConfig = nil; c.Fallbacks = nil },
		"with a wrong word":   func(c *pgx.ConnConfig) { c.Password = "wrong" },
		"from another host":   func(c *pgx.ConnConfig) { c.DialFunc = r.l.Host("lb").Dial },
		"as postgres":         func(c *pgx.ConnConfig) { c.User = "postgres" },
		"to another database": func(c *pgx.ConnConfig) { c.Database = "postgres" },
	} {
		cfg, err := pgx.ParseConfig(r.DSN())
		if err != nil {
			r.t.Fatal(err)
		}
		cfg.Password, cfg.DialFunc = r.Password(), r.l.Host("node2").Dial
		change(cfg)
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		if db, err := pgx.ConnectConfig(ctx, cfg); err == nil {
			_ = db.Close(ctx)
			r.t.Errorf("somebody got in %s", name)
		}
		cancel()
	}
}
