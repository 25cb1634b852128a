package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/ratelimit"
	"github.com/portcullis-id/portcullis/telemetry"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// limits are the node's rate limits: rules out of configuration and store, the
// service that counts, and what requests over HTTP count against.
type limits struct {
	cfg     RateLimitConfig
	cache   *tenant.Cache
	log     tenant.Log
	logger  *slog.Logger
	now     func() time.Time
	service *ratelimit.Service
	shared  bool // with other nodes

	types     []ratelimit.Bucket
	overrides []ratelimit.Override // of the configuration

	last    atomic.Pointer[ruleSet]
	loading sync.Mutex
	tried   atomic.Int64 // when the store was away, Unix ms
}

// ruleSet is what the overrides of the store make of the configuration.
type ruleSet struct {
	rules     *ratelimit.Rules
	overrides []ratelimit.Override // of the store
}

// stored are the overrides that were made at run time; the document belongs to the
// Authority.
type stored struct {
	Overrides []ratelimit.Override `json:"overrides"`
}

const rateLimitsID = "rate_limits"

func newLimits(cfg RateLimitConfig, cluster ratelimit.Cluster, cache *tenant.Cache, log tenant.Log, logger *slog.Logger, now func() time.Time) (*limits, error) {
	l := &limits{cfg: cfg, cache: cache, log: log, logger: logger, now: now, shared: cluster != nil}
	l.types, l.overrides = cfg.rules()
	rules, err := ratelimit.NewRules(l.types, l.overrides)
	if err != nil {
		return nil, err
	}
	l.last.Store(&ruleSet{rules: rules})
	l.service, err = ratelimit.New(ratelimit.Config{Rules: func() *ratelimit.Rules { return l.set().rules }, MaxKeys: cfg.MaxKeys, Cluster: cluster, Now: now})
	return l, err
}

// set is the rules of now. They come out of the cache, which another node's change
// drops; while the store is away, those that were there last go on.
func (l *limits) set() *ruleSet {
	if l.now().UnixMilli()-l.tried.Load() < 1000 {
		return l.last.Load()
	}
	v, err := tenant.Cached(l.cache, tenant.Authority, tenant.KindSettings, rateLimitsID, func() (*ruleSet, error) {
		if !l.loading.TryLock() {
			return nil, errLoading
		}
		defer l.loading.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return l.load(ctx)
	})
	switch {
	case err == nil:
		l.last.Store(v)
		return v
	case !errors.Is(err, errLoading):
		l.tried.Store(l.now().UnixMilli())
		l.logger.Warn("the rate limits in the store could not be read: those of before go on", "error", err)
	}
	return l.last.Load()
}

var errLoading = errors.New("another request reads them")

func (l *limits) load(ctx context.Context) (*ruleSet, error) {
	doc, err := tenant.Get[stored](ctx, l.cache, tenant.Authority, tenant.KindSettings, rateLimitsID)
	if problem.Is(err, problem.NotFound) {
		doc, err = &stored{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := &ruleSet{}
	all := l.overrides
	for _, o := range doc.Overrides {
		// One of a bucket that the configuration has no more must not take the others away.
		if _, err := ratelimit.NewRules(l.types, append(all[:len(all):len(all)], o)); err != nil {
			l.logger.Warn("a rate limit in the store does not count", "bucket", o.Bucket, "error", err)
			continue
		}
		all = append(all[:len(all):len(all)], o)
		out.overrides = append(out.overrides, o)
	}
	out.rules, err = ratelimit.NewRules(l.types, all)
	return out, err
}

// change adds an override to the store, or takes it out.
func (l *limits) change(ctx context.Context, o ratelimit.Override, remove bool) error {
	same := func(a ratelimit.Override) bool { return a.Bucket == o.Bucket && a.Key == o.Key && a.Match == o.Match }
	err := l.cache.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		doc, err := tenant.Load[stored](tx, tenant.KindSettings, rateLimitsID)
		if problem.Is(err, problem.NotFound) {
			doc, err = &stored{}, nil
		}
		if err != nil {
			return err
		}
		found := false
		kept := doc.Overrides[:0]
		for _, old := range doc.Overrides {
			if same(old) {
				found = true
				continue
			}
			if old.Until.IsZero() || old.Until.After(tx.Now()) {
				kept = append(kept, old)
			}
		}
		doc.Overrides = kept
		if remove && !found {
			return problem.New(problem.NotFound, "no_such_override", "no limit was set for this at run time: there is nothing to take back")
		}
		if !remove {
			doc.Overrides = append(doc.Overrides, o)
			if _, err := ratelimit.NewRules(l.types, append(l.overrides[:len(l.overrides):len(l.overrides)], doc.Overrides...)); err != nil {
				return problem.New(problem.Invalid, "invalid_limit", "%s", err)
			}
		}
		return tenant.Set(tx, tenant.KindSettings, rateLimitsID, doc)
	})
	if err == nil {
		l.logger.InfoContext(ctx, "a rate limit was changed", "bucket", o.Bucket, "whole_bucket", o.Key == "" && o.Match == "", "removed", remove)
	}
	return err
}

