package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/internal/ports"
	"github.com/portcullis-id/portcullis/store/storetest"
)

// kills is how often each engine's node is killed.
const kills = 50

// TestKilledNodeKeepsWhatItAcknowledged kills a node with SIGKILL under mixed load,
// again and again, and looks at what is left each time: every acknowledged write is
// there, no other is half there, and no single-use value works twice.
func TestKilledNodeKeepsWhatItAcknowledged(t *testing.T) {
	for engine, dsn := range map[string]func(testing.TB) string{"sqlite": func(testing.TB) string { return "" }, "postgres": storetest.PostgresDSN} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			rounds := kills
			if testing.Short() {
				rounds = 3
			}
			c := newCrash(t, dsn(t))
			c.start()
			c.furnish()
			for round := range rounds {
				load, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range c.counters {
					wg.Go(func() { c.count(load, &c.counters[i]) })
				}
				for i := range c.chains {
					wg.Go(func() { c.rotate(load, &c.chains[i]) })
				}
				wg.Go(func() { c.signUp(load, round) })
				wg.Go(func() { c.redeem(load) })
				time.Sleep(time.Duration(20+rand.IntN(150)) * time.Millisecond)
				// On a busy machine no round may have been long enough for the slowest kind.
				for limit := time.Now().Add(time.Minute); round == rounds-1 && !c.ackedAll() && time.Now().Before(limit); {
					time.Sleep(10 * time.Millisecond)
				}
				c.kill()
				stop()
				wg.Wait()
				c.start()
				c.check()
				if t.Failed() {
					t.Fatalf("in round %d", round)
				}
			}
			t.Logf("%d kills: %d counts, %d rotations, %d users, %d codes acknowledged", rounds, c.acked.counts.Load(), c.acked.rotations.Load(), c.acked.users.Load(), c.acked.codes.Load())
			if !c.ackedAll() {
				t.Error("some of the load did nothing")
			}
		})
	}
}

type crash struct {
	t     *testing.T
	args  []string
	data  string
	http  string
	cmd   *exec.Cmd
	done  chan struct{}
	token string

	app, secret string
	counters    []counter
	chains      []chain
	browser     *http.Client

	mu    sync.Mutex
	users map[string]bool // by mail address: whether its making was acknowledged
	codes map[string]int  // how often each was redeemed

	acked struct{ counts, rotations, users, codes atomic.Int64 }
}

// ackedAll reports whether something of each kind was acknowledged.
func (c *crash) ackedAll() bool {
	return c.acked.counts.Load() > 0 && c.acked.rotations.Load() > 0 && c.acked.users.Load() > 0 && c.acked.codes.Load() > 0
}

// counter is a number in a user's metadata. Only one goroutine writes it.
type counter struct {
	id           string
	acked, asked int
}

// chain is a rotating refresh token. open says that the last rotation was not
// answered: the token may or may not have been used up.
type chain struct {
	token string
	open  bool
}

func newCrash(t *testing.T, dsn string) *crash {
	t.Helper()
	c := &crash{t: t, data: filepath.Join(t.TempDir(), "data"), users: map[string]bool{}, codes: map[string]int{}, counters: make([]counter, 3), chains: make([]chain, 3)}
	var port [3]int
	for i := range port {
		p, err := ports.Free()
		if err != nil {
			t.Fatal(err)
		}
		port[i] = p
	}
	c.http = fmt.Sprintf("http://127.0.0.1:%d", port[1])
	settings := []string{"listen.https=" + strconv.Itoa(port[0]), "listen.http=" + strconv.Itoa(port[1]), "listen.health=" + strconv.Itoa(port[2]), "log.level=warn",
		"passwords.memory_kib=8192", "passwords.time=1", "trusted_proxies.networks=127.0.0.1"}
	if dsn != "" {
		settings = append(settings, "database.dsn="+dsn)
	}
	c.args = []string{"start", "--dev", "--data", c.data}
	for _, s := range settings {
		c.args = append(c.args, "--set", s)
	}
	return c
}

