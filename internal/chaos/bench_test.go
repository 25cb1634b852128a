//go:build linux

package chaos_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/portcullis-id/portcullis/internal/chaos"
)

var (
	bench = flag.Bool("chaos.bench", false, "measure clusters: make bench-cluster")
	quota = flag.Float64("chaos.quota", 0.2, "processors of each node in the comparison of 1, 2 and 3 nodes")
)

// figure is one line of the report.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target string  `json:"target,omitempty"`
	Note   string  `json:"note,omitempty"`
}

// TestClusterBench measures what more nodes bring and cost. The nodes have a bound
// of their own on processor time, so that neither the database nor the load is what
// gives the measure.
func TestClusterBench(t *testing.T) {
	if !*bench {
		t.Skip("measures for minutes: make bench-cluster runs it")
	}
	var all []figure
	add := func(f figure) { all = append(all, f); t.Logf("%s: %.3g %s %s", f.Name, f.Value, f.Unit, f.Note) }
	throughput(t, add)
	invalidation(t, add)
	perRequest(t, add)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\n", f.Name, f.Value, f.Unit, f.Target, f.Note)
	}
	w.Flush()
	t.Log("\n" + b.String())
	if *out != "" {
		raw, err := json.MarshalIndent(all, "", "  ")
		if err == nil {
			err = os.WriteFile(*out, append(raw, '\n'), 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// throughput compares 1, 2 and 3 nodes, each with the same share of a processor.
func throughput(t *testing.T, add func(figure)) {
	first := map[string]float64{}
	for nodes := 1; nodes <= 3; nodes++ {
		t.Run(fmt.Sprintf("throughput of %d", nodes), func(t *testing.T) {
			c := chaos.New(t, chaos.Options{Nodes: nodes, External: true, Databases: 1})
			s := c.Scene(t.Context(), 8)
			for _, n := range c.Nodes {
				chaos.Quota(t, n.Pid(), *quota)
			}
			for _, load := range []struct {
				name string
				do   func(*chaos.Scene) func(t *testing.T) (float64, int64)
			}{
				{"client_credentials", func(s *chaos.Scene) func(*testing.T) (float64, int64) {
					return func(t *testing.T) (float64, int64) {
						return s.Throughput(t.Context(), 8*nodes, 10*time.Second, s.MachineToken)
					}
				}},
				{"login", func(s *chaos.Scene) func(*testing.T) (float64, int64) {
					return func(t *testing.T) (float64, int64) {
						return s.Throughput(t.Context(), 4*nodes, 10*time.Second, s.LogIn)
					}
				}},
			} {
				run := load.do(s)
				s.Throughput(t.Context(), 2*nodes, time.Second, s.MachineToken) // caches
				var before []time.Duration
				for _, n := range c.Nodes {
					before = append(before, n.CPU())
				}
				began := time.Now()
				rate, failed := run(t)
				took := time.Since(began)
				used := 0.0
				for i, n := range c.Nodes {
					used += (n.CPU() - before[i]).Seconds()
				}
				f := figure{Name: fmt.Sprintf("throughput, %s, %d nodes of %.2g processors", load.name, nodes, *quota), Value: rate, Unit: "/s",
					Note: fmt.Sprintf("nodes used %.0f %% of their share, %d failed", 100*used/(float64(nodes)**quota*took.Seconds()), failed)}
				if nodes == 1 {
					first[load.name] = rate
				} else {
					f.Note = fmt.Sprintf("%.2f x of one; %s", rate/first[load.name], f.Note)
				}
				if nodes == 3 {
					f.Target = "2.6 x of one"
				}
				add(f)
			}
		})
	}
}

// invalidation measures how long a node works with what another has replaced.
func invalidation(t *testing.T, add func(figure)) {
	t.Run("invalidation", func(t *testing.T) {
		c := chaos.New(t, chaos.Options{External: true, Databases: 1})
		s := c.Scene(t.Context(), 1)
		took, err := chaos.InvalidationLatency(t.Context(), c.Direct(s, c.Nodes[0]), c.Direct(s, c.Nodes[1]), 200)
		if err != nil {
			t.Fatal(err)
		}
		at := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1000 }
		add(figure{Name: "invalidation, from the acknowledgement to another node's last old answer, p50", Value: at(.5), Unit: "ms"})
		add(figure{Name: "the same, p99 of 200", Value: at(.99), Unit: "ms", Target: "under 100"})
	})
}

// perRequest measures what a request costs all nodes together, at the same load,
// and what a node costs that does nothing.
func perRequest(t *testing.T, add func(figure)) {
	for _, nodes := range []int{3, 6, 12} {
		t.Run(fmt.Sprintf("cost with %d", nodes), func(t *testing.T) {
			c := chaos.New(t, chaos.Options{Nodes: nodes, External: true, Databases: 1})
			s := c.Scene(t.Context(), 8)
			s.Throughput(t.Context(), nodes, 2*time.Second, s.MachineToken) // caches
			cpu := func() (sum time.Duration) {
				for _, n := range c.Nodes {
					sum += n.CPU()
				}
				return sum
			}
			const d = 8 * time.Second
			before := cpu()
			time.Sleep(d)
			idle := (cpu() - before).Seconds() / d.Seconds()
			add(figure{Name: fmt.Sprintf("idle, %d nodes, of a processor and node", nodes), Value: 100 * idle / float64(nodes), Unit: "%"})
			for _, load := range []struct {
				name string
				do   func() (float64, int64)
			}{
				{"client_credentials", func() (float64, int64) { return s.Throughput(t.Context(), 2, d, s.MachineToken) }},
				{"login", func() (float64, int64) { return s.Throughput(t.Context(), 2, d, s.LogIn) }},
			} {
				before, began := cpu(), time.Now()
				rate, failed := load.do()
				took := time.Since(began).Seconds()
				cost := ((cpu() - before).Seconds() - idle*took) / (rate * took)
				add(figure{Name: fmt.Sprintf("cost of one %s with %d nodes", load.name, nodes), Value: 1000 * cost, Unit: "ms of processor", Note: fmt.Sprintf("%d failed", failed)})
			}
		})
	}
}
