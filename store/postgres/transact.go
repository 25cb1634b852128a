package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/docsql"
)

// A transaction that others got in the way of runs again for inTheWay: as long as
// hundreds need that change one document at the same moment, such as the logins of one
// user. Each time it waits for a random part of a pause that grows up to maxPause, so
// that they do not meet again.
const (
	inTheWay = 5 * time.Second
	maxPause = 100 * time.Millisecond
)

// conn is a connection out of the pool.
type conn struct {
	*sql.Conn
	pg *pgconn.PgConn

	mu      sync.Mutex
	running bool // a commit is under way
	left    bool // and its caller has gone: whoever ends it gives the connection back
}

// release gives the connection back, unless a commit is still at work on it.
func (c *conn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running {
		c.left = true
		return
	}
	_ = c.Conn.Close() // it goes back into the pool, or was broken before
}

// closed reports whether the connection is of no more use. One that broke is closed
// elsewhere at this moment: only Raw knows whether it is still ours to look at.
func (c *conn) closed() bool {
	closed := true
	_ = c.Raw(func(any) error { closed = c.pg.IsClosed(); return nil }) // otherwise it is gone
	return closed
}

func (c *conn) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// with calls fn with a connection. When the database goes away meanwhile, the error
// is a lostError, after which fn may run again, or an uncertainError. A server that
// is there and does not answer is given up too.
func (db *DB) with(caller context.Context, fn func(ctx context.Context, c *conn) error) error {
	ctx, cancel := context.WithTimeout(caller, db.cfg.StatementTimeout+db.cfg.ConnectTimeout)
	defer cancel()
	c := &conn{}
	var err error
	if c.Conn, err = db.db.Conn(ctx); err != nil {
		if caller.Err() == nil && (gone(err) || ctx.Err() != nil) {
			db.lose(err)
			return lostError{err}
		}
		return err
	}
	defer c.release()
	if err := c.Raw(func(dc any) error { c.pg = dc.(*stdlib.Conn).Conn().PgConn(); return nil }); err != nil {
		return err
	}
	err = fn(ctx, c)
	var uncertain uncertainError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &uncertain):
		if c.busy() || c.closed() || gone(uncertain.error) {
			db.lose(uncertain.error)
		}
		return err
	case caller.Err() != nil:
		return err // and the connection goes with its caller
	case c.closed(), gone(err):
		db.lose(err)
		return lostError{err}
	}
	return err
}

// again runs fn until it succeeds, fails for a reason of its own, or has waited for
// the database for too long.
func (db *DB) again(ctx context.Context, fn func() error) error {
	until, conflict := time.Time{}, time.Time{}
	for try := time.Duration(1); ; try++ {
		err := db.wait(ctx, until)
		if err != nil {
			return classify(db.where, err)
		}
		err = fn()
		var lost lostError
		switch {
		case err == nil || ctx.Err() != nil:
			return classify(db.where, err)
		case errors.As(err, &lost):
			if until.IsZero() {
				until = time.Now().Add(db.cfg.FailoverTimeout)
			}
			if time.Now().After(until) {
				return classify(db.where, err)
			}
			conflict = time.Time{} // all wait, and come at the same moment
		case !faster(err):
			return classify(db.where, err)
		case conflict.IsZero():
			conflict = time.Now()
		case time.Since(conflict) > inTheWay:
			return classify(db.where, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(mathrand.N(min(4*try*time.Millisecond, maxPause))): // #nosec G404 -- nobody gains by guessing a wait
		}
	}
}

// faster reports whether a transaction failed because another was faster.
func faster(err error) bool {
	if c := code(err); c != "" {
		return c == "40001" || c == "40P01"
	}
	var p *problem.Error
	return errors.As(err, &p) && p.Kind == problem.Conflict && p.Subject == "version"
}

// read runs fn, which only reads, and may run it again.
func (db *DB) read(ctx context.Context, fn func(ctx context.Context, c *conn) error) error {
	return db.again(ctx, func() error { return db.with(ctx, fn) })
}

// tx is a transaction on a connection.
type tx struct {
	docsql.Querier
	wrote bool
}

// ExecContext implements docsql.Querier.
func (t *tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	t.wrote = true
	return t.Querier.ExecContext(ctx, query, args...)
}

// transact runs fn in a transaction, and again where others were faster or the
// database went away before the commit. When it returns nil the commit was
// acknowledged; after any other error than "outcome_unknown" nothing was done.
//
// REPEATABLE READ: a function that looks at a document, decides, and changes it must
// not decide on one state and change another. Who changes what somebody else has
// changed since loses, and runs again.
func (db *DB) transact(ctx context.Context, fn func(ctx context.Context, q docsql.Querier) error) error {
	return db.again(ctx, func() error {
		err := db.with(ctx, func(ctx context.Context, c *conn) error { return db.try(ctx, c, fn) })
		var uncertain uncertainError
		if errors.As(err, &uncertain) {
			return db.resolve(ctx, uncertain)
		}
		return err
	})
}

func (db *DB) try(ctx context.Context, c *conn, fn func(ctx context.Context, q docsql.Querier) error) error {
	if _, err := c.ExecContext(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
		return err
	}
	committing := false
	defer func() { // also when fn panics
		if !committing && !c.closed() {
			_, _ = c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // otherwise the server does it
		}
	}()
	t := &tx{Querier: c}
	if err := fn(ctx, t); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // nobody waits any more, and nothing has been done
	}
	if guard := db.guard.Load(); guard != nil && t.wrote {
		if err := (*guard)(); err != nil {
			return err
		}
	}
	if c.closed() {
		return errUnsent // whatever fn made of it
	}
	committing = true
	return db.commit(c, t.wrote)
}

