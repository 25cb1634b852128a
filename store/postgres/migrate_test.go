package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/portcullis-id/portcullis/internal/golden"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/docsql"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

// addsOnly are the statements of an expand step: programs of the schema before it
// neither see nor miss what they do. A unique index is one more rule for old
// programs, unless its table is as new as itself.
var addsOnly = []*regexp.Regexp{
	regexp.MustCompile(`^CREATE TABLE "?[a-z_]+"? \(`),
	regexp.MustCompile(`^CREATE INDEX [a-z_]+ ON `),
	regexp.MustCompile(`^DROP INDEX [a-z_]+_idx$`),
	regexp.MustCompile(`^ALTER TABLE "?[a-z_]+"? ADD COLUMN "?[a-z_]+"? [A-Z]+( DEFAULT [^,]+)?$`),
	regexp.MustCompile(`^SELECT 1$`),
}

// statements are those of a migration's way up.
func statements(t *testing.T, files fs.FS, name string) []string {
	t.Helper()
	raw, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(raw), "-- +goose Down")
	up = regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(up, "")
	var out []string
	for _, s := range strings.Split(up, ";") {
		if s = strings.Join(strings.Fields(s), " "); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func expands(statement string, all []string) bool {
	for _, re := range addsOnly {
		if re.MatchString(statement) {
			return true
		}
	}
	if m := regexp.MustCompile(`^CREATE UNIQUE INDEX [a-z_]+ ON ("?[a-z_]+"?) `).FindStringSubmatch(statement); m != nil {
		for _, s := range all {
			if strings.HasPrefix(s, "CREATE TABLE "+m[1]+" ") {
				return true
			}
		}
	}
	return false
}

// TestExpandStepsOnlyAdd: nodes of the release before go on working beside a node
// that has run a migration, unless it says that they do not.
func TestExpandStepsOnlyAdd(t *testing.T) {
	for engine, files := range map[string]fs.FS{"postgres": migrationFiles(), "sqlite": os.DirFS(filepath.Join("..", "sqlite", "migrations"))} {
		names, err := fs.Glob(files, "*.sql")
		if err != nil || len(names) < 4 {
			t.Fatalf("%s: %d migrations, %v", engine, len(names), err)
		}
		if _, err := docsql.ReadSchema(files); err != nil {
			t.Errorf("%s: %v", engine, err)
		}
		for _, name := range names {
			raw, err := fs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(raw), "-- portcullis: contract") {
				continue
			}
			all := statements(t, files, name)
			for _, s := range all {
				if !expands(s, all) {
					t.Errorf("%s: %s is an expand step, and does more than to add: %s", engine, name, s)
				}
			}
		}
	}
	for _, s := range []string{`DROP TABLE x`, `ALTER TABLE users DROP COLUMN email`, `ALTER TABLE users ADD COLUMN x TEXT NOT NULL`, `UPDATE users SET doc = '{}'`, `CREATE UNIQUE INDEX users_x_key ON users (tenant, x)`, `DROP INDEX users_name_key`} {
		if expands(s, []string{s}) {
			t.Errorf("%q was taken for an addition", s)
		}
	}
}

// recorded is the columns of every kind as a release knew them.
type recorded map[tenant.Kind][]tenant.Column

const current = "columns-5.json" // of this release; a new one is recorded with a new schema

// TestColumnsGolden records the columns of this release, for the releases after it.
func TestColumnsGolden(t *testing.T) {
	now := recorded{}
	for _, c := range tenant.Collections() {
		now[c.Kind] = append([]tenant.Column{}, c.Columns...)
	}
	raw, err := json.MarshalIndent(now, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, filepath.Join("testdata", current), append(raw, '\n'))
}

