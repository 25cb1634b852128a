//go:build linux

package chaos

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Throughput is how many operations a second a number of clients get done, each as
// fast as it is answered.
func (s *Scene) Throughput(ctx context.Context, clients int, d time.Duration, do func(ctx context.Context) bool) (perSecond float64, failed int64) {
	var done, bad atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(began) < d && ctx.Err() == nil {
				if do(ctx) {
					done.Add(1)
				} else {
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), bad.Load()
}

// MachineToken is one client_credentials, which reads caches and signs.
func (s *Scene) MachineToken(ctx context.Context) bool {
	a := s.form(ctx, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {s.probe.id}, "client_secret": {s.probe.secret}, "audience": {audience}})
	return a.status == http.StatusOK
}

// LogIn is one whole login with a password, up to the tokens.
func (s *Scene) LogIn(ctx context.Context) bool {
	code, _, _ := s.authorize(ctx, newJar(), s.users[int(turn.Add(1))%len(s.users)].email, password)
	if code == "" {
		return false
	}
	a := s.form(ctx, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {s.web.id}, "client_secret": {s.web.secret}, "code": {code}, "redirect_uri": {callback}})
	return a.status == http.StatusOK
}

var turn atomic.Int64

// InvalidationLatency changes an application's secret on one node, again and
// again, and asks another node until it refuses the old one: the times from the
// acknowledgement of the change to the call that was refused first, in order.
func InvalidationLatency(ctx context.Context, at, from *Scene, times int) ([]time.Duration, error) {
	app, err := at.machine(ctx, "invalidation")
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	ask := func(secret string) answer {
		return from.form(ctx, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {app.id}, "client_secret": {secret}, "audience": {audience}})
	}
	secret := app.secret
	for range times {
		for ask(secret).status != http.StatusOK { // so that the node has it in its cache
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		var out struct {
			Secret string `json:"client_secret"`
		}
		if _, err := at.api(ctx, "POST", "/clients/"+app.id+"/rotate-secret", map[string]any{}, &out); err != nil {
			return nil, err
		}
		changed := time.Now()
		for {
			asked := time.Now()
			if a := ask(secret); a.refusal("access_denied", "invalid_client") {
				took = append(took, asked.Sub(changed))
				break
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		secret = out.Secret
	}
	slices.Sort(took)
	return took, nil
}
