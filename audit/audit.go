package audit

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/sockets"
)

// Endpoint is a port that a row declares.
type Endpoint struct {
	Row      netcontract.RowID `json:"row"`
	Protocol string            `json:"protocol"`
	Port     int               `json:"port"`
}

// Declared is what a process may do, as it is configured.
type Declared struct {
	Listen []Endpoint
	Dial   []Endpoint
	// Trusted reports whether any port of an address may be called; nil means of none.
	Trusted func(netip.Addr) bool
}

// FromContract declares what the rows of a table allow a node, at their own ports.
// A row whose outside peer nobody has named yet is declared all the same: who uses
// it has a row for it.
func FromContract(table netcontract.Table) Declared {
	var d Declared
	for _, row := range table.Rows() {
		for _, protocol := range row.Protocols {
			if protocol == netcontract.ICMP {
				continue
			}
			for _, r := range row.Ports {
				for p := int(r.From); p <= int(r.To); p++ {
					e := Endpoint{row.ID, string(protocol), p}
					if row.Listens() {
						d.Listen = append(d.Listen, e)
					}
					if row.Dials() {
						d.Dial = append(d.Dial, e)
					}
				}
			}
		}
	}
	return d
}

// Finding is a socket of no row.
type Finding struct {
	Protocol string `json:"protocol"`
	Local    string `json:"local"`
	Remote   string `json:"remote,omitempty"` // of a connection
	Sentence string `json:"sentence"`
}

// Report is the state of one look.
type Report struct {
	At        time.Time `json:"at"`
	Listeners int       `json:"listeners"`
	Outgoing  int       `json:"outgoing"`
	Findings  []Finding `json:"findings"`
}

// OK reports whether every socket has its row.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// Check looks at the sockets of this process.
func Check(d Declared, now time.Time) (*Report, error) {
	all, err := sockets.List()
	if err != nil {
		return nil, err
	}
	own, err := sockets.Own()
	if err != nil {
		return nil, fmt.Errorf("list this process's sockets: %w", err)
	}
	var mine []sockets.Socket
	for _, s := range all {
		if own[s.Inode] {
			mine = append(mine, s)
		}
	}
	return judge(mine, d, now), nil
}

// judge finds the sockets of no row.
func judge(mine []sockets.Socket, d Declared, now time.Time) *Report {
	r := &Report{At: now.UTC(), Findings: []Finding{}}
	listens := map[string]bool{}
	for _, s := range mine {
		if s.Listening {
			listens[fmt.Sprint(s.Protocol, s.Local.Port())] = true
		}
	}
	for _, s := range mine {
		switch {
		case s.Listening && s.Protocol == "udp" && ephemeral(s.Local):
			// A datagram that waits for its answer, such as a question to a name server.
		case s.Listening:
			r.Listeners++
			if !has(d.Listen, s.Protocol, s.Local) {
				r.Findings = append(r.Findings, Finding{s.Protocol, s.Local.String(), "",
					fmt.Sprintf("This process listens on %s port %d, and no row of the contract declares it.", s.Protocol, s.Local.Port())})
			}
		case listens[fmt.Sprint(s.Protocol, s.Local.Port())]:
			// Somebody connected to one of the listeners.
		default:
			r.Outgoing++
			if !has(d.Dial, s.Protocol, s.Remote) && (d.Trusted == nil || !d.Trusted(s.Remote.Addr())) {
				r.Findings = append(r.Findings, Finding{s.Protocol, s.Local.String(), s.Remote.String(),
					fmt.Sprintf("This process has a connection to %s, and no row of the contract declares %s port %d.", s.Remote, s.Protocol, s.Remote.Port())})
			}
		}
	}
	sort.Slice(r.Findings, func(i, j int) bool { return r.Findings[i].Sentence < r.Findings[j].Sentence })
	return r
}

// ephemeral reports whether the kernel chose a port by itself, as it does for
// clients (net.ipv4.ip_local_port_range).
func ephemeral(a netip.AddrPort) bool { return a.Port() >= 32768 }

func has(list []Endpoint, protocol string, a netip.AddrPort) bool {
	return slices.ContainsFunc(list, func(e Endpoint) bool { return e.Protocol == protocol && e.Port == int(a.Port()) })
}

// Watch looks again and again, and tells of what is new.
type Watch struct {
	declared func() Declared
	every    time.Duration
	told     func(ctx context.Context, f Finding)

	mu   sync.Mutex
	last *Report
	err  error
}

// NewWatch looks each interval; told is called once for each new finding. What is
// declared may change, as nodes join a cluster.
func NewWatch(declared func() Declared, every time.Duration, told func(ctx context.Context, f Finding)) *Watch {
	return &Watch{declared: declared, every: every, told: told}
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	known := map[string]bool{}
	for {
		report, err := w.Look()
		if err == nil {
			now := map[string]bool{}
			for _, f := range report.Findings {
				now[f.Sentence] = true
				if !known[f.Sentence] {
					w.told(ctx, f)
				}
			}
			known = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.every):
		}
	}
}

// Look looks now.
func (w *Watch) Look() (*Report, error) {
	report, err := Check(w.declared(), time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.err = report, err
	return report, err
}

// Findings is how many findings the last look had.
func (w *Watch) Findings() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return 0
	}
	return len(w.last.Findings)
}

// Problem is the last look's findings in words, or "" when every socket has its
// row or nothing could be seen.
func (w *Watch) Problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return ""
	}
	var all []string
	for _, f := range w.last.Findings {
		all = append(all, f.Sentence)
	}
	return strings.Join(all, " ")
}