func (c *crash) start() {
	c.t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmd = exec.Command(exe, c.args...)
	var log bytes.Buffer
	c.cmd.Stderr = &log
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	done, ready := make(chan struct{}), make(chan bool, 1)
	c.done = done
	cmd := c.cmd
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.HasPrefix(s.Text(), "ready ") {
				ready <- true
			}
		}
		_ = cmd.Wait() // it is killed: an error is what it ends with
		ready <- false
		close(done)
	}()
	select {
	case ok := <-ready:
		if !ok {
			c.t.Fatalf("the node did not start: %s", log.String())
		}
	case <-time.After(time.Minute):
		c.t.Fatal("the node was not ready within a minute")
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
	})
	if c.token == "" {
		t, err := client.NewLocal(c.data).Token(c.t.Context(), client.TokenRequest{Tenant: "main", TTL: 86400})
		if err != nil {
			c.t.Fatal(err)
		}
		c.token = t.AccessToken
	}
}

func (c *crash) kill() {
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	<-c.done
}

// do returns status 0 when no answer came.
func (c *crash) do(ctx context.Context, hc *http.Client, method, path, typ, body string) (int, []byte, http.Header) {
	req, err := http.NewRequestWithContext(ctx, method, c.http+path, strings.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return 0, nil, nil
	}
	req.Host = "localhost"
	req.Header.Set("X-Forwarded-Proto", "https")
	if typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	if strings.HasPrefix(path, "/api/") {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return 0, nil, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, nil
	}
	return resp.StatusCode, raw, resp.Header
}

func (c *crash) api(ctx context.Context, method, path string, in any) (int, map[string]any) {
	raw, err := json.Marshal(in)
	if err != nil {
		c.t.Error(err)
		return 0, nil
	}
	status, body, _ := c.do(ctx, http.DefaultClient, method, "/api/v2"+path, "application/json", string(raw))
	var out map[string]any
	_ = json.Unmarshal(body, &out) // a list, or nothing
	return status, out
}

func (c *crash) must(method, path string, in any) map[string]any {
	c.t.Helper()
	status, out := c.api(c.t.Context(), method, path, in)
	if status/100 != 2 {
		c.t.Fatalf("%s %s: %d %v", method, path, status, out)
	}
	return out
}

const (
	crashPassword = "Correct-horse-7"
	crashDatabase = "Username-Password-Authentication"
	crashCallback = "https://app.example.com/cb"
	formType      = "application/x-www-form-urlencoded"
)

