package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// Request asks for tokens of one bucket.
type Request struct {
	Bucket string
	Key    string // 1 to MaxKey bytes
	Count  int64  // tokens; 0 means 1
	// Limit replaces that of the rules, where it is not nil.
	Limit *Limit
}

// Decision answers a Request.
type Decision struct {
	Bucket     string        `json:"bucket"`
	Key        string        `json:"key"`
	Conformant bool          `json:"conformant"`
	Unlimited  bool          `json:"unlimited,omitempty"`
	Limit      int64         `json:"limit"`
	Remaining  int64         `json:"remaining"`
	Reset      time.Time     `json:"reset"` // when the bucket is full; zero where it never will be by itself
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	// Fallback says that the node that counts did not answer, and the bucket's way to
	// fail has decided.
	Fallback bool `json:"fallback,omitempty"`
}

// transport carries items to another node.
type transport interface {
	call(ctx context.Context, p Peer, items []item) ([]verdict, error)
	// heard says that a node is there: it may be asked at once, even if it did not
	// answer a moment ago.
	heard(id string)
}

// Config of a Service.
type Config struct {
	// Rules are asked for at each decision, so that changes count at once.
	Rules func() *Rules
	// MaxKeys bounds the keys of one type on this node; 0 means 100,000.
	MaxKeys int
	// Cluster is nil on a single node.
	Cluster Cluster
	// Now is the wall clock, for what people read. Counting goes by a clock that no
	// change of the time moves.
	Now func() time.Time
}

// CallTimeout bounds how long the owner of a key may take to answer, on its way to
// us and back. An owner that did not answer a moment ago has doubtTime.
const CallTimeout = time.Second

// moveTimeout is the same for a node that is to give up a key, or to keep a copy: who
// asks for that is being waited for.
const moveTimeout = 400 * time.Millisecond

// Service counts, together with those of the other nodes. It is safe for concurrent
// use.
type Service struct {
	cfg   Config
	self  string
	agree int64
	wire  transport
	mono  func() int64 // ns, only forward

	mu     sync.RWMutex
	tables map[string]*table

	past     atomic.Pointer[history]
	leases   *leases
	debts    *debts
	counted  *counted // nil on a single node
	ids      atomic.Uint64
	changing sync.Mutex
	settling map[string]chan struct{}
	byes     map[string]int64   // nodes that have given everything away, and when
	refused  map[string]int64   // nodes whose port is closed, and since when
	silence  map[string]silence // keys whose last owner is there and does not answer
	gone     chan struct{}      // says that something about either is new
	moved    chan struct{}      // says that there is a new view
	left     atomic.Bool

	counts counters
}

type counters struct {
	byBucket  sync.Map // of *Counts
	calls     atomic.Uint64
	failed    atomic.Uint64
	settled   atomic.Uint64
	cautious  atomic.Uint64
	leased    atomic.Uint64
	copyFails atomic.Uint64
}

// Counts are what became of the requests to one type since the node started.
type Counts struct{ Allowed, Limited, Fallback atomic.Uint64 }

// New makes the service of one node. Of the other nodes it learns with Run.
func New(cfg Config) (*Service, error) {
	if cfg.Rules == nil {
		return nil, errors.New("rate limiting wants rules")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxKeys == 0 {
		cfg.MaxKeys = 100_000
	}
	start := time.Now()
	s := &Service{cfg: cfg, agree: int64(agreeTime), tables: map[string]*table{}, leases: newLeases(), debts: newDebts(), settling: map[string]chan struct{}{}, byes: map[string]int64{}, refused: map[string]int64{}, silence: map[string]silence{}, gone: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		mono: func() int64 { return int64(time.Since(start)) + int64(maxFill) }}
	if cfg.Cluster != nil {
		s.self = cfg.Cluster.Self()
		s.counted = &counted{}
		s.ids.Store(rand.Uint64()) // #nosec G404 -- so that those of two nodes, or of two starts, differ
	}
	return s, nil
}

// goneTime is for how long a node that has said goodbye, or whose port is closed
// because its program has ended, is asked for nothing: longer than the control plane
// needs to notice that it is gone. One that starts again within it counts nothing so
// long.
const goneTime = 4 * time.Second

// id is a new question's.
func (s *Service) id() uint64 {
	if s.counted == nil {
		return 0
	}
	return s.ids.Add(1)
}

// look takes over who is there, and reports whether that has changed.
func (s *Service) look() bool {
	if s.cfg.Cluster == nil {
		return false
	}
	peers := s.cfg.Cluster.Peers()
	now := s.mono()
	s.changing.Lock()
	defer s.changing.Unlock()
	peers = slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool {
		bye, left := s.byes[p.ID]
		refusal, closed := s.refused[p.ID]
		return left && now-bye < int64(goneTime) || closed && now-refusal < int64(goneTime)
	})
	h := s.past.Load()
	if h == nil {
		s.past.Store(begin(s.self, peers, now, s.agree))
		return false
	}
	next := h.next(peers, now)
	s.past.Store(next)
	if next == h {
		return false
	}
	nudge(s.moved)
	return true
}

