package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// faults breaks connections at chosen moments.
type faults struct {
	// onWrite is asked about each message: pass it on, and break the connection.
	onWrite atomic.Pointer[func(c *faultyConn, p []byte) (pass, end bool)]
}

type faultyConn struct {
	net.Conn
	f    *faults
	dead atomic.Bool
}

var errCut = &net.OpError{Op: "write", Err: errors.New("cut on purpose")}

func (f *faults) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, f: f}, nil
}

func (c *faultyConn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, errCut
	}
	if on := c.f.onWrite.Load(); on != nil {
		pass, end := (*on)(c, p)
		if end {
			c.dead.Store(true)
		}
		if !pass {
			return len(p), nil
		}
	}
	return c.Conn.Write(p)
}

func (c *faultyConn) Read(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, errCut
	}
	n, err := c.Conn.Read(p)
	if c.dead.Load() {
		return 0, errCut // the answer is lost
	}
	return n, err
}

// isCommit tells a commit of a write from other messages.
func isCommit(p []byte) bool {
	return bytes.Contains(p, []byte("INSERT INTO commits")) && bytes.Contains(p, []byte("COMMIT")) && !bytes.Contains(p, []byte("RETURNING"))
}

// once calls fn for the first message that is so.
func (f *faults) once(is func(p []byte) bool, fn func(c *faultyConn, p []byte) (pass, end bool)) {
	var done sync.Once
	on := func(c *faultyConn, p []byte) (pass, end bool) {
		pass = true
		if is(p) {
			done.Do(func() { pass, end = fn(c, p) })
		}
		return pass, end
	}
	f.onWrite.Store(&on)
}

func count(t *testing.T, d tenant.Docs) int {
	t.Helper()
	u, err := tenant.Get[tenant.User](t.Context(), d, "a", tenant.KindUser, "u")
	if err != nil {
		t.Fatal(err)
	}
	return u.LoginsCount
}

func increment(ctx context.Context, d tenant.Docs) error {
	return d.Write(ctx, "a", func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindUser, "u", func(u *tenant.User) error { u.LoginsCount++; return nil })
		return err
	})
}

func openFaulty(t *testing.T, cfg postgres.Config) (*postgres.DB, *faults) {
	t.Helper()
	f := &faults{}
	cfg.Dial = f.dial
	db, err := postgres.Open(t.Context(), storetest.PostgresDSN(t), storetest.Sealer(t), time.Now, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	err = db.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindUser, "u", []byte(`{"logins_count":0}`)) })
	if err != nil {
		t.Fatal(err)
	}
	return db, f
}

// TestLostConnections: wherever the connection breaks, a write that is acknowledged
// happened one time.
func TestLostConnections(t *testing.T) {
	is := func(text string) func([]byte) bool {
		return func(p []byte) bool { return bytes.Contains(p, []byte(text)) }
	}
	for name, tt := range map[string]struct {
		at       func([]byte) bool
		pass     bool
		resolved int64
	}{
		"before the transaction":                     {is("BEGIN"), false, 0},
		"after the transaction began":                {is("BEGIN"), true, 0},
		"before a statement":                         {is("UPDATE"), false, 0},
		"after a statement":                          {is("UPDATE"), true, 0},
		"before the commit arrives":                  {isCommit, false, 1},
		"after the commit, which is not answered":    {isCommit, true, 1},
		"while it is found out, before it arrives":   {is("RETURNING token"), false, 1},
		"while it is found out, before its answer":   {is("RETURNING token"), true, 1},
		"at the first statement of a new connection": {is("tcp_keepalives_idle"), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, f := openFaulty(t, postgres.Config{})
			if strings.HasPrefix(name, "while") {
				var cut, again sync.Once
				on := func(_ *faultyConn, p []byte) (pass, end bool) {
					pass = true
					if isCommit(p) {
						cut.Do(func() { end = true })
					}
					if tt.at(p) {
						again.Do(func() { pass, end = tt.pass, true })
					}
					return pass, end
				}
				f.onWrite.Store(&on)
			} else {
				f.once(tt.at, func(*faultyConn, []byte) (bool, bool) { return tt.pass, true })
			}
			for range 3 {
				if err := increment(t.Context(), db); err != nil {
					t.Fatal(err)
				}
			}
			if n := count(t, db); n != 3 {
				t.Errorf("three writes were acknowledged, %d happened", n)
			}
			if n := db.Resolved(); n != tt.resolved {
				t.Errorf("%d commits were looked up, want %d", n, tt.resolved)
			}
		})
	}
}

