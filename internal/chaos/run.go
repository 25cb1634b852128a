//go:build linux

package chaos

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Fault is one thing that happens to a cluster under load.
type Fault struct {
	Name string
	// Do lets it happen, for as long as it is to last, and takes it away again.
	Do func(r *Run)
	// AtMost is the share of operations that may fail, of all from the fault to its end
	// and five seconds more; 1 means any. Within is how long after the fault's beginning one may
	// begin that fails; 0 means that it is not judged.
	AtMost float64
	Within time.Duration
	// Logins says that every login has to succeed.
	Logins bool
	// Limits is how many times its tokens a rate limit may give out, as
	// docs/rate-limiting.md promises; 0 means twice, which holds for nodes that do not
	// reach each other. 1 is exact: none is refused before the last is given.
	Limits float64
	// Clock says that a node's clock is wrong: until it takes itself out of service, a
	// code that it is shown may be over for it.
	Clock bool
}

// limitTokens are those of each limit that the load uses up; nothing refills them.
const limitTokens = 60

// Run is a fault on its way.
type Run struct {
	*Cluster
	*Load
	T testing.TB
	// Notes are what the fault has measured of its own.
	Notes []string
}

// Notef adds a measurement to the row of the fault.
func (r *Run) Notef(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Hold lets time go by under load.
func (r *Run) Hold(d time.Duration) {
	select {
	case <-r.T.Context().Done():
	case <-time.After(d):
	}
}

// Row is what came of a fault.
type Row struct {
	Fault      string         `json:"fault"`
	Operations int            `json:"operations"`
	Failed     int            `json:"failed"`
	Until      time.Duration  `json:"-"`
	Seconds    float64        `json:"failures_until_s"` // when the last operation began that failed, from the fault on
	Recovered  float64        `json:"recovered_after_s"`
	Kinds      []KindRow      `json:"kinds,omitempty"` // of the kinds that had failures
	Notes      []string       `json:"notes,omitempty"`
	Faults     []string       `json:"violations"`
	Missed     []string       `json:"missed_targets,omitempty"`
	Stale      float64        `json:"stalest_answer_s"` // what an old secret was accepted after its change at most
	Errors     map[string]int `json:"errors,omitempty"`
	Complaints map[string]int `json:"complaints,omitempty"` // what the nodes' logs say at WARN and ERROR
}

// KindRow is how the operations of one kind fared.
type KindRow struct {
	Kind    Kind    `json:"kind"`
	Count   int     `json:"operations"`
	Failed  int     `json:"failed"`
	Longest float64 `json:"longest_window_s"`
}

// Times are how long a fault is watched before and after.
type Times struct{ Before, After, Pace time.Duration }

// Inflict runs the load, lets the fault happen, waits until everything works
// again, and judges.
func (c *Cluster) Inflict(t testing.TB, s *Scene, f Fault, times Times, b Bounds) Row {
	t.Helper()
	l, err := NewLoad(t.Context(), s, fmt.Sprintf("r%d", time.Now().UnixMilli()), times.Pace)
	if err != nil {
		t.Fatal(err)
	}
	c.Limit(limitTokens, l.Limited()...)
	switch b.Tokens = limitTokens; f.Limits {
	case 0:
		b.Admitted = 2 * limitTokens
	case 1:
		b.Admitted = limitTokens
	default:
		b.Admitted = int(f.Limits*limitTokens) + 1
	}
	if f.Clock {
		b.CodeLife = 0
	}
	r := &Run{Cluster: c, Load: l, T: t}
	c.complaints()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l.Run(ctx)
	r.Hold(times.Before)
	began := l.Mark("fault")
	f.Do(r)
	ended := l.Mark("end of the fault")
	c.Eventually("the cluster works again", func() error {
		for range 5 {
			if err := c.Reach(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
	c.Settled()
	recovered := l.Mark("recovered")
	r.Hold(times.After)
	stop()
	l.Wait(t.Context())

	ops := l.Ops()
	row := Row{Fault: f.Name, Complaints: c.complaints(), Notes: r.Notes, Faults: Check(ops, b), Recovered: (recovered - ended).Seconds()}
	if row.Faults == nil {
		row.Faults = []string{}
	}
	for _, s := range staleness(ops) {
		if s.op.Outcome == OK {
			row.Stale = max(row.Stale, s.late.Seconds())
		}
	}
	for _, a := range Availabilities(ops) {
		if a.Kind == "all" {
			row.Operations, row.Failed, row.Errors = a.Count, a.Failed, a.Errors
		} else if a.Failed > 0 {
			row.Kinds = append(row.Kinds, KindRow{a.Kind, a.Count, a.Failed, a.Longest.Seconds()})
		}
	}
	logins, admitted, refused := 0, map[string]int{}, map[string]bool{}
	for _, op := range ops {
		if op.Kind == Take && op.Outcome == OK {
			admitted[op.Key]++
		} else if op.Kind == Take && op.Outcome == Refused {
			refused[op.Key] = true
		}
	}
	for key, n := range admitted {
		if n > limitTokens || n < limitTokens && refused[key] {
			row.Notes = append(row.Notes, fmt.Sprintf("a limit of %d tokens gave out %d", limitTokens, n))
		}
	}
	searched, without, last := 0, 0, time.Duration(0)
	for _, op := range ops {
		if op.Kind == Searched {
			searched++
			if op.Outcome == Refused {
				without, last = without+1, op.Call-began
			}
		}
	}
	if without > 0 {
		row.Notes = append(row.Notes, fmt.Sprintf("%d of %d searches were refused, the last one %.1fs after the fault", without, searched, last.Seconds()))
	}
	internal := 0
	for _, op := range ops {
		if op.Status == http.StatusInternalServerError {
			internal++
		}
		if op.Outcome != Unknown {
			continue
		}
		row.Until = max(row.Until, op.Call-began)
		if op.Kind == Login {
			logins++
		}
		if op.Return < began {
			row.Missed = append(row.Missed, fmt.Sprintf("at %.3fs, before the fault, %s failed: %d %s", op.Call.Seconds(), op.Kind, op.Status, op.Error))
		}
	}
	row.Seconds = row.Until.Seconds()
	if share := float64(row.Failed) / float64(max(1, row.Operations)); share > f.AtMost {
		row.Missed = append(row.Missed, fmt.Sprintf("%.2f %% of the operations failed; the target is %.2f %%", 100*share, 100*f.AtMost))
	}
	if internal > 0 {
		row.Missed = append(row.Missed, fmt.Sprintf("%d operations were answered with 500, as if the program were wrong; what is away has to be named by 503", internal))
	}
	if f.Within > 0 && row.Until > f.Within {
		row.Missed = append(row.Missed, fmt.Sprintf("an operation began %.1fs after the fault and failed; the target is %s", row.Seconds, f.Within))
	}
	if f.Logins && logins > 0 {
		row.Missed = append(row.Missed, fmt.Sprintf("%d logins failed; the target is none", logins))
	}
	return row
}

// String is the row as a person reads it.
func (r Row) String() string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s: %d operations, %d failed (%.2f %%)", r.Fault, r.Operations, r.Failed, 100*float64(r.Failed)/float64(max(1, r.Operations)))
	if r.Failed > 0 {
		fmt.Fprintf(b, ", the last one began %.1fs after the fault", r.Seconds)
	}
	fmt.Fprintf(b, "; settled %.1fs after its end; stalest answer %.3fs", r.Recovered, r.Stale)
	for _, k := range r.Kinds {
		fmt.Fprintf(b, "\n  %-14s %3d of %4d failed, at most %.1fs in a row", k.Kind, k.Failed, k.Count, k.Longest)
	}
	for _, e := range slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int { return r.Errors[b] - r.Errors[a] }) {
		fmt.Fprintf(b, "\n  %4d times: %s", r.Errors[e], e)
	}
	for _, e := range slices.SortedFunc(maps.Keys(r.Complaints), func(a, b string) int { return r.Complaints[b] - r.Complaints[a] }) {
		fmt.Fprintf(b, "\n  log, %d times: %s", r.Complaints[e], e)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(b, "\n  %s", n)
	}
	for _, m := range r.Missed {
		fmt.Fprintf(b, "\n  TARGET MISSED: %s", m)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(b, "\n  VIOLATION: %s", f)
	}
	return b.String()
}

// Table is rows as docs/cluster-faults.md has them.
func Table(rows []Row) string {
	b := &strings.Builder{}
	fmt.Fprintln(b, "| fault | operations | failed | longest | failing until | measured beside |\n|---|---|---|---|---|---|")
	for _, r := range rows {
		longest, kind, until := 0.0, Kind(""), "-"
		for _, k := range r.Kinds {
			if k.Longest > longest {
				longest, kind = k.Longest, k.Kind
			}
		}
		what := "-"
		if r.Failed > 0 {
			until, what = fmt.Sprintf("%.1f s", r.Seconds), fmt.Sprintf("%.1f s, %s", longest, kind)
		}
		notes := slices.Clone(r.Notes)
		if r.Stale > 0 {
			notes = append(notes, fmt.Sprintf("an old secret worked for %.2f s", r.Stale))
		}
		for _, m := range r.Missed {
			notes = append(notes, "**missed:** "+m)
		}
		if len(r.Faults) > 0 {
			notes = append(notes, fmt.Sprintf("**%d violations**", len(r.Faults)))
		}
		fmt.Fprintf(b, "| %s | %d | %d (%.2f %%) | %s | %s | %s |\n", r.Fault, r.Operations, r.Failed, 100*float64(r.Failed)/float64(max(1, r.Operations)), what, until, strings.Join(notes, "; "))
	}
	return b.String()
}
