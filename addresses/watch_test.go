package addresses

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
)

// names is a name server.
type names map[string][]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	list, ok := n[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var out []netip.Addr
	for _, a := range list {
		out = append(out, addr(a))
	}
	return out, nil
}

// wall lets through what is in it.
type wall map[string]bool

func (w wall) Blocks(to netip.Addr, _ int) string {
	if w[to.String()] {
		return ""
	}
	return "inet filter output policy drop"
}

func (w wall) Allow(to netip.Addr, _ int, row netcontract.RowID) string {
	return "allow " + to.String() + " row " + string(row)
}

// setting is a node with a depot, a name server and a firewall.
type setting struct {
	t       *testing.T
	now     time.Time
	names   names
	wall    wall
	targets []Target
	served  []byte
	status  int
	kept    []byte
	depot   *httptest.Server
	w       *Watch
}

func newSetting(t *testing.T) *setting {
	s := &setting{t: t, now: start, names: names{"depot.example.com": {"203.0.113.9"}}, wall: wall{"203.0.113.9": true}, status: 200,
		targets: []Target{{Host: "depot.example.com", Rows: []netcontract.RowID{netcontract.UpdatePackages}, Published: []netip.Addr{addr("203.0.113.9")}, Ports: []int{443}, Depot: true}}}
	s.depot = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != Path {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(s.status)
		_, _ = w.Write(s.served)
	}))
	t.Cleanup(s.depot.Close)
	s.served = signed(t, keyOf(1), example())
	s.restart()
	return s
}

// restart is what a node does that has kept its folder.
func (s *setting) restart() {
	s.w = NewWatch(Config{Node: "node1", Targets: func(context.Context) ([]Target, error) { return s.targets, nil }, Resolver: s.names,
		Firewall: func() (Firewall, string) { return s.wall, "" }, Key: public(keyOf(1)), Now: func() time.Time { return s.now }, Every: time.Minute,
		Fetch: func(ctx context.Context, _ string) ([]byte, error) {
			return Get(ctx, s.depot.Client(), s.depot.URL)
		},
		Load: func() ([]byte, error) { return s.kept, nil }, Save: func(raw []byte) error { s.kept = raw; return nil }, Told: func(context.Context, Finding) {}})
}

// want compares the findings, each as "KIND ADDRESS".
func (s *setting) want(findings ...string) *Report {
	s.t.Helper()
	r, err := s.w.Look(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, f := range r.Findings() {
		text := f.Kind
		if f.Address.IsValid() {
			text += " " + f.Address.String()
		}
		got = append(got, text)
	}
	if strings.Join(got, "; ") != strings.Join(findings, "; ") {
		s.t.Errorf("found %q, want %q: %+v", got, findings, r.Findings())
	}
	return r
}

func TestAHostThatMoves(t *testing.T) {
	s := newSetting(t)
	s.w.cfg.Key = nil // no list
	s.want()
	s.names["depot.example.com"] = []string{"203.0.113.9", "203.0.113.77"}
	r := s.want("moved 203.0.113.77", "blocked 203.0.113.77")
	if f := r.Findings()[1]; f.Rule != "allow 203.0.113.77 row update-packages" || !strings.Contains(f.Sentence, "policy drop") {
		t.Errorf("%+v", f)
	}
	if s.w.Problem() == "" || !strings.Contains(s.w.Note(), "203.0.113.77 now, which is not published") || s.w.Count(Moved) != 1 || s.w.Count(Gone) != 0 {
		t.Errorf("problem %q, note %q", s.w.Problem(), s.w.Note())
	}
	s.wall["203.0.113.77"] = true
	s.want("moved 203.0.113.77")
	s.names["depot.example.com"] = []string{"203.0.113.77"}
	s.want("moved 203.0.113.77", "gone 203.0.113.9")
	delete(s.names, "depot.example.com")
	s.want("unresolved")
	// A host that is published by its name alone never moves, and may be blocked.
	s.targets = []Target{{Host: "idp.example.com", Rows: []netcontract.RowID{netcontract.Social}, Ports: []int{443}}, {Host: "192.0.2.5", Rows: []netcontract.RowID{netcontract.SMTP}, Ports: []int{587}},
		{Host: "behind.example.com", Rows: []netcontract.RowID{netcontract.Social}}}
	s.names["idp.example.com"], s.names["behind.example.com"] = []string{"203.0.113.9"}, []string{"198.51.100.1"}
	s.want("blocked 192.0.2.5")
	if k := s.w.Known(); len(k) != 3 || k["idp.example.com"][0] != addr("203.0.113.9") {
		t.Errorf("%v", k)
	}
}

func TestADepotTellsAhead(t *testing.T) {
	s := newSetting(t)
	r := s.want("ahead 203.0.113.10")
	if f := r.Findings()[0]; f.Rule != "allow 203.0.113.10 row update-packages" || !f.From.Equal(start.Add(7*24*time.Hour)) || !strings.Contains(f.Sentence, "From 2026-11-08T12:00:00Z on depot.example.com is at 203.0.113.10 too") {
		t.Errorf("%+v", f)
	}
	if r.List != 7 || len(r.Hosts[0].Ahead) != 1 {
		t.Errorf("%+v", r)
	}
	s.wall["203.0.113.10"] = true
	s.want() // the operator has added the rule
	s.now = start.Add(8 * 24 * time.Hour)
	s.want("gone 203.0.113.10") // the name does not lead there yet
	s.names["depot.example.com"] = []string{"203.0.113.9", "203.0.113.10"}
	s.want()
	// What the list does not say is not published, whatever the operator named.
	s.names["depot.example.com"] = []string{"203.0.113.9", "203.0.113.10", "203.0.113.66"}
	s.want("moved 203.0.113.66", "blocked 203.0.113.66")
}

// TestListsThatDoNotCount leave the last good one in force.
func TestListsThatDoNotCount(t *testing.T) {
	newer, older := example(), example()
	newer.Version, older.Version = 8, 6
	other := example()
	other.Hosts[0].Addresses = append(other.Hosts[0].Addresses, Address{Address: addr("203.0.113.99")})
	for name, c := range map[string]struct {
		serve func(s *setting)
		says  string
	}{
		"another key":        {func(s *setting) { s.served = signed(t, keyOf(2), newer) }, "not signed with the key"},
		"an old list":        {func(s *setting) { s.served = signed(t, keyOf(1), older) }, "version 7 was seen before"},
		"two of one version": {func(s *setting) { s.served = signed(t, keyOf(1), other) }, "two lists have version 7"},
		"no list":            {func(s *setting) { s.status = 404 }, "404"},
		"too much":           {func(s *setting) { s.served = []byte(strings.Repeat("a", MaxSize+1)) }, "more than"},
		"no depot":           {func(s *setting) { s.depot.Close() }, "cannot be fetched"},
		"of tomorrow":        {func(s *setting) { newer.IssuedAt = start.Add(time.Hour); s.served = signed(t, keyOf(1), newer) }, "one of the clocks is wrong"},
		"expired when it came": {func(s *setting) {
			l := example()
			l.Version = 9
			l.IssuedAt, l.Expires = start.Add(-2*time.Hour), start.Add(-time.Hour)
			s.served = signed(t, keyOf(1), l)
		}, "expired at"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetting(t)
			s.want("ahead 203.0.113.10")
			c.serve(s)
			for range 2 { // before and after a restart
				r := s.want("list", "ahead 203.0.113.10")
				if !strings.Contains(r.Findings()[0].Sentence, c.says) || r.List != 7 {
					t.Errorf("list %d: %s", r.List, r.Findings()[0].Sentence)
				}
				s.restart()
			}
		})
	}
}

