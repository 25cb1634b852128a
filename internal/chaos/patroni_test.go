//go:build linux

package chaos_test

import (
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/chaos"
	"github.com/portcullis-id/portcullis/internal/patronilab"
)

// TestPatroni puts faults into the database of the reference deployment, as
// `portcullis cluster render` writes it, below a whole cluster under load. Who is
// the primary is Patroni's to decide.
func TestPatroni(t *testing.T) {
	if !*full {
		t.Skip("Patroni takes up to half a minute for each failover: make chaos runs it")
	}
	patronilab.Require(t)
	c := chaos.New(t, chaos.Options{Patroni: true})
	s := c.Scene(t.Context(), 8)
	var all []fault
	add := func(name string, within time.Duration, do func(r *chaos.Run, primary string)) {
		all = append(all, fault{chaos.Fault{Name: "Patroni: " + name, AtMost: anyShare, Within: within, Do: func(r *chaos.Run) {
			do(r, r.Patroni.Primary())
			r.Hold(3 * time.Second)
			r.Patroni.Whole()
		}}, false})
	}
	next := func(r *chaos.Run, primary string) {
		to := r.Patroni.Another(primary)
		took := r.Now() - r.Marks()[0].At
		r.Notef("%s was the primary %.1fs after the fault", to, took.Seconds())
		if took > 30*time.Second {
			r.T.Errorf("another server was the primary after %s; the target is 30s", took)
		}
	}
	add("PostgreSQL of the primary is killed", 30*time.Second, func(r *chaos.Run, primary string) { r.Patroni.KillPostgres(primary) })
	add("PostgreSQL and Patroni of the primary are killed", 30*time.Second, func(r *chaos.Run, primary string) {
		r.Patroni.Kill(primary)
		next(r, primary)
		r.Patroni.Patroni(primary)
	})
	// What fails when the host is back is not judged by its time.
	add("the host of the primary is cut off", 0, func(r *chaos.Run, primary string) {
		plug := r.Lab.Unplug(primary)
		next(r, primary)
		r.Hold(3 * time.Second)
		plug()
	})
	add("the primary is handed over in order, twice", 30*time.Second, func(r *chaos.Run, primary string) {
		other := r.Patroni.Standby()
		r.Patroni.Switchover(primary, other)
		next(r, primary)
		r.Patroni.Whole()
		r.Patroni.Switchover(other, r.Patroni.Standby())
	})
	inflict(t, c, s, all, chaos.Times{Before: 3 * time.Second, After: 3 * time.Second, Pace: 100 * time.Millisecond})
}