// nudge wakes who waits on a channel of room for one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// copyAll gives the node that is next in rank by now the copies of all keys that
// have them, and of those copies whose owner this node has become.
func (s *Service) copyAll(ctx context.Context) {
	h, rules := s.past.Load(), s.cfg.Rules()
	if h == nil {
		return
	}
	lots, to := map[string][]item{}, map[string]Peer{}
	for bucket, t := range s.all() {
		k := rules.types[bucket]
		if k == nil {
			continue
		}
		now := s.mono()
		for _, e := range t.listAll("", now) {
			if l := k.limitOf(e.key, s.cfg.Now); l.Unlimited || !s.durable(l) {
				continue
			}
			if e.held == copied {
				if owner, _ := h.now().ranked(hash(bucket, e.key)); owner.ID != s.self {
					continue
				}
			}
			if p := s.copyTo(h, bucket, e.key); p.ID != "" {
				to[p.ID] = p
				lots[p.ID] = append(lots[p.ID], item{op: opCopy, bucket: bucket, key: e.key, cell: e.cell.relative(now)})
			}
		}
	}
	for id, all := range lots {
		for lot := range slices.Chunk(all, maxLot) {
			if _, err := s.call(ctx, to[id], lot, CallTimeout); err != nil {
				s.counts.copyFails.Add(1)
				break
			}
		}
	}
}

// copyTo is the node that keeps the copy of a key that this one counts.
func (s *Service) copyTo(h *history, bucket, key string) Peer {
	owner, second := h.now().ranked(hash(bucket, key))
	if owner.ID != s.self {
		return owner
	}
	return second
}

// Run keeps the memory small and the view of the cluster fresh until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.look()
	views, sweep := time.NewTicker(200*time.Millisecond), time.NewTicker(10*time.Second)
	defer views.Stop()
	defer sweep.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.cfg.Cluster == nil {
		views.Stop() // there is nobody to see
	} else {
		wg.Go(func() { s.payOften(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-views.C:
			s.look()
		case <-s.gone:
			s.look()
		case <-s.moved:
			s.copyAll(ctx)
		case <-sweep.C:
			s.sweep()
		}
	}
}

func (s *Service) sweep() {
	now := s.mono()
	for _, t := range s.all() {
		t.sweep(now)
	}
	s.leases.sweep(now)
	s.changing.Lock()
	for name, q := range s.silence {
		if now-q.asked > int64(time.Minute) {
			delete(s.silence, name)
		}
	}
	s.changing.Unlock()
	rules := s.cfg.Rules()
	s.debts.void(now, func(bucket, key string, limit *Limit) int64 {
		k := rules.types[bucket]
		if k == nil {
			return 0
		}
		if limit != nil {
			return fillOf(*limit)
		}
		return fillOf(k.limitOf(key, s.cfg.Now))
	})
}

// payOften pays while there are debts, until ctx ends.
func (s *Service) payOften(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.debts.first: // a node without debts wakes no processor
		}
		for s.debts.some.Load() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(payEvery):
			}
			s.pay(ctx)
		}
	}
}

const payEvery = 100 * time.Millisecond

// pay tells the owners what this node has given out alone, as far as they answer.
func (s *Service) pay(ctx context.Context) {
	var wg sync.WaitGroup
	for p, all := range s.owing() {
		wg.Go(func() { s.payTo(ctx, p, all) })
	}
	wg.Wait()
}

// owing is what each owner is to be told.
func (s *Service) owing() map[Peer][]item {
	h := s.past.Load()
	if h == nil {
		return nil
	}
	out := map[Peer][]item{}
	for _, i := range s.debts.all() {
		owner, second := h.now().ranked(hash(i.bucket, i.key))
		if owner.ID == s.self && s.left.Load() {
			owner = second
		}
		if owner.ID != "" {
			out[owner] = append(out[owner], i)
		}
	}
	return out
}

func (s *Service) payTo(ctx context.Context, p Peer, all []item) {
	for lot := range slices.Chunk(all, maxLot) {
		if p.ID == s.self {
			s.paid(lot, s.handle(ctx, p.ID, lot))
			continue
		}
		answers, err := s.call(ctx, p, lot, CallTimeout)
		if err != nil {
			return
		}
		s.paid(lot, answers)
	}
}

// paid forgets the debts of items that were answered.
func (s *Service) paid(items []item, answers []verdict) {
	for n := range items {
		if r := answers[n].result; r == yes || r == no {
			s.debts.paid(&items[n])
		}
	}
}

func (s *Service) all() map[string]*table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]*table, len(s.tables))
	for n, t := range s.tables {
		out[n] = t
	}
	return out
}

