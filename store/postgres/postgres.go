package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/docsql"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is a PostgreSQL database.
type DB struct {
	cfg    Config
	pool   *pgxpool.Pool
	db     *sql.DB
	sql    *docsql.SQL
	sealer *seal.Sealer
	now    func() time.Time
	where  string

	standby *sql.DB // or nil
	pools   []*pgxpool.Pool

	guard    atomic.Pointer[func() error]
	outage   outage
	resolved atomic.Int64 // commits whose lost answer was found
	life     context.Context
	end      context.CancelFunc
	work     sync.WaitGroup
}

// Open connects and brings the schema up to date, under a lock that other nodes
// wait for.
func Open(ctx context.Context, dsn string, sealer *seal.Sealer, now func() time.Time, cfg Config) (*DB, error) {
	cfg.setDefaults()
	db, err := connect(ctx, dsn, "read-write", cfg)
	if err != nil {
		return nil, err
	}
	db.sealer, db.now = sealer, now
	err = db.prepare(ctx)
	if err == nil && cfg.Standby != "" {
		err = db.openStandby(ctx)
	}
	if err != nil {
		_ = db.Close() // the error above says more
		return nil, classify(db.where, err)
	}
	return db, nil
}

func connect(ctx context.Context, dsn, attrs string, cfg Config) (*DB, error) {
	pc, err := poolConfig(dsn, attrs, cfg)
	if err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, where: where(pc.ConnConfig)}
	if db.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, classify(db.where, err)
	}
	db.pools = append(db.pools, db.pool)
	db.db = stdlib.OpenDBFromPool(db.pool)
	db.life, db.end = context.WithCancel(context.WithoutCancel(ctx))
	return db, nil
}

// where names the database and all its hosts, without user and password.
func where(c *pgx.ConnConfig) string {
	hosts := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks {
		if h := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return c.Database + " on " + strings.Join(hosts, ", ")
}

// openStandby opens the pool of reads that may be old. It need not answer now: what
// it cannot read is read from the primary.
func (db *DB) openStandby(ctx context.Context) error {
	pc, err := poolConfig(db.cfg.Standby, "prefer-standby", db.cfg)
	if err != nil {
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return err
	}
	db.pools = append(db.pools, pool)
	db.standby = stdlib.OpenDBFromPool(pool)
	return nil
}

func (db *DB) prepare(ctx context.Context) error {
	if err := db.db.PingContext(ctx); err != nil {
		return err
	}
	d, err := db.dialect(ctx)
	if err != nil {
		return err
	}
	db.sql = docsql.New(d, tenant.Collections())
	// A lease in a table: CockroachDB and YugabyteDB have no advisory locks that hold.
	locker, err := lock.NewPostgresTableLocker(lock.WithTableLockTimeout(250*time.Millisecond, 1200), lock.WithTableLogger(db.cfg.Logger))
	if err != nil {
		return err
	}
	if err := docsql.Migrate(ctx, db.db, goose.DialectPostgres, d, migrationFiles(), db.where, db.olderNodes, goose.WithLocker(locker)); err != nil {
		return err
	}
	return docsql.CheckKey(ctx, db.db, d, db.sealer.KeyID(), db.where)
}

func migrationFiles() fs.FS {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return files
}

// applicationPrefix comes before the schema version that a node knows, in the name by
// which the server knows its connections.
const applicationPrefix = "portcullis schema "

// applicationName is this program's.
func applicationName() string {
	schema, err := docsql.ReadSchema(migrationFiles())
	if err != nil {
		panic(err) // a test reads them too
	}
	return applicationPrefix + strconv.FormatInt(schema.Newest, 10)
}

// olderNodes refuses a contract step while a node is connected that needs what it
// takes away. An engine that does not list its connections lists none.
func (db *DB) olderNodes(ctx context.Context, floor int64) error {
	rows, err := db.db.QueryContext(ctx, "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1", applicationPrefix+"%")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		if v, err := strconv.ParseInt(strings.TrimPrefix(name, applicationPrefix), 10, 64); err == nil && v < floor {
			return problem.New(problem.Unavailable, "older_nodes",
				"this program takes something out of the schema of %s that nodes with schema version %d, which are connected, still need; update them to a release with version %d first, or stop them", db.where, v, floor)
		}
	}
	return rows.Err()
}

