package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Load runs operations of every kind against a scene and records them. Its rate is
// bounded, and does not fall when answers are slow: probes are sent when they are
// due, whatever became of those before.
type Load struct {
	*Scene
	*History
	// Pace is the time between two operations of a worker, and of each probe.
	Pace time.Duration

	round    string
	inFlight atomic.Int64
	created  sync.Map // mail addresses that were asked for
	wg       sync.WaitGroup
	apps     []application
	jars     []http.CookieJar
	writers  []user
	limited  []application
}

// maxInFlight bounds the probes that wait for their answers.
const maxInFlight = 128

// NewLoad prepares a load. Its documents bear the name of the round, which has to
// be a new one.
func NewLoad(ctx context.Context, s *Scene, round string, pace time.Duration) (*Load, error) {
	l := &Load{Scene: s, round: round, Pace: pace}
	for i := range 2 {
		a, err := s.machine(ctx, fmt.Sprintf("%s-%d", round, i))
		if err != nil {
			return nil, err
		}
		l.apps = append(l.apps, a)
		jar := newJar()
		if code, _, a := s.authorize(ctx, jar, s.users[i].email, password); code == "" {
			return nil, fmt.Errorf("log in for the load: %d %s", a.status, a.fault())
		}
		l.jars = append(l.jars, jar)
	}
	for i := range writers {
		// New ones for each round: what an earlier one wrote without an answer may still
		// come.
		u, err := s.user(ctx, fmt.Sprintf("%s-writer-%d@example.com", round, i))
		if err != nil {
			return nil, err
		}
		l.writers = append(l.writers, u)
	}
	for i := range 2 {
		a, err := s.machine(ctx, fmt.Sprintf("%s-limited-%d", round, i))
		if err != nil {
			return nil, err
		}
		l.limited = append(l.limited, a)
	}
	l.History = NewHistory()
	l.Record(Op{Kind: Granted, Key: s.probe.id, Next: s.probe.secret})
	for _, a := range l.apps {
		l.Record(Op{Kind: Granted, Key: a.id, Next: a.secret})
	}
	return l, nil
}

const (
	writers  = 2
	families = 2
)

// Run starts the load; it goes on until ctx ends. Wait waits for the last
// operations.
func (l *Load) Run(ctx context.Context) {
	for range families {
		l.wg.Go(func() { l.families(ctx) })
	}
	for i := range l.jars {
		l.wg.Go(func() { l.codes(ctx, l.jars[i]) })
	}
	for i := range l.apps {
		l.wg.Go(func() { l.secrets(ctx, l.apps[i]) })
	}
	for _, u := range l.writers {
		l.wg.Go(func() { l.write(ctx, u) })
	}
	for _, a := range l.limited {
		l.wg.Go(func() { l.take(ctx, a) })
	}
	l.wg.Go(func() { l.create(ctx) })
	l.probes(ctx, func(ctx context.Context, i int) { l.machineToken(ctx, l.probe.id, l.probe.secret) })
	l.probes(ctx, func(ctx context.Context, i int) { l.read(ctx, l.writers[i%writers]) })
	if l.search {
		l.probes(ctx, func(ctx context.Context, _ int) { l.searches(ctx) })
	}
	l.probes(ctx, func(ctx context.Context, i int) { l.login(ctx, l.users[i%len(l.users)]) })
}

// Wait returns when every operation has its outcome. Then it looks for what was
// made.
func (l *Load) Wait(ctx context.Context) {
	l.wg.Wait()
	var all []string
	l.created.Range(func(k, _ any) bool { all = append(all, k.(string)); return true })
	var wg sync.WaitGroup
	line := make(chan string)
	for range 4 {
		wg.Go(func() {
			for email := range line {
				l.find(ctx, email)
			}
		})
	}
	for _, email := range all {
		line <- email
	}
	close(line)
	wg.Wait()
	for _, u := range l.writers {
		l.read(ctx, u)
	}
}

// probes starts an operation at each beat, and does not wait for it.
func (l *Load) probes(ctx context.Context, do func(ctx context.Context, i int)) {
	l.wg.Go(func() {
		tick := time.NewTicker(l.Pace)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if l.inFlight.Add(1) > maxInFlight {
				l.inFlight.Add(-1)
				continue
			}
			l.wg.Go(func() {
				defer l.inFlight.Add(-1)
				do(context.WithoutCancel(ctx), i)
			})
		}
	})
}

