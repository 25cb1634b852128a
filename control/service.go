package control

import (
	"context"
	"errors"
	"log/slog"

	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// The documents of KindCluster.
const (
	authorityID = "authority"
	leaseID     = "leader"
	settingsID  = "settings"
	aloneID     = "alone"
)

// Caches are what this node keeps of the database.
type Caches interface {
	Invalidate(tenant string, kinds ...tenant.Kind)
	InvalidateAll()
	// Checked says that nothing was missed up to a moment.
	Checked(at time.Time)
}

// Grant is what a node that joins is given: everything that the nodes of a cluster
// have in common. It is full of secrets.
type Grant struct {
	// Settings are configuration keys with their values.
	Settings map[string]string `json:"settings"`
	// Files are contents by name, for the data folder.
	Files map[string]string `json:"files,omitempty"`
}

// Deps are what the control plane works with.
type Deps struct {
	Docs tenant.Docs
	// Missed reads what was written since, over all tenants, at most limit.
	Missed func(ctx context.Context, since time.Time, limit int) ([]tenant.Invalidation, error)
	Caches Caches
	// Database asks the database for something, and does not wait for one that is away.
	// It returns for how long the database has been there.
	Database func(ctx context.Context) (time.Duration, error)
	Dial     Dial // to other nodes on row control
	Logger   *slog.Logger
	Version  string
	// Grant makes what a new node is given.
	Grant func(ctx context.Context) (Grant, error)
	// Settings is the version of the cluster's settings that this process was started
	// with. When there is a newer one, and it is this node's turn, it starts again.
	Settings int64
	// Stop ends this node, with the reason: ErrRestart, or that it was removed.
	Stop func(reason error)
	Now  func() time.Time // wall clock, for people and certificates
}

// Service is the control plane of one node.
type Service struct {
	Deps
	data string

	mu      sync.Mutex
	id      *Identity
	members []Member
	beats   map[string]heard // by member, in the database
	answers map[string]heard // by member, on the network
	skews   map[string]Skew
	lease   leaseView
	ports   map[string]int       // of this node's other listeners between nodes, by row; set before Run
	asked   int64                // restarts that were asked for before this process began; -1 until it is known
	seen    map[string]time.Time // invalidations that were done
	peers   map[string]*peer
	state   State
	pushed  pushCounts

	elsewhere elsewhere
}

// heard is when something new came of a member, by this node's own clock.
type heard struct {
	beat int64
	at   time.Time
}

type pushCounts struct{ sent, failed, received, caughtUp int64 }

// New makes the control plane of the node whose identity is in a data folder.
func New(data string, deps Deps) (*Service, error) {
	id, err := LoadIdentity(data)
	if err != nil {
		return nil, err
	}
	return &Service{Deps: deps, data: data, id: id, beats: map[string]heard{}, answers: map[string]heard{}, skews: map[string]Skew{},
		seen: map[string]time.Time{}, peers: map[string]*peer{}, ports: map[string]int{}, asked: -1, state: Active}, nil
}

// Found makes a cluster in a database that has none, and the first node of it in a
// data folder. The error is problem.Conflict when there is a cluster.
func Found(ctx context.Context, docs tenant.Docs, data, name, address string, now time.Time) (*Identity, error) {
	if err := checkNode(name, address); err != nil {
		return nil, err
	}
	if Joined(data) {
		return nil, alreadyJoined(data)
	}
	doc, err := newAuthority(now.UTC())
	if err != nil {
		return nil, err
	}
	err = docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error { return tenant.Add(tx, tenant.KindCluster, authorityID, doc) })
	if problem.Is(err, problem.Conflict) {
		return nil, problem.New(problem.Conflict, "cluster_exists", "this database has a cluster already: make a token on one of its nodes with `portcullis cluster token`, and join with it")
	}
	if err != nil {
		return nil, err
	}
	key, csr, err := request()
	if err != nil {
		return nil, err
	}
	id, cert, err := admit(ctx, docs, name, address, csr, now)
	if err != nil {
		return nil, err
	}
	return id, id.save(data, key, cert, doc.Certificate)
}

func alreadyJoined(data string) error {
	return problem.New(problem.Conflict, "already_joined", "%s has the identity of a node already; to join another cluster with it, delete its folder %s first", data, identityDir)
}

