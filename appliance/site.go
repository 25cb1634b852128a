package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/health"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/postgres"
)

const (
	siteLookEvery = time.Second
	// siteFresh is how long what was read of the site's state counts. It is shorter
	// than what a site that hands over waits for (postgres.InFlight).
	siteFresh = 5 * time.Second
	peerEvery = 5 * time.Second
	siteMarks = 64 // positions that are waited for at a time
)

// siteWatch knows whether this node's site may work. What it does not know for
// certain it refuses.
type siteWatch struct {
	cfg      SiteConfig
	database postgres.Config
	dsn      string
	logger   *slog.Logger
	end      context.CancelFunc
	work     sync.WaitGroup

	mu     sync.Mutex
	state  *postgres.SiteState
	read   time.Time // before the state was read
	acked  time.Time // before the newest mark was written that the other site has
	marks  []siteMark
	lease  time.Duration       // in force, 0 when none is
	none   time.Time           // before it was read that there is none, which came before the one in force
	longer siteMark            // a longer one, by its text, that the other site may not know yet
	rival  *postgres.SiteState // what the other site's database said last; nil before
	forget func()              // what was read of the database in an earlier epoch; nil at first
	said   string
	told   string // code of the refusal that was logged last
}

type siteMark struct {
	at       time.Time
	position string
}

func newSiteWatch(n *Node) *siteWatch {
	cfg := n.bounds()
	cfg.FailoverTimeout = siteLookEvery
	return &siteWatch{cfg: n.cfg.Site, database: cfg, dsn: n.cfg.dsn(), logger: n.logger}
}