// testDSN is storetest's, which cannot be imported here.
func testDSN(t *testing.T) string {
	t.Helper()
	server := os.Getenv("PORTCULLIS_TEST_POSTGRES")
	if server == "" {
		t.Skip("PORTCULLIS_TEST_POSTGRES is not set: `scripts/with-postgres go test ./...` sets it")
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := "m_" + strings.ToLower(tenant.RandomString(16))
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	return strings.Replace(server, "/postgres?", "/"+name+"?", 1)
}

func testSealer(t *testing.T) *seal.Sealer {
	t.Helper()
	s, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOldNodesGoOn: the statements of the releases before work while the schema is
// brought up to date, and after it.
func TestOldNodesGoOn(t *testing.T) {
	files, err := filepath.Glob("testdata/columns-*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d releases are recorded, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var old recorded
			if err := json.Unmarshal(raw, &old); err != nil {
				t.Fatal(err)
			}
			var version int
			if _, err := fmt.Sscanf(filepath.Base(file), "columns-%d.json", &version); err != nil {
				t.Fatal(err)
			}
			dsn := testDSN(t)
			db, err := sql.Open("pgx", dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			migrateTo(t, db, version)

			var collections []tenant.Collection
			for k, columns := range old {
				collections = append(collections, tenant.Collection{Kind: k, Columns: columns})
			}
			statements := docsql.New(dialect{}, collections)
			work := func(round int) {
				for k := range old {
					s := &docsql.Session{SQL: statements, Ctx: context.Background(), Q: db, Tenant: "a", Sealer: testSealer(t), At: time.Now()}
					id := fmt.Sprint("d", round)
					if err := s.Insert(k, id, []byte(`{"n":1}`)); err != nil {
						t.Errorf("round %d: insert %s: %v", round, k, err)
						continue
					}
					rec, err := s.Get(k, id)
					if err != nil {
						t.Errorf("round %d: get %s: %v", round, k, err)
						continue
					}
					if err := s.Replace(k, rec); err != nil {
						t.Errorf("round %d: replace %s: %v", round, k, err)
					}
					if _, err := s.Find(k, tenant.Query{Limit: 1}); err != nil {
						t.Errorf("round %d: find %s: %v", round, k, err)
					}
					if _, err := s.Delete(k, id); err != nil {
						t.Errorf("round %d: delete %s: %v", round, k, err)
					}
				}
			}
			work(0)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := 1; ; i++ {
					work(i)
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			now, err := Open(t.Context(), dsn, testSealer(t), time.Now, Config{})
			close(stop)
			wg.Wait()
			if err != nil {
				t.Fatal(err)
			}
			now.Close()
			work(-1)
		})
	}
}

// migrateTo brings a database to the schema of an older release.
func migrateTo(t *testing.T, db *sql.DB, version int) {
	t.Helper()
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrationFiles(), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), int64(version)); err != nil {
		t.Fatal(err)
	}
}

// TestFiveNodesStart: nodes that start at the same moment on an empty database bring
// its schema up one time.
func TestFiveNodesStart(t *testing.T) {
	dsn := testDSN(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			db, err := Open(t.Context(), dsn, testSealer(t), time.Now, Config{MaxConnections: 4})
			if err != nil {
				t.Error(err)
				return
			}
			db.Close()
		})
	}
	wg.Wait()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	schema, err := docsql.ReadSchema(migrationFiles())
	if err != nil {
		t.Fatal(err)
	}
	var applied, versions int64
	if err := db.QueryRow("SELECT COUNT(*), COUNT(DISTINCT version_id) FROM goose_db_version WHERE version_id > 0").Scan(&applied, &versions); err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(migrationFiles(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(names)); applied != want || versions != want || schema.Newest < want {
		t.Errorf("%d migrations of %d versions ran, want each of %d once", applied, versions, want)
	}
}

// TestSchemaOfANewerProgram: an older program works on a schema to which was only
// added, and refuses one from which something that it needs was taken away.
func TestSchemaOfANewerProgram(t *testing.T) {
	mine := fstest.MapFS{}
	names, err := fs.Glob(migrationFiles(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		raw, err := fs.ReadFile(migrationFiles(), n)
		if err != nil {
			t.Fatal(err)
		}
		mine[n] = &fstest.MapFile{Data: raw}
	}
	with := func(base fstest.MapFS, name, text string) fstest.MapFS {
		next := fstest.MapFS{name: &fstest.MapFile{Data: []byte("-- +goose Up\n" + text)}}
		for n, f := range base {
			next[n] = f
		}
		return next
	}
	expand := with(mine, "0100_more.sql", "-- portcullis: expand\nCREATE TABLE more (x TEXT);\n")
	contract := with(expand, "0101_less.sql", "-- portcullis: contract 100\nDROP TABLE more;\n")

	dsn := testDSN(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	migrate := func(files fs.FS, before func(context.Context, int64) error) error {
		return docsql.Migrate(t.Context(), db, goose.DialectPostgres, dialect{}, files, "here", before)
	}
	for _, files := range []fs.FS{mine, expand} {
		if err := migrate(files, nil); err != nil {
			t.Fatal(err)
		}
	}
	old, err := Open(t.Context(), dsn, testSealer(t), time.Now, Config{})
	if err != nil {
		t.Fatalf("an older program refuses a schema to which was only added: %v", err)
	}
	// While the old node is connected, what it needs is not taken away.
	if err := old.olderNodes(t.Context(), 100); problem.From(err).Code != "older_nodes" {
		t.Errorf("an older node is connected: %v", err)
	}
	if err := migrate(contract, old.olderNodes); problem.From(err).Code != "older_nodes" {
		t.Errorf("the contract step ran beside an older node: %v", err)
	}
	old.Close()
	if err := migrate(contract, nil); err != nil {
		t.Fatal(err)
	}
	if err := migrate(expand, nil); err != nil {
		t.Errorf("a program that knows the version from which on it fits: %v", err)
	}
	if _, err := Open(t.Context(), dsn, testSealer(t), time.Now, Config{}); problem.From(err).Code != "schema_too_new" {
		t.Errorf("a program before the contract step: %v", err)
	}
	for _, text := range []string{"CREATE TABLE y (x TEXT);\n", "-- portcullis: contract\n", "-- portcullis: contract 200\n", "-- portcullis: other\n"} {
		if _, err := docsql.ReadSchema(with(mine, "0100_x.sql", text)); err == nil {
			t.Errorf("a migration that says %q was taken", text)
		}
	}
}
