package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

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

// maxTries bounds how often a transaction runs that others got in the way of.
const maxTries = 20

// DB is a PostgreSQL database.
type DB struct {
	pool   *pgxpool.Pool
	db     *sql.DB
	sql    *docsql.SQL
	sealer *seal.Sealer
	now    func() time.Time
	where  string
}

// Ports are the TCP ports that Open would connect to, of all hosts that the DSN
// names; none for a local socket or a DSN that is not valid.
func Ports(dsn string) []int {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil
	}
	var ports []int
	take := func(host string, port uint16) {
		if !strings.HasPrefix(host, "/") && !slices.Contains(ports, int(port)) {
			ports = append(ports, int(port))
		}
	}
	take(cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks {
		take(f.Host, f.Port)
	}
	return ports
}

// Open connects and brings the schema up to date, under a lock that other nodes
// wait for.
func Open(ctx context.Context, dsn string, sealer *seal.Sealer, now func() time.Time) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// The error of pgx has the password taken out, but not the rest of the DSN.
		return nil, problem.New(problem.Invalid, "invalid_dsn", "the database wants postgres://USER:PASSWORD@HOST:PORT/DATABASE, with options as in ?sslmode=verify-full")
	}
	if cfg.MaxConns < 16 {
		cfg.MaxConns = 16
	}
	// A statement that runs for this long is broken off: it holds locks that others
	// wait for. A setting in the DSN wins.
	if _, ok := cfg.ConnConfig.RuntimeParams["statement_timeout"]; !ok {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = "30000"
	}
	dialer := &net.Dialer{KeepAlive: 5 * time.Minute}
	dialer.SetMultipathTCP(false) // Landlock's network rules do not see it
	cfg.ConnConfig.DialFunc = dialer.DialContext
	where := fmt.Sprintf("%s on %s:%d", cfg.ConnConfig.Database, cfg.ConnConfig.Host, cfg.ConnConfig.Port)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, classify(where, err)
	}
	db := &DB{pool: pool, db: stdlib.OpenDBFromPool(pool), sealer: sealer, now: now, where: where}
	if err := db.prepare(ctx); err != nil {
		_ = db.Close() // the error above says more
		return nil, classify(where, err)
	}
	return db, nil
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
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	if err := docsql.Migrate(ctx, db.db, goose.DialectPostgres, files, db.where, goose.WithSessionLocker(locker)); err != nil {
		return err
	}
	return docsql.CheckKey(ctx, db.db, dialect{}, db.sealer.KeyID(), db.where)
}

// classify turns what PostgreSQL says into what an operator can act on.
func classify(where string, err error) error {
	var p *problem.Error
	if err == nil || errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	var pg *pgconn.PgError
	var dial *pgconn.ConnectError
	switch {
	case errors.As(err, &dial):
		return problem.Wrap(problem.Unavailable, "database_unreachable", err, "the database %s does not answer; look at its host, at row database of the network contract, and at user and password", where)
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
func (db *DB) Get(ctx context.Context, tenantID string, k tenant.Kind, id string) (tenant.Record, error) {
	rec, err := db.session(ctx, db.db, tenantID).Get(k, id)
	return rec, classify(db.where, err)
}

// Find implements tenant.Docs.
func (db *DB) Find(ctx context.Context, tenantID string, k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	if !q.Total {
		page, err := db.session(ctx, db.db, tenantID).Find(k, q)
		return page, classify(db.where, err)
	}
	// Count and page have to see the same moment.
	tx, err := db.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return tenant.Page{}, classify(db.where, err)
	}
	defer func() { _ = tx.Rollback() }() // it only read
	page, err := db.session(ctx, tx, tenantID).Find(k, q)
	return page, classify(db.where, err)
}

// Write implements tenant.Docs. REPEATABLE READ: a function that looks at a
// document, decides, and changes it must not decide on one state and change
// another. Who changes what somebody else has changed since loses, and runs again.
func (db *DB) Write(ctx context.Context, tenantID string, fn func(tx tenant.Tx) error) error {
	return db.transact(ctx, func(tx *sql.Tx) error { return fn(db.session(ctx, tx, tenantID)) })
}

func (db *DB) transact(ctx context.Context, fn func(tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		err := db.once(ctx, fn)
		if err == nil || try == maxTries || ctx.Err() != nil || !again(err) {
			return classify(db.where, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(rand.Int64N(int64(try) * int64(4*time.Millisecond)))): // #nosec G404 -- nobody gains by guessing a wait; so that they do not meet again
		}
	}
}

// again reports whether a transaction failed because another was faster.
func again(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01"
	}
	var p *problem.Error
	return errors.As(err, &p) && p.Kind == problem.Conflict && p.Subject == "version"
}

func (db *DB) once(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := db.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Exclusive runs fn in one transaction.
func (db *DB) Exclusive(ctx context.Context, fn func(q docsql.Querier) error) error {
	return db.transact(ctx, func(tx *sql.Tx) error { return fn(tx) })
}

// Ping reads from the database.
func (db *DB) Ping(ctx context.Context) error {
	var n int
	return classify(db.where, db.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM meta").Scan(&n))
}

// SetDamaged does nothing: PostgreSQL says itself what it cannot read.
func (db *DB) SetDamaged(error) {}

// SQL returns the statements, for maintenance over all tenants.
func (db *DB) SQL() *docsql.SQL { return db.sql }

// Close waits for the connections in use.
func (db *DB) Close() error {
	err := db.db.Close()
	db.pool.Close()
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