// Exists reports whether a database has a cluster.
func Exists(ctx context.Context, docs tenant.Docs) (bool, error) {
	_, err := docs.Get(ctx, tenant.Authority, tenant.KindCluster, authorityID)
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// NotAMember says that a database has a cluster of which the node of a data folder is
// none.
func NotAMember(database, data string) error {
	return problem.New(problem.Unavailable, "not_a_member", "the database %s belongs to a cluster, and %s has no identity of a node of it: make a token on one of its nodes with `portcullis cluster token`, and join with `portcullis join TOKEN`", database, data)
}

func checkNode(name, address string) error {
	if !nameForm.MatchString(name) {
		return problem.New(problem.Invalid, "invalid_name", "name %q is no name of a node; allowed are 1 to 63 letters, digits, dots and dashes", name)
	}
	return CheckAddress(address)
}

// admit makes a member and signs its certificate.
func admit(ctx context.Context, docs tenant.Docs, name, address, csr string, now time.Time) (*Identity, string, error) {
	ca, err := loadAuthority(ctx, docs)
	if err != nil {
		return nil, "", err
	}
	id := &Identity{ID: tenant.NewID("node"), Name: name, Address: address}
	cert, number, err := ca.issue(csr, id.ID, now)
	if err != nil {
		return nil, "", err
	}
	err = docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		all, _, err := tenant.Select[Member](tx, tenant.KindMember, tenant.Query{})
		if err != nil {
			return err
		}
		for _, m := range all {
			switch {
			case m.Name == name:
				return problem.New(problem.Conflict, "name_taken", "the cluster has a node named %s; choose another --name, or remove it first with `portcullis cluster remove %s`", name, name)
			case m.Address == address:
				return problem.New(problem.Conflict, "address_taken", "the cluster's node %s has the address %s; choose another --address, or remove it first", m.Name, address)
			}
		}
		if len(all) >= maxMembers {
			return problem.New(problem.Conflict, "too_many_nodes", "the cluster has %d nodes; allowed are %d", len(all), maxMembers)
		}
		return tenant.Add(tx, tenant.KindMember, id.ID, &Member{ID: id.ID, Name: name, Address: address, State: Active, JoinedAt: now.UTC(), Certificates: []string{number}})
	})
	return id, cert, err
}

// maxMembers bounds a cluster.
const maxMembers = 256

func loadAuthority(ctx context.Context, docs tenant.Docs) (*Authority, error) {
	doc, err := tenant.Get[authorityDoc](ctx, docs, tenant.Authority, tenant.KindCluster, authorityID)
	if problem.Is(err, problem.NotFound) {
		return nil, problem.New(problem.NotFound, "no_cluster", "this database has no cluster yet: `portcullis cluster init` makes one")
	}
	if err != nil {
		return nil, err
	}
	return doc.authority()
}

// Token makes a token with which one node can join within ttl.
func (s *Service) Token(ctx context.Context, ttl time.Duration) (string, error) {
	if ttl < time.Minute || ttl > 7*24*time.Hour {
		return "", problem.New(problem.Invalid, "invalid_ttl", "ttl is %s; allowed are 1m to 168h", ttl)
	}
	t := JoinToken{Fingerprint: fingerprint(s.identity().authority), Secret: once.New()}
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		return once.Put(tx, once.ClusterJoin, t.Secret, "", nil, ttl)
	})
	if err != nil {
		return "", err
	}
	t.Addresses = append(t.Addresses, s.identity().Address)
	for _, v := range s.Members() {
		if !v.Self && v.State == Active && v.Network == Up && len(t.Addresses) < maxAddresses {
			t.Addresses = append(t.Addresses, v.Address)
		}
	}
	return t.String(), nil
}

func (s *Service) identity() *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Fingerprint names the cluster's authority, as tokens to join do.
func (s *Service) Fingerprint() string { return fingerprint(s.identity().authority) }

// CertificateUntil is when this node's certificate ends, unless it is renewed.
func (s *Service) CertificateUntil() time.Time { return s.identity().pair.Leaf.NotAfter }

// ID is this node's id.
func (s *Service) ID() string { return s.identity().ID }

// Address is HOST:PORT of this node's row control.
func (s *Service) Address() string { return s.identity().Address }

// Run keeps the node in the cluster until ctx ends. The database may be away for
// any time meanwhile.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	every := func(d time.Duration, what string, do func(context.Context) error) {
		wg.Go(func() { repeat(ctx, s.Logger, d, what, do) })
	}
	every(beatEvery, "the heartbeat", s.beat)
	every(beatEvery, "looking for missed invalidations", s.catchUp())
	every(renewEvery, "the leader's lease", s.renewLease)
	every(beatEvery, "asking the other nodes", s.ask)
	every(beatEvery, "renewing this node's certificate", s.renewWhenDue)
	wg.Wait()
	s.stopPeers()
	// A leader that goes lets go, so that nobody waits for it.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return s.resign(last)
}