func TestAListExpires(t *testing.T) {
	s := newSetting(t)
	s.want("ahead 203.0.113.10")
	s.now = example().Expires
	r := s.want("list")
	if r.List != 0 || !strings.Contains(r.Findings()[0].Sentence, "expired") || len(r.Hosts[0].Published) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestAKeyThatIsChanged: what the old key has signed counts no more, kept or not.
func TestAKeyThatIsChanged(t *testing.T) {
	s := newSetting(t)
	s.want("ahead 203.0.113.10")
	s.restart()
	s.w.cfg.Key = public(keyOf(2))
	s.want("list")
	s.served = signed(t, keyOf(2), example())
	s.want("ahead 203.0.113.10")
}

// changing is a name server whose answers change while it is asked.
type changing struct {
	mu sync.Mutex
	names
}

func (c *changing) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names.LookupNetIP(ctx, network, host)
}

func (c *changing) set(host string, addrs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[host] = addrs
}

func TestWatchTellsWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan Finding, 10)
		current := &changing{names: names{"a.example": {"192.0.2.1"}}}
		w := NewWatch(Config{Targets: func(context.Context) ([]Target, error) {
			return []Target{{Host: "a.example", Published: []netip.Addr{addr("192.0.2.1")}}}, nil
		}, Resolver: current, Firewall: func() (Firewall, string) { return nil, "no right" }, Now: time.Now, Every: time.Minute, Told: func(_ context.Context, f Finding) { told <- f }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(30 * time.Second) // between two looks, as each of these moments is
		current.set("a.example", "192.0.2.1", "192.0.2.2")
		time.Sleep(5 * time.Minute)
		if len(told) != 1 {
			t.Errorf("told %d times", len(told))
		}
		if f := <-told; f.Kind != Moved {
			t.Errorf("told: %+v", f)
		}
		current.set("a.example", "192.0.2.1")
		time.Sleep(time.Minute)
		current.set("a.example", "192.0.2.1", "192.0.2.2")
		time.Sleep(time.Minute)
		if len(told) != 1 {
			t.Errorf("what came back is told %d times", len(told))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTargetsThatCannotBeListed(t *testing.T) {
	w := NewWatch(Config{Targets: func(context.Context) ([]Target, error) { return nil, errors.New("store away") }})
	if _, err := w.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "store away") {
		t.Errorf("%v", err)
	}
	if w.Problem() != "" || w.Note() != "" || len(w.Known()) != 0 {
		t.Error("it has seen something")
	}
}