// pause waits for the next turn of a worker that began its last at a time.
func (l *Load) pause(ctx context.Context, began time.Duration) bool {
	wait := time.NewTimer(began + l.Pace - l.Now())
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wait.C:
		return true
	}
}

// finish records an operation that began at a time. yes and no say which answers
// acknowledge and refuse; all others leave it open.
func (l *Load) finish(op Op, began time.Duration, a answer, yes, no bool) Outcome {
	op.Call, op.Return, op.Status = began, l.Now(), a.status
	switch {
	case yes:
		op.Outcome = OK
	case no:
		op.Outcome = Refused
	default:
		op.Outcome = Unknown
	}
	if !yes {
		op.Error = a.fault()
	}
	l.Record(op)
	return op.Outcome
}

// login is the flow of a browser without a session.
func (l *Load) login(ctx context.Context, u user) (code string, jar http.CookieJar) {
	jar = newJar()
	began := l.Now()
	code, _, a := l.authorize(ctx, jar, u.email, password)
	l.finish(Op{Kind: Login, Key: code}, began, a, code != "", false)
	return code, jar
}

// families logs in, follows the chain of refresh tokens, and ends it in one of the
// ways in which one ends.
func (l *Load) families(ctx context.Context) {
	act := context.WithoutCancel(ctx)
	for n := 0; ctx.Err() == nil; n++ {
		began := l.Now()
		code, _ := l.login(act, l.users[rand.IntN(len(l.users))])
		t, ok := tokens{}, false
		if code != "" {
			t, ok = l.redeem(act, code)
		}
		if !ok || t.Refresh == "" || t.Access == "" {
			if !l.pause(ctx, began) {
				return
			}
			continue
		}
		family := t.Refresh
		l.Record(Op{Kind: Granted, Key: family, Next: t.Refresh, Outcome: OK, Call: l.Now(), Return: l.Now()})
		old, current, alive := "", t.Refresh, true
		for range 6 {
			if !alive || !l.pause(ctx, began) {
				break
			}
			began = l.Now()
			l.userInfo(act, family, t.Access)
			next, outcome := l.refresh(act, family, current)
			switch outcome {
			case OK:
				old, current = current, next
			case Refused:
				alive = false
			}
		}
		switch n % 3 {
		case 0:
			l.revoke(act, family, current)
		case 1:
			if old != "" {
				l.refresh(act, family, old)
			}
		case 2: // two at the same moment
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { l.refresh(act, family, current) })
			}
			wg.Wait()
		}
		l.refresh(act, family, current)
		l.userInfo(act, family, t.Access)
	}
}

func (l *Load) redeem(ctx context.Context, code string) (t tokens, ok bool) {
	began := l.Now()
	a := l.form(ctx, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {l.web.id}, "client_secret": {l.web.secret}, "code": {code}, "redirect_uri": {callback}})
	err := json.Unmarshal(a.body, &t)
	ok = a.status == http.StatusOK && err == nil
	l.finish(Op{Kind: Redeem, Key: code, Token: code, Next: t.Refresh}, began, a, ok, a.refusal("invalid_grant"))
	return t, ok
}

func (l *Load) refresh(ctx context.Context, family, token string) (string, Outcome) {
	began := l.Now()
	a := l.form(ctx, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {l.web.id}, "client_secret": {l.web.secret}, "refresh_token": {token}})
	var t tokens
	err := json.Unmarshal(a.body, &t)
	ok := a.status == http.StatusOK && err == nil && t.Refresh != ""
	return t.Refresh, l.finish(Op{Kind: Refresh, Key: family, Token: token, Next: t.Refresh}, began, a, ok, a.refusal("invalid_grant"))
}

func (l *Load) revoke(ctx context.Context, family, token string) {
	began := l.Now()
	a := l.form(ctx, "/oauth/revoke", url.Values{"client_id": {l.web.id}, "client_secret": {l.web.secret}, "token": {token}})
	l.finish(Op{Kind: Revoke, Key: family, Token: token}, began, a, a.status == http.StatusOK, false)
}

func (l *Load) userInfo(ctx context.Context, family, access string) {
	began := l.Now()
	a := l.do(ctx, nil, "GET", "/userinfo", "", "", "Authorization", "Bearer "+access)
	l.finish(Op{Kind: UserInfo, Key: family}, began, a, a.status == http.StatusOK, a.status == http.StatusUnauthorized)
}