// register adds the endpoints of the local socket.
func (l *limits) register(mux *http.ServeMux, render web.Renderer) {
	mux.Handle("GET /rate-limits", web.Handle(l.serveList, render))
	mux.Handle("GET /rate-limits/keys", web.Handle(l.serveKeys, render))
	mux.Handle("GET /rate-limits/key", web.Handle(l.serveKey, render))
	mux.Handle("POST /rate-limits/overrides", web.Handle(l.serveSet, render))
	mux.Handle("POST /rate-limits/reset", web.Handle(l.serveReset, render))
}

func (l *limits) serveList(w http.ResponseWriter, _ *http.Request) error {
	set, state := l.set(), l.service.State()
	out := client.RateLimits{Enabled: l.cfg.Enabled, Tier: l.cfg.Tier, Service: state}
	for _, b := range set.rules.Buckets() {
		limit, err := b.Spec.Limit()
		if err != nil {
			return err
		}
		out.Buckets = append(out.Buckets, client.RateLimitBucket{Name: b.Name, Key: b.Key, Doc: b.Doc, Limit: limit.String(), Spec: b.Spec, OnFailure: b.OnFailure, Counts: state.Buckets[b.Name]})
	}
	out.Configured, out.Overrides = l.overrides, set.overrides
	return web.JSON(w, http.StatusOK, out)
}

func (l *limits) serveKeys(w http.ResponseWriter, r *http.Request) error {
	keys, away, err := l.service.Keys(r.Context(), r.URL.Query().Get("bucket"), r.URL.Query().Get("prefix"))
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, client.RateLimitKeys{Keys: keys, Away: away})
}

func (l *limits) serveKey(w http.ResponseWriter, r *http.Request) error {
	d, err := l.service.Status(r.Context(), ratelimit.Request{Bucket: r.URL.Query().Get("bucket"), Key: r.URL.Query().Get("key")})
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, d)
}

func (l *limits) serveSet(w http.ResponseWriter, r *http.Request) error {
	var req client.RateLimitChange
	if err := readLocal(r, &req); err != nil {
		return err
	}
	if err := l.change(r.Context(), req.Override, req.Remove); err != nil {
		return err
	}
	return l.serveList(w, r)
}

func (l *limits) serveReset(w http.ResponseWriter, r *http.Request) error {
	var req client.RateLimitReset
	if err := readLocal(r, &req); err != nil {
		return err
	}
	d, err := l.service.Reset(r.Context(), req.Bucket, req.Key)
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, d)
}

func readLocal(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return problem.Wrap(problem.Invalid, "invalid_body", err, "The body is not the JSON that is wanted here")
	}
	return nil
}

func (l *limits) metrics(m *telemetry.Metrics) {
	for _, b := range l.types {
		bucket := func(read func(ratelimit.BucketState) float64) func() float64 {
			return func() float64 { return read(l.service.Bucket(b.Name)) }
		}
		for result, read := range map[string]func(ratelimit.BucketState) float64{
			"allowed": func(s ratelimit.BucketState) float64 { return float64(s.Allowed) }, "limited": func(s ratelimit.BucketState) float64 { return float64(s.Limited) },
		} {
			m.LabelledCounter("portcullis_rate_limit_decisions_total", "Decisions of the rate limits, by bucket and result.", map[string]string{"bucket": b.Name, "result": result}, bucket(read))
		}
		labels := map[string]string{"bucket": b.Name}
		m.LabelledCounter("portcullis_rate_limit_fallbacks_total", "Decisions that were made without the node that counts, as it did not answer in time.", labels, bucket(func(s ratelimit.BucketState) float64 { return float64(s.Fallback) }))
		m.LabelledGauge("portcullis_rate_limit_keys", "Keys that this node remembers, by bucket.", labels, bucket(func(s ratelimit.BucketState) float64 { return float64(s.Keys) }))
		m.LabelledCounter("portcullis_rate_limit_keys_pushed_total", "Keys that had to be forgotten before their buckets were full, for want of room.", labels, bucket(func(s ratelimit.BucketState) float64 { return float64(s.Pushed) }))
	}
	total := func(name, help string, read func(ratelimit.Totals) uint64) {
		m.Counter(name, help, func() float64 { return float64(read(l.service.Totals())) })
	}
	total("portcullis_rate_limit_owner_calls_total", "Calls to other nodes on row rate-limit.", func(t ratelimit.Totals) uint64 { return t.Calls })
	total("portcullis_rate_limit_owner_calls_failed_total", "Calls to other nodes that had no answer in time.", func(t ratelimit.Totals) uint64 { return t.Failed })
	total("portcullis_rate_limit_leased_total", "Decisions with tokens that the node had in hand.", func(t ratelimit.Totals) uint64 { return t.Leased })
	total("portcullis_rate_limit_keys_settled_total", "Keys that came to this node from another.", func(t ratelimit.Totals) uint64 { return t.Settled })
	total("portcullis_rate_limit_keys_cautious_total", "Keys that came to this node without anybody knowing what had been counted.", func(t ratelimit.Totals) uint64 { return t.Cautious })
}