func (s *Service) table(bucket string) *table {
	s.mu.RLock()
	t := s.tables[bucket]
	s.mu.RUnlock()
	if t != nil {
		return t
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t = s.tables[bucket]; t == nil {
		t = newTable(s.cfg.MaxKeys)
		s.tables[bucket] = t
	}
	return t
}

func (c *counters) of(bucket string) *Counts {
	if n, ok := c.byBucket.Load(bucket); ok {
		return n.(*Counts)
	}
	n, _ := c.byBucket.LoadOrStore(bucket, &Counts{})
	return n.(*Counts)
}

// check finds the type and the limit of a request.
func (s *Service) check(r *Request) (*kind, Limit, error) {
	k := s.cfg.Rules().types[r.Bucket]
	if k == nil {
		return nil, Limit{}, problem.New(problem.NotFound, "no_such_bucket", "there is no bucket %q; `portcullis ratelimit ls` lists them", r.Bucket)
	}
	if err := CheckKey(r.Key); err != nil {
		return nil, Limit{}, problem.New(problem.Invalid, "invalid_key", "%s", err)
	}
	if r.Count < 0 || r.Count > MaxSize {
		return nil, Limit{}, problem.New(problem.Invalid, "invalid_count", "count is %d; allowed are 1 to %d", r.Count, MaxSize)
	}
	if r.Limit != nil {
		if err := r.Limit.check(); err != nil {
			return nil, Limit{}, problem.New(problem.Invalid, "invalid_limit", "%s", err)
		}
		return k, *r.Limit, nil
	}
	return k, k.limitOf(r.Key, s.cfg.Now), nil
}

// Take takes tokens now, or says that they are not there. A request for more tokens
// than the bucket holds never conforms. Errors are those of the request itself:
// problem.NotFound for the type, problem.Invalid.
func (s *Service) Take(ctx context.Context, r Request) (Decision, error) {
	return s.ask(ctx, r, item{op: opTake, n: max(1, r.Count)})
}

// Wait takes tokens as soon as they are there, first come, first served, and returns
// then. Where they will not be there within most, it says so at once and takes
// nothing. With ctx's end it gives back what it had reserved.
func (s *Service) Wait(ctx context.Context, r Request, most time.Duration) (Decision, error) {
	if most < 0 || most > time.Hour {
		return Decision{}, problem.New(problem.Invalid, "invalid_wait", "the longest wait is %s; allowed are 0 to 1h", most)
	}
	until := s.mono() + int64(most)
	for {
		d, err := s.ask(ctx, r, item{op: opWait, n: max(1, r.Count), most: time.Duration(max(0, until-s.mono()))})
		if err != nil {
			return d, err
		}
		pause := d.RetryAfter
		switch {
		case d.Conformant && pause <= 0:
			return d, nil
		case !d.Conformant && (pause >= 0 || s.mono() >= until || max(1, r.Count) > d.Limit):
			return d, nil
		case !d.Conformant:
			pause = 50 * time.Millisecond // only a Put can fill it: look again
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if d.Conformant {
				_, putErr := s.Put(context.WithoutCancel(ctx), r)
				return Decision{}, errors.Join(ctx.Err(), putErr)
			}
			return Decision{}, ctx.Err()
		}
		if d.Conformant {
			d.RetryAfter = 0
			return d, nil
		}
	}
}

// Put gives Count tokens back; 0 fills the bucket.
func (s *Service) Put(ctx context.Context, r Request) (Decision, error) {
	return s.ask(ctx, r, item{op: opPut, n: r.Count})
}

func (s *Service) ask(ctx context.Context, r Request, i item) (Decision, error) {
	k, l, err := s.check(&r)
	if err != nil {
		return Decision{}, err
	}
	counts := s.counts.of(k.Name)
	d := Decision{Bucket: r.Bucket, Key: r.Key}
	if l.Unlimited {
		counts.Allowed.Add(1)
		d.Conformant, d.Unlimited = true, true
		return d, nil
	}
	i.bucket, i.key, i.limit = r.Bucket, r.Key, r.Limit
	if i.op != opStatus {
		i.id = s.id()
	}
	v, err := s.decide(ctx, k, l, i)
	if err != nil {
		if ctx.Err() != nil {
			return d, ctx.Err()
		}
		counts.Fallback.Add(1)
		d.Fallback = true
		v = s.fallback(k, l, i, !errors.Is(err, errAway))
	}
	switch {
	case i.op == opPut || i.op == opStatus:
	case v.result == yes:
		counts.Allowed.Add(1)
	default:
		counts.Limited.Add(1)
	}
	d.Conformant, d.Limit, d.Remaining, d.RetryAfter = v.result == yes, v.limit, v.remaining, v.wait
	if v.unlimited { // the rules there are newer
		d.Unlimited = true
	}
	if v.full >= 0 {
		d.Reset = s.cfg.Now().Add(v.full)
	}
	return d, nil
}

// decide asks whoever counts the key: this node or another. Where it turns out that
// nobody is there who could answer, the next in rank counts.
func (s *Service) decide(ctx context.Context, k *kind, l Limit, i item) (v verdict, err error) {
	for range 3 {
		if v, err = s.decideOnce(ctx, k, l, i); !errors.Is(err, syscall.ECONNREFUSED) {
			return v, err
		}
		s.look()
	}
	return v, err
}

func (s *Service) decideOnce(ctx context.Context, k *kind, l Limit, i item) (verdict, error) {
	h := s.past.Load()
	if h == nil && s.cfg.Cluster != nil { // before Run
		s.look()
		h = s.past.Load()
	}
	if h == nil {
		return s.serve(ctx, k, l, i)
	}
	owner, second := h.now().ranked(hash(i.bucket, i.key))
	if owner.ID == s.self {
		if !s.left.Load() {
			s.debts.carry(&i)
			v, err := s.serve(ctx, k, l, i)
			if err == nil {
				s.debts.paid(&i)
			}
			return v, err
		}
		owner = second
	}
	if owner.ID == "" {
		return verdict{}, errors.New("no node is there to count")
	}
	if v, ok := s.leases.use(&i, s.mono()); ok {
		s.counts.leased.Add(1)
		return v, nil
	}
	s.leases.want(&i, l, s.mono())
	if len(i.owed) == 0 { // else it is another's, who has given everything away
		s.debts.carry(&i)
	}
	all, err := s.call(ctx, owner, []item{i}, CallTimeout)
	if err != nil {
		return verdict{}, err
	}
	v := all[0]
	switch v.result {
	case yes, no:
		s.debts.paid(&i)
		s.leases.learn(&i, v, s.mono())
		return v, nil
	case noBucket, malformed:
		return v, fmt.Errorf("node %s does not know the bucket %s: its rules are older", owner.ID, i.bucket)
	}
	return v, errors.New("the key changes its owner")
}

func (s *Service) call(ctx context.Context, p Peer, items []item, most time.Duration) ([]verdict, error) {
	s.counts.calls.Add(1)
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	all, err := s.wire.call(ctx, p, items)
	if err == nil && len(all) != len(items) {
		err = fmt.Errorf("node %s answered %d of %d questions", p.ID, len(all), len(items))
	}
	if err != nil {
		s.counts.failed.Add(1)
	}
	if errors.Is(err, syscall.ECONNREFUSED) { // nobody is there who counts
		s.changing.Lock()
		defer s.changing.Unlock()
		s.went(s.refused, p.ID)
	}
	return all, err
}

// silentTime is for how long the last owner of a key may be silent, of which the
// control plane says that it is there, before what it has counted is guessed. Limits
// that fill in that time are guessed at once, which hurts less.
const silentTime = 4 * time.Second

// askAgain is how long it is left alone about that key after a question.
const askAgain = 250 * time.Millisecond

// silence is since when a key's last owner does not answer, and when it was last asked.
type silence struct{ since, asked int64 }

// mayGuess notes that the last owner of a key is silent, and reports whether that has
// lasted for so long that a guess is better.
func (s *Service) mayGuess(i item, l Limit, now int64) bool {
	if fillOf(l) <= int64(silentTime) {
		return true
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	name := i.bucket + " " + i.key
	q, ok := s.silence[name]
	if !ok {
		if len(s.silence) >= maxSilences {
			return true
		}
		q.since = now
	}
	if now-q.since >= int64(silentTime) {
		return true
	}
	q.asked = now
	s.silence[name] = q
	return false
}

// maxSilences bounds the keys that wait for a node that is silent.
const maxSilences = 4096

// isSilent reports whether a key's last owner was asked a moment ago, in vain. The
// caller holds s.changing.
func (s *Service) isSilent(name string, now int64) bool {
	q, ok := s.silence[name]
	return ok && now-q.asked < int64(askAgain) && now-q.since < int64(silentTime)
}

// went notes that a node is gone. The caller holds s.changing.
func (s *Service) went(how map[string]int64, id string) {
	if len(how) >= 1024 {
		clear(how)
	}
	how[id] = s.mono()
	nudge(s.gone)
}

// heard notes that a node counts, because it does what only those do: one that has
// started again is asked from now on, so that the nodes agree who counts. Its goodbye
// may be younger than a question that it has asked before.
func (s *Service) heard(id string) {
	s.changing.Lock()
	defer s.changing.Unlock()
	_, was := s.refused[id]
	delete(s.refused, id)
	if at, ok := s.byes[id]; ok && s.mono()-at > int64(2*CallTimeout) {
		was = true
		delete(s.byes, id)
	}
	if was {
		nudge(s.gone)
	}
	if s.wire != nil {
		s.wire.heard(id)
	}
}

// fallback decides without the node that counts. arrived says that the question may
// have been counted all the same.
func (s *Service) fallback(k *kind, l Limit, i item, arrived bool) verdict {
	switch {
	case k.OnFailure == Open:
		return verdict{result: yes, limit: l.Size, remaining: l.Size}
	case k.OnFailure == Closed:
		s.refusedAlone(i, arrived)
		return verdict{result: no, limit: l.Size, wait: time.Second, full: l.Fill()}
	}
	n := 1
	if h := s.past.Load(); h != nil {
		n = h.nodes()
	}
	part := l.share(n)
	last, at, heard := s.leases.last(&i)
	left := max(0, last-s.debts.of(&i)) / int64(n)
	var v verdict
	alone := i
	alone.id, alone.owed, alone.lease = 0, nil, 0
	s.table(k.Name+" alone").do(i.key, s.mono(), func(e entry, ok bool) (entry, bool) {
		if heard && (!ok || e.at < at) {
			e.cell, e.at = cell{}.fit(part, at).owe(part, at, part.Size-min(left, part.Size)), at
		}
		v = s.count(&e, part, alone)
		return e, true
	})
	if v.result == no {
		s.refusedAlone(i, arrived)
	} else if i.op == opTake || i.op == opWait {
		s.debts.add(&i, i.n, arrived, s.id(), s.mono())
	}
	return v
}

// refusedAlone sees to it that a question which had no answer in time takes nothing.
func (s *Service) refusedAlone(i item, arrived bool) {
	if arrived && (i.op == opTake || i.op == opWait) {
		s.debts.add(&i, -i.n, true, 0, s.mono())
	}
}

// serve counts on this node, once it has made sure that no other does.
func (s *Service) serve(ctx context.Context, k *kind, l Limit, i item) (verdict, error) {
	t := s.table(k.Name)
	var failed error
	tookOver := false
	wait := ctx
	for n := range 4 {
		if n > 0 && errors.Is(failed, errBusy) {
			// Two nodes take the key over at the same time: each has let go, and one of them
			// comes back first.
			select {
			case <-wait.Done():
				return verdict{}, wait.Err()
			case <-time.After(time.Duration(1+rand.IntN(10*n)) * time.Millisecond): // #nosec G404 -- a pause
			}
		}
		h := s.past.Load()
		var v verdict
		settled := false
		var now int64
		t.do(i.key, s.mono(), func(e entry, ok bool) (entry, bool) {
			now = s.mono()
			if settled = s.isSettled(h, &e, ok, i, l, now); !settled {
				return e, ok
			}
			v = s.count(&e, l, i)
			return e, h != nil || e.full(now) != 0
		})
		if settled {
			// What was taken over is copied even where it is used up: the copy that it came
			// from is this node's alone.
			if h != nil && (tookOver || len(i.owed) > 0 || v.result == yes && i.op != opStatus) && s.durable(l) {
				s.copy(ctx, h, t, l, i)
			}
			return v, nil
		}
		if n == 0 { // whoever asked does not wait for longer
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, CallTimeout)
			defer cancel()
		}
		failed = s.settle(wait, h, t, k, l, i)
		tookOver = tookOver || failed == nil
		if failed != nil && !errors.Is(failed, errBusy) {
			return verdict{}, failed
		}
	}
	if failed != nil {
		return verdict{}, failed
	}
	return verdict{}, errors.New("the key changes its owner over and over")
}

var (
	errBusy   = errors.New("two nodes take the key over at the same time")
	errSilent = errors.New("a node that may have counted the key does not answer yet")
)

// isSettled reports whether this node has the right to count a key, and notes it.
func (s *Service) isSettled(h *history, e *entry, ok bool, i item, l Limit, now int64) bool {
	if h == nil {
		return true
	}
	last := h.now()
	if ok && e.held == mine && e.view == last.n {
		return true
	}
	if ok && (e.held != mine || e.view <= h.alone && last.n > h.alone) {
		return false
	}
	key, fill := hash(i.bucket, i.key), fillOf(l)
	if len(h.suspects(key, e.view, fill, now)) > 0 || !ok && h.born >= 0 && h.born > now-fill || h.blind(e.view, fill, now) {
		return false
	}
	e.view = last.n
	return true
}

// count does what an item wants with a cell that is settled.
func (s *Service) count(e *entry, l Limit, i item) verdict {
	now := s.mono()
	v := verdict{result: yes, limit: l.Size}
	e.cell = s.counted.settle(e.cell, l, now, i.owed)
	switch again := s.counted.has(i.id); {
	case again:
		// Its answer did not arrive. Who waits does so behind all others.
		e.cell = e.fit(l, now)
		if i.op == opWait && e.step > 0 {
			v.wait = time.Duration(max(0, e.tat-now-l.Size*e.step))
		}
		i.lease = 0
	case i.op == opStatus:
		e.cell = e.fit(l, now)
	case i.op == opPut:
		if i.n == 0 {
			e.cell, e.keep = e.cell.filled(l, now, s.cfg.Now().UnixMilli()), now+fillOf(l)
		} else {
			e.cell = e.cell.put(l, now, i.n)
		}
	case i.op == opWait:
		e.cell, v.wait = e.cell.reserve(l, now, i.n, i.most)
		if v.wait < 0 {
			v.result = no
			if l.Per > 0 && i.n <= l.Size {
				_, v.wait = e.cell.take(l, now, i.n)
			}
		}
	default:
		if e.cell, v.wait = e.cell.take(l, now, i.n); v.wait != 0 {
			v.result = no
		}
	}
	if v.result == yes && i.op != opStatus {
		s.counted.add(i.id)
	}
	if v.result == yes && i.lease > 0 && l.Per > 0 {
		// What one asker has in hand, the others do not: never more than a part of it.
		if n := min(i.lease, e.remaining(l, now)/4); n > 0 {
			e.cell, _ = e.cell.take(l, now, n)
			v.lease = n
		}
	}
	v.remaining, v.full = e.remaining(l, now), e.full(now)
	return v
}

// fillOf is how far back, in ns, what was counted matters.
func fillOf(l Limit) int64 {
	if l.step() == 0 {
		return math.MaxInt64 / 4
	}
	return int64(l.Fill())
}

// durable says that a limit is so slow that it would hurt to be cautious with it for
// as long as it needs to fill: each take is copied to the next in rank instead.
func (s *Service) durable(l Limit) bool { return l.Per == 0 || l.Fill() > 10*time.Minute }

func (s *Service) copy(ctx context.Context, h *history, t *table, l Limit, i item) {
	to := s.copyTo(h, i.bucket, i.key)
	if to.ID == "" {
		return
	}
	var c relative
	t.do(i.key, s.mono(), func(e entry, ok bool) (entry, bool) {
		c = e.cell.relative(s.mono())
		return e, ok
	})
	if _, err := s.call(ctx, to, []item{{op: opCopy, bucket: i.bucket, key: i.key, cell: c}}, moveTimeout); err != nil {
		s.counts.copyFails.Add(1)
	}
}

// settle takes the right to count a key over from every node that may have it.
func (s *Service) settle(ctx context.Context, h *history, t *table, k *kind, l Limit, i item) error {
	id := i.bucket + " " + i.key
	s.changing.Lock()
	if ch, ok := s.settling[id]; ok {
		s.changing.Unlock()
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.isSilent(id, s.mono()) {
		s.changing.Unlock()
		return errSilent
	}
	ch := make(chan struct{})
	s.settling[id] = ch
	s.changing.Unlock()
	defer func() {
		s.changing.Lock()
		delete(s.settling, id)
		s.changing.Unlock()
		close(ch)
	}()

	var before entry
	var had, settled bool
	t.do(i.key, s.mono(), func(e entry, ok bool) (entry, bool) {
		before, had = e, ok
		if settled = ok && e.held == mine && e.view == h.now().n; settled { // by another request meanwhile
			return e, true
		}
		e.held = pulling
		return e, true
	})
	if settled {
		return nil
	}
	s.counts.settled.Add(1)
	after, err := s.gather(ctx, h, before, had, l, i)
	if err == nil {
		s.changing.Lock()
		delete(s.silence, id)
		s.changing.Unlock()
	}
	t.do(i.key, s.mono(), func(e entry, ok bool) (entry, bool) {
		if err != nil {
			// As it was, but for a copy that came meanwhile.
			if !had {
				e.held = copied
				return e, e.size > 0
			}
			before.cell, before.keep = e.cell, e.keep
			return before, true
		}
		if e.size > 0 { // a copy may have come meanwhile
			now := s.mono()
			after.cell = later(after.fit(l, now), e.fit(l, now))
		}
		if after.gen > 0 {
			after.keep = s.mono() + fillOf(l)
		}
		after.held, after.view, after.to = mine, h.now().n, ""
		return after, true
	})
	return err
}

// gather asks the nodes that may have counted a key, and says what is missing in its
// bucket as far as anybody knows. What nobody knows counts as taken, but for the part
// that a bucket keeps: so a change of the owner lets at most that through twice.
func (s *Service) gather(ctx context.Context, h *history, e entry, had bool, l Limit, i item) (entry, error) {
	now, fill := s.mono(), fillOf(l)
	after := e.view
	if !had || e.held == copied || e.view <= h.alone && h.now().n > h.alone {
		after = 0
	}
	asked := h.suspects(hash(i.bucket, i.key), after, fill, now)
	if had && e.held == gone {
		asked = s.alsoAsk(h, asked, e.to, now)
	}
	known := e.cell.fit(l, now)
	if !had {
		known = cell{}.fit(l, now)
	}
	cautious := int64(-1)
	heed := func(since int64) { cautious = max(cautious, since) }
	durable, copies := s.durable(l), had && e.held == copied
	if durable { // copies may be anywhere, as the ranks have changed meanwhile
		for _, p := range h.now().peers {
			if more := s.alsoAsk(h, asked, p.ID, now); len(more) > len(asked) {
				more[len(asked)].copies = true
				asked = more
			}
		}
	}
	if h.blind(after, fill, now) {
		heed(h.cut)
	}
	if (!had || copies) && !durable && h.born >= 0 && h.born > now-fill {
		heed(h.born)
	}
	silent := map[string]bool{}
	for n := 0; n < len(asked); n++ { // grows on the way
		p := asked[n]
		all, err := s.call(ctx, p.Peer, []item{{op: opPull, bucket: i.bucket, key: i.key, limit: i.limit}}, moveTimeout)
		now = s.mono()
		switch {
		case ctx.Err() != nil:
			return e, ctx.Err()
		case err == nil && all[0].result == busy:
			return e, errBusy
		case err == nil && (all[0].result == yes || all[0].result == none):
			if all[0].result == yes {
				known = later(known.fit(l, now), all[0].cell.cell(now).fit(l, now))
			}
			if to := all[0].to; to != "" && to != s.self && n < 4 {
				asked = s.alsoAsk(h, asked, to, now)
				if at := slices.IndexFunc(asked, func(a suspect) bool { return a.ID == to && a.copies }); at >= 0 {
					asked[at].copies = false // it counts
					if silent[to] {
						heed(now)
					}
				}
			}
		case s.saidBye(p.ID, p.until):
		case p.copies:
			silent[p.ID] = true
			// It may have a copy, and has not counted: who has is asked too.
		case durable && p.second:
			// This node has the copies of what that one has counted.
		case h.present(p.ID) && !s.mayGuess(i, l, now):
			return e, errSilent
		case p.until < now:
			heed(p.until)
		default:
			heed(now)
		}
	}
	if cautious >= 0 {
		s.counts.cautious.Add(1)
		guess := l.over(cautious).fit(l, now)
		guess.gen = known.gen
		known = later(known.fit(l, now), guess)
	}
	e.cell = known
	return e, nil
}

func (s *Service) alsoAsk(h *history, asked []suspect, id string, now int64) []suspect {
	if id == "" || id == s.self || slices.ContainsFunc(asked, func(a suspect) bool { return a.ID == id }) {
		return asked
	}
	p, ok := h.peer(id)
	if !ok {
		p = Peer{ID: id}
	}
	return append(asked, suspect{Peer: p, until: now})
}

// saidBye reports whether a node has given everything away around the time that it
// left.
func (s *Service) saidBye(id string, until int64) bool {
	s.changing.Lock()
	defer s.changing.Unlock()
	at, ok := s.byes[id]
	return ok && at >= until-2*s.agree
}

// handle answers another node.
func (s *Service) handle(ctx context.Context, from string, items []item) []verdict {
	out := make([]verdict, len(items))
	var wg sync.WaitGroup
	for n, i := range items {
		switch i.op {
		case opTake, opWait, opPut, opStatus:
			r := Request{Bucket: i.bucket, Key: i.key, Count: i.n, Limit: i.limit}
			k, l, err := s.check(&r)
			switch {
			case problem.Is(err, problem.NotFound):
				out[n] = verdict{result: noBucket}
			case err != nil:
				out[n] = verdict{result: malformed}
			case l.Unlimited:
				out[n] = verdict{result: yes, unlimited: true}
			case (i.op == opTake || i.op == opWait) && i.n < 1:
				out[n] = verdict{result: malformed}
			case !s.ready(l, i):
				wg.Go(func() { out[n] = s.serveOther(ctx, k, l, i) })
			default:
				out[n] = s.serveOther(ctx, k, l, i)
			}
		default:
			if i.op == opPull || i.op == opCopy {
				s.heard(from)
			}
			out[n] = s.handleMove(from, i)
		}
	}
	wg.Wait()
	return out
}

func (s *Service) serveOther(ctx context.Context, k *kind, l Limit, i item) verdict {
	count := s.serve
	if s.left.Load() {
		count = s.decide // it is another's by now
	}
	v, err := count(ctx, k, l, i)
	if err != nil {
		return verdict{result: busy}
	}
	return v
}

// ready reports whether an item can be answered without asking others.
func (s *Service) ready(l Limit, i item) (ok bool) {
	h := s.past.Load()
	if h == nil {
		return true
	}
	if s.durable(l) || s.left.Load() {
		return false
	}
	now := s.mono()
	s.table(i.bucket).do(i.key, now, func(e entry, had bool) (entry, bool) {
		ok = s.isSettled(h, &e, had, i, l, now)
		return e, had
	})
	return ok
}

// handleMove answers what is about the right to count.
func (s *Service) handleMove(from string, i item) verdict {
	if i.op == opBye {
		s.changing.Lock()
		defer s.changing.Unlock()
		s.went(s.byes, from)
		return verdict{result: yes}
	}
	r := Request{Bucket: i.bucket, Key: i.key, Limit: i.limit}
	_, l, err := s.check(&r)
	if err != nil || l.Unlimited {
		return verdict{result: none}
	}
	h := s.past.Load()
	v := verdict{result: none}
	s.table(i.bucket).do(i.key, s.mono(), func(e entry, ok bool) (entry, bool) {
		now := s.mono()
		switch i.op {
		case opPull:
			return s.giveUp(h, &v, from, l, i, e, ok, now)
		case opGive:
			c := i.cell.cell(now).fit(l, now)
			v.result = yes
			switch {
			case ok && e.held == pulling:
				v.result = busy
				return e, true
			case ok:
				e.cell = later(e.fit(l, now), c)
			default:
				e.cell = c
			}
			if e.gen > 0 {
				e.keep = now + fillOf(l)
			}
			e.held, e.to = mine, ""
			if h != nil {
				e.view = h.now().n
			}
			return e, true
		default: // opCopy
			v.result = yes
			c := i.cell.cell(now).fit(l, now)
			if ok {
				e.cell = later(e.fit(l, now), c)
			} else {
				e = entry{cell: c, held: copied}
			}
			if c.gen > 0 {
				e.keep = now + fillOf(l)
			}
			return e, true
		}
	})
	return v
}

// giveUp lets another node count from now on.
func (s *Service) giveUp(h *history, v *verdict, to string, l Limit, i item, e entry, ok bool, now int64) (entry, bool) {
	if !ok {
		if h == nil {
			return e, false
		}
		owner, second := h.now().ranked(hash(i.bucket, i.key))
		c := cell{}.fit(l, now)
		if lost := max(h.born, h.cut); lost >= 0 && lost > now-fillOf(l) {
			if s.durable(l) {
				v.to = second.ID // it has the copies
			} else {
				c = later(c, l.over(lost).fit(l, now))
				v.result, v.cell = yes, c.relative(now)
			}
		}
		// Where another is the owner, this node would ask it anyway before it counts.
		return entry{cell: c, view: h.now().n, held: gone, to: to, at: now}, owner.ID == s.self
	}
	switch e.held {
	case pulling:
		v.result = busy
		return e, true
	case gone:
		if v.to = e.to; to == e.to { // it has not heard the answer
			v.result, v.cell = yes, e.fit(l, now).relative(now)
		}
	case copied:
		v.result, v.cell = yes, e.fit(l, now).relative(now)
		return e, true
	}
	e.cell = e.fit(l, now)
	v.result, v.cell = yes, e.cell.relative(now)
	if h != nil {
		e.view = h.now().n
	}
	e.held, e.to, e.at = gone, to, now
	return e, true
}

// insist asks until there is an answer, for as long as a node that did not answer
// once is left alone.
func (s *Service) insist(ctx context.Context, p Peer, items []item) error {
	ctx, cancel := context.WithTimeout(ctx, lastPause)
	defer cancel()
	for {
		_, err := s.call(ctx, p, items, CallTimeout)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(firstPause / 4):
		}
	}
}

// Leave gives everything that this node counts to those that will count it from now
// on, as far as they can be reached before ctx ends. The node goes on asking them.
func (s *Service) Leave(ctx context.Context) error {
	h := s.past.Load()
	if h == nil || s.left.Swap(true) {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(h.now().peers), func(p Peer) bool { return p.ID == s.self })
	if len(rest) == 0 {
		return nil
	}
	next := newView(0, 0, rest)
	lots := map[string][]item{}
	now := s.mono()
	for bucket, t := range s.all() {
		if CheckName(bucket) != nil { // what was decided alone stays here
			continue
		}
		for _, e := range t.list("", now, math.MaxInt) {
			owner, _ := next.ranked(hash(bucket, e.key))
			lots[owner.ID] = append(lots[owner.ID], item{op: opGive, bucket: bucket, key: e.key})
		}
	}
	var failed error
	for _, p := range rest {
		for lot := range slices.Chunk(lots[p.ID], maxLot) {
			for n := range lot {
				s.table(lot[n].bucket).do(lot[n].key, s.mono(), func(e entry, ok bool) (entry, bool) {
					now := s.mono()
					lot[n].cell = e.cell.relative(now)
					e.held, e.to, e.at, e.view = gone, p.ID, now, h.now().n
					return e, ok
				})
			}
			if err := s.insist(ctx, p, lot); err != nil {
				failed = errors.Join(failed, fmt.Errorf("give %d keys to node %s: %w", len(lot), p.ID, err))
			}
		}
	}
	if failed != nil {
		return failed
	}
	for _, p := range rest {
		if err := s.insist(ctx, p, []item{{op: opBye}}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("say goodbye to node %s: %w", p.ID, err))
		}
	}
	return failed
}
