package docsql

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/portcullis-id/portcullis/problem"
)

// Schema is what a program knows of the schema.
type Schema struct {
	Newest int64 // version of the newest migration
	// Floor is the lowest Newest of a program that can work with this schema: the
	// newest contract step takes something away that older programs need.
	Floor int64
}

// ReadSchema reads the migrations. Each but the first three says what it is, in a
// line of its own: "-- portcullis: expand" adds what older programs do not look at;
// "-- portcullis: contract N" takes away what programs before schema version N need.
func ReadSchema(files fs.FS) (Schema, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return Schema{}, err
	}
	var s Schema
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return s, fmt.Errorf("the migration %s has no number", name)
		}
		raw, err := fs.ReadFile(files, name)
		if err != nil {
			return s, err
		}
		s.Newest = max(s.Newest, version)
		step, floor, err := step(raw)
		if err != nil || step == "" && version > 3 || floor > version {
			return s, fmt.Errorf("the migration %s wants a line \"-- portcullis: expand\" or \"-- portcullis: contract N\", N at most its own number", name)
		}
		s.Floor = max(s.Floor, floor)
	}
	return s, nil
}

// step reads what a migration says of itself; "" when it says nothing.
func step(migration []byte) (name string, floor int64, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(migration)); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "-- portcullis: ")
		if !ok {
			continue
		}
		switch f := strings.Fields(rest); {
		case slices.Equal(f, []string{"expand"}):
			return "expand", 0, nil
		case len(f) == 2 && f[0] == "contract":
			floor, err := strconv.ParseInt(f[1], 10, 64)
			return "contract", floor, err
		}
		return "", 0, errors.New("unknown step")
	}
	return "", 0, nil
}

// floorName is where a database says which programs it fits: "FLOOR VERSION", the
// schema's floor and the version that this was written for.
const floorName = "schema_floor"

// Migrate brings a database up to the newest schema that files have. A database of a
// newer schema is used as it is when all that was added since are expand steps, and
// refused and left alone otherwise. before, unless it is nil, is asked before a
// contract step is done and may refuse.
func Migrate(ctx context.Context, db *sql.DB, g goose.Dialect, d Dialect, files fs.FS, where string, before func(ctx context.Context, floor int64) error, opts ...goose.ProviderOption) error {
	mine, err := ReadSchema(files)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	p, err := goose.NewProvider(g, db, files, append(opts, goose.WithDisableGlobalRegistry(true), goose.WithAllowOutofOrder(true))...)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	have, floor, err := version(ctx, db, d)
	if err != nil {
		return fmt.Errorf("read the schema version of %s: %w", where, err)
	}
	switch {
	case have > mine.Newest && floor.Newest == have && floor.Floor <= mine.Newest:
		return nil // the steps since then only added
	case have > mine.Newest:
		return problem.New(problem.Unavailable, "schema_too_new",
			"the database %s has schema version %d, but this program knows versions up to %d: a newer Portcullis has used it; start that one, or restore a backup from before its update", where, have, mine.Newest)
	case have == mine.Newest && floor == mine:
		return nil
	}
	if have > 0 && before != nil && mine.Floor > floor.Floor {
		if err := before(ctx, mine.Floor); err != nil {
			return err
		}
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema of %s up to date: %w", where, err)
	}
	if err := setMeta(ctx, db, d, floorName, fmt.Sprint(mine.Floor, " ", mine.Newest)); err != nil {
		return fmt.Errorf("note the schema of %s: %w", where, err)
	}
	return nil
}

// version reads the schema's version, 0 in an empty database, and what the program
// that made it wrote of it.
func version(ctx context.Context, db *sql.DB, d Dialect) (have int64, s Schema, err error) {
	exists, err := hasTable(ctx, db, d, "goose_db_version")
	if err != nil || !exists {
		return 0, s, err
	}
	if err := db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version").Scan(&have); err != nil || have == 0 {
		return 0, s, err
	}
	text, err := meta(ctx, db, d, floorName)
	if err != nil || text == "" {
		return have, s, err
	}
	if _, err := fmt.Sscan(text, &s.Floor, &s.Newest); err != nil {
		return have, s, fmt.Errorf("meta %s is %q: %w", floorName, text, err)
	}
	return have, s, nil
}

func hasTable(ctx context.Context, q Querier, d Dialect, name string) (bool, error) {
	rows, err := q.QueryContext(ctx, d.HasTable(), name)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	return rows.Next(), rows.Err()
}

// CheckKey remembers the id of the master key in a new database, and refuses an
// old one that another key has sealed.
func CheckKey(ctx context.Context, q Querier, d Dialect, keyID, where string) error {
	have, err := meta(ctx, q, d, "master_key")
	if err != nil {
		return fmt.Errorf("read the master key's id: %w", err)
	}
	if have == "" {
		// Of several nodes that start at the same moment, one is first.
		_, err := q.ExecContext(ctx, fmt.Sprintf("INSERT INTO meta (name, value) VALUES ('master_key', %s) ON CONFLICT (name) DO NOTHING", d.Placeholder(1)), keyID)
		if err != nil {
			return fmt.Errorf("note the master key's id: %w", err)
		}
		if have, err = meta(ctx, q, d, "master_key"); err != nil {
			return fmt.Errorf("read the master key's id: %w", err)
		}
	}
	if have == keyID {
		return nil
	}
	return problem.New(problem.Unavailable, "wrong_master_key",
		"the database %s is sealed with the master key %s, but the key here is %s; start with the key that the data was written with (file master.key, or PORTCULLIS_MASTER_KEY)", where, have, keyID)
}

// SetKey notes the key that the database is sealed with.
func SetKey(ctx context.Context, q Querier, d Dialect, keyID string) error {
	return setMeta(ctx, q, d, "master_key", keyID)
}

func setMeta(ctx context.Context, q Querier, d Dialect, name, value string) error {
	_, err := q.ExecContext(ctx, fmt.Sprintf("INSERT INTO meta (name, value) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value", d.Placeholder(1), d.Placeholder(2)), name, value)
	return err
}

func meta(ctx context.Context, q Querier, d Dialect, name string) (string, error) {
	rows, err := q.QueryContext(ctx, "SELECT value FROM meta WHERE name = "+d.Placeholder(1), name)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var value string
	if rows.Next() {
		if err := rows.Scan(&value); err != nil {
			return "", err
		}
	}
	return value, errors.Join(rows.Err())
}
