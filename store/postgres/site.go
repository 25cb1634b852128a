package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// SiteState says, in the database that both sites have, which of them works with it.
type SiteState struct {
	// Epoch grows with each promotion: of two databases, the one with the higher epoch
	// was promoted later.
	Epoch int64 `json:"epoch"`
	// Active is the site that may write; "" after it has handed over.
	Active string    `json:"active"`
	Since  time.Time `json:"since"`
	// Lease is how long the active site goes on without word of the other site's
	// database: 0 means for ever.
	Lease time.Duration `json:"lease,omitempty"`

	text string // as it was read
}

// siteName is where a database holds its SiteState.
const siteName = "site"

// SiteStatus is what a site's database is at a moment.
type SiteStatus struct {
	State *SiteState `json:"state"` // nil when no site was ever named
	// Standby is whether the database follows another one.
	Standby bool `json:"standby"`
	// Received and Behind are a standby's: the position in the log, and how long ago
	// what it has applied last was committed; zero where the server cannot say.
	Received string        `json:"received,omitempty"`
	Behind   time.Duration `json:"behind,omitempty"`
	// Followers are the standbys of a primary.
	Followers []Follower `json:"followers,omitempty"`
}

// Follower is a standby as its primary sees it.
type Follower struct {
	Name   string `json:"name"` // application_name of its primary_conninfo
	State  string `json:"state"`
	Sync   string `json:"sync"`   // async, sync, quorum or potential
	Behind int64  `json:"behind"` // bytes of the log that it has not applied
}

// Site looks at the database of a site, standby or primary, and changes its role. It
// brings no schema up to date.
type Site struct{ db *DB }

// OpenSite opens a site's database as it is; when primary is set, only as a primary.
func OpenSite(ctx context.Context, dsn string, primary bool, cfg Config) (*Site, error) {
	cfg.setDefaults()
	cfg.Name, cfg.MaxConnections = "portcullis site", 4
	attrs := "any"
	if primary {
		attrs = "read-write"
	}
	db, err := connect(ctx, dsn, attrs, cfg)
	if err != nil {
		return nil, err
	}
	db.now = time.Now
	return &Site{db}, nil
}

// Close lets go of the connections.
func (s *Site) Close() error { return s.db.Close() }

func (s *Site) query(ctx context.Context, statement string, args []any, into ...any) error {
	return classify(s.db.where, s.db.db.QueryRowContext(ctx, statement, args...).Scan(into...))
}

// Status asks the database.
func (s *Site) Status(ctx context.Context) (SiteStatus, error) {
	var st SiteStatus
	var received sql.NullString
	var behind sql.NullFloat64
	err := s.query(ctx, `SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn()::text,
		CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 ELSE EXTRACT(EPOCH FROM now() - pg_last_xact_replay_timestamp())::float8 END`, nil,
		&st.Standby, &received, &behind)
	if err != nil {
		return st, err
	}
	if st.Standby {
		st.Received, st.Behind = received.String, time.Duration(behind.Float64*float64(time.Second))
	} else if st.Followers, err = s.followers(ctx); err != nil {
		return st, err
	}
	st.State, err = s.state(ctx)
	return st, err
}

func (s *Site) followers(ctx context.Context) ([]Follower, error) {
	rows, err := s.db.db.QueryContext(ctx, `SELECT application_name, coalesce(state, 'hidden'), coalesce(sync_state, 'hidden'),
		coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint FROM pg_stat_replication ORDER BY application_name`)
	if err != nil {
		return nil, classify(s.db.where, err)
	}
	defer rows.Close()
	var out []Follower
	for rows.Next() {
		var f Follower
		if err := rows.Scan(&f.Name, &f.State, &f.Sync, &f.Behind); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, rows.Err()
}

// State reads which site works with the database; nil when it knows no sites.
func (s *Site) State(ctx context.Context) (*SiteState, error) { return s.state(ctx) }

func (s *Site) state(ctx context.Context) (*SiteState, error) {
	var there bool
	err := s.query(ctx, "SELECT count(*) > 0 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'meta'", nil, &there)
	if err != nil || !there {
		return nil, err
	}
	var text string
	switch err := s.query(ctx, "SELECT value FROM meta WHERE name = $1", []any{siteName}, &text); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	}
	st := &SiteState{}
	if err := json.Unmarshal([]byte(text), st); err != nil {
		return nil, fmt.Errorf("the site's state: %w", err)
	}
	st.text = text
	return st, nil
}