// await waits until the site's database takes writes and belongs to this site. The
// nodes of the other site wait here, and listen on nothing.
func (w *siteWatch) await(ctx context.Context) error {
	var site *postgres.Site
	defer func() {
		if site != nil {
			_ = site.Close() // it only read
		}
	}()
	for {
		var err error
		if site == nil {
			site, err = postgres.OpenSite(ctx, w.dsn, false, w.database)
		}
		if err == nil {
			var st postgres.SiteStatus
			step, cancel := context.WithTimeout(ctx, 10*time.Second)
			st, err = site.Status(step)
			cancel()
			switch {
			case err != nil:
			case st.Standby:
				err = fmt.Errorf("its database is a standby")
			case st.State != nil && st.State.Active != w.cfg.Name:
				err = fmt.Errorf("its database belongs to site %q", st.State.Active)
			default:
				return nil
			}
		}
		if err.Error() != w.said {
			w.said = err.Error()
			w.logger.InfoContext(ctx, "this site waits until it is promoted", "site", w.cfg.Name, "because", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(siteLookEvery):
		}
	}
}

// start looks after the site's state from now on, and waits until the site may work.
func (w *siteWatch) start(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	w.end = end
	ended := make(chan error, 1)
	w.work.Go(func() { ended <- w.run(life) })
	for w.Refusal() != nil {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// stop ends what start began. It may be called twice.
func (w *siteWatch) stop() {
	if w.end != nil {
		w.end()
		w.work.Wait()
	}
}

// run looks after the site's state until ctx ends.
func (w *siteWatch) run(ctx context.Context) error {
	site, err := postgres.OpenSite(ctx, w.dsn, true, w.database)
	if err != nil {
		return err
	}
	defer func() { _ = site.Close() }() // it has nothing to lose
	var peer *postgres.Site
	if p := w.cfg.Peer.Reveal(); p != "" {
		if peer, err = postgres.OpenSite(ctx, p, false, w.database); err != nil {
			return err
		}
		defer func() { _ = peer.Close() }()
	}
	var looked time.Time
	for {
		step, cancel := context.WithTimeout(ctx, siteFresh)
		err := w.look(step, site)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.logger.DebugContext(ctx, "the site's state could not be read", "error", err)
		}
		if peer != nil && time.Since(looked) >= peerEvery {
			looked = time.Now()
			step, cancel := context.WithTimeout(ctx, w.database.ConnectTimeout)
			w.lookAtPeer(step, peer)
			cancel()
		}
		w.tell(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(siteLookEvery):
		}
	}
}

// look reads the state, writes a mark and asks which marks the other site has.
func (w *siteWatch) look(ctx context.Context, site *postgres.Site) error {
	began := time.Now()
	state, err := site.State(ctx)
	if err != nil {
		return err
	}
	if state == nil {
		if err := site.Claim(ctx, w.cfg.Name, 0); err != nil {
			return err
		}
		if state, err = site.State(ctx); err != nil || state == nil {
			return err
		}
	}
	w.take(state, began, time.Now())
	if state.Active != w.cfg.Name || w.cfg.Lease == 0 && state.Lease == 0 {
		return nil
	}
	if err := w.mark(ctx, site); err != nil {
		return err
	}
	w.mu.Lock()
	heard := time.Since(w.acked) < siteFresh
	w.mu.Unlock()
	if state.Lease != w.cfg.Lease && heard {
		// Only while the other site hears of it: its promotion counts on the lease.
		return site.Claim(ctx, w.cfg.Name, w.cfg.Lease)
	}
	return nil
}

// onEpoch sets what is called before this node works in another epoch. Its database
// may have become another one meanwhile, that lacks what this node has read.
func (w *siteWatch) onEpoch(forget func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget = forget
}

// take takes a state over that was read between two moments. A lease that became
// longer, or ended, is in force once the other site has written it down: until then
// its promotion would wait for the one before. The operator's word, which makes a new
// epoch, counts at once.
func (w *siteWatch) take(state *postgres.SiteState, began, ended time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.state != nil && w.state.Epoch == state.Epoch
	if w.state != nil && !known && w.forget != nil {
		w.forget()
	}
	if known && w.lease == 0 && w.state.Lease == 0 {
		// Another node hears the other site, and may set a lease at any time from then on.
		// Until then the other site could not count on one; its promotion waits from later.
		w.none = w.read
	} else if !known {
		w.none = time.Time{}
	}
	w.state, w.read = state, began
	if grows := w.lease != 0 && (state.Lease == 0 || state.Lease > w.lease); !known || !grows {
		w.lease, w.longer = state.Lease, siteMark{}
		return
	}
	if text := state.Lease.String(); w.longer.position != text {
		w.longer = siteMark{ended, text}
	}
	if w.acked.After(w.longer.at) {
		w.lease, w.longer = state.Lease, siteMark{}
	}
}

func (w *siteWatch) mark(ctx context.Context, site *postgres.Site) error {
	w.mu.Lock()
	marks := w.marks
	w.mu.Unlock()
	positions := make([]string, len(marks))
	for i, m := range marks {
		positions[i] = m.position
	}
	reached, err := site.Reached(ctx, w.cfg.Standbys, positions)
	if err != nil {
		return err
	}
	newest := -1
	for i, ok := range reached {
		if ok {
			newest = i
		}
	}
	w.mu.Lock()
	if newest >= 0 {
		w.acked = w.marks[newest].at
		w.marks = w.marks[newest+1:]
	}
	w.mu.Unlock()
	began := time.Now()
	position, err := site.Mark(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.marks = append(w.marks, siteMark{began, position}); len(w.marks) > siteMarks {
		w.marks = w.marks[len(w.marks)-siteMarks:]
	}
	return nil
}

// lookAtPeer learns of a promotion of the other site. That it cannot be asked says
// nothing.
func (w *siteWatch) lookAtPeer(ctx context.Context, peer *postgres.Site) {
	theirs, err := peer.State(ctx)
	if err != nil || theirs == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rival = theirs
}

// replaced is why the other site's word ends this one's work, or nil. A promotion of
// this site since then outweighs it, whether or not the other one can be asked again.
// The caller holds mu.
func (w *siteWatch) replaced() error {
	theirs := w.rival
	switch {
	case theirs == nil || w.state == nil:
	case theirs.Epoch > w.state.Epoch && theirs.Active == "":
		return problem.New(problem.Unavailable, "site_replaced", "the other site was promoted in epoch %d and has handed over, and this database is of epoch %d: make it a standby of the other site's, and promote it", theirs.Epoch, w.state.Epoch)
	case theirs.Epoch > w.state.Epoch && theirs.Active != w.cfg.Name:
		return problem.New(problem.Unavailable, "site_replaced", "site %q was promoted in epoch %d, and this database is of epoch %d: make it a standby of the other site's", theirs.Active, theirs.Epoch, w.state.Epoch)
	case theirs.Epoch == w.state.Epoch && theirs.Active != w.state.Active && (theirs.Active == "" || w.state.Active == ""):
		return handedOver(w.state.Epoch)
	case theirs.Epoch == w.state.Epoch && theirs.Active != w.state.Active:
		return problem.New(problem.Unavailable, "two_active_sites", "sites %q and %q were both promoted, in epoch %d: decide which one stays, and make the other's database its standby", theirs.Active, w.state.Active, theirs.Epoch)
	}
	return nil
}

// handedOver says that the site that worked was told to stop, and none works yet.
func handedOver(epoch int64) error {
	return problem.New(problem.Unavailable, "site_passive", "the active site has handed over in epoch %d: no site works until `portcullis site promote` is said at one of them", epoch)
}

// Refusal is why this site must not work now, or nil.
func (w *siteWatch) Refusal() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.replaced(); err != nil {
		return err
	}
	switch {
	case w.state == nil, time.Since(w.read) > siteFresh:
		return problem.New(problem.Unavailable, "site_unknown", "whether site %q is the active one could not be read for %s", w.cfg.Name, siteFresh)
	case w.state.Active == "":
		return handedOver(w.state.Epoch)
	case w.state.Active != w.cfg.Name:
		return problem.New(problem.Unavailable, "site_passive", "site %q is not the active one (%q is)", w.cfg.Name, w.state.Active)
	case w.lease > 0 && time.Since(w.acked) > w.lease && time.Since(w.none) > w.lease:
		return problem.New(problem.Unavailable, "site_lease_ended", "site %q has had no word of the other site's standbys for %s: it may have been promoted. If it is down for certain, `portcullis site promote --yes-the-other-site-is-down` here goes on without it", w.cfg.Name, w.lease)
	}
	return nil
}

// tell logs when the answer changes.
func (w *siteWatch) tell(ctx context.Context) {
	err := w.Refusal()
	code := ""
	if err != nil {
		code = problem.From(err).Code
	}
	w.mu.Lock()
	known := w.state != nil
	w.mu.Unlock()
	if code == w.told || !known {
		return
	}
	w.told = code
	if err != nil {
		w.logger.ErrorContext(ctx, "this site works no more", "error", err)
	} else {
		w.logger.InfoContext(ctx, "this site works", "site", w.cfg.Name)
	}
}

// unfit is what a node of this site answers while the site must not work, as a token
// is as good as a write; nil while it may.
func (w *siteWatch) unfit() *problem.Error {
	err := w.Refusal()
	if err == nil {
		return nil
	}
	e := problem.Wrap(problem.Unavailable, "site_passive", err, "This server's site does not answer requests at this moment")
	e.RetryAfter = siteFresh
	return e
}

// check is the health check of a node of a site. It is core: a load balancer leaves
// out who must not work. What only a database says that does not answer is judged by
// the check of the database, which bears with a failover.
func (w *siteWatch) check() health.Check {
	return health.Check{Name: "site", Core: true, Run: func(context.Context) health.Result {
		if err := w.Refusal(); err != nil && problem.From(err).Code != "site_unknown" {
			return health.Result{Message: problem.From(err).Message}
		}
		return health.Result{OK: true, Message: fmt.Sprintf("site %s works", w.cfg.Name)}
	}}
}

var errOneSite = errors.New("this appliance has one site: site.name is not set")

// OpenSite opens the database of the configuration's site for the operator.
func OpenSite(ctx context.Context, cfg Config) (*postgres.Site, error) {
	if cfg.Site.Name == "" {
		return nil, problem.Wrap(problem.Invalid, "no_site", errOneSite, "set site.name in the configuration; docs/two-sites.md says how")
	}
	return postgres.OpenSite(ctx, cfg.dsn(), false, postgres.Config{ConnectTimeout: cfg.Database.ConnectTimeout, StatementTimeout: 2 * time.Minute})
}
