package postgres

import (
	"context"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
)

// Synchronous fails, with a sentence for the operator, unless an acknowledged write
// is on two servers. Engines that replicate by a protocol of their own always are:
// CockroachDB and YugabyteDB acknowledge what a majority has.
func (db *DB) Synchronous(ctx context.Context) error {
	var version, commit, names, sync string
	var senders int
	err := db.with(ctx, func(ctx context.Context, c *conn) error {
		if err := c.QueryRowContext(ctx, "SELECT version()").Scan(&version); err != nil {
			return err
		}
		if strings.Contains(version, "CockroachDB") || strings.Contains(version, "-YB-") {
			return nil
		}
		return c.QueryRowContext(ctx, `SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
			count(*), coalesce(string_agg(sync_state, ' '), '') FROM pg_stat_replication`).Scan(&commit, &names, &senders, &sync)
	})
	switch {
	case err != nil:
		return classify(db.where, err)
	case commit == "":
		return nil
	case !slices.Contains([]string{"on", "remote_write", "remote_apply"}, commit):
		return unsafe("synchronous_commit is %s; set it to on", commit)
	case names == "":
		return unsafe("synchronous_standby_names is empty; name the standbys, as in ANY 1 (db2, db3)")
	case senders == 0:
		return unsafe("no standby is connected, so that no write is acknowledged until one is")
	case sync == "":
		return unsafe("the state of the standbys is hidden from this user; GRANT pg_monitor TO it")
	case !strings.Contains(sync, "sync") && !strings.Contains(sync, "quorum"), strings.Trim(strings.ReplaceAll(sync, "async", ""), " ") == "":
		return unsafe("no connected standby is one of synchronous_standby_names (%s)", names)
	}
	return nil
}

func unsafe(form string, args ...any) error {
	return problem.New(problem.Unavailable, "not_synchronous", "acknowledged writes are on one database server alone: "+form, args...)
}
