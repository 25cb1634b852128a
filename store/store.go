package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/docsql"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/store/sqlite"
	"github.com/portcullis-id/portcullis/tenant"
)

// engine is what both engines offer beyond documents.
type engine interface {
	tenant.Docs
	Ping(ctx context.Context) error
	// Exclusive runs fn in one transaction; on SQLite no other write runs meanwhile.
	Exclusive(ctx context.Context, fn func(q docsql.Querier) error) error
	// Read runs fn, which only reads, outside of a transaction; it may run twice.
	Read(ctx context.Context, fn func(ctx context.Context, q docsql.Querier) error) error
	SQL() *docsql.SQL
	// SetDamaged makes err the answer of Ping, once somebody has found it.
	SetDamaged(err error)
	Close() error
}

// Store is an open store.
type Store struct {
	engine
	now func() time.Time
}

var _ tenant.Docs = (*Store)(nil)

// Options of Open.
type Options struct {
	Sealer *seal.Sealer // required
	Now    func() time.Time
	// Database bounds the work with PostgreSQL.
	Database postgres.Config

	copying bool // Copy opens what a node must not
}

// Ports are the TCP ports that Open connects to; none for an embedded database.
func Ports(dsn string) []int {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		return postgres.Ports(dsn)
	}
	return nil
}

// Open opens "sqlite:FILE" or "postgres://…" and brings its schema up to date. It
// fails with problem.Unavailable and a sentence for the operator when the
// database is of a newer schema, held by another node, damaged, or sealed with
// another master key.
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	var e engine
	var err error
	switch {
	case strings.HasPrefix(dsn, "sqlite:"):
		e, err = sqlite.Open(ctx, strings.TrimPrefix(dsn, "sqlite:"), opts.Sealer, opts.Now)
	case strings.HasPrefix(dsn, "postgres://"), strings.HasPrefix(dsn, "postgresql://"):
		e, err = postgres.Open(ctx, dsn, opts.Sealer, opts.Now, opts.Database)
	default:
		return nil, problem.New(problem.Invalid, "invalid_dsn", "the database wants sqlite:FILE or postgres://USER@HOST:PORT/DATABASE")
	}
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s := &Store{e, opts.Now}
	if !opts.copying {
		if err := s.checkCopy(ctx, name(dsn)); err != nil {
			_ = s.Close() // the error says more
			return nil, fmt.Errorf("open the store: %w", err)
		}
	}
	return s, nil
}

// Get implements tenant.Docs.
func (s *Store) Get(ctx context.Context, tenantID string, k tenant.Kind, id string) (tenant.Record, error) {
	rec, err := s.engine.Get(ctx, tenantID, k, id)
	return rec, public(err)
}

// Find implements tenant.Docs.
func (s *Store) Find(ctx context.Context, tenantID string, k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	page, err := s.engine.Find(ctx, tenantID, k, q)
	return page, public(err)
}

// Write implements tenant.Docs.
func (s *Store) Write(ctx context.Context, tenantID string, fn func(tx tenant.Tx) error) error {
	return public(s.engine.Write(ctx, tenantID, fn))
}

// public keeps what an engine says to the operator, which names files and hosts,
// for the log, and gives clients a sentence of their own.
func public(err error) error {
	var e *problem.Error
	if !errors.As(err, &e) || e.Kind != problem.Unavailable {
		return err
	}
	p := problem.Wrap(problem.Unavailable, "store_unavailable", err, "This server cannot read or write its data at this moment; try again later")
	p.RetryAfter = 10 * time.Second
	return p
}

// Index says whether each write of a searchable document leaves an entry in
// tenant.KindSearchQueue, in the same transaction. At first it does not.
func (s *Store) Index(on bool) { s.SQL().Index(on) }

