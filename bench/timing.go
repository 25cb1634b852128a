package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"
)

// The test of timing: it takes a difference as shown when chance alone would show
// it in less than one of a hundred runs, and states the smallest difference that
// it would have found in 95 of a hundred.
const (
	timingSamples = 400 // of each kind
	timingAlpha   = 0.01
	timingPower   = 0.95
)

// timing asks for known and for unknown users in turn, and compares how long the
// answers take: a difference would tell a stranger who has an account.
func (b *bench) timing(ctx context.Context, s *scene) error {
	if !b.wants("timing") {
		return nil
	}
	login := func(user string) url.Values {
		return url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database}, "username": {user}, "password": {"wrong"},
			"client_id": {s.web.id}, "client_secret": {s.web.secret}}
	}
	reset := func(user string) url.Values {
		return url.Values{"client_id": {s.web.id}, "connection": {database}, "email": {user}}
	}
	for _, tt := range []struct {
		name, path string
		form       func(user string) url.Values
		status     int
	}{{"login with a wrong password", "/oauth/token", login, 403}, {"asking for a new password", "/dbconnections/change_password", reset, 200}} {
		known, unknown, err := b.sample(ctx, s, tt.path, tt.form, tt.status)
		if err != nil {
			return err
		}
		p := mannWhitney(known, unknown)
		shown := "no difference is shown"
		if p < timingAlpha {
			shown = "A DIFFERENCE IS SHOWN"
		}
		b.add(Figure{Name: "timing: " + tt.name + ", known over unknown user, medians", Value: median(known) / median(unknown), Unit: "x",
			Target: fmt.Sprintf("p %.3f: %s", p, shown)})
		b.add(Figure{Name: "timing: " + tt.name + fmt.Sprintf(", smallest difference found with power %.2f", timingPower), Value: detectable(unknown), Unit: "ms"})
	}
	return nil
}

func (b *bench) sample(ctx context.Context, s *scene, path string, form func(string) url.Values, status int) (known, unknown []float64, err error) {
	c := &conn{address: s.n.http}
	defer c.close()
	for i := range 2 * timingSamples {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		isKnown := rand.IntN(2) == 0 // no rhythm of the machine falls on one of them
		user := fmt.Sprintf("nobody-%d@example.com", i)
		if isKnown {
			user = s.users[i%len(s.users)]
		}
		// Each from another address: guessing from one is stopped after ten.
		from := fmt.Sprintf("X-Forwarded-For: 198.51.%d.%d", i/250, i%250+1)
		req := request("POST", s.n.host, path, formType, []byte(form(user).Encode()), forwarded, from)
		at := time.Now()
		a, err := c.do(req)
		took := ms(time.Since(at))
		if err != nil {
			return nil, nil, err
		}
		if a.status != status {
			return nil, nil, fmt.Errorf("%s answered %d: %.200s", path, a.status, a.body)
		}
		if isKnown {
			known = append(known, took)
		} else {
			unknown = append(unknown, took)
		}
	}
	return known, unknown, nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// mannWhitney is the two-sided p-value of the Mann-Whitney U test, by the normal
// approximation, which holds for samples of this size. Ties are rare enough in
// times to leave out.
func mannWhitney(a, b []float64) float64 {
	type value struct {
		v     float64
		first bool
	}
	var all []value
	for _, v := range a {
		all = append(all, value{v, true})
	}
	for _, v := range b {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(x, y value) int {
		switch {
		case x.v < y.v:
			return -1
		case x.v > y.v:
			return 1
		}
		return 0
	})
	ranks := 0.0
	for i, v := range all {
		if v.first {
			ranks += float64(i + 1)
		}
	}
	n, m := float64(len(a)), float64(len(b))
	u := ranks - n*(n+1)/2
	z := (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
	return math.Erfc(math.Abs(z) / math.Sqrt2)
}

// detectable is the smallest shift, in milliseconds, that mannWhitney finds with
// timingPower between two samples like this one: found by drawing such samples.
func detectable(sample []float64) float64 {
	r := rand.New(rand.NewPCG(1, 2)) // the same for the same sample
	draw := func(shift float64) []float64 {
		out := make([]float64, timingSamples)
		for i := range out {
			out[i] = sample[r.IntN(len(sample))] + shift + r.Float64()*1e-6
		}
		return out
	}
	found := func(shift float64) bool {
		const runs = 200
		hits := 0
		for range runs {
			if mannWhitney(draw(shift), draw(0)) < timingAlpha {
				hits++
			}
		}
		return float64(hits) >= timingPower*runs
	}
	low, high := 0.0, median(sample)
	for range 20 {
		mid := (low + high) / 2
		if found(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}