// codes gets codes with a session and redeems each twice at the same moment.
func (l *Load) codes(ctx context.Context, jar http.CookieJar) {
	act := context.WithoutCancel(ctx)
	for began := l.Now(); ; began = l.Now() {
		code, asked, a := l.authorize(act, jar, "", "")
		l.finish(Op{Kind: Session, Key: code}, began, a, code != "", asked)
		if code != "" {
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { l.redeem(act, code) })
			}
			wg.Wait()
		}
		if !l.pause(ctx, began) {
			return
		}
	}
}

// secrets changes an application's secret now and then, and tries the old and the
// new one.
func (l *Load) secrets(ctx context.Context, app application) {
	act := context.WithoutCancel(ctx)
	old, current := "", app.secret
	for n := 0; ; n++ {
		began := l.Now()
		switch {
		case n%16 == 8:
			var out struct {
				Secret string `json:"client_secret"`
			}
			a, err := l.api(act, "POST", "/clients/"+app.id+"/rotate-secret", map[string]any{}, &out)
			ok := err == nil && out.Secret != ""
			l.finish(Op{Kind: Rotate, Key: app.id, Next: out.Secret}, began, a, ok, false)
			if ok {
				old, current = current, out.Secret
			}
		case n%2 == 0 && old != "":
			l.machineToken(act, app.id, old)
		default:
			l.machineToken(act, app.id, current)
		}
		if !l.pause(ctx, began) {
			return
		}
	}
}

func (l *Load) machineToken(ctx context.Context, id, secret string) {
	began := l.Now()
	a := l.form(ctx, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "audience": {audience}})
	l.finish(Op{Kind: Machine, Key: id, Token: secret}, began, a, a.status == http.StatusOK, a.refusal("access_denied", "invalid_client"))
}

// take takes tokens of an application's rate limit.
func (l *Load) take(ctx context.Context, a application) {
	for {
		began := l.Now()
		got := l.form(context.WithoutCancel(ctx), "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {a.id}, "client_secret": {a.secret}, "audience": {audience}})
		l.finish(Op{Kind: Take, Key: a.id}, began, got, got.status == http.StatusOK, got.status == http.StatusTooManyRequests)
		if !l.pause(ctx, began) {
			return
		}
	}
}

// Limited are the applications whose rate limit the load uses up.
func (l *Load) Limited() (ids []string) {
	for _, a := range l.limited {
		ids = append(ids, a.id)
	}
	return ids
}

// write writes one number after the other into a user's metadata.
func (l *Load) write(ctx context.Context, u user) {
	for n := 1; ; n++ {
		began := l.Now()
		a, _ := l.api(context.WithoutCancel(ctx), "PATCH", "/users/"+url.PathEscape(u.id), map[string]any{"user_metadata": map[string]any{"n": n}}, nil)
		l.finish(Op{Kind: Write, Key: u.id, Value: n}, began, a, a.status == http.StatusOK, false)
		if !l.pause(ctx, began) {
			return
		}
	}
}

func (l *Load) read(ctx context.Context, u user) {
	began := l.Now()
	var out struct {
		Meta struct{ N int } `json:"user_metadata"`
	}
	a, err := l.api(ctx, "GET", "/users/"+url.PathEscape(u.id), nil, &out)
	l.finish(Op{Kind: Read, Key: u.id, Value: out.Meta.N}, began, a, err == nil, false)
}

// create makes users; one whose making got no answer is made once more.
func (l *Load) create(ctx context.Context) {
	act := context.WithoutCancel(ctx)
	for n := 0; ; n++ {
		began := l.Now()
		email := fmt.Sprintf("%s-%d@example.com", l.round, n)
		l.created.Store(email, true)
		for range 2 {
			began := l.Now()
			a, _ := l.api(act, "POST", "/users", map[string]any{"connection": connection, "email": email, "password": password}, nil)
			// 409 is the answer to who asks again.
			if l.finish(Op{Kind: Create, Key: email}, began, a, a.status == http.StatusCreated || a.status == http.StatusConflict, false) == OK {
				break
			}
		}
		if !l.pause(ctx, began) {
			return
		}
	}
}

func (l *Load) find(ctx context.Context, email string) {
	for range 5 {
		began := l.Now()
		var found []struct {
			ID string `json:"user_id"`
		}
		a, err := l.api(ctx, "GET", "/users-by-email?email="+url.QueryEscape(email), nil, &found)
		if l.finish(Op{Kind: Find, Key: email, Value: len(found)}, began, a, err == nil, false) == OK {
			return
		}
	}
}