// set writes a state over the one that was read; ok is false when somebody was
// faster.
func (s *Site) set(ctx context.Context, old *SiteState, next SiteState) (ok bool, err error) {
	raw, err := json.Marshal(next)
	if err != nil {
		return false, err
	}
	var res sql.Result
	if old == nil {
		res, err = s.db.db.ExecContext(ctx, "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", siteName, string(raw))
	} else {
		res, err = s.db.db.ExecContext(ctx, "UPDATE meta SET value = $2 WHERE name = $1 AND value = $3", siteName, string(raw), old.text)
	}
	if err != nil {
		return false, classify(s.db.where, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// Claim makes a site the active one of a database that has none yet, and notes the
// lease that it keeps. It does nothing on another site's database.
func (s *Site) Claim(ctx context.Context, site string, lease time.Duration) error {
	old, err := s.state(ctx)
	if err != nil {
		return err
	}
	switch {
	case old == nil:
		_, err = s.set(ctx, nil, SiteState{Epoch: 1, Active: site, Since: s.db.now().UTC(), Lease: lease})
	case old.Active == site && old.Lease != lease:
		next := *old
		next.Lease = lease
		_, err = s.set(ctx, old, next)
	}
	return err
}

// InFlight is how long a write of the old site may still be on its way after its
// lease has ended or it was told to hand over.
const InFlight = 15 * time.Second

// Promotion says what was done.
type Promotion struct {
	Site    string        `json:"site"`
	Epoch   int64         `json:"epoch"`
	Waited  time.Duration `json:"waited"`  // for the old site's lease
	Outcome string        `json:"outcome"` // promoted, or was_active
}

// Promote makes a site the active one. It takes a standby out of recovery when it is
// certain that the old site does not write any more: it has handed over, or its lease
// has passed while its word did not come here; or the operator says so (down). say
// tells what is waited for.
func (s *Site) Promote(ctx context.Context, site string, down bool, say func(string)) (Promotion, error) {
	p := Promotion{Site: site, Outcome: "promoted"}
	st, err := s.Status(ctx)
	if err != nil {
		return p, err
	}
	old := st.State
	if old == nil {
		return p, problem.New(problem.Conflict, "no_sites", "the database %s knows no sites yet: start a node with site.name at the active one", s.db.where)
	}
	p.Epoch = old.Epoch
	if !st.Standby && old.Active == site && !down {
		p.Outcome = "was_active"
		return p, nil
	}
	switch {
	case old.Active == "":
		say("the old site has handed over")
	case down:
		say("the operator says that the other site is down")
	case st.Standby && old.Lease > 0:
		if err := s.cut(ctx); err != nil {
			return p, err
		}
		p.Waited = old.Lease + InFlight
		say(fmt.Sprintf("site %s hears nothing of this database any more; its lease ends in %s", old.Active, p.Waited))
		select {
		case <-ctx.Done():
			return p, fmt.Errorf("%w; this database follows nobody any more: run the command again, or set primary_conninfo", ctx.Err())
		case <-time.After(p.Waited):
		}
	default:
		return p, problem.New(problem.Conflict, "old_site_may_write",
			"site %s may still write: it keeps no lease. Make sure that its nodes or its database are off and stay off, then say --yes-the-other-site-is-down; or hand over there with `portcullis site demote`", old.Active)
	}
	if st.Standby {
		say("the standby becomes the primary")
		var done bool
		if err := s.query(ctx, "SELECT pg_promote(true, 60)", nil, &done); err != nil {
			return p, err
		}
		if !done {
			return p, problem.New(problem.Unavailable, "not_promoted", "the database %s did not become the primary within 60 s; read its log", s.db.where)
		}
		// What was cut stays cut: a primary has nobody to follow.
		s.db.pool.Reset()
	}
	if old, err = s.state(ctx); err != nil {
		return p, err
	}
	// Nobody follows a database that was just promoted: it keeps no lease until Claim.
	next := SiteState{Epoch: old.Epoch + 1, Active: site, Since: s.db.now().UTC()}
	ok, err := s.set(ctx, old, next)
	if err == nil && !ok {
		err = problem.New(problem.Conflict, "state_changed", "somebody else changed the state of the sites at this moment; look at `portcullis site status`")
	}
	p.Epoch = next.Epoch
	return p, err
}

// cut makes a standby follow nobody, so that its primary hears nothing of it.
func (s *Site) cut(ctx context.Context) error {
	if _, err := s.db.db.ExecContext(ctx, "ALTER SYSTEM SET primary_conninfo = ''"); err != nil {
		return classify(s.db.where, err)
	}
	if _, err := s.db.db.ExecContext(ctx, "SELECT pg_reload_conf()"); err != nil {
		return classify(s.db.where, err)
	}
	for {
		var receivers int
		if err := s.query(ctx, "SELECT count(*) FROM pg_stat_wal_receiver", nil, &receivers); err != nil || receivers == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Demote hands over: no node writes to this database any more, and every standby of
// the other site, by its name, has all that was written.
func (s *Site) Demote(ctx context.Context, site string, standbys []string, say func(string)) (SiteState, error) {
	st, err := s.Status(ctx)
	switch {
	case err != nil:
		return SiteState{}, err
	case st.State == nil || st.State.Active != site:
		return SiteState{}, problem.New(problem.Conflict, "not_active", "site %s is not the active one here; look at `portcullis site status`", site)
	case st.Standby:
		return SiteState{}, problem.New(problem.Conflict, "standby", "the database %s is a standby: hand over where the primary is", s.db.where)
	}
	next := *st.State
	next.Active, next.Since = "", s.db.now().UTC()
	if ok, err := s.set(ctx, st.State, next); err != nil || !ok {
		return SiteState{}, errors.Join(err, problem.New(problem.Conflict, "state_changed", "somebody else changed the state of the sites at this moment"))
	}
	say(fmt.Sprintf("the nodes stop writing; what is on its way ends within %s", InFlight))
	select {
	case <-ctx.Done():
		return next, ctx.Err()
	case <-time.After(InFlight):
	}
	var end string
	if err := s.query(ctx, "SELECT pg_current_wal_lsn()::text", nil, &end); err != nil {
		return next, err
	}
	say("waiting for the standbys: " + strings.Join(standbys, ", "))
	for {
		var behind int
		err := s.query(ctx, "SELECT count(*) FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT 1 FROM pg_stat_replication WHERE application_name = name AND replay_lsn >= $2::pg_lsn)",
			[]any{standbys, end}, &behind)
		if err != nil || behind == 0 {
			return next, err
		}
		select {
		case <-ctx.Done():
			return next, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Mark writes into the log of a primary, and returns a position after it. It waits for
// no standby: a mark says how far one has come, which is asked for with Reached.
func (s *Site) Mark(ctx context.Context) (string, error) {
	tx, err := s.db.db.BeginTx(ctx, nil)
	if err != nil {
		return "", classify(s.db.where, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	for _, statement := range []string{"SET LOCAL synchronous_commit = local", "SELECT pg_logical_emit_message(true, 'portcullis.site', '')"} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return "", classify(s.db.where, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return "", classify(s.db.where, err)
	}
	var at string
	return at, s.query(ctx, "SELECT pg_current_wal_lsn()::text", nil, &at)
}

// Reached reports which of the positions one of the standbys has on its disk.
func (s *Site) Reached(ctx context.Context, standbys, positions []string) ([]bool, error) {
	out := make([]bool, len(positions))
	for i, p := range positions {
		err := s.query(ctx, "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = ANY($1::text[]) AND flush_lsn >= $2::pg_lsn", []any{standbys, p}, &out[i])
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
