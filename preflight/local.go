package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// expected are the programs whose ports a node shares with its rows; all other
// ports are the appliance's own.
var expected = map[netcontract.RowID][]string{
	netcontract.Database:        {"postgres", "cockroach", "yugabyted"},
	netcontract.SearchHTTP:      {"java", "opensearch"},
	netcontract.SearchTransport: {"java", "opensearch"},
	netcontract.Grafana:         {"grafana", "grafana-server"},
	netcontract.Maintenance:     {"sshd", "systemd"},
	netcontract.JumpHost:        {"sshd", "systemd"},
	netcontract.DNS:             {"named", "unbound", "dnsmasq", "systemd-resolve", "coredns"},
}

// local looks at what a node needs of its own host: ports that are free, and a
// firewall that is known.
func (r *run) local() {
	if r.own == nil || len(r.own.Listens) == 0 {
		r.own = r.looks.gather(context.Background())
	}
	e := r.own
	var known []string
	for _, row := range r.Table.Rows() {
		if r.Self.Role != Node || !serves(row, Node) || len(r.Options.Rows) > 0 && !slices.Contains(r.Options.Rows, row.ID) {
			continue
		}
		for _, protocol := range row.Protocols {
			if protocol == netcontract.ICMP {
				continue
			}
			for _, p := range ports(row, protocol, r.Thorough) {
				key := fmt.Sprint(protocol, p)
				if slices.Contains(known, key) {
					continue // another row has it too
				}
				known = append(known, key)
				r.report.Findings = append(r.report.Findings, r.ownPort(e, Check{Row: row.ID, From: r.Self.Name, To: r.Self.Name, Protocol: protocol, Port: p, Need: row.Need(), Local: true}))
			}
		}
	}
	if e.Firewall != nil {
		text := fmt.Sprintf("this host's firewall is %s", e.Firewall.Kind)
		var chains []string
		for _, d := range e.Firewall.Drops {
			if d.Policy {
				chains = append(chains, d.Where)
			}
		}
		if e.Firewall.Kind == "none" {
			text = "this host has no firewall of its own: `portcullis network render` writes one"
		} else if len(chains) > 0 {
			text += "; what no rule accepts is dropped in " + strings.Join(chains, ", ")
		}
		r.report.Notes = append(r.report.Notes, text)
	}
	r.report.Notes = append(r.report.Notes, e.Unknown...)
}

// ownPort says who has a port of this host.
func (r *run) ownPort(e *Evidence, c Check) Finding {
	f := Finding{Check: c}
	program, listens := e.program(string(c.Protocol), c.Port)
	what := fmt.Sprintf("%s port %d", strings.ToUpper(string(c.Protocol)), c.Port)
	switch {
	case !listens:
		f.Verdict, f.OK = Free, true
		f.Sentence = fmt.Sprintf("%s of this host is free for row %s.", what, c.Row)
	case strings.HasPrefix(program, "portcullis") || slices.Contains(expected[c.Row], program):
		f.Verdict, f.OK = Served, true
		f.Sentence = fmt.Sprintf("%s of this host is served by %s, as row %s wants.", what, program, c.Row)
	default:
		f.Verdict, f.By = Taken, name(program)
		f.Sentence = fmt.Sprintf("%s of this host, which row %s needs, is taken by %s.", what, c.Row, name(program))
		f.Evidence = []string{fmt.Sprintf("the kernel's list of sockets has %s as the listener", name(program))}
		f.Remedy = fmt.Sprintf("Stop %s or give it another port (`ss -lntup 'sport = :%d'` shows the process).", name(program), c.Port)
	}
	return f
}
