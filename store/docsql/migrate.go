package docsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/portcullis-id/portcullis/problem"
)

// Migrate brings a database up to the newest schema that files have. A database
// of a newer schema is refused and left alone.
func Migrate(ctx context.Context, db *sql.DB, d goose.Dialect, files fs.FS, where string, opts ...goose.ProviderOption) error {
	p, err := goose.NewProvider(d, db, files, append(opts, goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	sources := p.ListSources()
	newest := sources[len(sources)-1].Version
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version of %s: %w", where, err)
	}
	if have > newest {
		return problem.New(problem.Unavailable, "schema_too_new",
			"the database %s has schema version %d, but this program knows versions up to %d: a newer Portcullis has used it; start that one, or restore a backup from before its update", where, have, newest)
	}
	if have == newest {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema of %s up to date: %w", where, err)
	}
	return nil
}

// CheckKey remembers the id of the master key in a new database, and refuses an
// old one that another key has sealed.
func CheckKey(ctx context.Context, q Querier, d Dialect, keyID, where string) error {
	have, err := meta(ctx, q, d, "master_key")
	if err != nil {
		return fmt.Errorf("read the master key's id: %w", err)
	}
	switch have {
	case keyID:
		return nil
	case "":
		return SetKey(ctx, q, d, keyID)
	}
	return problem.New(problem.Unavailable, "wrong_master_key",
		"the database %s is sealed with the master key %s, but the key here is %s; start with the key that the data was written with (file master.key, or PORTCULLIS_MASTER_KEY)", where, have, keyID)
}

// SetKey notes the key that the database is sealed with.
func SetKey(ctx context.Context, q Querier, d Dialect, keyID string) error {
	_, err := q.ExecContext(ctx, fmt.Sprintf("INSERT INTO meta (name, value) VALUES ('master_key', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value", d.Placeholder(1)), keyID)
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
