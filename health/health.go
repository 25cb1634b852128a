package health

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The names of the status paths.
const (
	NameCPU        = "cpu"
	NameMemory     = "memory"
	NameDisk       = "disk"
	NameServices   = "services"
	NameNetwork    = "network"
	NameInternet   = "internet"
	NameEmail      = "email"
	NameDB         = "db"
	NameReplicaSet = "replicaset"
	NameSearch     = "search" // where a search engine is configured
)

// Config bounds the health service.
type Config struct {
	// Key is the password of the user api_keys_health. While it is empty, nobody is
	// let in.
	Key string
	// Timeout bounds one run of one check; 0 means 5 seconds.
	Timeout time.Duration
	// Rate is how many requests the service answers in a second; 0 means 10.
	Rate int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Draining says that load balancers shall leave the node out, though nothing is
	// wrong with it; nil means never. It makes the node not ready at once.
	Draining func() bool
}

// cacheFor is how long a result is given out again. It also is the shortest time
// between two runs of a check.
const cacheFor = time.Second

// Result is what a check found.
type Result struct {
	OK        bool
	Value     float64 // what was measured
	Threshold float64 // where it starts, or stops, being fine
	Unit      string  // of both; empty when nothing is measured
	Message   string  // one sentence for the operator, without secrets
}

// Check is one question to the node. Run answers it within ctx; it is not run
// again before it has returned.
type Check struct {
	Name string
	Run  func(ctx context.Context) Result
	// Core marks what a node cannot serve logins without. A failure makes the node
	// not ready, so that a load balancer leaves it out.
	Core bool
	// Tolerates, where it is not nil, reports whether a node is ready all the same while
	// a failure of this core check has lasted for a time.
	Tolerates func(ctx context.Context, failing time.Duration) bool
}

// Report is the outcome of a check, with its history.
type Report struct {
	Name      string    `json:"name"`
	OK        bool      `json:"ok"`
	Since     time.Time `json:"since"` // when OK last changed, as far as anybody asked
	Checked   time.Time `json:"checked"`
	Value     *float64  `json:"value,omitempty"`
	Threshold *float64  `json:"threshold,omitempty"`
	Unit      string    `json:"unit,omitempty"`
	Message   string    `json:"message"`
	Duration  int64     `json:"duration_ms"`
}

// Service runs checks when it is asked. It is safe for concurrent use.
type Service struct {
	cfg    Config
	now    func() time.Time
	checks []*runner
	key    atomic.Pointer[string]
	limit  bucket
}

// New makes the service. It runs nothing. The error names a check that stands
// twice, or has no name or no question.
func New(cfg Config, checks ...Check) (*Service, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Rate <= 0 {
		cfg.Rate = 10
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, now: cfg.Now, limit: bucket{rate: float64(cfg.Rate)}}
	s.SetKey(cfg.Key)
	for _, c := range checks {
		if c.Name == "" || c.Run == nil {
			return nil, fmt.Errorf("health check %q has no name or nothing to run", c.Name)
		}
		if s.find(c.Name) != nil {
			return nil, fmt.Errorf("health check %q stands twice", c.Name)
		}
		s.checks = append(s.checks, &runner{check: c, timeout: cfg.Timeout, now: cfg.Now})
	}
	return s, nil
}

// SetKey replaces the key at once: the one before it no longer works.
func (s *Service) SetKey(key string) { s.key.Store(&key) }

func (s *Service) find(name string) *runner {
	i := slices.IndexFunc(s.checks, func(r *runner) bool { return r.check.Name == name })
	if i < 0 {
		return nil
	}
	return s.checks[i]
}

// Check answers for one check, from a run of at most a second ago. It reports
// false when there is no such check.
func (s *Service) Check(ctx context.Context, name string) (Report, bool) {
	r := s.find(name)
	if r == nil {
		return Report{}, false
	}
	return r.report(ctx), true
}

// All answers for all checks, in their order. They run at the same time.
func (s *Service) All(ctx context.Context) []Report {
	return reports(ctx, s.checks, (*runner).report)
}

func reports(ctx context.Context, checks []*runner, ask func(*runner, context.Context) Report) []Report {
	out := make([]Report, len(checks))
	var wg sync.WaitGroup
	for i, r := range checks {
		wg.Go(func() { out[i] = ask(r, ctx) })
	}
	wg.Wait()
	return out
}

