//go:build linux

package chaos_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/chaos"
	"github.com/portcullis-id/portcullis/internal/lab"
)

var (
	full = flag.Bool("chaos.full", false, "every fault, with the targets asserted: make chaos")
	out  = flag.String("chaos.json", "", "file for the rows as JSON")
)

// faultBounds are what docs/cluster.md promises: nothing older than five seconds is
// given out, whatever fails.
var faultBounds = chaos.Bounds{Staleness: 5 * time.Second, CodeLife: 25 * time.Second}

// TestFaults puts faults into a cluster under load. What was acknowledged has to be
// there, nothing may be done twice, and nothing revoked accepted. Times are judged
// in the full run alone.
func TestFaults(t *testing.T) {
	c := chaos.New(t, chaos.Options{Clock: *full, Spare: 1, Tmpfs: 16, DatabaseDisk: 1024})
	s := c.Scene(t.Context(), 8)
	times := chaos.Times{Before: 2 * time.Second, After: 2 * time.Second, Pace: 150 * time.Millisecond}
	if *full {
		times = chaos.Times{Before: 3 * time.Second, After: 3 * time.Second, Pace: 100 * time.Millisecond}
	}
	inflict(t, c, s, faults(), times)
}

// allRows are those of every test, for the file of -chaos.json.
var allRows []chaos.Row

// report collects what came of a test's faults, and prints the table at its end.
type report struct{ rows []chaos.Row }