// classify turns what PostgreSQL says into what an operator can act on.
func classify(where string, err error) error {
	var p *problem.Error
	if err == nil || errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	var pg *pgconn.PgError
	var dial *pgconn.ConnectError
	var lost lostError
	switch {
	case errors.As(err, &dial):
		return problem.Wrap(problem.Unavailable, "database_unreachable", err, "the database %s does not answer; look at its host, at row database of the network contract, and at user and password", where)
	case errors.As(err, &lost) && !errors.As(err, &pg):
		return problem.Wrap(problem.Unavailable, "database_unavailable", err, "the connection to the database %s broke, and no server took its place in time", where)
	case !errors.As(err, &pg):
		return err
	case pg.Code == "23505":
		return problem.Wrap(problem.Conflict, "conflict", err, "another document has this value").About(uniqueColumn(pg.ConstraintName))
	case pg.Code == "40001", pg.Code == "40P01":
		return problem.Wrap(problem.Conflict, "busy", err, "too many changes of the same thing at the same moment; try again").About("version")
	case strings.HasPrefix(pg.Code, "53"):
		return problem.Wrap(problem.Unavailable, "database_full", err, "the database %s has no room or no connections left", where)
	case strings.HasPrefix(pg.Code, "57"), strings.HasPrefix(pg.Code, "08"), pg.Code == "25006":
		return problem.Wrap(problem.Unavailable, "database_unavailable", err, "the database %s is stopping, starting or read-only", where)
	}
	return err
}

// uniqueColumn reads the first column of a unique set from the name of its index,
// KIND_COLUMN_key.
func uniqueColumn(index string) string {
	for _, c := range tenant.Collections() {
		for _, set := range c.Unique {
			if index == string(c.Kind)+"_"+set[0]+"_key" {
				return set[0]
			}
		}
	}
	return "id"
}

func (db *DB) session(ctx context.Context, q docsql.Querier, tenantID string) *docsql.Session {
	return &docsql.Session{SQL: db.sql, Ctx: ctx, Q: q, Tenant: tenantID, Sealer: db.sealer, At: db.now().UTC()}
}

// Get implements tenant.Docs.
func (db *DB) Get(ctx context.Context, tenantID string, k tenant.Kind, id string) (rec tenant.Record, err error) {
	err = db.read(ctx, func(ctx context.Context, c *conn) (err error) {
		rec, err = db.session(ctx, c, tenantID).Get(k, id)
		return err
	})
	return rec, err
}

// Find implements tenant.Docs.
func (db *DB) Find(ctx context.Context, tenantID string, k tenant.Kind, q tenant.Query) (page tenant.Page, err error) {
	if db.standby != nil && k == tenant.KindLog {
		page, err := db.findIn(ctx, db.standby, tenantID, k, q)
		var p *problem.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &p) {
			return page, err
		}
		db.cfg.Logger.DebugContext(ctx, "the standby could not be read", "error", err)
	}
	err = db.read(ctx, func(ctx context.Context, c *conn) (err error) {
		page, err = db.findIn(ctx, c, tenantID, k, q)
		return err
	})
	return page, err
}

// reader is a connection, or a pool of them.
type reader interface {
	docsql.Querier
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

func (db *DB) findIn(ctx context.Context, r reader, tenantID string, k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	if !q.Total {
		return db.session(ctx, r, tenantID).Find(k, q)
	}
	// Count and page have to see the same moment.
	tx, err := r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return tenant.Page{}, err
	}
	defer func() { _ = tx.Rollback() }() // it only read
	return db.session(ctx, tx, tenantID).Find(k, q)
}

// Write implements tenant.Docs.
func (db *DB) Write(ctx context.Context, tenantID string, fn func(tx tenant.Tx) error) error {
	return db.transact(ctx, func(ctx context.Context, q docsql.Querier) error { return fn(db.session(ctx, q, tenantID)) })
}

// Exclusive runs fn in one transaction.
func (db *DB) Exclusive(ctx context.Context, fn func(q docsql.Querier) error) error {
	return db.transact(ctx, func(_ context.Context, q docsql.Querier) error { return fn(q) })
}

// Read runs fn, which only reads, outside of a transaction. It may run again.
func (db *DB) Read(ctx context.Context, fn func(ctx context.Context, q docsql.Querier) error) error {
	return db.read(ctx, func(ctx context.Context, c *conn) error { return fn(ctx, c) })
}