// Changes reads what was written since, in kinds that other nodes keep in their
// caches, over all tenants: at most limit changes.
func (s *Store) Changes(ctx context.Context, since time.Time, limit int) (changes []tenant.Invalidation, err error) {
	err = s.Exclusive(ctx, func(q docsql.Querier) (err error) {
		changes, err = s.SQL().Changes(ctx, q, since, limit)
		return err
	})
	return changes, public(err)
}

// Synchronous fails unless an acknowledged write is on two servers; see
// postgres.DB. On SQLite it is on one disk, and that is no failure.
func (s *Store) Synchronous(ctx context.Context) error {
	if pg, ok := s.engine.(*postgres.DB); ok {
		return pg.Synchronous(ctx)
	}
	return nil
}

// Outages counts how often the database was lost.
func (s *Store) Outages() int64 {
	if pg, ok := s.engine.(*postgres.DB); ok {
		n, _ := pg.Outages()
		return n
	}
	return 0
}

// Reached returns for how long the database has been there without an outage that
// this process noticed; 0 while it is away. A file is always there.
func (s *Store) Reached() time.Duration {
	if pg, ok := s.engine.(*postgres.DB); ok {
		return pg.Reached()
	}
	return math.MaxInt64
}

// Resolved counts the commits whose lost answer was looked up.
func (s *Store) Resolved() int64 {
	if pg, ok := s.engine.(*postgres.DB); ok {
		return pg.Resolved()
	}
	return 0
}

// SetGuard makes every transaction that writes ask guard right before its commit.
// SQLite, which no second site can have, does not ask.
func (s *Store) SetGuard(guard func() error) {
	if pg, ok := s.engine.(*postgres.DB); ok {
		pg.SetGuard(guard)
	}
}

// Verify looks for damage in the whole database, which may take minutes, whether a
// node runs on it or not. PostgreSQL checks its own pages: there is nothing to do.
func Verify(ctx context.Context, dsn string) error {
	if path, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		return sqlite.Verify(ctx, path)
	}
	return nil
}

// purgeBatch bounds the rows of one delete, so that it holds up no other write.
const purgeBatch = 500

// Purge deletes what has expired, over all tenants, and counts it.
func (s *Store) Purge(ctx context.Context) (int, error) {
	total := 0
	if pg, ok := s.engine.(*postgres.DB); ok {
		if err := pg.PurgeCommits(ctx); err != nil {
			return 0, fmt.Errorf("purge commits: %w", err)
		}
	}
	for _, c := range tenant.Collections() {
		if !docsql.Expires(c) {
			continue
		}
		for {
			n := 0
			err := s.Exclusive(ctx, func(q docsql.Querier) (err error) {
				n, err = s.SQL().Purge(ctx, q, c.Kind, s.now(), purgeBatch)
				return err
			})
			total += n
			if err != nil {
				return total, fmt.Errorf("purge %s: %w", c.Kind, err)
			}
			if n < purgeBatch {
				break
			}
		}
	}
	return total, nil
}

// RotateMaster seals every secret again with the key of next, which has to know
// the old key too. It goes in batches, and may be broken off and begun again:
// until it has ended the database wants both keys. Progress is called after each
// batch.
func (s *Store) RotateMaster(ctx context.Context, next *seal.Sealer, progress func(done int)) (int, error) {
	done := 0
	for _, c := range tenant.Collections() {
		if len(c.Sealed) == 0 {
			continue
		}
		afterTenant, afterID := "", ""
		for {
			var n, changed int
			err := s.Exclusive(ctx, func(q docsql.Querier) (err error) {
				n, changed, err = s.SQL().Reseal(ctx, q, c.Kind, next, &afterTenant, &afterID, 100)
				return err
			})
			if err != nil {
				return done, fmt.Errorf("seal %s again: %w", c.Kind, err)
			}
			done += changed
			progress(done)
			if n == 0 {
				break
			}
		}
	}
	return done, s.Exclusive(ctx, func(q docsql.Querier) error { return s.SQL().SetKey(ctx, q, next.KeyID()) })
}
