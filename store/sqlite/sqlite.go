package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // registers the driver too
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/docsql"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

//go:embed migrations/*.sql
var migrations embed.FS

// pragmas of every connection, with their reasons.
var pragmas = []string{
	"journal_mode(WAL)",  // readers go on while the writer commits
	"synchronous(FULL)",  // what was acknowledged is on disk, also after a power cut
	"busy_timeout(5000)", // a checkpoint may hold the file for a moment
	"temp_store(MEMORY)", // sorting leaves no files behind
	"cache_size(-4096)",  // 4 MiB a connection; the system's own cache has the rest
	"mmap_size(0)",       // a disk's error is an error of the read, not the end of the process
	// As on the other engines: what ignores case is folded by us, for all letters.
	"case_sensitive_like(1)",
}

// foldName is a function of ours: SQLite's LOWER knows no letters beyond ASCII.
const foldName = "portcullis_fold"

// registerFold makes it known to the driver, for the connections that are opened
// from then on.
var registerFold = sync.OnceValue(func() error {
	return sqlite.RegisterDeterministicScalarFunction(foldName, 1, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		if s, ok := args[0].(string); ok {
			return strings.ToLower(s), nil
		}
		return nil, nil // NULL
	})
})

// maxBatch bounds the writes of one commit, so that none waits for long.
const maxBatch = 256

// readers is how many connections read at the same time: reading is work for a
// processor, so that more would only hold more memory.
func readers() int { return min(max(2, runtime.NumCPU()), 8) }

// DB is a SQLite database.
type DB struct {
	path   string
	read   *sql.DB
	write  *sql.DB
	conn   *sql.Conn // the one that writes
	reads  *statements
	writes *statements
	sql    *docsql.SQL
	sealer *seal.Sealer
	now    func() time.Time
	lock   *os.File

	queue  chan *job
	stop   chan struct{}
	done   chan struct{}
	closed sync.Once
	broken atomic.Pointer[error] // of SetDamaged
}

type job struct {
	ctx    context.Context
	tenant string
	fn     func(tx tenant.Tx) error
	result chan error
}

// Open opens the database file, makes it when it is not there, and brings its
// schema up to date.
func Open(ctx context.Context, path string, sealer *seal.Sealer, now func() time.Time) (_ *DB, err error) {
	if err := registerFold(); err != nil {
		return nil, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	db := &DB{path: path, sql: docsql.New(dialect{}, tenant.Collections()), sealer: sealer, now: now, lock: lock,
		queue: make(chan *job, 4*maxBatch), stop: make(chan struct{}), done: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = db.release() // the error that is returned says more
		}
	}()
	if db.write, err = sql.Open("sqlite", dsn(path, false)); err != nil {
		return nil, err
	}
	db.write.SetMaxOpenConns(1)
	if err := check(ctx, db.write, path); err != nil {
		return nil, classify(path, err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := docsql.Migrate(ctx, db.write, goose.DialectSQLite3, dialect{}, files, path, nil); err != nil {
		return nil, classify(path, err)
	}
	if err := docsql.CheckKey(ctx, db.write, dialect{}, sealer.KeyID(), path); err != nil {
		return nil, classify(path, err)
	}
	if db.conn, err = db.write.Conn(ctx); err != nil {
		return nil, classify(path, err)
	}
	if db.read, err = sql.Open("sqlite", dsn(path, true)); err != nil {
		return nil, err
	}
	db.read.SetMaxOpenConns(readers())
	db.read.SetMaxIdleConns(readers())
	db.reads, db.writes = newStatements(db.read, db.read.PrepareContext), newStatements(db.conn, db.conn.PrepareContext)
	go db.writer()
	return db, nil
}

func dsn(path string, readOnly bool) string {
	q := url.Values{}
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	if readOnly {
		q.Add("_pragma", "query_only(1)")
	}
	q.Set("_txlock", "immediate")
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// checkedAtStart is the largest file, in bytes, whose every page is looked at
// before the node answers; larger ones would delay the start, and are left to
// Verify.
const checkedAtStart = 16 << 20

// check finds a torn or foreign file before anything is built on it.
func check(ctx context.Context, db *sql.DB, path string) error {
	size, pages, err := fileSize(path)
	if err != nil {
		return err
	}
	if size < pages {
		return damaged(path, fmt.Errorf("it has %d bytes, and its header says %d", size, pages))
	}
	if size > checkedAtStart {
		var n int // reads the header and the schema
		return db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master").Scan(&n)
	}
	return quickCheck(ctx, db, path)
}

// fileSize returns the bytes that a database file has, and those that its header
// says it has. The second is 0 where nobody can say: in a file that is new, or
// whose last pages may still be in the log.
func fileSize(path string) (have, said int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		return info.Size(), 0, nil
	}
	var header [32]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return info.Size(), 0, nil // SQLite says what is wrong with so short a file
	}
	// https://www.sqlite.org/fileformat.html section 1.3: page size at 16, pages at 28.
	page := int64(binary.BigEndian.Uint16(header[16:]))
	if page == 1 {
		page = 65536
	}
	return info.Size(), page * int64(binary.BigEndian.Uint32(header[28:])), nil
}

func quickCheck(ctx context.Context, db *sql.DB, path string) error {
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return classify(path, err)
	}
	if result != "ok" {
		return damaged(path, errors.New(result))
	}
	return nil
}

