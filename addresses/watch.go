package addresses

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
)

// Target is an outside host that the node calls.
type Target struct {
	Host string
	Rows []netcontract.RowID
	// Published are the addresses that the contract or the operator names it with.
	Published []netip.Addr
	// Ports are those that the node connects to; none where a proxy does it.
	Ports []int
	// Depot says that the host publishes a list of its own.
	Depot bool
}

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Firewall is what the host's firewall does with a connection out.
type Firewall interface {
	// Blocks returns the rule that stops it, or "".
	Blocks(to netip.Addr, port int) string
	// Allow is the command that lets it through.
	Allow(to netip.Addr, port int, row netcontract.RowID) string
}

// Kinds of findings.
const (
	Blocked    = "blocked"    // the host's firewall stops it: a call fails
	Moved      = "moved"      // the name leads to an address that is not published
	Ahead      = "ahead"      // the depot will have an address that the firewall stops
	Gone       = "gone"       // an address is published that the name does not lead to
	Unresolved = "unresolved" // the name leads nowhere
	BadList    = "list"       // the depot's list cannot be had or is refused
)

// Kinds lists the kinds.
func Kinds() []string { return []string{Blocked, Moved, Ahead, Gone, Unresolved, BadList} }

// Finding is something that an operator has to know of a host.
type Finding struct {
	Kind     string     `json:"kind"`
	Host     string     `json:"host"`
	Address  netip.Addr `json:"address,omitzero"`
	From     time.Time  `json:"from,omitzero"` // of Ahead
	Sentence string     `json:"sentence"`
	Rule     string     `json:"rule,omitempty"` // for the host's firewall
}

// key tells findings apart: name servers that answer with other addresses each time
// are no news.
func (f Finding) key() string {
	if f.Kind == BadList || f.Kind == Unresolved {
		return f.Sentence
	}
	return f.Kind + " " + f.Host + " " + f.Address.String()
}

// State is where one host is.
type State struct {
	Host      string              `json:"host"`
	Rows      []netcontract.RowID `json:"rows"`
	Published []netip.Addr        `json:"published"`
	Now       []netip.Addr        `json:"now"`
	Ahead     []Address           `json:"ahead"`
	Findings  []Finding           `json:"findings"`
}

// Report is one look at all hosts.
type Report struct {
	Node  string    `json:"node"` // the name of the host that looked
	At    time.Time `json:"at"`
	Hosts []State   `json:"hosts"`
	// List is the version of the depot's list that counts, 0 for none.
	List int64  `json:"list"`
	Note string `json:"note,omitempty"` // why not everything was compared
}

// Findings are those of all hosts.
func (r *Report) Findings() []Finding {
	out := []Finding{}
	for _, h := range r.Hosts {
		out = append(out, h.Findings...)
	}
	return out
}

// Config is what a Watch needs.
type Config struct {
	Node     string
	Targets  func(ctx context.Context) ([]Target, error)
	Resolver Resolver
	// Firewall reads the host's firewall; a nil one with a note is not compared.
	Firewall func() (f Firewall, note string)
	// Key is the depot's; without one no list is fetched.
	Key ed25519.PublicKey
	// Fetch gets a depot's signed list.
	Fetch func(ctx context.Context, host string) ([]byte, error)
	// Load and Save keep the newest list that was accepted, so that an old one is
	// refused after a restart too; Load returns nil where there is none.
	Load func() ([]byte, error)
	Save func(raw []byte) error
	Now  func() time.Time
	// Every is the time between two looks.
	Every time.Duration
	// Told is called once for each new finding.
	Told func(ctx context.Context, f Finding)
}

// Watch looks again and again. It is safe for concurrent use.
type Watch struct {
	cfg  Config
	look sync.Mutex // one look at a time

	loaded bool
	newest List

	mu   sync.Mutex
	last *Report
}

// Bounds of a look.
const (
	lookupTime = 5 * time.Second
	fetchTime  = 10 * time.Second
	maxTargets = 256
	abreast    = 16 // lookups at a time
)

