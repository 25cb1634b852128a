//go:build linux

package chaos_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
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

// limits let a tenant have more than its 1,500 requests a second: they count, and are
// not reached.
var limits = []string{"rate_limits.buckets=login unlimited,userinfo unlimited,authentication-api per_second=100000"}

// rounds is how often each cluster is measured. What a second of a processor is worth
// changes from minute to minute on a machine that others share, and with what its
// other processors do: so all clusters are there, and are measured in turn.
const rounds = 5

// throughput compares 1, 2 and 3 nodes, each with the same share of a processor: the
// median of what each does in a round, over what one node did in the same round.
func throughput(t *testing.T, add func(figure)) {
	loads := []struct {
		name    string
		clients int // for each node
		do      func(*chaos.Scene) func(context.Context) bool
	}{
		{"client_credentials", 8, func(s *chaos.Scene) func(context.Context) bool { return s.MachineToken }},
		{"login", 4, func(s *chaos.Scene) func(context.Context) bool { return s.LogIn }},
	}
	t.Run("throughput", func(t *testing.T) {
		var clusters []*chaos.Cluster
		var scenes []*chaos.Scene
		for nodes := 1; nodes <= 3; nodes++ {
			c := chaos.New(t, chaos.Options{Nodes: nodes, External: true, Databases: 1, Settings: limits})
			s := c.Scene(t.Context(), 8)
			s.Throughput(t.Context(), 2*nodes, time.Second, s.MachineToken) // caches
			for _, n := range c.Nodes {
				chaos.Quota(t, n.Pid(), *quota)
			}
			clusters, scenes = append(clusters, c), append(scenes, s)
		}
		for _, load := range loads {
			rates, ratios, shares, failed := make([][]float64, 3), make([][]float64, 3), make([][]float64, 3), make([]int64, 3)
			for range rounds {
				for i, c := range clusters {
					before, began := c.CPU(), time.Now()
					rate, bad := scenes[i].Throughput(t.Context(), load.clients*(i+1), 4*time.Second, load.do(scenes[i]))
					took := time.Since(began).Seconds()
					rates[i] = append(rates[i], rate)
					ratios[i] = append(ratios[i], rate/rates[0][len(rates[0])-1])
					shares[i] = append(shares[i], 100*(c.CPU()-before).Seconds()/(float64(i+1)**quota*took))
					failed[i] += bad
				}
			}
			for i := range clusters {
				f := figure{Name: fmt.Sprintf("throughput, %s, %d nodes of %.2g processors", load.name, i+1, *quota), Value: median(rates[i]), Unit: "/s",
					Note: fmt.Sprintf("%.2f x of one (%.2f to %.2f in %d rounds); nodes used %.0f %% of their share, %d failed", median(ratios[i]), slices.Min(ratios[i]), slices.Max(ratios[i]), rounds, median(shares[i]), failed[i])}
				if i == 2 {
					f.Target = "2.6 x of one"
				}
				add(f)
			}
		}
	})
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
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
			c := chaos.New(t, chaos.Options{Nodes: nodes, External: true, Databases: 1, Settings: limits})
			s := c.Scene(t.Context(), 8)
			s.Throughput(t.Context(), nodes, 2*time.Second, s.MachineToken) // caches
			const d = 8 * time.Second
			before := c.CPU()
			time.Sleep(d)
			idle := (c.CPU() - before).Seconds() / d.Seconds()
			add(figure{Name: fmt.Sprintf("idle, %d nodes, of a processor and node", nodes), Value: 100 * idle / float64(nodes), Unit: "%"})
			for _, load := range []struct {
				name string
				do   func() (float64, int64)
			}{
				{"client_credentials", func() (float64, int64) { return s.Throughput(t.Context(), 2, d, s.MachineToken) }},
				{"login", func() (float64, int64) { return s.Throughput(t.Context(), 2, d, s.LogIn) }},
			} {
				before, began := c.CPU(), time.Now()
				rate, failed := load.do()
				took := time.Since(began).Seconds()
				cost := ((c.CPU() - before).Seconds() - idle*took) / (rate * took)
				add(figure{Name: fmt.Sprintf("cost of one %s with %d nodes", load.name, nodes), Value: 1000 * cost, Unit: "ms of processor", Note: fmt.Sprintf("%d failed", failed)})
			}
		})
	}
}