func damaged(path string, why error) error {
	return problem.Wrap(problem.Unavailable, "database_corrupt", why, "the database %s is damaged (%s); restore it from a backup", path, why)
}

// Verify looks at every page of a database file, whether a node runs on it or not.
// It only reads. It fails with "database_corrupt" when the file is damaged.
func Verify(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err != nil {
		return problem.Wrap(problem.NotFound, "no_database", err, "there is no database %s", path)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=query_only(1)")
	if err != nil {
		return err
	}
	defer db.Close()
	return quickCheck(ctx, db, path)
}

// SetDamaged makes err what Ping answers from now on.
func (db *DB) SetDamaged(err error) { db.broken.Store(&err) }

// classify turns what SQLite says into what an operator can act on.
func classify(path string, err error) error {
	var e *sqlite.Error
	var p *problem.Error
	if errors.As(err, &p) || !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT:
		return problem.Wrap(problem.Unavailable, "database_corrupt", err, "the database %s is damaged; restore it from a backup", path)
	case sqlite3.SQLITE_NOTADB:
		return problem.Wrap(problem.Unavailable, "database_corrupt", err, "the file %s is not a SQLite database, or its first page is damaged; restore it from a backup", path)
	case sqlite3.SQLITE_FULL:
		return problem.Wrap(problem.Unavailable, "disk_full", err, "the disk of %s is full; make room, the node goes on by itself", path)
	case sqlite3.SQLITE_READONLY:
		return problem.Wrap(problem.Unavailable, "database_read_only", err, "the database %s cannot be written; make the file, its folder and the disk writable", path)
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		return problem.Wrap(problem.Unavailable, "database_io", err, "the database %s cannot be read or written; look at the disk", path)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return problem.Wrap(problem.Unavailable, "database_busy", err, "another program holds the database %s", path)
	}
	return err
}

// Get implements tenant.Docs.
func (db *DB) Get(ctx context.Context, tenantID string, k tenant.Kind, id string) (tenant.Record, error) {
	if err := ctx.Err(); err != nil {
		return tenant.Record{}, err
	}
	// One row by its key is there before anybody could call it off; to watch for that
	// costs as much as the row.
	rec, err := db.session(context.WithoutCancel(ctx), db.reads, db.read, tenantID).Get(k, id)
	return rec, classify(db.path, err)
}

// Find implements tenant.Docs.
func (db *DB) Find(ctx context.Context, tenantID string, k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	if !q.Total {
		page, err := db.session(ctx, db.reads, db.read, tenantID).Find(k, q)
		return page, classify(db.path, err)
	}
	// Count and page have to see the same moment.
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return tenant.Page{}, classify(db.path, err)
	}
	defer func() { _ = tx.Rollback() }() // it only read
	page, err := db.session(ctx, tx, tx, tenantID).Find(k, q)
	return page, classify(db.path, err)
}

func (db *DB) session(ctx context.Context, q, adhoc docsql.Querier, tenantID string) *docsql.Session {
	return &docsql.Session{SQL: db.sql, Ctx: ctx, Q: q, Adhoc: adhoc, Tenant: tenantID, Sealer: db.sealer, At: db.now().UTC()}
}

// Write implements tenant.Docs. Writes that wait while one commit is under way
// share the next: one fsync for all of them.
func (db *DB) Write(ctx context.Context, tenantID string, fn func(tx tenant.Tx) error) error {
	j := &job{ctx: ctx, tenant: tenantID, fn: fn, result: make(chan error, 1)}
	select {
	case db.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.stop:
		return errClosed()
	}
	select {
	// A job that was taken is answered, also when its caller has gone: whether it is
	// on disk is known only then.
	case err := <-j.result:
		return err
	case <-db.done:
		select {
		case err := <-j.result:
			return err
		default:
			return errClosed()
		}
	}
}

func errClosed() error {
	return problem.New(problem.Unavailable, "store_closed", "the store is closed")
}

// writer runs all writes.
func (db *DB) writer() {
	defer close(db.done)
	batch := make([]*job, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case j := <-db.queue:
			batch = append(batch, j)
		case <-db.stop:
			select { // what was queued before the stop is still done
			case j := <-db.queue:
				batch = append(batch, j)
			default:
				return
			}
		}
	more:
		for len(batch) < maxBatch {
			select {
			case j := <-db.queue:
				batch = append(batch, j)
			default:
				break more
			}
		}
		db.commit(batch)
	}
}

