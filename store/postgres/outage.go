package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// findEvery is how often a database that is away is looked for.
const findEvery = 200 * time.Millisecond

// outage is the time between the loss of the database and the moment at which a
// server was found that takes writes. One goroutine looks for it; requests wait.
type outage struct {
	mu     sync.Mutex
	since  time.Time // zero: there is a database
	over   time.Time // when the one before ended; zero: there was none
	back   chan struct{}
	cause  error
	count  int64 // outages so far
	closed bool
}

// lostError is a failure after which nothing of a transaction is in the database.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// lose notes that a connection failed: all others are given up too, for they may
// lead to a server that is no longer the primary.
func (db *DB) lose(cause error) {
	o := &db.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cause = cause
	if o.closed || !o.since.IsZero() {
		return
	}
	o.since, o.back = time.Now(), make(chan struct{})
	o.count++
	db.cfg.Logger.Warn("the database is away", "database", db.where, "error", cause)
	db.pool.Reset()
	db.work.Go(func() { db.find() })
}

// find looks for a server that takes writes until there is one.
func (db *DB) find() {
	o := &db.outage
	for {
		err := db.reach(db.life)
		o.mu.Lock()
		if err == nil || db.life.Err() != nil {
			if err == nil {
				db.cfg.Logger.Info("the database is back", "database", db.where, "after", time.Since(o.since).Round(time.Millisecond).String())
			}
			o.since, o.over = time.Time{}, time.Now()
			close(o.back)
			o.mu.Unlock()
			return
		}
		o.cause = err
		o.mu.Unlock()
		select {
		case <-db.life.Done():
		case <-time.After(findEvery):
		}
	}
}

// reach opens a connection of its own: the pool's may all be waiting.
func (db *DB) reach(ctx context.Context) error {
	c, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, db.cfg.ConnectTimeout)
	defer cancel()
	_, err = c.Exec(ctx, "SELECT 1")
	_ = c.Close(ctx) // it answered, or did not
	return err
}

// wait waits until the database is back, at most until FailoverTimeout after it
// went away, and not after until unless that is zero.
func (db *DB) wait(ctx context.Context, until time.Time) error {
	o := &db.outage
	o.mu.Lock()
	since, back, cause := o.since, o.back, o.cause
	o.mu.Unlock()
	if since.IsZero() {
		return nil
	}
	if end := since.Add(db.cfg.FailoverTimeout); until.IsZero() || end.Before(until) {
		until = end
	}
	left := time.Until(until)
	if left <= 0 {
		return lostError{cause}
	}
	defer db.cfg.Waiting(ctx)()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-back:
		return db.life.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return lostError{cause}
	}
}

// Outages counts how often the database was lost, and returns since when it is.
func (db *DB) Outages() (count int64, since time.Time) {
	db.outage.mu.Lock()
	defer db.outage.mu.Unlock()
	return db.outage.count, db.outage.since
}

// Reached returns for how long the database has been there without an outage that
// this process noticed; 0 while it is away.
func (db *DB) Reached() time.Duration {
	db.outage.mu.Lock()
	defer db.outage.mu.Unlock()
	if !db.outage.since.IsZero() {
		return 0
	}
	return time.Since(db.outage.over)
}

// code is PostgreSQL's code of an error, or "".
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// gone reports whether an error says that the server, or the way to it, is gone, or
// that it is no primary: another one may be there in a moment.
func gone(err error) bool {
	switch c := code(err); {
	case c == "25006", strings.HasPrefix(c, "08"), strings.HasPrefix(c, "57P"), c == "53300", c == "40003":
		return true
	case c != "":
		return false // such as a wrong password: it would be wrong again
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &network) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}
