package ratelimit

import (
	"context"
	"math"
	"net/http"
	"strings"
	"time"

	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	unit "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/portcullis-id/portcullis/problem"
)

// The bounds of one request of Envoy's protocol.
const (
	maxDescriptors = 64
	maxEntries     = 16
)

// envoy is Envoy's rate limit service, version 3
// (envoy/service/ratelimit/v3/rls.proto).
type envoy struct {
	rls.UnimplementedRateLimitServiceServer
	s *Service
}

func (s *Service) envoyServer(a Access) http.Handler {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxAnswer))
	rls.RegisterRateLimitServiceServer(server, envoy{s: s})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.caller(r, r.Header.Values("Authorization")) {
			h := w.Header()
			h.Set("Content-Type", "application/grpc")
			h.Set("Grpc-Status", "16") // UNAUTHENTICATED
			h.Set("Grpc-Message", "this service wants a certificate of the cluster's authority, or the bearer token of rate_limits.token")
			return
		}
		server.ServeHTTP(w, r)
	})
}

// ShouldRateLimit answers for each descriptor. What no bucket is declared for is OK,
// as in Envoy's own service.
func (e envoy) ShouldRateLimit(ctx context.Context, req *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	if req.GetDomain() == "" || len(req.GetDescriptors()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the request wants a domain and at least one descriptor")
	}
	if n := len(req.GetDescriptors()); n > maxDescriptors {
		return nil, status.Errorf(codes.InvalidArgument, "the request has %d descriptors; allowed are %d", n, maxDescriptors)
	}
	out := &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK}
	rules := e.s.cfg.Rules()
	for n, d := range req.GetDescriptors() {
		if got := len(d.GetEntries()); got == 0 || got > maxEntries {
			return nil, status.Errorf(codes.InvalidArgument, "descriptors[%d] has %d entries; allowed are 1 to %d", n, got, maxEntries)
		}
		st := &rls.RateLimitResponse_DescriptorStatus{Code: rls.RateLimitResponse_OK}
		out.Statuses = append(out.Statuses, st)
		bucket, key := match(rules, req.GetDomain(), d)
		if bucket == "" {
			continue
		}
		if err := e.decide(ctx, st, req, d, Request{Bucket: bucket, Key: key}); err != nil {
			return nil, err
		}
		if st.Code == rls.RateLimitResponse_OVER_LIMIT {
			out.OverallCode = st.Code
		}
	}
	return out, nil
}

// match finds the bucket type of a descriptor: that of the domain with the keys of
// its entries (shop/tenant/ip), or that of the domain alone. Of the entries the
// bucket's key is made: their values with | between, and key=value in a bucket of
// the domain alone.
func match(rules *Rules, domain string, d *ratelimit.RateLimitDescriptor) (bucket, key string) {
	names, values, pairs := []string{domain}, []string{}, []string{}
	escape := strings.NewReplacer(`\`, `\\`, "|", `\|`)
	for _, en := range d.GetEntries() {
		names = append(names, en.GetKey())
		values = append(values, escape.Replace(en.GetValue()))
		pairs = append(pairs, escape.Replace(en.GetKey()+"="+en.GetValue()))
	}
	bucket = strings.Join(names, "/")
	key = strings.Join(values, "|")
	if rules.types[bucket] == nil {
		bucket, key = domain, strings.Join(pairs, "|")
	}
	if rules.types[bucket] == nil {
		return "", ""
	}
	return bucket, BoundKey(key)
}

func (e envoy) decide(ctx context.Context, st *rls.RateLimitResponse_DescriptorStatus, req *rls.RateLimitRequest, d *ratelimit.RateLimitDescriptor, r Request) error {
	r.Count = int64(max(1, req.GetHitsAddend()))
	if h := d.GetHitsAddend(); h != nil {
		if h.GetValue() > MaxSize {
			return status.Errorf(codes.InvalidArgument, "hits_addend is %d; allowed are 0 to %d", h.GetValue(), MaxSize)
		}
		r.Count = int64(h.GetValue()) // #nosec G115 -- bounded above
	}
	if o := d.GetLimit(); o != nil {
		spec, ok := map[unit.RateLimitUnit]Spec{
			unit.RateLimitUnit_SECOND: {PerSecond: int64(o.GetRequestsPerUnit())}, unit.RateLimitUnit_MINUTE: {PerMinute: int64(o.GetRequestsPerUnit())},
			unit.RateLimitUnit_HOUR: {PerHour: int64(o.GetRequestsPerUnit())}, unit.RateLimitUnit_DAY: {PerDay: int64(o.GetRequestsPerUnit())},
		}[o.GetUnit()]
		if !ok {
			return status.Errorf(codes.InvalidArgument, "limit.unit is %s; allowed are SECOND, MINUTE, HOUR and DAY", o.GetUnit())
		}
		l, err := spec.Limit()
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "limit: %s", err)
		}
		r.Limit = &l
	}
	var decision Decision
	var err error
	switch {
	case d.GetIsNegativeHits() && r.Count > 0:
		decision, err = e.s.Put(ctx, r)
	case r.Count == 0: // it asks without a hit
		decision, err = e.s.Status(ctx, r)
		decision.Conformant = decision.Remaining > 0 || decision.Unlimited
	default:
		decision, err = e.s.Take(ctx, r)
	}
	switch {
	case problem.Is(err, problem.Invalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return status.FromContextError(err).Err()
	}
	e.describe(st, r, decision)
	return nil
}

func (e envoy) describe(st *rls.RateLimitResponse_DescriptorStatus, r Request, d Decision) {
	if !d.Conformant {
		st.Code = rls.RateLimitResponse_OVER_LIMIT
	}
	if d.Unlimited {
		return
	}
	st.LimitRemaining = clamp(d.Remaining)
	if wait := d.Reset.Sub(e.s.cfg.Now()); !d.Reset.IsZero() && wait > 0 {
		st.DurationUntilReset = durationpb.New(wait)
	}
	_, l, err := e.s.check(&r)
	if err != nil || l.Per == 0 {
		return
	}
	st.CurrentLimit = &rls.RateLimitResponse_RateLimit{Name: r.Bucket, RequestsPerUnit: clamp(l.Per), Unit: map[time.Duration]rls.RateLimitResponse_RateLimit_Unit{
		time.Second: rls.RateLimitResponse_RateLimit_SECOND, time.Minute: rls.RateLimitResponse_RateLimit_MINUTE,
		time.Hour: rls.RateLimitResponse_RateLimit_HOUR, 24 * time.Hour: rls.RateLimitResponse_RateLimit_DAY,
	}[l.Interval]}
}

func clamp(n int64) uint32 {
	return uint32(min(max(n, 0), math.MaxUint32)) // #nosec G115 -- bounded
}
