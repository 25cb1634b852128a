package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/preflight"
)

// preflightRun is a swarm of the lab: how many nodes, and whether their firewalls
// drop everything.
type preflightRun struct {
	nodes   int
	dropped bool
}

// preflights are the runs that are measured.
var preflights = []preflightRun{{nodes: 3}, {nodes: 6}, {nodes: 12}, {nodes: 25}, {nodes: 3, dropped: true}}

// preflightFigure is what a run took.
type preflightFigure struct {
	Nodes    int     `json:"nodes"`
	Dropped  bool    `json:"dropped,omitempty"`
	Checks   int     `json:"checks"` // in the whole matrix
	Wrong    int     `json:"wrong"`  // verdicts that say of a good network that it is bad
	Why      string  `json:"why,omitempty"`
	Missing  int     `json:"missing"`   // hosts whose findings a report has not
	Seconds  float64 `json:"seconds"`   // from the first start to the last report
	Slowest  float64 `json:"slowest_s"` // of the reports' own times
	MemoryMB float64 `json:"memory_mb"` // of the largest process, with the pages of its program
	OwnMB    float64 `json:"own_mb"`    // without them
	CPU      float64 `json:"cpu_s"`     // of all of them
}

// preflight measures the matrix of 3 to 25 nodes in network namespaces of this
// machine: all of them on its own processors.
func (b *bench) preflight(ctx context.Context) error {
	var figures []preflightFigure
	var failed error
	for _, p := range preflights {
		f, err := b.swarm(ctx, p)
		if err != nil {
			failed = fmt.Errorf("%d nodes: %w", p.nodes, err)
			break
		}
		figures = append(figures, f)
		fmt.Fprintf(os.Stderr, "%2d nodes: %.1f s %s\n", f.Nodes, f.Seconds, f.Why)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "nodes\tnetwork\tchecks\twrong verdicts\tfindings missing\tfirst start to last report\tslowest report\tlargest process, its own memory\twith the program's pages\tCPU time of all")
	for _, f := range figures {
		network := "good"
		if f.Dropped {
			network = "drops everything"
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%.1f s\t%.1f s\t%.0f MiB\t%.0f MiB\t%.1f s\n", f.Nodes, network, f.Checks, f.Wrong, f.Missing, f.Seconds, f.Slowest, f.OwnMB, f.MemoryMB, f.CPU)
	}
	if err := w.Flush(); err != nil {
		return errors.Join(failed, err)
	}
	if b.json != "" && failed == nil {
		raw, err := json.MarshalIndent(figures, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(b.json, append(raw, '\n'), 0o600)
	}
	return failed
}

func (b *bench) swarm(ctx context.Context, p preflightRun) (f preflightFigure, err error) {
	l, err := lab.Up(lab.Options{Nodes: p.nodes})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var hosts []string
	wait := "30s"
	for _, h := range l.Nodes() {
		hosts = append(hosts, fmt.Sprintf("%s=%s+%s", h.Name(), h.Addr4(), h.Addr6()))
		if p.dropped {
			h.Nft("table inet filter { chain input { type filter hook input priority 0; policy drop; }; }")
			wait = "0s"
		}
	}
	binary := b.binary
	if !strings.HasPrefix(binary, "/") {
		dir, err := os.Getwd()
		if err != nil {
			return f, err
		}
		binary = dir + "/" + binary
	}
	token := preflight.NewToken()
	f = preflightFigure{Nodes: p.nodes, Dropped: p.dropped}
	began := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, h := range l.Nodes() {
		wg.Go(func() {
			form := "text" // is cheap to read, so that this process takes no part in the load
			if h.Name() == "node1" {
				form = "json"
			}
			cmd := h.Command(ctx, binary, "preflight", "--token", token, "--peers", strings.Join(hosts, ","), "--self", h.Name(), "--format", form, "--wait", wait, "--linger", "20s")
			out, e := cmd.StdoutPipe()
			if e == nil {
				e = cmd.Start()
			}
			if e != nil {
				mu.Lock()
				err = errors.Join(err, e)
				mu.Unlock()
				return
			}
			var r preflight.Report
			bad := ""
			if form == "json" {
				e = json.NewDecoder(out).Decode(&r)
			} else {
				bad = lastLine(out)
			}
			took := time.Since(began).Seconds()
			whole, own := peak(cmd.Process.Pid) // it still answers the others
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait() // its exit code is the report's
			mu.Lock()
			defer mu.Unlock()
			if failures := r.Failures(); e == nil && !p.dropped && len(failures) > f.Wrong {
				f.Wrong, f.Why = len(failures), fmt.Sprintf("%s: %s %v", failures[0].Verdict, failures[0].Sentence, failures[0].Evidence)
			}
			if bad != "" && !p.dropped && f.Wrong == 0 {
				f.Wrong, f.Why = 1, h.Name()+": "+bad
			}
			f.Missing = max(f.Missing, len(r.Missing))
			if e != nil {
				err = errors.Join(err, e)
				return
			}
			f.Checks = max(f.Checks, len(r.Findings))
			f.Seconds, f.Slowest = max(f.Seconds, took), max(f.Slowest, r.Took)
			f.MemoryMB, f.OwnMB = max(f.MemoryMB, whole), max(f.OwnMB, own)
			f.CPU += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
		})
	}
	wg.Wait()
	return f, err
}

// lastLine reads a report as text up to its summary, and returns that where
// something fails.
func lastLine(r io.Reader) string {
	for s := bufio.NewScanner(r); s.Scan(); {
		if strings.Contains(s.Text(), " checks hold") {
			if strings.Contains(s.Text(), "fail") {
				return s.Text()
			}
			return ""
		}
	}
	return "no report"
}

// peak is the most memory that a process had so far, in MiB, and how much of it is
// its own: without pages of the program's file, which all processes share and the
// kernel can drop.
func peak(pid int) (whole, own float64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	var most, file float64
	for line := range strings.Lines(string(raw)) {
		_, _ = fmt.Sscanf(line, "VmHWM: %f kB", &most)   // another line leaves it alone
		_, _ = fmt.Sscanf(line, "RssFile: %f kB", &file) // the same
	}
	return most / 1024, (most - file) / 1024
}