// repeat does something now and again, until ctx ends. The first of several failures in
// a row is logged.
func repeat(ctx context.Context, logger *slog.Logger, every time.Duration, what string, do func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		step, cancel := context.WithTimeout(ctx, max(every, 5*time.Second))
		err := do(step)
		cancel()
		if err != nil && ctx.Err() == nil && !failing {
			logger.WarnContext(ctx, what+" failed", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Listens tells the other nodes, with each heartbeat, where this one has another row
// between nodes. It has to be called before Run.
func (s *Service) Listens(row string, port int) { s.ports[row] = port }

// beat writes the heartbeat and reads everybody's.
func (s *Service) beat(ctx context.Context) error {
	me := s.identity()
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindMember, me.ID, func(m *Member) error {
			m.Beat++
			m.SeenAt, m.Version, m.Settings, m.Ports = s.Now().UTC(), s.Version, s.Deps.Settings, s.ports
			return nil
		})
		return err
	})
	if problem.Is(err, problem.NotFound) {
		s.Stop(problem.New(problem.Forbidden, "removed", "this node (%s, %s) was removed from the cluster; delete the folder %s in its data to join again", me.Name, me.ID, identityDir))
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	return s.followSettings(ctx)
}

// take takes over what the database says of the members.
func (s *Service) take(all []*Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.members = s.members[:0]
	restart := false
	for _, m := range all {
		s.members = append(s.members, *m)
		if h, ok := s.beats[m.ID]; !ok || h.beat != m.Beat {
			s.beats[m.ID] = heard{m.Beat, now}
		}
		if m.ID != s.id.ID {
			continue
		}
		s.state = m.State
		if s.asked < 0 {
			s.asked = m.Restarts
		}
		restart = m.Restarts > s.asked
	}
	slices.SortFunc(s.members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	s.syncPeers()
	if restart {
		s.Stop(ErrRestart)
	}
}

// ErrRestart is why a node stops that somebody wants to start again.
var ErrRestart = errors.New("this node was asked to start again")

// Members are the nodes of the cluster as this one sees them, by name.
func (s *Service) Members() []View {
	_, _, members := s.State()
	return members
}

// State is what this node knows at one moment: the id of the node that leads, "" where
// nobody does, the term of the lease, and the nodes of the cluster by name.
func (s *Service) State() (leader string, term int64, members []View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	members = make([]View, 0, len(s.members))
	for _, m := range s.members {
		v := View{Member: m, Leader: s.lease.holder == m.ID, Self: m.ID == s.id.ID, Database: sightOf(now.Sub(s.beats[m.ID].at))}
		v.Network = Up
		if !v.Self {
			var since time.Time
			if p := s.peers[m.ID]; p != nil {
				since = p.since
			}
			v.Network = networkSight(now, since, s.answers[m.ID].at)
		}
		if skew, ok := s.skews[m.ID]; ok {
			v.Skew = &skew
		}
		members = append(members, v)
	}
	return s.lease.holder, s.lease.term, members
}

// Draining reports whether this node is to take no new work.
func (s *Service) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == Draining
}

// find finds a member by its name or id.
func (s *Service) find(tx tenant.Tx, name string) (*Member, error) {
	all, _, err := tenant.Select[Member](tx, tenant.KindMember, tenant.Query{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range all {
		if m.Name == name || m.ID == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return nil, problem.New(problem.NotFound, "no_such_node", "the cluster has no node %q; it has: %s", name, strings.Join(names, ", "))
}

// SetState drains a node, or makes it active again.
func (s *Service) SetState(ctx context.Context, name string, state State) error {
	if state != Active && state != Draining {
		return problem.New(problem.Invalid, "invalid_state", "state %q; allowed are active and draining", state)
	}
	return s.change(ctx, name, func(m *Member) error { m.State = state; return nil })
}

// Remove takes a node out of the cluster for good: its certificate is no longer
// believed, and it stops when it sees it.
func (s *Service) Remove(ctx context.Context, name string) error {
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		m, err := s.find(tx, name)
		if err != nil {
			return err
		}
		_, err = tx.Delete(tenant.KindMember, m.ID)
		return err
	})
	if err != nil {
		return err
	}
	return s.look(ctx)
}

// Restart asks a node to start again.
func (s *Service) Restart(ctx context.Context, name string) error {
	return s.change(ctx, name, func(m *Member) error { m.Restarts++; return nil })
}

// Revoke makes every certificate of a node unbelieved at once. The node itself, which
// has the database, gets a new one with its next look at it.
func (s *Service) Revoke(ctx context.Context, name string) error {
	return s.change(ctx, name, func(m *Member) error { m.Certificates = []string{}; return nil })
}

func (s *Service) change(ctx context.Context, name string, fn func(*Member) error) error {
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		m, err := s.find(tx, name)
		if err != nil {
			return err
		}
		_, err = tenant.Change(tx, tenant.KindMember, m.ID, fn)
		return err
	})
	if err != nil {
		return err
	}
	return s.look(ctx)
}

// look reads the members.
func (s *Service) look(ctx context.Context) error {
	all, _, err := tenant.Find[Member](ctx, s.Docs, tenant.Authority, tenant.KindMember, tenant.Query{})
	if err != nil {
		return err
	}
	s.take(all)
	return nil
}
