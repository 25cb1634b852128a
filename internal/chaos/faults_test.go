//go:build linux

package chaos_test

import (
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/chaos"
)

var (
	full = flag.Bool("chaos.full", false, "every fault, with the targets asserted: make chaos")
	out  = flag.String("chaos.json", "", "file for the rows as JSON")
)

// faultBounds are what the documentation promises: a node looks each second for
// what it was not told.
var faultBounds = chaos.Bounds{Staleness: 3 * time.Second, CodeLife: 25 * time.Second}

// TestFaults puts faults into a cluster under load. What was acknowledged has to be
// there, nothing may be done twice, and nothing revoked accepted. Times are judged
// in the full run alone.
func TestFaults(t *testing.T) {
	c := chaos.New(t, chaos.Options{Clock: *full})
	s := c.Scene(t.Context(), 8)
	times := chaos.Times{Before: 2 * time.Second, After: 2 * time.Second, Pace: 150 * time.Millisecond}
	if *full {
		times = chaos.Times{Before: 5 * time.Second, After: 5 * time.Second, Pace: 100 * time.Millisecond}
	}
	var rows []chaos.Row
	defer func() {
		if *out == "" {
			return
		}
		raw, err := json.MarshalIndent(rows, "", "  ")
		if err == nil {
			err = os.WriteFile(*out, append(raw, '\n'), 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}()
	for _, f := range faults() {
		if !f.quick && !*full {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			row := c.Inflict(t, s, f.Fault, times, faultBounds)
			rows = append(rows, row)
			t.Log(row)
			if len(row.Faults) > 0 {
				t.Error("the cluster broke its word")
			}
			if len(row.Missed) > 0 && *full {
				t.Error("a target was missed")
			}
		})
	}
}

type fault struct {
	chaos.Fault
	quick bool
}

func faults() []fault {
	return []fault{
		{chaos.Fault{Name: "nothing", Do: func(r *chaos.Run) { r.Hold(3 * time.Second) }, Logins: true}, true},
	}
}