// furnish makes what the load works on.
func (c *crash) furnish() {
	app := c.must("POST", "/clients", map[string]any{"name": "crash", "app_type": "regular_web", "callbacks": []string{crashCallback}, "oidc_conformant": true,
		"grant_types":   []string{"authorization_code", "refresh_token", "http://auth0.com/oauth/grant-type/password-realm"},
		"refresh_token": map[string]any{"rotation_type": "rotating", "expiration_type": "expiring", "leeway": 0, "token_lifetime": 2592000, "idle_token_lifetime": 1296000}})
	c.app, c.secret = app["client_id"].(string), app["client_secret"].(string)
	_, raw, _ := c.do(c.t.Context(), http.DefaultClient, "GET", "/api/v2/connections?name="+crashDatabase, "", "")
	var found []struct{ ID string }
	if err := json.Unmarshal(raw, &found); err != nil || len(found) != 1 {
		c.t.Fatalf("%v: %s", err, raw)
	}
	raw, err := json.Marshal([]map[string]any{{"client_id": c.app, "status": true}})
	if err != nil {
		c.t.Fatal(err)
	}
	if status, body, _ := c.do(c.t.Context(), http.DefaultClient, "PATCH", "/api/v2/connections/"+found[0].ID+"/clients", "application/json", string(raw)); status != http.StatusNoContent {
		c.t.Fatalf("%d %s", status, body)
	}
	c.must("POST", "/resource-servers", map[string]any{"name": "api", "identifier": "https://api.example.com", "signing_alg": "ES256", "allow_offline_access": true})
	for i := range c.counters {
		c.counters[i].id = c.must("POST", "/users", map[string]any{"connection": crashDatabase, "email": fmt.Sprintf("counter-%d@example.com", i), "password": crashPassword})["user_id"].(string)
	}
	for i := range c.chains {
		c.chains[i].token = c.login()
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.browser = &http.Client{Jar: insecure{jar}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.openSession()
}

// insecure gives cookies that want TLS back over the plain connection that a load
// balancer would have.
type insecure struct{ jar *cookiejar.Jar }

func secureURL(u *url.URL) *url.URL {
	s := *u
	s.Scheme = "https"
	return &s
}
func (i insecure) SetCookies(u *url.URL, cookies []*http.Cookie) {
	i.jar.SetCookies(secureURL(u), cookies)
}
func (i insecure) Cookies(u *url.URL) []*http.Cookie { return i.jar.Cookies(secureURL(u)) }

// login returns the first refresh token of a chain.
func (c *crash) login() string {
	c.t.Helper()
	v := url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {crashDatabase}, "username": {"counter-0@example.com"},
		"password": {crashPassword}, "client_id": {c.app}, "client_secret": {c.secret}, "scope": {"offline_access"}, "audience": {"https://api.example.com"}}
	status, raw, _ := c.do(c.t.Context(), http.DefaultClient, "POST", "/oauth/token", formType, v.Encode())
	var out struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal(raw, &out); err != nil || out.Refresh == "" {
		c.t.Fatalf("login: %d %s", status, raw)
	}
	return out.Refresh
}

func (c *crash) authorizePath() string {
	return "/authorize?" + url.Values{"client_id": {c.app}, "redirect_uri": {crashCallback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"}}.Encode()
}

var stateField = regexp.MustCompile(`name="state" value="([^"]+)"`)

// openSession logs the browser in, so that codes cost no password.
func (c *crash) openSession() {
	c.t.Helper()
	_, _, h := c.do(c.t.Context(), c.browser, "GET", c.authorizePath(), "", "")
	_, page, _ := c.do(c.t.Context(), c.browser, "GET", h.Get("Location"), "", "")
	m := stateField.FindSubmatch(page)
	if m == nil {
		c.t.Fatalf("no login page: %s", page)
	}
	v := url.Values{"state": {string(m[1])}, "username": {"counter-0@example.com"}, "password": {crashPassword}}
	if status, body, _ := c.do(c.t.Context(), c.browser, "POST", "/u/login", formType, v.Encode()); status/100 != 3 {
		c.t.Fatalf("login: %d %s", status, body)
	}
}

// count writes one number after the other into a user's metadata.
func (c *crash) count(ctx context.Context, n *counter) {
	for ctx.Err() == nil {
		n.asked++
		if status, out := c.api(ctx, "PATCH", "/users/"+url.PathEscape(n.id), map[string]any{"user_metadata": map[string]any{"n": n.asked}}); status == http.StatusOK {
			n.acked = n.asked
			c.acked.counts.Add(1)
		} else if status != 0 {
			c.t.Errorf("count: %d %v", status, out)
			return
		} else {
			return
		}
	}
}

// rotate follows a chain of refresh tokens.
func (c *crash) rotate(ctx context.Context, ch *chain) {
	for ctx.Err() == nil {
		ch.open = true
		status, next := c.refresh(ctx, ch.token)
		if status == 0 {
			return
		}
		if status != http.StatusOK {
			c.t.Errorf("rotate: %d", status)
			return
		}
		ch.token, ch.open = next, false
		c.acked.rotations.Add(1)
	}
}

func (c *crash) refresh(ctx context.Context, token string) (int, string) {
	v := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {c.app}, "client_secret": {c.secret}}
	status, raw, _ := c.do(ctx, http.DefaultClient, "POST", "/oauth/token", formType, v.Encode())
	var out struct {
		Refresh string `json:"refresh_token"`
	}
	_ = json.Unmarshal(raw, &out) // an error has none
	return status, out.Refresh
}

// signUp makes users, of four documents each.
func (c *crash) signUp(ctx context.Context, round int) {
	for i := 0; ctx.Err() == nil; i++ {
		email := fmt.Sprintf("user-%d-%d@example.com", round, i)
		c.mu.Lock()
		c.users[email] = false
		c.mu.Unlock()
		status, out := c.api(ctx, "POST", "/users", map[string]any{"connection": crashDatabase, "email": email, "password": crashPassword})
		if status == 0 {
			return
		}
		if status != http.StatusCreated {
			c.t.Errorf("sign up: %d %v", status, out)
			return
		}
		c.acked.users.Add(1)
		c.mu.Lock()
		c.users[email] = true
		c.mu.Unlock()
	}
}

// redeem gets codes and redeems each from two goroutines at the same time.
func (c *crash) redeem(ctx context.Context) {
	for ctx.Err() == nil {
		status, body, h := c.do(ctx, c.browser, "GET", c.authorizePath(), "", "")
		if status == 0 {
			return
		}
		to, err := url.Parse(h.Get("Location"))
		if err != nil || to.Query().Get("code") == "" {
			c.t.Errorf("no code: %d %s %s", status, h.Get("Location"), body)
			return
		}
		code := to.Query().Get("code")
		c.mu.Lock()
		c.codes[code] = 0
		c.mu.Unlock()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { c.exchange(ctx, code) })
		}
		wg.Wait()
	}
}

