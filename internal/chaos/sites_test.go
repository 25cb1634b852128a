//go:build linux

package chaos_test

import (
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/chaos"
)

// TestTwoSites changes the roles of two sites under load, as planned and after a
// loss. What was acknowledged has to be there afterwards, and a site that was replaced
// gives out nothing any more.
func TestTwoSites(t *testing.T) {
	if !*full {
		t.Skip("chaos: two sites take minutes: make chaos")
	}
	const lease = 10 * time.Second
	s := chaos.NewSites(t, lease)
	scene := s.Scene(t.Context(), 8)
	times := chaos.Times{Before: 3 * time.Second, After: 3 * time.Second, Pace: 100 * time.Millisecond}
	r := newReport(t)
	inflict := func(name string, do func(r *chaos.Run)) {
		r.inflict(t, s.Cluster, scene, anyFault("two sites: "+name, do), times)
	}
	inflict("a planned change", func(r *chaos.Run) { s.Change(r, s.A, s.B) })
	s.Follow(s.A, s.B)
	inflict("a planned change back", func(r *chaos.Run) { s.Change(r, s.B, s.A) })
	s.Follow(s.B, s.A)
	inflict("the line is cut and both live", func(r *chaos.Run) { s.Lose(r, s.A, s.B, s.Cut) })
	s.Follow(s.A, s.B)
	inflict("a planned change back after that", func(r *chaos.Run) { s.Change(r, s.B, s.A) })
	s.Follow(s.B, s.A)
	inflict("the active site is off the network", func(r *chaos.Run) { s.Lose(r, s.A, s.B, func() func() { return s.Unplug(s.A) }) })
}