// TestLateCommit: a commit that was on its way when its connection broke, and
// arrives after the write was done again, does nothing.
func TestLateCommit(t *testing.T) {
	db, f := openFaulty(t, postgres.Config{})
	var held []byte
	var late net.Conn
	f.once(isCommit, func(c *faultyConn, p []byte) (bool, bool) {
		held, late = bytes.Clone(p), c.Conn
		return false, true
	})
	if err := increment(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if late == nil {
		t.Fatal("no commit was held back")
	}
	if _, err := late.Write(held); err == nil {
		answer := make([]byte, 4096)
		_ = late.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := late.Read(answer); err == nil && bytes.Contains(answer[:n], []byte("COMMIT")) {
			t.Errorf("the late commit was answered %q", answer[:n])
		}
	}
	if n := count(t, db); n != 1 {
		t.Errorf("the write happened %d times, want once", n)
	}
}

// TestReadsGoOn: reads are done again on a new connection.
func TestReadsGoOn(t *testing.T) {
	db, f := openFaulty(t, postgres.Config{})
	for _, pass := range []bool{false, true} {
		f.once(func(p []byte) bool { return bytes.Contains(p, []byte(`users`)) || len(p) > 0 }, func(*faultyConn, []byte) (bool, bool) { return pass, true })
		if n := count(t, db); n != 0 {
			t.Errorf("read %d", n)
		}
		f.once(func(p []byte) bool { return len(p) > 0 }, func(*faultyConn, []byte) (bool, bool) { return pass, true })
		if page, err := db.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Total: true}); err != nil || page.Total != 1 {
			t.Errorf("found %+v, %v", page, err)
		}
	}
	if n, _ := db.Outages(); n == 0 {
		t.Error("no outage was noticed: the test tests nothing")
	}
}

// TestAwayForLong: nobody waits for longer than the bound, and then for nothing.
func TestAwayForLong(t *testing.T) {
	const bound = 400 * time.Millisecond
	var dead atomic.Bool
	cfg := postgres.Config{FailoverTimeout: bound}
	f := &faults{}
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dead.Load() {
			return nil, errCut
		}
		return f.dial(ctx, network, address)
	}
	waited := 0
	cfg.Waiting = func(context.Context) func() { waited++; return func() {} }
	db, err := postgres.Open(t.Context(), storetest.PostgresDSN(t), storetest.Sealer(t), time.Now, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	dead.Store(true)
	f.once(func([]byte) bool { return true }, func(*faultyConn, []byte) (bool, bool) { return false, true })
	_, err = db.Get(t.Context(), "a", tenant.KindUser, "u")
	if e := problem.From(err); e.Kind != problem.Unavailable {
		t.Errorf("got %v", err)
	}
	if waited == 0 {
		t.Error("the request did not say that it waits")
	}
	waited = 0
	if _, err := db.Get(t.Context(), "a", tenant.KindUser, "u"); !problem.Is(err, problem.Unavailable) || waited != 0 {
		t.Errorf("after the bound a request waits: %d times, %v", waited, err)
	}
	if err := db.Ping(t.Context()); !problem.Is(err, problem.Unavailable) {
		t.Errorf("ping: %v", err)
	}
	dead.Store(false)
	for db.Ping(t.Context()) != nil {
		if t.Context().Err() != nil {
			t.Fatal("it does not come back")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := db.Get(t.Context(), "a", tenant.KindUser, "u"); !problem.Is(err, problem.NotFound) {
		t.Errorf("after it came back: %v", err)
	}
}

// TestSwallowedFailure: a function that goes on after a failed statement is not told
// that it succeeded.
func TestSwallowedFailure(t *testing.T) {
	db, _ := openFaulty(t, postgres.Config{})
	err := db.Write(t.Context(), "a", func(tx tenant.Tx) error {
		if tx.Insert(tenant.KindUser, "v", []byte(`{"name":"\ud800"}`)) == nil {
			t.Error("half of a surrogate pair was stored")
		}
		return nil
	})
	if err == nil {
		t.Error("a transaction that the server had aborted was taken for committed")
	}
}

// TestCallerGoes: who goes in the middle of a transaction leaves nothing behind, and
// nobody looks at the connection that closes meanwhile (with -race).
func TestCallerGoes(t *testing.T) {
	db, _ := openFaulty(t, postgres.Config{})
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Write(ctx, "a", func(tx tenant.Tx) error {
			if err := tx.Insert(tenant.KindUser, "v", []byte(`{}`)); err != nil {
				return err
			}
			cancel()
			_, err := tx.Get(tenant.KindUser, "u")
			return err
		})
		if err == nil {
			t.Fatal("a write whose caller had gone was acknowledged")
		}
	}
	if _, err := db.Get(t.Context(), "a", tenant.KindUser, "v"); !problem.Is(err, problem.NotFound) {
		t.Errorf("the write happened all the same: %v", err)
	}
}

// TestGuard: a write that the guard refuses does not happen; reads are not asked.
func TestGuard(t *testing.T) {
	db, _ := openFaulty(t, postgres.Config{})
	refuse := problem.New(problem.Unavailable, "passive", "on purpose")
	db.SetGuard(func() error { return refuse })
	if err := increment(t.Context(), db); !errors.Is(err, refuse) {
		t.Errorf("got %v", err)
	}
	if err := db.Write(t.Context(), "a", func(tx tenant.Tx) error { _, err := tx.Get(tenant.KindUser, "u"); return err }); err != nil {
		t.Errorf("a transaction that only reads: %v", err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("the write happened all the same")
	}
}
