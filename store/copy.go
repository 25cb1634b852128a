package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/docsql"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/tenant"
)

// copyName is where a database that was filled by Copy says so.
const copyName = "copy"

// copyState says how far a copy is. It is written with the documents, in the same
// transaction.
type copyState struct {
	From      string      `json:"from"`
	StartedAt time.Time   `json:"started_at"`
	Kind      tenant.Kind `json:"kind,omitempty"` // the last document that is there
	Tenant    string      `json:"tenant,omitempty"`
	ID        string      `json:"id,omitempty"`
	Done      bool        `json:"done"`
}

// Copied is what Copy did.
type Copied struct {
	From      string       `json:"from"`
	To        string       `json:"to"`
	Documents int          `json:"documents"`
	Resumed   bool         `json:"resumed"`  // a copy that had been broken off went on
	Repaired  int          `json:"repaired"` // sets of documents that had changed in the source meanwhile
	Sets      []CopiedSet  `json:"sets"`
	LeftOut   []CopiedKind `json:"left_out,omitempty"`
}

// CopiedSet is the documents of one kind and tenant, with a checksum that both
// databases have.
type CopiedSet struct {
	Kind      tenant.Kind `json:"kind"`
	Tenant    string      `json:"tenant"`
	Documents int         `json:"documents"`
	Checksum  string      `json:"checksum"`
}

// CopiedKind is a kind that was not copied, with the reason.
type CopiedKind struct {
	Kind   tenant.Kind `json:"kind"`
	Reason string      `json:"reason"`
}

// CopyProgress says how far a copy is, after each batch.
type CopyProgress struct {
	Phase string // "copy", "verify" or "repair"
	Kind  tenant.Kind
	Done  int // documents, of all kinds
	Total int
}

const (
	copyBatch   = 500
	verifyBatch = 1000
	// maxRepairs bounds how often sets are copied again that differ.
	maxRepairs = 3
)