// NewWatch makes a Watch.
func NewWatch(cfg Config) *Watch { return &Watch{cfg: cfg} }

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	known := map[string]bool{}
	for {
		if r, err := w.Look(ctx); err == nil {
			now := map[string]bool{}
			for _, f := range r.Findings() {
				now[f.key()] = true
				if !known[f.key()] {
					w.cfg.Told(ctx, f)
				}
			}
			known = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.cfg.Every):
		}
	}
}

// Look asks now. The error is that the hosts could not be listed.
func (w *Watch) Look(ctx context.Context) (*Report, error) {
	w.look.Lock()
	defer w.look.Unlock()
	targets, err := w.cfg.Targets(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the outside hosts: %w", err)
	}
	r := &Report{Node: w.cfg.Node, At: w.cfg.Now().UTC()}
	if len(targets) > maxTargets {
		r.Note = fmt.Sprintf("There are %d outside hosts; the first %d are looked at.", len(targets), maxTargets)
		targets = targets[:maxTargets]
	}
	list, listErrs := w.list(ctx, targets)
	r.List = list.Version
	firewall, note := w.cfg.Firewall()
	r.Note = strings.TrimSpace(r.Note + " " + note)
	r.Hosts = make([]State, len(targets))
	slots := make(chan struct{}, abreast)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r.Hosts[i] = w.state(ctx, t, list, listErrs[t.Host], firewall)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = r
	return r, nil
}

// list fetches the depots' lists and returns the newest that counts, with what was
// wrong by host. A depot that does not answer leaves the last list in force until
// it expires.
func (w *Watch) list(ctx context.Context, targets []Target) (List, map[string]error) {
	errs := map[string]error{}
	if w.cfg.Key == nil {
		return List{}, errs
	}
	now := w.cfg.Now()
	if !w.loaded {
		w.loaded = true
		if raw, err := w.cfg.Load(); err == nil && raw != nil {
			// One that another key has signed, or of another form, is as good as none.
			w.newest, _ = Open(w.cfg.Key, raw)
		}
	}
	for _, t := range targets {
		if !t.Depot {
			continue
		}
		errs[t.Host] = w.fetch(ctx, t.Host, now)
	}
	if w.newest.Version > 0 && w.newest.Valid(now) != nil {
		for host, err := range errs {
			if err == nil {
				errs[host] = w.newest.Valid(now)
			}
		}
		return List{}, errs
	}
	return w.newest, errs
}

func (w *Watch) fetch(ctx context.Context, host string, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	raw, err := w.cfg.Fetch(ctx, host)
	if err != nil {
		return fmt.Errorf("it cannot be fetched: %w", err)
	}
	l, err := Open(w.cfg.Key, raw)
	if err != nil {
		return err
	}
	if err := l.Valid(now); err != nil {
		return err
	}
	if err := l.Follows(w.newest); err != nil {
		return err
	}
	if l.Version > w.newest.Version {
		if err := w.cfg.Save(raw); err != nil {
			return fmt.Errorf("it cannot be kept: %w", err)
		}
		w.newest = l
	}
	return nil
}