// mark notes in the transaction itself, in one message with the commit, that this
// connection committed it. Once the slot is fenced it fails, and the commit with it.
const mark = `INSERT INTO commits (slot, token, fenced, at) VALUES ('%[1]s', '%[2]s', 0, %[3]d)
ON CONFLICT (slot) DO UPDATE SET token = CASE WHEN commits.fenced = 1 THEN NULL ELSE excluded.token END, at = excluded.at; COMMIT`

// fence closes a slot and reads what it committed last. It waits for a transaction
// that is still at work on the slot. It is answered only when everything before it
// is as safe as commits are on this server: on the synchronous standby too.
const fence = `BEGIN ISOLATION LEVEL READ COMMITTED;
INSERT INTO commits (slot, token, fenced, at) VALUES ('%[1]s', '', 1, %[2]d)
ON CONFLICT (slot) DO UPDATE SET fenced = 1, at = excluded.at RETURNING token; COMMIT`

// uncertainError is a commit whose answer was lost.
type uncertainError struct {
	error
	slot, token string
}

func (e uncertainError) Unwrap() error { return e.error }

var (
	errAborted  = errors.New("a statement of the transaction had failed before its commit")
	errWarned   = errors.New("the wait for the synchronous standby was cancelled")
	errNoAnswer = errors.New("the commit was not answered in time")
	errUnsent   = errors.New("the connection was closed before the commit")
)

// commit commits. A transaction that wrote nothing needs no mark: whether it
// happened makes no difference.
func (db *DB) commit(c *conn, wrote bool) error {
	slot, _ := c.pg.CustomData()[slotKey].(string)
	statement, token := "COMMIT", ""
	if wrote {
		var raw [16]byte
		_, _ = rand.Read(raw[:]) // never fails
		token = hex.EncodeToString(raw[:])
		statement = fmt.Sprintf(mark, slot, token, db.now().UnixMilli())
	}
	// A commit under way is not called off, whoever has gone: to cancel one that waits
	// for its synchronous standby makes it visible on one server alone.
	c.running = true
	result := make(chan error, 1)
	go func() {
		_, err := simple(context.Background(), c.pg, statement)
		c.mu.Lock()
		c.running = false
		if c.left {
			_ = c.Conn.Close()
		}
		c.mu.Unlock()
		result <- err
	}()
	timer := time.NewTimer(db.cfg.FailoverTimeout)
	defer timer.Stop()
	err := errNoAnswer
	select {
	case err = <-result:
	case <-timer.C:
	}
	switch {
	case err == nil || !wrote && !errors.Is(err, errNoAnswer):
		return err
	case !wrote:
		return lostError{err}
	case errors.Is(err, errAborted), errors.Is(err, errUnsent):
		return err
	case code(err) != "" && !gone(err): // the server refused: it was rolled back
		return err
	}
	return uncertainError{err, slot, token}
}

// simple runs statements that are sent as one message, and reads the last one's
// answer to the commit. It returns the first row that any of them returned.
func simple(ctx context.Context, pg *pgconn.PgConn, statements string) (first string, err error) {
	pg.CustomData()[warnedKey] = false
	if pg.IsClosed() {
		return "", errUnsent
	}
	// pgconn.SafeToRetry is of no use here: it says so too of a connection that broke
	// after the message was sent.
	results, err := pg.Exec(ctx, statements).ReadAll()
	if err != nil {
		return "", err
	}
	for _, r := range results {
		if len(r.Rows) > 0 && len(r.Rows[0]) > 0 {
			first = string(r.Rows[0][0])
		}
	}
	if tag := results[len(results)-1].CommandTag.String(); tag != "COMMIT" {
		return "", errAborted // PostgreSQL answers ROLLBACK then
	}
	if warned, _ := pg.CustomData()[warnedKey].(bool); warned {
		return "", errWarned
	}
	return first, nil
}

// resolve finds out whether a commit happened whose answer was lost: nil when it
// did, a lostError when it did not and never will, and problem.Unavailable with code
// "outcome_unknown" when nobody could say in time.
func (db *DB) resolve(ctx context.Context, u uncertainError) error {
	until := time.Now().Add(db.cfg.FailoverTimeout)
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	for {
		var token string
		err := db.wait(ctx, until)
		if err == nil {
			err = db.with(ctx, func(ctx context.Context, c *conn) (err error) {
				token, err = simple(ctx, c.pg, fmt.Sprintf(fence, u.slot, db.now().UnixMilli()))
				return err
			})
		}
		switch {
		case err == nil && token == u.token:
			db.resolved.Add(1)
			return nil
		case err == nil:
			db.resolved.Add(1)
			return lostError{u.error}
		case ctx.Err() != nil || !time.Now().Before(until):
			return problem.Wrap(problem.Unavailable, "outcome_unknown", errors.Join(u.error, err),
				"the database %s went away during a commit and did not come back in time: whether the write happened is not known", db.where)
		}
		select {
		case <-ctx.Done():
		case <-time.After(findEvery):
		}
	}
}

// commitsKept is how long the last commit of a connection is known: longer than a
// connection lives, so that none loses its slot.
const commitsKept = 24 * time.Hour

// PurgeCommits deletes the slots of connections that are long gone.
func (db *DB) PurgeCommits(ctx context.Context) error {
	return db.Exclusive(ctx, func(q docsql.Querier) error {
		_, err := q.ExecContext(ctx, "DELETE FROM commits WHERE at < $1", db.now().Add(-commitsKept).UnixMilli())
		return err
	})
}