// Alone fails when a node is connected to the database.
func (db *DB) Alone(ctx context.Context) error {
	var nodes int
	err := db.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1", applicationPrefix+"%").Scan(&nodes)
	if err != nil {
		return classify(db.where, err)
	}
	if nodes > 0 {
		return problem.New(problem.Conflict, "nodes_connected", "nodes are connected to the database %s (%d connections); stop them first", db.where, nodes)
	}
	return nil
}

// SetGuard makes every transaction that writes ask guard right before its commit,
// and fail with its error.
func (db *DB) SetGuard(guard func() error) { db.guard.Store(&guard) }

// Resolved counts the commits whose answer was lost and which were looked up.
func (db *DB) Resolved() int64 { return db.resolved.Load() }

// Ping reads from the database, and does not wait for one that is away.
func (db *DB) Ping(ctx context.Context) error {
	db.outage.mu.Lock()
	away, cause := !db.outage.since.IsZero(), db.outage.cause
	db.outage.mu.Unlock()
	if away {
		return classify(db.where, lostError{cause})
	}
	return classify(db.where, db.with(ctx, func(ctx context.Context, c *conn) error {
		var n int
		return c.QueryRowContext(ctx, "SELECT COUNT(*) FROM meta").Scan(&n)
	}))
}

// SetDamaged does nothing: PostgreSQL says itself what it cannot read.
func (db *DB) SetDamaged(error) {}

// SQL returns the statements, for maintenance over all tenants.
func (db *DB) SQL() *docsql.SQL { return db.sql }

// Close waits for the connections in use.
func (db *DB) Close() error {
	db.outage.mu.Lock()
	db.outage.closed = true
	db.outage.mu.Unlock()
	db.end()
	db.work.Wait()
	err := db.db.Close()
	if db.standby != nil {
		err = errors.Join(err, db.standby.Close())
	}
	for _, p := range db.pools {
		p.Close()
	}
	return err
}

// dialect is PostgreSQL's SQL. lower is the format that folds text.
type dialect struct{ lower string }

// dialect asks how letters beyond ASCII are folded: where the database's own
// locale is C, LOWER leaves them as they are, and ICU's rules are taken.
func (db *DB) dialect(ctx context.Context) (dialect, error) {
	const plain, icu = "LOWER(%s)", `(LOWER(%s COLLATE "und-x-icu") COLLATE "C")`
	var folds, known bool
	err := db.db.QueryRowContext(ctx, "SELECT LOWER('\u00dc') = '\u00fc', EXISTS (SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu')").Scan(&folds, &known)
	if err == nil && !folds && known {
		return dialect{icu}, nil
	}
	return dialect{plain}, err
}

func (dialect) Placeholder(n int) string { return "$" + strconv.Itoa(n) }
func (dialect) HasTable() string {
	return "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1"
}
func (dialect) Doc() string              { return "doc::text" }
func (dialect) DocParam(p string) string { return p + "::jsonb" }

// JSONMatch walks the path. After each name the value is spread out: the elements
// of an array, or the value itself as the one element.
func (d dialect) JSONMatch(path []string, bind func(any) string, cond func(text, number string) string) string {
	return walk(path, bind, func(last string) string {
		text := fmt.Sprintf("CASE WHEN jsonb_typeof(%[1]s) NOT IN ('object', 'array') THEN "+fmt.Sprintf(d.lower, "(%[1]s #>> '{}')")+" END", last)
		number := fmt.Sprintf("CASE WHEN jsonb_typeof(%[1]s) = 'number' THEN (%[1]s #>> '{}')::numeric END", last)
		return cond(text, number)
	})
}

// JSONExists implements docsql.Dialect.
func (dialect) JSONExists(path []string, bind func(any) string) string {
	return walk(path, bind, func(last string) string { return "jsonb_typeof(" + last + ") <> 'null'" })
}

func walk(path []string, bind func(any) string, cond func(last string) string) string {
	var from []string
	object := "doc"
	for i, name := range path {
		value := fmt.Sprintf("(%s -> %s::text)", object, bind(name))
		each := fmt.Sprintf("e%d", i)
		from = append(from, fmt.Sprintf(
			"LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(%[1]s) = 'array' THEN %[1]s WHEN %[1]s IS NULL THEN '[]'::jsonb ELSE jsonb_build_array(%[1]s) END) AS %[2]s(v)", value, each))
		object = each + ".v"
	}
	return "EXISTS (SELECT 1 FROM " + strings.Join(from, ", ") + " WHERE " + cond(object) + ")"
}