func (c *crash) exchange(ctx context.Context, code string) {
	v := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {crashCallback}, "client_id": {c.app}, "client_secret": {c.secret}}
	status, raw, _ := c.do(ctx, http.DefaultClient, "POST", "/oauth/token", formType, v.Encode())
	switch status {
	case http.StatusOK:
		c.acked.codes.Add(1)
		c.mu.Lock()
		c.codes[code]++
		c.mu.Unlock()
	case 0, http.StatusForbidden: // no answer; used before
	default:
		c.t.Errorf("exchange: %d %s", status, raw)
	}
}

// check looks at what the last kill has left.
func (c *crash) check() {
	ctx := c.t.Context()
	for i := range c.counters {
		n := &c.counters[i]
		status, u := c.api(ctx, "GET", "/users/"+url.PathEscape(n.id), nil)
		meta, _ := u["user_metadata"].(map[string]any)
		have, _ := meta["n"].(float64)
		if status != http.StatusOK || int(have) < n.acked || int(have) > n.asked {
			c.t.Errorf("counter %d: the store has %v, acknowledged were %d, asked for %d", i, have, n.acked, n.asked)
		}
		n.acked = int(have)
	}
	for i := range c.chains {
		ch := &c.chains[i]
		status, next := c.refresh(ctx, ch.token)
		switch {
		case status == http.StatusOK:
			ch.token, ch.open = next, false
		case ch.open && status == http.StatusForbidden: // the rotation was done, its answer was lost
			ch.token, ch.open = c.login(), false
		default:
			c.t.Errorf("chain %d: the last token that was given out is refused with %d", i, status)
		}
	}
	c.mu.Lock()
	users, codes := c.users, c.codes
	c.users, c.codes = map[string]bool{}, map[string]int{}
	c.mu.Unlock()
	for email, acked := range users {
		status, raw, _ := c.do(ctx, http.DefaultClient, "GET", "/api/v2/users-by-email?email="+url.QueryEscape(email), "", "")
		var found []map[string]any
		if err := json.Unmarshal(raw, &found); status != http.StatusOK || err != nil {
			c.t.Errorf("users by email: %d %s", status, raw)
			continue
		}
		if acked && len(found) != 1 {
			c.t.Errorf("%s was acknowledged, and is there %d times", email, len(found))
		}
		if acked {
			continue
		}
		// What is there is whole, and what is not has left nothing behind: the address can
		// be taken when there is no user, and not when there is one.
		status, out := c.api(ctx, "POST", "/users", map[string]any{"connection": crashDatabase, "email": email, "password": crashPassword})
		if len(found) == 0 && status != http.StatusCreated || len(found) == 1 && status != http.StatusConflict {
			c.t.Errorf("%s is half there: found %d times, made again with %d %v", email, len(found), status, out)
		}
	}
	for code := range codes {
		c.mu.Lock()
		c.codes[code] = codes[code]
		c.mu.Unlock()
		c.exchange(ctx, code)
		c.mu.Lock()
		if n := c.codes[code]; n > 1 {
			c.t.Errorf("a code was redeemed %d times", n)
		}
		delete(c.codes, code)
		c.mu.Unlock()
	}
}