func newReport(t *testing.T) *report {
	r := &report{}
	t.Cleanup(func() {
		t.Log("\n" + chaos.Table(r.rows))
		if *out == "" {
			return
		}
		allRows = append(allRows, r.rows...)
		raw, err := json.MarshalIndent(allRows, "", "  ")
		if err == nil {
			err = os.WriteFile(*out, append(raw, '\n'), 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return r
}

// inflict lets a fault happen, and judges.
func (r *report) inflict(t *testing.T, c *chaos.Cluster, s *chaos.Scene, f chaos.Fault, times chaos.Times) {
	t.Run(f.Name, func(t *testing.T) {
		row := c.Inflict(t, s, f, times, faultBounds)
		r.rows = append(r.rows, row)
		t.Log(row)
		if len(row.Faults) > 0 {
			t.Error("the cluster broke its word")
		}
		if len(row.Missed) > 0 && *full {
			t.Error("a target was missed")
		}
	})
}

// inflict lets one fault after the other happen.
func inflict(t *testing.T, c *chaos.Cluster, s *chaos.Scene, all []fault, times chaos.Times) {
	r := newReport(t)
	for _, f := range all {
		if f.quick || *full {
			r.inflict(t, c, s, f.Fault, times)
		}
	}
}

// TestSearchFaults takes the search engine away from a cluster under load. Nothing
// fails but searches, which say so; and what was written meanwhile is found
// afterwards.
func TestSearchFaults(t *testing.T) {
	if !*full {
		t.Skip("a search engine starts for half a minute: make chaos runs it")
	}
	chaos.RequireSearch(t)
	c := chaos.New(t, chaos.Options{Search: true})
	s := c.Scene(t.Context(), 8)
	c.Search.Live(c)
	all := []fault{}
	add := func(name string, do func(*chaos.Run)) {
		all = append(all, fault{chaos.Fault{Name: name, Logins: true, Do: func(r *chaos.Run) {
			do(r)
			r.Notef("all that was made was found %.1fs after the end of the fault", r.Found(r.Cluster).Seconds())
		}}, false})
	}
	add("the search engine is killed, and started again", func(r *chaos.Run) {
		r.Search.Kill()
		r.Hold(6 * time.Second)
		r.Search.Start()
	})
	add("the search engine stands still for 6 seconds", func(r *chaos.Run) {
		resume := r.Search.Pause()
		r.Hold(6 * time.Second)
		resume()
	})
	add("row search-http (9200) is cut, with a search engine behind it", func(r *chaos.Run) {
		heal := r.Lab.Drop("nodes", "nodes", "tcp", 9200)
		r.Hold(6 * time.Second)
		heal()
	})
	add("the search index is built anew", func(r *chaos.Run) { r.Search.Rebuild(r.Cluster) })
	inflict(t, c, s, all, chaos.Times{Before: 3 * time.Second, After: 3 * time.Second, Pace: 100 * time.Millisecond})
}

type fault struct {
	chaos.Fault
	quick bool
}

const (
	killed   = 0.01 // of the operations may fail when one node, or the database's primary, is killed or stands still, or a node's clock jumps
	anyShare = 1.0
	moved    = 1.1 // times its tokens a limit may give out when its owner changes
)

// exact is a limit that is neither exceeded nor short. A node that is asked and does
// not answer in a second is decided for: on a machine that does much else that happens
// without any fault.
func exact() float64 {
	if *full {
		return 1
	}
	return 0
}

// any asks nothing of availability: the promises of safety hold all the same.
func anyFault(name string, do func(*chaos.Run)) chaos.Fault {
	return chaos.Fault{Name: name, Do: do, AtMost: anyShare}
}

func faults() []fault {
	all := []fault{
		{chaos.Fault{Name: "nothing", Do: func(r *chaos.Run) { r.Hold(3 * time.Second) }, Logins: true, Limits: exact()}, true},
	}
	for i := range 3 {
		all = append(all, fault{chaos.Fault{Name: fmt.Sprintf("kill -9 of node%d", i+1), AtMost: killed, Within: 3 * time.Second, Limits: moved, Do: func(r *chaos.Run) {
			r.Nodes[i].Kill()
			r.Hold(4 * time.Second)
			r.Nodes[i].Start()
		}}, i == 1})
	}
	all = append(all,
		fault{chaos.Fault{Name: "kill -9 of the leader", AtMost: killed, Within: 3 * time.Second, Limits: moved, Do: killLeader}, false},
		fault{chaos.Fault{Name: "a node joins, drains and is removed", AtMost: 0, Limits: moved, Do: func(r *chaos.Run) {
			r.Join()
			r.Settled()
			r.Hold(2 * time.Second)
			r.Remove()
		}}, false},
		fault{chaos.Fault{Name: "kill -9 of the database's primary", AtMost: killed, Within: 30 * time.Second, Do: failover}, true},
		fault{chaos.Fault{Name: "failback: the database is handed over in order", AtMost: killed, Within: 30 * time.Second, Do: func(r *chaos.Run) {
			r.Database.Switchover()
			r.Hold(2 * time.Second)
			r.Database.Repair()
		}}, false},
		fault{chaos.Fault{Name: "the host of the database's primary is cut off", AtMost: anyShare, Within: 30 * time.Second, Do: func(r *chaos.Run) {
			primary := r.Database.Primary()
			plug := r.Lab.Unplug(primary.Host().Name())
			r.Database.Failover(2 * time.Second)
			r.Notef("another server was promoted, and in step with a replica, %.1fs after the fault", (r.Now() - r.Marks()[0].At).Seconds())
			r.Hold(3 * time.Second)
			primary.Kill() // Patroni does so where it has lost its cluster
			plug()
			r.Database.Repair()
		}}, false},
		fault{chaos.Fault{Name: "the database's primary stands still for 5 seconds", AtMost: killed, Do: func(r *chaos.Run) {
			resume := r.Database.Primary().Pause()
			r.Hold(5 * time.Second)
			resume()
		}}, false},
		fault{chaos.Fault{Name: "rolling restart", AtMost: 0, Do: func(r *chaos.Run) {
			for _, n := range r.Nodes {
				n.Stop()
				n.Start()
				r.Settled()
			}
		}}, true},
	)
	for _, row := range []struct {
		name string
		port int
		lost bool // logins may stop
	}{{"database", 27017, true}, {"control", 7777, false}, {"rate-limit", 9001, false}, {"search-http", 9200, false}, {"webtask-control", 8701, false}, {"webtask-logs", 8721, false}} {
		f := chaos.Fault{Name: fmt.Sprintf("row %s (%d) is cut between all nodes", row.name, row.port), AtMost: 0, Logins: true, Do: func(r *chaos.Run) {
			heal := r.Lab.Drop("nodes", "nodes", "tcp", row.port)
			r.Hold(6 * time.Second)
			heal()
		}}
		if row.lost {
			f.AtMost, f.Logins = anyShare, false
		}
		all = append(all, fault{f, row.name == "control"})
	}
	for _, link := range [][2]string{{"node1", "node2"}, {"node1", "node3"}, {"node2", "node3"}, {"lb", "node1"}, {"lb", "node2"}, {"lb", "node3"}} {
		all = append(all, fault{anyFault("the link between "+link[0]+" and "+link[1]+" is cut", func(r *chaos.Run) {
			there, back := r.Lab.Drop(link[0], link[1], "", 0), r.Lab.Drop(link[1], link[0], "", 0)
			r.Hold(8 * time.Second)
			there()
			back()
		}), false})
	}
	return append(all,
		fault{anyFault("a node is cut off", func(r *chaos.Run) {
			plug := r.Lab.Unplug(other(r).Host.Name())
			r.Hold(8 * time.Second)
			plug()
		}), false},
		fault{anyFault("5 % of all packets are lost", func(r *chaos.Run) {
			heal := r.Lab.Loss(lab.Any, lab.Any, 5)
			r.Hold(8 * time.Second)
			heal()
		}), false},
		fault{anyFault("a round trip between nodes takes 200 ms", func(r *chaos.Run) {
			heal := r.Lab.Delay("nodes", "nodes", 100*time.Millisecond)
			r.Hold(8 * time.Second)
			heal()
		}), false},
		fault{chaos.Fault{Name: "the disk of a node is full", AtMost: 0, Logins: true, Do: func(r *chaos.Run) {
			free := r.Nodes[1].Fill()
			r.Hold(6 * time.Second)
			free()
		}}, false},
		fault{chaos.Fault{Name: "the disk of the database's primary is full", AtMost: anyShare, Do: fullDisk}, false},
		fault{chaos.Fault{Name: "a node's clock jumps 10 minutes ahead, and back", AtMost: killed, Clock: true, Do: jump(10 * time.Minute)}, false},
		fault{chaos.Fault{Name: "a node's clock jumps 10 minutes back, and returns", AtMost: killed, Clock: true, Do: jump(-10 * time.Minute)}, false},
		fault{chaos.Fault{Name: "a node stands still for 6 seconds", AtMost: killed, Within: 3 * time.Second, Do: func(r *chaos.Run) {
			resume := r.Nodes[2].Freeze()
			r.Hold(6 * time.Second)
			resume()
		}}, true},
		fault{anyFault("a node has 3 % of a processor", func(r *chaos.Run) {
			undo := chaos.Quota(r.T, r.Nodes[2].Pid(), 0.03)
			r.Hold(8 * time.Second)
			undo()
		}), false},
		fault{anyFault("all nodes are down, and up again", func(r *chaos.Run) {
			for _, n := range r.Nodes {
				n.Kill()
			}
			r.Hold(2 * time.Second)
			for _, n := range r.Nodes {
				n.Start()
			}
		}), true},
		fault{anyFault("all nodes and databases are down, and up again", func(r *chaos.Run) {
			for _, n := range r.Nodes {
				n.Kill()
			}
			r.Database.Down()
			r.Hold(2 * time.Second)
			r.Database.Up()
			for _, n := range r.Nodes {
				n.Start()
			}
		}), false},
	)
}

// killLeader kills the node that leads, and waits until another one does.
func killLeader(r *chaos.Run) {
	old, term := r.Leader()
	if old == nil {
		r.T.Error("no node leads")
		return
	}
	old.Kill()
	at := r.Now()
	for {
		if next, now := r.Leader(); next != nil && next != old && now != term {
			break
		}
		if r.Now()-at > 30*time.Second {
			r.T.Error("nobody leads 30s after the leader was killed")
			break
		}
		r.Hold(100 * time.Millisecond)
	}
	took := r.Now() - at
	r.Notef("another node led %.1fs after the kill", took.Seconds())
	if *full && took > 10*time.Second {
		r.T.Errorf("the leader was replaced after %s; the target is 10s", took)
	}
	old.Start()
}

// failover kills the primary, lets a replica take its place, and makes a replica of
// what was the primary.
func failover(r *chaos.Run) {
	r.Database.Primary().Kill()
	r.Database.Failover(2 * time.Second)
	r.Notef("another server was promoted, and in step with a replica, %.1fs after the kill", (r.Now() - r.Marks()[0].At).Seconds())
	r.Hold(3 * time.Second)
	r.Database.Repair()
}

// fullDisk fills the disk of the database's primary. It refuses what needs room, or
// gives up when its log needs some; then a replica takes its place, as it does with
// Patroni.
func fullDisk(r *chaos.Run) {
	primary := r.Database.Primary()
	free := primary.Fill()
	defer free()
	r.Hold(5 * time.Second)
	for n := range 80 {
		if !primary.Running() {
			r.Notef("the primary gave up %.1fs after its disk was full", (r.Now() - r.Marks()[0].At).Seconds())
			r.Database.Failover(2 * time.Second)
			r.Notef("another server was promoted, and in step with a replica, %.1fs after the disk was full", (r.Now() - r.Marks()[0].At).Seconds())
			free()
			r.Database.Repair()
			return
		}
		if n%4 == 0 {
			_, _ = primary.TryQuery("SELECT pg_switch_wal()") // it needs a file for its log
		}
		r.Hold(100 * time.Millisecond)
	}
	r.Notef("the primary went on")
}

// other is a node on whose host the primary is not.
func other(r *chaos.Run) *chaos.Node {
	for _, n := range r.Nodes[1:] {
		if n.Host != r.Database.Primary().Host() {
			return n
		}
	}
	return r.Nodes[0]
}

func jump(by time.Duration) func(r *chaos.Run) {
	return func(r *chaos.Run) {
		r.Nodes[1].SetClock(by)
		r.Hold(6 * time.Second)
		r.Nodes[1].SetClock(0)
	}
}