func (w *Watch) state(ctx context.Context, t Target, list List, listErr error, fw Firewall) State {
	s := State{Host: t.Host, Rows: t.Rows, Published: slices.Clone(t.Published), Now: []netip.Addr{}, Ahead: []Address{}, Findings: []Finding{}}
	add := func(f Finding) {
		f.Host = t.Host
		s.Findings = append(s.Findings, f)
	}
	if listErr != nil {
		add(Finding{Kind: BadList, Sentence: fmt.Sprintf("The signed list of addresses of the depot %s does not count: %v.", t.Host, listErr)})
	}
	current, later := list.at(t.Host, w.cfg.Now())
	if len(current) > 0 {
		s.Published = current // the depot knows best
	}
	s.Ahead = append(s.Ahead, later...)
	if a, err := netip.ParseAddr(t.Host); err == nil {
		s.Now = append(s.Now, a.Unmap())
	} else {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		found, err := w.cfg.Resolver.LookupNetIP(ctx, "ip", t.Host)
		if err != nil {
			add(Finding{Kind: Unresolved, Sentence: fmt.Sprintf("The name %s (%s) does not resolve: %s.", t.Host, rowText(t.Rows), lookupError(err))})
		}
		for _, a := range found {
			if a = a.Unmap(); !slices.Contains(s.Now, a) {
				s.Now = append(s.Now, a)
			}
		}
		slices.SortFunc(s.Now, netip.Addr.Compare)
		gained, gone := netcontract.Host{Name: t.Host, Addresses: s.Published}.Moved(s.Now)
		for _, a := range gained {
			add(Finding{Kind: Moved, Address: a, Rule: rule(fw, a, t),
				Sentence: fmt.Sprintf("%s (%s) leads to %s now, which is not published; published are %s. Firewalls have to let it through too.", t.Host, rowText(t.Rows), a, texts(s.Published))})
		}
		for _, a := range gone {
			if err == nil && !slices.ContainsFunc(later, func(l Address) bool { return l.Address == a }) {
				add(Finding{Kind: Gone, Address: a, Sentence: fmt.Sprintf("%s (%s) is published with %s, and does not lead there any more.", t.Host, rowText(t.Rows), a)})
			}
		}
	}
	if fw == nil {
		return s
	}
	for _, port := range t.Ports {
		for _, a := range s.Now {
			if by := fw.Blocks(a, port); by != "" {
				add(Finding{Kind: Blocked, Address: a, Rule: fw.Allow(a, port, row(t)),
					Sentence: fmt.Sprintf("The host's firewall blocks %s at %s, tcp port %d (%s): %s.", t.Host, a, port, rowText(t.Rows), by)})
			}
		}
		for _, l := range later {
			if by := fw.Blocks(l.Address, port); by != "" {
				add(Finding{Kind: Ahead, Address: l.Address, From: l.ValidFrom, Rule: fw.Allow(l.Address, port, row(t)),
					Sentence: fmt.Sprintf("From %s on %s is at %s too, and the host's firewall blocks tcp port %d there (%s): %s.", stamp(l.ValidFrom), t.Host, l.Address, port, rowText(t.Rows), by)})
			}
		}
	}
	return s
}

func rule(fw Firewall, a netip.Addr, t Target) string {
	if fw == nil || len(t.Ports) == 0 {
		return ""
	}
	return fw.Allow(a, t.Ports[0], row(t))
}

func row(t Target) netcontract.RowID {
	if len(t.Rows) == 0 {
		return ""
	}
	return t.Rows[0]
}

func rowText(rows []netcontract.RowID) string {
	s := make([]string, len(rows))
	for i, r := range rows {
		s[i] = string(r)
	}
	return "row " + strings.Join(s, ", ")
}

func texts(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "nowhere"
	}
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}

func lookupError(err error) string {
	var e *net.DNSError
	switch {
	case errors.As(err, &e) && e.IsNotFound:
		return "there is no such name"
	case errors.As(err, &e) && e.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "the name server does not answer"
	}
	return err.Error()
}

// Count is how many findings of a kind the last look had.
func (w *Watch) Count(kind string) int {
	n := 0
	for _, f := range w.lastFindings() {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// Problem is what stops calls now, in words, or "".
func (w *Watch) Problem() string { return w.sentences(func(k string) bool { return k == Blocked }) }

// Note is everything else that the last look found, in words, or "".
func (w *Watch) Note() string { return w.sentences(func(k string) bool { return k != Blocked }) }

// maxSentences bounds what the health detail says.
const maxSentences = 5

func (w *Watch) sentences(want func(kind string) bool) string {
	var all []string
	more := 0
	for _, f := range w.lastFindings() {
		switch {
		case !want(f.Kind):
		case len(all) == maxSentences:
			more++
		default:
			all = append(all, f.Sentence)
		}
	}
	if more > 0 {
		all = append(all, fmt.Sprintf("And %d more: portcullis network addresses --live lists them.", more))
	}
	return strings.Join(all, " ")
}

// Known are the addresses that names led to at the last look.
func (w *Watch) Known() map[string][]netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string][]netip.Addr{}
	if w.last != nil {
		for _, h := range w.last.Hosts {
			out[h.Host] = h.Now
		}
	}
	return out
}

func (w *Watch) lastFindings() []Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return nil
	}
	return w.last.Findings()
}
