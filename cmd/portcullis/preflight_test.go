package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

// swarm is a preflight in the lab.
type swarm struct {
	t     *testing.T
	l     *lab.Lab
	hosts []string // NAME=ADDRESS[+ADDRESS]@ROLE
	names []string
}

func newSwarm(t *testing.T, l *lab.Lab, names ...string) *swarm {
	t.Helper()
	s := &swarm{t: t, l: l, names: names}
	roles := map[string]preflight.Role{"lb": preflight.LoadBalancer, "outside": preflight.Outside, "jump": preflight.JumpHost, "monitoring": preflight.Monitoring, "cli": preflight.CLI}
	for _, name := range names {
		var addresses []string
		for _, a := range l.Host(name).Addrs() {
			if a.IsValid() {
				addresses = append(addresses, a.String())
			}
		}
		role := roles[name]
		if role == "" {
			role = preflight.Node
		}
		s.hosts = append(s.hosts, fmt.Sprintf("%s=%s@%s", name, strings.Join(addresses, "+"), role))
	}
	return s
}

// run runs the program on every host at the same time and returns their reports.
func (s *swarm) run(args ...string) map[string]*preflight.Report {
	s.t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		s.t.Fatal(err)
	}
	token := preflight.NewToken()
	reports := map[string]*preflight.Report{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range s.names {
		wg.Go(func() {
			all := append([]string{"preflight", "--peers", strings.Join(s.hosts, ","), "--self", name, "--token", token, "-o", "json", "--wait", "10s", "--linger", "4s"}, args...)
			cmd := s.l.Host(name).Command(s.t.Context(), exe, all...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			runErr := cmd.Run()
			var r preflight.Report
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				s.t.Errorf("%s: %v: %v %s", name, err, runErr, errs.String())
				return
			}
			mu.Lock()
			defer mu.Unlock()
			reports[name] = &r
		})
	}
	wg.Wait()
	return reports
}

// find returns what one host found out about another on a port.
func find(t *testing.T, r *preflight.Report, from, to string, row netcontract.RowID, port int, v6 bool) preflight.Finding {
	t.Helper()
	if r == nil {
		t.Fatal("there is no report")
	}
	i := slices.IndexFunc(r.Findings, func(f preflight.Finding) bool {
		return f.From == from && f.To == to && f.Row == row && (port == 0 || f.Port == port) && f.Address.Is6() == v6
	})
	if i < 0 {
		t.Fatalf("%s -> %s, row %s port %d: no finding", from, to, row, port)
	}
	return r.Findings[i]
}

func TestPreflightOfAGoodNetwork(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 3})
	s := newSwarm(t, l, "node1", "node2", "node3", "lb", "monitoring", "jump", "cli")
	for name, r := range s.run() {
		if r.Exit() != preflight.ExitHolds {
			var b bytes.Buffer
			_ = r.Write(&b, "text", false)
			t.Errorf("%s: exit %d\n%s", name, r.Exit(), b.String())
		}
		t.Logf("%s: %s, %d pairs", name, r.Summary(), len(r.Pairs()))
		if len(r.Missing)+len(r.Silent) > 0 || name == "node1" && len(r.Pairs()) < 6 {
			t.Errorf("%s knows only %v; missing %v, silent %v", name, r.Pairs(), r.Missing, r.Silent)
		}
	}
}

var _ = netip.Addr{}