// commit runs a batch in one transaction. Each job has a savepoint, so that one
// that fails takes nothing of the others away.
func (db *DB) commit(batch []*job) {
	ctx := context.Background() // one caller's end must not abort the others
	fail := func(err error) {
		err = classify(db.path, err)
		for _, j := range batch {
			j.result <- err
		}
	}
	if _, err := db.writes.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		fail(fmt.Errorf("begin: %w", err))
		return
	}
	results := make([]error, len(batch))
	for i, j := range batch {
		if results[i] = j.ctx.Err(); results[i] != nil {
			continue // nobody waits any more, and nothing has been done
		}
		var lost error
		results[i], lost = db.run(ctx, j)
		if lost != nil {
			_, _ = db.conn.ExecContext(ctx, "ROLLBACK") // often SQLite has done it itself
			fail(lost)
			return
		}
	}
	if _, err := db.writes.ExecContext(ctx, "COMMIT"); err != nil {
		_, _ = db.conn.ExecContext(ctx, "ROLLBACK")
		fail(fmt.Errorf("commit: %w", err))
		return
	}
	for i, j := range batch {
		j.result <- results[i]
	}
}

// run runs one job in a savepoint. lost says that the whole transaction cannot
// go on.
func (db *DB) run(ctx context.Context, j *job) (result, lost error) {
	if _, err := db.writes.ExecContext(ctx, "SAVEPOINT job"); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	result = call(j, db.session(ctx, db.writes, db.conn, j.tenant))
	if result != nil {
		if _, err := db.writes.ExecContext(ctx, "ROLLBACK TO job"); err != nil {
			return nil, fmt.Errorf("undo a write: %w (after %w)", err, result)
		}
	}
	if _, err := db.writes.ExecContext(ctx, "RELEASE job"); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return classify(db.path, result), nil
}

func call(j *job, s *docsql.Session) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a write: %v\n%s", p, debug.Stack())
		}
	}()
	return j.fn(s)
}

// Ping reads from the database.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.broken.Load(); err != nil {
		return *err
	}
	var n int
	return classify(db.path, db.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM meta").Scan(&n))
}

// Exclusive runs fn on the connection that writes, in one transaction, while no
// other write runs.
func (db *DB) Exclusive(ctx context.Context, fn func(q docsql.Querier) error) error {
	return db.Write(ctx, "", func(tx tenant.Tx) error { return fn(tx.(*docsql.Session).Q) })
}

// Read runs fn on the connections that read.
func (db *DB) Read(ctx context.Context, fn func(ctx context.Context, q docsql.Querier) error) error {
	return classify(db.path, fn(ctx, db.read))
}

// SQL returns the statements, for maintenance over all tenants.
func (db *DB) SQL() *docsql.SQL { return db.sql }

// Close waits for the writes that were queued.
func (db *DB) Close() error {
	var err error
	db.closed.Do(func() {
		close(db.stop)
		<-db.done
		err = db.release()
	})
	return err
}

func (db *DB) release() error {
	var errs []error
	for _, s := range []*statements{db.reads, db.writes} {
		if s != nil {
			s.close()
		}
	}
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	for _, d := range []*sql.DB{db.read, db.write} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(append(errs, db.lock.Close())...)
}

type dialect struct{}

func (dialect) Placeholder(n int) string { return fmt.Sprintf("?%d", n) }
func (dialect) HasTable() string {
	return "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1"
}
func (dialect) Doc() string              { return "doc" }
func (dialect) DocParam(p string) string { return p }

// JSONMatch walks the path with json_each. After each name the value is spread
// out: the elements of an array, or the value itself as the one element.
func (dialect) JSONMatch(path []string, bind func(any) string, cond func(text, number string) string) string {
	return walk(path, bind, func(last string) string {
		text := fmt.Sprintf("CASE %[1]s.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'object' THEN NULL WHEN 'array' THEN NULL ELSE "+
			foldName+"(CAST(%[1]s.value AS TEXT)) END", last)
		number := fmt.Sprintf("CASE WHEN %[1]s.type IN ('integer', 'real') THEN %[1]s.value END", last)
		return cond(text, number)
	})
}

func (dialect) JSONExists(path []string, bind func(any) string) string {
	return walk(path, bind, func(last string) string { return last + ".type <> 'null'" })
}

func walk(path []string, bind func(any) string, cond func(last string) string) string {
	var from, where []string
	object := "doc"
	last := ""
	for i, name := range path {
		named, each := fmt.Sprintf("n%d", i), fmt.Sprintf("e%d", i)
		from = append(from,
			fmt.Sprintf("json_each(%s) AS %s", object, named),
			fmt.Sprintf("json_each(CASE WHEN %[1]s.type = 'array' THEN %[1]s.value WHEN %[1]s.type = 'object' THEN json_array(json(%[1]s.value))"+
				" WHEN %[1]s.type IN ('true', 'false', 'null') THEN '[' || %[1]s.type || ']' ELSE json_array(%[1]s.value) END) AS %[2]s", named, each))
		where = append(where, named+".key = "+bind(name))
		object = fmt.Sprintf("CASE WHEN %[1]s.type = 'object' THEN %[1]s.value ELSE '{}' END", each)
		last = each
	}
	return "EXISTS (SELECT 1 FROM " + strings.Join(from, ", ") + " WHERE " + strings.Join(where, " AND ") + " AND " + cond(last) + ")"
}