// Copy copies every document from one database to another, of either engine, and
// proves by checksums that both have the same. Both are sealed with the same master
// key; secrets travel as they are sealed. No node may run on either. A copy that was
// broken off goes on where it stopped when it is begun again; until it has ended, no
// node starts on the target. A target that has documents of its own is refused.
func Copy(ctx context.Context, from, to string, opts Options, progress func(CopyProgress)) (_ Copied, err error) {
	opts.copying = true
	opts.Database.Name = "portcullis store copy"
	result := Copied{From: name(from), To: name(to)}
	if from == to {
		return result, problem.New(problem.Invalid, "same_database", "--from and --to are the same database")
	}
	source, err := Open(ctx, from, opts)
	if err != nil {
		return result, fmt.Errorf("the source: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := Open(ctx, to, opts)
	if err != nil {
		return result, fmt.Errorf("the target: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	c := &copier{source: source, target: target, result: &result, progress: progress}
	return result, c.run(ctx, strings.HasPrefix(to, "sqlite:"))
}

// name is a database in words, without a password.
func name(dsn string) string {
	if strings.HasPrefix(dsn, "sqlite:") {
		return dsn
	}
	return postgres.Redacted(dsn)
}

type copier struct {
	source, target *Store
	result         *Copied
	progress       func(CopyProgress)
	kinds          []tenant.Kind
	state          copyState
	done, total    int
}

func (c *copier) run(ctx context.Context, toSingleNode bool) error {
	for side, s := range map[string]*Store{"source": c.source, "target": c.target} {
		if err := s.alone(ctx); err != nil {
			return fmt.Errorf("the %s: %w", side, err)
		}
	}
	for _, k := range tenant.Collections() {
		switch {
		case k.Kind == tenant.KindChange:
			c.leaveOut(k.Kind, "it tells nodes that run what to forget")
		case k.Kind == tenant.KindSearchQueue || k.Kind == tenant.KindSearchGroup:
			c.leaveOut(k.Kind, "a search index is built anew beside the other database")
		case toSingleNode && (k.Kind == tenant.KindMember || k.Kind == tenant.KindCluster):
			c.leaveOut(k.Kind, "a single node is no cluster")
		default:
			c.kinds = append(c.kinds, k.Kind)
		}
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	for _, k := range c.kinds {
		n, err := c.source.count(ctx, k)
		if err != nil {
			return err
		}
		c.total += n
	}
	start := max(0, slices.Index(c.kinds, c.state.Kind))
	counted := start
	if c.state.Kind != "" {
		counted++
	}
	for _, k := range c.kinds[:counted] {
		n, err := c.target.count(ctx, k)
		if err != nil {
			return err
		}
		c.done += n
	}
	for i, k := range c.kinds[start:] {
		after := docsql.Row{}
		if i == 0 {
			after = docsql.Row{Tenant: c.state.Tenant, ID: c.state.ID}
		}
		if err := c.copyKind(ctx, k, after, "", "copy"); err != nil {
			return err
		}
	}
	if err := c.verify(ctx); err != nil {
		return err
	}
	c.state.Done = true
	return c.target.Exclusive(ctx, func(q docsql.Querier) error { return c.note(ctx, q, c.state) })
}

func (c *copier) leaveOut(k tenant.Kind, why string) {
	c.result.LeftOut = append(c.result.LeftOut, CopiedKind{k, why})
}

// begin takes up a copy that was broken off, or begins one in an empty database.
func (c *copier) begin(ctx context.Context) error {
	old, err := c.target.copyState(ctx)
	if err != nil {
		return err
	}
	if old != nil && !old.Done {
		if old.From != c.result.From {
			return problem.New(problem.Conflict, "other_copy", "the target %s has an unfinished copy of %s; go on with that one, or make an empty database", c.result.To, old.From)
		}
		c.state, c.result.Resumed = *old, true
		return nil
	}
	for _, k := range tenant.Collections() {
		n, err := c.target.count(ctx, k.Kind)
		if err != nil {
			return err
		}
		if n > 0 {
			return problem.New(problem.Conflict, "target_not_empty", "the target %s is not empty: it has %d documents in %s; copy into an empty database", c.result.To, n, k.Kind)
		}
	}
	c.state = copyState{From: c.result.From, StartedAt: c.target.now().UTC()}
	return c.target.Exclusive(ctx, func(q docsql.Querier) error { return c.note(ctx, q, c.state) })
}

func (c *copier) note(ctx context.Context, q docsql.Querier, s copyState) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return c.target.SQL().SetMeta(ctx, q, copyName, string(raw))
}

// copyKind copies the documents of a kind that follow a row, of all tenants or one.
func (c *copier) copyKind(ctx context.Context, k tenant.Kind, after docsql.Row, only, phase string) error {
	for {
		var rows []docsql.Row
		err := c.source.Read(ctx, func(ctx context.Context, q docsql.Querier) (err error) {
			rows, err = c.source.SQL().Rows(ctx, q, k, after, only, copyBatch)
			return err
		})
		if err != nil {
			return fmt.Errorf("the source: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1]
		next := c.state
		if only == "" {
			next.Kind, next.Tenant, next.ID = k, after.Tenant, after.ID
		}
		err = c.target.Exclusive(ctx, func(q docsql.Querier) error {
			if err := c.target.SQL().Load(ctx, q, k, rows); err != nil {
				return err
			}
			return c.note(ctx, q, next)
		})
		if err != nil {
			return fmt.Errorf("the target: %w", err)
		}
		c.state = next
		c.done += len(rows)
		c.progress(CopyProgress{phase, k, c.done, c.total})
	}
}

// verify compares the checksums of every kind and tenant, and copies again what
// differs: what changed in the source after it was copied.
func (c *copier) verify(ctx context.Context) error {
	for _, k := range c.kinds {
		for try := 0; ; try++ {
			want, err := c.sums(ctx, c.source, k)
			if err != nil {
				return fmt.Errorf("verify the source: %w", err)
			}
			got, err := c.sums(ctx, c.target, k)
			if err != nil {
				return fmt.Errorf("verify the target: %w", err)
			}
			var differ []string
			for t := range union(want, got) {
				if a, b := want[t], got[t]; a == nil || b == nil || *a != *b {
					differ = append(differ, t)
				}
			}
			slices.Sort(differ)
			if len(differ) == 0 {
				c.add(k, want)
				break
			}
			if try == maxRepairs {
				return problem.New(problem.Conflict, "source_changes", "%s of tenant %s differ after %d copies: somebody changes the source; stop its nodes, and run the command again", k, differ[0], maxRepairs+1)
			}
			for _, t := range differ {
				if err := c.repair(ctx, k, t); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func union(a, b map[string]*docsql.Sum) map[string]bool {
	all := map[string]bool{}
	for t := range a {
		all[t] = true
	}
	for t := range b {
		all[t] = true
	}
	return all
}

func (c *copier) add(k tenant.Kind, sums map[string]*docsql.Sum) {
	var tenants []string
	for t := range sums {
		tenants = append(tenants, t)
	}
	slices.Sort(tenants)
	for _, t := range tenants {
		c.result.Documents += sums[t].Documents
		c.result.Sets = append(c.result.Sets, CopiedSet{k, t, sums[t].Documents, sums[t].String()})
	}
}

func (c *copier) sums(ctx context.Context, s *Store, k tenant.Kind) (map[string]*docsql.Sum, error) {
	sums := map[string]*docsql.Sum{}
	var after docsql.Row
	for {
		var rows []docsql.Row
		err := s.Read(ctx, func(ctx context.Context, q docsql.Querier) (err error) {
			rows, err = s.SQL().Rows(ctx, q, k, after, "", verifyBatch)
			return err
		})
		if err != nil || len(rows) == 0 {
			return sums, err
		}
		for _, r := range rows {
			if sums[r.Tenant] == nil {
				sums[r.Tenant] = &docsql.Sum{}
			}
			if err := sums[r.Tenant].Add(r); err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
		}
		after = rows[len(rows)-1]
		c.progress(CopyProgress{"verify", k, c.done, c.total})
	}
}

func (c *copier) repair(ctx context.Context, k tenant.Kind, tenantID string) error {
	c.result.Repaired++
	for {
		n := 0
		err := c.target.Exclusive(ctx, func(q docsql.Querier) (err error) {
			n, err = c.target.SQL().Clear(ctx, q, k, tenantID, copyBatch)
			return err
		})
		if err != nil {
			return fmt.Errorf("the target: %w", err)
		}
		c.done -= n
		if n == 0 {
			return c.copyKind(ctx, k, docsql.Row{}, tenantID, "repair")
		}
	}
}

// alone fails when a node is at work on a PostgreSQL database. SQLite's file is
// locked by its node.
func (s *Store) alone(ctx context.Context) error {
	if pg, ok := s.engine.(*postgres.DB); ok {
		return pg.Alone(ctx)
	}
	return nil
}

func (s *Store) count(ctx context.Context, k tenant.Kind) (n int, err error) {
	err = s.Read(ctx, func(ctx context.Context, q docsql.Querier) (err error) {
		n, err = s.SQL().Count(ctx, q, k)
		return err
	})
	return n, err
}

// copyState reads what a database says of the copy that filled it, or nil.
func (s *Store) copyState(ctx context.Context) (*copyState, error) {
	var text string
	err := s.Read(ctx, func(ctx context.Context, q docsql.Querier) (err error) {
		text, err = s.SQL().Meta(ctx, q, copyName)
		return err
	})
	if err != nil || text == "" {
		return nil, err
	}
	state := &copyState{}
	if err := json.Unmarshal([]byte(text), state); err != nil {
		return nil, fmt.Errorf("the state of a copy: %w", err)
	}
	return state, nil
}

// checkCopy refuses a database that is only partly there.
func (s *Store) checkCopy(ctx context.Context, where string) error {
	state, err := s.copyState(ctx)
	if err != nil || state == nil || state.Done {
		return err
	}
	return problem.New(problem.Unavailable, "copy_unfinished",
		"the database %s has an unfinished copy of %s: run `portcullis store copy` again, it goes on where it stopped", where, state.From)
}