// A balancer takes a late answer for a node that is gone. So who asks whether the
// node is ready waits for a check that runs for answerWithin, and then gets what it
// found last, if that is no older than stillCounts.
const (
	answerWithin = 250 * time.Millisecond
	stillCounts  = 3 * time.Second
)

// Ready answers whether the node can serve, and with which core checks it
// cannot. A slow check counts for three seconds as it was found last, and a failure
// not as long as the check tolerates it.
func (s *Service) Ready(ctx context.Context) (bad []Report) {
	var core []*runner
	for _, r := range s.checks {
		if r.check.Core {
			core = append(core, r)
		}
	}
	for i, r := range reports(ctx, core, (*runner).soon) {
		tolerates := core[i].check.Tolerates
		if !r.OK && (tolerates == nil || !tolerates(ctx, s.now().Sub(r.Since))) {
			bad = append(bad, r)
		}
	}
	return bad
}

// runner runs one check, one run at a time, and keeps what it found.
type runner struct {
	check   Check
	timeout time.Duration
	now     func() time.Time

	mu      sync.Mutex
	last    Report
	known   bool
	waiting chan struct{} // closed when the present run has been reported
	stuck   bool          // a run is over its time and has not returned
}

// report gives out the last report while it is fresh, joins a run that is under
// way, or starts one. A caller who goes away does not end the run: others wait
// for it.
func (r *runner) report(ctx context.Context) Report {
	r.mu.Lock()
	// A report of the future is that of a clock that was set back.
	if age := r.now().Sub(r.last.Checked); r.known && age >= 0 && age < cacheFor {
		defer r.mu.Unlock()
		return r.last
	}
	if r.stuck {
		defer r.mu.Unlock()
		r.keep(Result{Message: "the check has not come back from an earlier run"}, r.now())
		return r.last
	}
	done := r.waiting
	if done == nil {
		done = make(chan struct{})
		r.waiting = done
		go r.run(context.WithoutCancel(ctx), done)
	}
	r.mu.Unlock()

	select {
	case <-done:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known {
		return Report{Name: r.check.Name, Since: r.now(), Checked: r.now(), Message: "the check has not answered yet"}
	}
	return r.last
}

// soon is report for who cannot wait.
func (r *runner) soon(ctx context.Context) Report {
	r.mu.Lock()
	age := r.now().Sub(r.last.Checked)
	recent := r.known && age >= 0 && age < stillCounts
	r.mu.Unlock()
	if recent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerWithin)
		defer cancel()
	}
	return r.report(ctx)
}

func (r *runner) run(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	start := r.now()
	results := make(chan Result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				results <- Result{Message: "the check broke off"}
			}
		}()
		results <- r.check.Run(ctx)
	}()
	finish := func(res Result, stuck bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.keep(res, start)
		r.stuck = stuck
		r.waiting = nil
		close(done)
	}
	select {
	case res := <-results:
		finish(res, false)
	case <-ctx.Done():
		finish(Result{Message: fmt.Sprintf("no answer within %v", r.timeout)}, true)
		<-results // the late result is of no use, but the next run may start
		r.mu.Lock()
		r.stuck = false
		r.mu.Unlock()
	}
}

// keep makes the report of a result; r.mu is held.
func (r *runner) keep(res Result, start time.Time) {
	now := r.now()
	rep := Report{
		Name: r.check.Name, OK: res.OK, Since: now.UTC(), Checked: now.UTC(), Unit: res.Unit,
		Message: res.Message, Duration: now.Sub(start).Milliseconds(),
	}
	if res.Unit != "" {
		rep.Value, rep.Threshold = &res.Value, &res.Threshold
	}
	if r.known && r.last.OK == rep.OK {
		rep.Since = r.last.Since
	}
	r.last, r.known = rep, true
}

// bucket holds as many tokens as flow in during a second.
type bucket struct {
	rate   float64
	mu     sync.Mutex
	used   float64
	at     time.Time
	filled bool
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.filled {
		b.used = max(0, b.used-b.rate*now.Sub(b.at).Seconds())
	}
	b.at, b.filled = now, true
	if b.used+1 > b.rate {
		return false
	}
	b.used++
	return true
}
