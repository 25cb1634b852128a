package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Figure is one line of the report.
type Figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Limit  float64 `json:"limit,omitempty"`  // what the machine allows by itself
	Of     string  `json:"of,omitempty"`     // what the limit is
	Ratio  float64 `json:"ratio,omitempty"`  // Value over Limit
	Target string  `json:"target,omitempty"` // what the project wants
	Failed int     `json:"failed,omitempty"`
	*latency
	limit limit
}

type options struct {
	binary, data, json, profiles string
	seconds                      time.Duration
	conns                        int
	users                        []int
	only                         *regexp.Regexp
	peers                        []string
	settings                     []string
}

type bench struct {
	options
	figures []Figure
	signs   map[string]limit
	hashes  limit
	floor   limit
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == floorFlag {
		size, err := strconv.Atoi(os.Args[2])
		if err == nil {
			err = serveFloor(size)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	// The client stands for other machines: its own collections are no part of what is
	// measured.
	debug.SetGCPercent(800)
	var o options
	var users, only string
	var soak, swarms bool
	flag.StringVar(&o.binary, "binary", "bin/portcullis", "the node's program")
	flag.StringVar(&o.data, "data", "", "folder for the nodes' stores; empty means a temporary one. A store of many users that is there is used again")
	flag.StringVar(&o.json, "json", "", "file for the report as JSON")
	flag.StringVar(&o.profiles, "profiles", "", "folder for a CPU profile of the node under each load")
	flag.DurationVar(&o.seconds, "time", 4*time.Second, "length of each load, 1s to 60s")
	flag.IntVar(&o.conns, "conns", 32, "connections of each load, 1 to 1024")
	flag.StringVar(&users, "users", "1000,100000", "sizes of the store to measure with, up to 1000000")
	flag.StringVar(&only, "only", ".", "regular expression: figures to measure")
	flag.Func("peer", "NAME=TOKEN_URL,CLIENT,SECRET[,AUDIENCE]: another provider's client_credentials in the same run; may be repeated", func(s string) error {
		if _, _, err := parsePeer(s); err != nil {
			return err
		}
		o.peers = append(o.peers, s)
		return nil
	})
	flag.Func("set", "KEY=VALUE: a setting of the node; may be repeated", func(s string) error { o.settings = append(o.settings, s); return nil })
	flag.BoolVar(&soak, "soak", false, "log 100,000 users in instead, in at most ten minutes, and look for leaks")
	flag.BoolVar(&swarms, "preflight", false, "measure preflight between 3 to 25 nodes in network namespaces instead; as root")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.check(users, only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	b := &bench{options: o}
	if soak {
		if err := b.inFolder(func(dir string) error { return b.soak(ctx, dir) }); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if swarms {
		if err := b.preflight(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	err := b.inFolder(func(dir string) error { return b.run(ctx, dir) })
	b.table()
	if err == nil && o.json != "" {
		err = b.writeJSON()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o *options) check(users, only string) (err error) {
	if o.only, err = regexp.Compile(only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	for s := range strings.SplitSeq(users, ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1_000_000 {
			return fmt.Errorf("-users: %q; allowed are numbers from 1 to 1000000, with commas between", s)
		}
		o.users = append(o.users, n)
	}
	slices.Sort(o.users)
	if o.seconds < time.Second || o.seconds > time.Minute {
		return fmt.Errorf("-time: %s; allowed are 1s to 60s", o.seconds)
	}
	if o.conns < 1 || o.conns > 1024 {
		return fmt.Errorf("-conns: %d; allowed are 1 to 1024", o.conns)
	}
	return nil
}

// inFolder runs work in the folder for stores, or in one that goes with it.
func (b *bench) inFolder(work func(dir string) error) error {
	if b.data != "" {
		return errors.Join(os.MkdirAll(b.data, 0o700), work(b.data))
	}
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return err
	}
	return errors.Join(work(dir), os.RemoveAll(dir))
}

func (b *bench) run(ctx context.Context, dir string) error {
	if err := b.limits(ctx, dir); err != nil {
		return err
	}
	if err := b.first(ctx, dir); err != nil {
		return err
	}
	for _, part := range []func(context.Context, string) error{b.overload, b.idle, b.rateLimits} {
		if err := part(ctx, dir); err != nil {
			return err
		}
	}
	for _, n := range b.users {
		if err := b.sized(ctx, dir, n); err != nil {
			return err
		}
	}
	b.flat()
	return b.peersLoad(ctx)
}

func (b *bench) wants(name string) bool { return b.only.MatchString(name) }

func (b *bench) add(f Figure) {
	if f.Limit > 0 {
		f.Ratio = f.Value / f.Limit
	}
	b.figures = append(b.figures, f)
	fmt.Fprintf(os.Stderr, "%-44s %12s %s\n", f.Name, short(f.Value), f.Unit)
}

// measure runs a load, profiles the node meanwhile where asked, and adds a figure.
func (b *bench) measure(ctx context.Context, n *node, f Figure, l load) (result, error) {
	if !b.wants(f.Name) || ctx.Err() != nil {
		return result{}, ctx.Err()
	}
	if l.time == 0 {
		l.time = b.seconds
	}
	if l.conns == 0 {
		l.conns = b.conns
	}
	if l.address == "" {
		l.address = n.http
	}
	warm := l
	warm.time, warm.most = 300*time.Millisecond, 0
	if l.most == 0 && l.rate == 0 {
		warm.run(ctx)
	}
	profiled := make(chan error, 1)
	if b.profiles != "" {
		go func() {
			name := strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(f.Name) + ".pprof"
			profiled <- n.profile(ctx, filepath.Join(b.profiles, name), max(time.Second, l.time-time.Second))
		}()
	} else {
		profiled <- nil
	}
	before := 0.0
	if f.limit != nil {
		before = f.limit()
	}
	r := l.run(ctx)
	if f.limit != nil {
		f.Limit = (before + f.limit()) / 2
	}
	if err := <-profiled; err != nil {
		return r, err
	}
	if r.err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "  %d failed, the first: %v\n", r.Failed, r.err)
	}
	if f.Unit == "" {
		f.Value, f.Unit = r.Rate, "/s"
	}
	f.Failed, f.latency = r.Failed, &r.latency
	b.add(f)
	return r, nil
}

func always(op operation) func(int) operation { return func(int) operation { return op } }

// documentSize is about that of the discovery document, in bytes.
const documentSize = 1800

func (b *bench) limits(ctx context.Context, dir string) (err error) {
	if b.signs, err = signs(time.Second); err != nil {
		return err
	}
	for _, alg := range algorithms {
		b.add(Figure{Name: "limit: Go signs " + alg, Value: b.signs[alg](), Unit: "/s"})
	}
	b.hashes = func() float64 { return hashes(2 * time.Second) }
	b.add(Figure{Name: "limit: argon2id, the pool's size", Value: b.hashes(), Unit: "/s"})
	b.floor = func() float64 {
		rate, floorErr := floor(ctx, documentSize, b.conns, time.Second)
		err = errors.Join(err, floorErr)
		return rate
	}
	b.add(Figure{Name: "limit: net/http with a document's bytes", Value: b.floor(), Unit: "/s"})
	if err != nil {
		return err
	}
	rate, err := syncs(dir, time.Second)
	b.add(Figure{Name: "limit: fsync, one after the other", Value: rate, Unit: "/s"})
	return err
}

// first measures everything that does not depend on the number of users.
func (b *bench) first(ctx context.Context, dir string) (err error) {
	data := filepath.Join(dir, "empty")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	n, err := start(ctx, b.binary, data, b.settings...)
	if err != nil {
		return err
	}
	b.add(Figure{Name: "start: new data folder to first 200", Value: ms(n.first), Unit: "ms"})
	if err := n.stop(); err != nil {
		return err
	}
	if n, err = start(ctx, b.binary, data, b.settings...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	b.add(Figure{Name: "start: store without users to first 200", Value: ms(n.first), Unit: "ms", Target: "under 200"})
	time.Sleep(2 * time.Second)
	if err := b.memory(n, "memory: idle", "under 50"); err != nil {
		return err
	}
	s, err := setUp(n, 64)
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, *scene) error{b.documents, b.machines, b.people, b.timing, b.logins} {
		if err := part(ctx, s); err != nil {
			return err
		}
	}
	time.Sleep(5 * time.Second)
	return b.memory(n, "memory: after all loads", "")
}

func (b *bench) memory(n *node, name, target string) error {
	mib, err := n.rss()
	b.add(Figure{Name: name, Value: mib, Unit: "MiB", Target: target})
	return err
}

func (b *bench) documents(ctx context.Context, s *scene) error {
	for name, path := range map[string]string{"discovery": "/.well-known/openid-configuration", "jwks": "/.well-known/jwks.json"} {
		op := always(expect(request("GET", s.n.host, path, "", nil), http.StatusOK))
		if _, err := b.measure(ctx, s.n, Figure{Name: name, limit: b.floor, Of: "net/http", Target: "50,000"}, load{worker: op}); err != nil {
			return err
		}
		if _, err := b.measure(ctx, s.n, Figure{Name: name + ", TLS 1.3"}, load{worker: op, address: s.n.https, tls: s.n.tlsConf}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) machines(ctx context.Context, s *scene) error {
	targets := map[string]string{"RS256": "0.85 of the limit", "ES256": "10,000"}
	for _, alg := range algorithms {
		f := Figure{Name: "client_credentials " + alg, limit: b.signs[alg], Of: "Go signs", Target: targets[alg]}
		op := always(s.clientCredentials(alg))
		full, err := b.measure(ctx, s.n, f, load{worker: op})
		if err != nil {
			return err
		}
		if full.Rate > 0 {
			r, err := b.measure(ctx, s.n, Figure{Name: f.Name + ", 70 % load"}, load{worker: op, rate: full.Rate * .7})
			if err != nil {
				return err
			}
			if r.P50 > 0 {
				b.add(Figure{Name: f.Name + ", 70 % load: p99 over p50", Value: r.P99 / r.P50, Unit: "x", Target: "under 10"})
			}
		}
		if _, err := b.measure(ctx, s.n, Figure{Name: f.Name + ", TLS 1.3"}, load{worker: op, address: s.n.https, tls: s.n.tlsConf}); err != nil {
			return err
		}
	}
	return nil
}

// people measures what follows a login: userinfo, introspection, refresh.
func (b *bench) people(ctx context.Context, s *scene) error {
	if !b.wants("userinfo") && !b.wants("introspection") && !b.wants("refresh") {
		return nil
	}
	const chains = 64
	c := &conn{address: s.n.http}
	defer c.close()
	t, err := s.password(c, s.users[0], "", "openid profile email")
	if err != nil {
		return err
	}
	req, err := s.bearer("GET", "/userinfo", t.Access, nil)
	if err != nil {
		return err
	}
	if _, err := b.measure(ctx, s.n, Figure{Name: "userinfo", Target: "12,000"}, load{worker: always(expect(req, http.StatusOK))}); err != nil {
		return err
	}
	op := expect(s.form("/oauth/introspect", url.Values{"token": {t.Access}, "client_id": {s.web.id}, "client_secret": {s.web.secret}}), http.StatusOK)
	if _, err := b.measure(ctx, s.n, Figure{Name: "introspection", Target: "12,000"}, load{worker: always(op)}); err != nil {
		return err
	}
	for _, alg := range []string{"ES256", "RS256"} {
		f := Figure{Name: "refresh with rotation, durable, " + alg}
		if alg == "ES256" {
			f.Target = "4,000"
		} else {
			f.limit, f.Of = b.signs[alg], "Go signs"
		}
		if !b.wants(f.Name) {
			continue
		}
		first := make([]string, chains)
		for i := range first {
			t, err := s.password(c, s.users[i%len(s.users)], audience(alg), "offline_access")
			if err != nil {
				return err
			}
			first[i] = t.Refresh
		}
		ops := make([]operation, chains)
		for i, token := range first {
			ops[i] = s.refresh(token)
		}
		if _, err := b.measure(ctx, s.n, f, load{conns: chains, worker: func(i int) operation { return ops[i] }}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) logins(ctx context.Context, s *scene) error {
	if b.wants("code flow, session") {
		worker, err := s.sso(b.conns)
		if err != nil {
			return err
		}
		if _, err := b.measure(ctx, s.n, Figure{Name: "code flow, session there (no hash)"}, load{worker: worker}); err != nil {
			return err
		}
	}
	if _, err := b.measure(ctx, s.n, Figure{Name: "code flow with password", limit: b.hashes, Of: "argon2id", Target: "0.9 of the limit"},
		load{worker: s.login(), conns: 16, time: b.seconds * 2}); err != nil {
		return err
	}
	const many = "memory: 200 logins at once"
	if !b.wants(many) {
		return nil
	}
	// The peak is looked for while the load runs.
	done, peak := make(chan struct{}), make(chan float64)
	go func() {
		most := 0.0
		for {
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(50 * time.Millisecond):
				if mib, err := s.n.rss(); err == nil {
					most = math.Max(most, mib)
				}
			}
		}
	}()
	load{address: s.n.http, conns: 200, time: b.seconds * 2, worker: s.login()}.run(ctx)
	close(done)
	b.add(Figure{Name: many, Value: <-peak, Unit: "MiB", Target: "under 150"})
	return nil
}

// sized measures what could depend on the number of users.
func (b *bench) sized(ctx context.Context, dir string, users int) (err error) {
	label := fmt.Sprintf("%d users: ", users)
	data := filepath.Join(dir, fmt.Sprintf("users-%d", users))
	if _, err := os.Stat(filepath.Join(data, "seeded")); errors.Is(err, os.ErrNotExist) {
		if err := os.RemoveAll(data); err != nil {
			return err
		}
		n, err := start(ctx, b.binary, data, b.settings...)
		if err != nil {
			return err
		}
		if err := n.stop(); err != nil {
			return err
		}
		took, err := seed(ctx, data, users)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "stored %d users in %s\n", users, took.Round(time.Millisecond))
		if err := os.WriteFile(filepath.Join(data, "seeded"), nil, 0o644); err != nil {
			return err
		}
	}
	n, err := start(ctx, b.binary, data, b.settings...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	b.add(Figure{Name: label + "start to first 200", Value: ms(n.first), Unit: "ms"})
	at := time.Now()
	if err := n.alone(ctx); err != nil {
		return err
	}
	b.add(Figure{Name: label + "search for damage beside the node", Value: time.Since(at).Seconds(), Unit: "s"})
	s, err := setUp(n, 0)
	if err != nil {
		return err
	}
	for i := range 1000 { // spread over the whole store
		s.users = append(s.users, fmt.Sprintf("user-%d@example.com", i*(users/1000)%users))
	}
	var one []struct {
		ID string `json:"user_id"`
	}
	if err := n.api("GET", "/users-by-email?email="+url.QueryEscape(s.users[len(s.users)/2]), nil, &one); err != nil {
		return err
	}
	if len(one) != 1 {
		return fmt.Errorf("%d users have the mail address of one", len(one))
	}
	id := url.PathEscape(one[0].ID)
	read, err := s.bearer("GET", "/api/v2/users/"+id, n.token, nil)
	if err != nil {
		return err
	}
	write, err := s.bearer("PATCH", "/api/v2/users/"+id, n.token, map[string]any{"user_metadata": map[string]any{"plan": "gold"}})
	if err != nil {
		return err
	}
	search := func(i int) operation {
		k := i
		return func(c *conn) error {
			k += 7
			q := url.QueryEscape(`email:"` + s.users[k%len(s.users)] + `"`)
			req, err := s.bearer("GET", "/api/v2/users?q="+q, n.token, nil)
			if err != nil {
				return err
			}
			return expect(req, http.StatusOK)(c)
		}
	}
	for name, worker := range map[string]func(int) operation{
		"read a user": always(expect(read, http.StatusOK)), `search q=email:"…"`: search, "client_credentials ES256": always(s.clientCredentials("ES256")),
	} {
		if _, err := b.measure(ctx, n, Figure{Name: label + name}, load{worker: worker}); err != nil {
			return err
		}
	}
	if _, err := b.measure(ctx, n, Figure{Name: label + "write a user"}, load{worker: always(expect(write, http.StatusOK)), conns: 64}); err != nil {
		return err
	}
	_, err = b.measure(ctx, n, Figure{Name: label + "code flow with password", limit: b.hashes, Of: "argon2id"}, load{worker: s.login(), conns: 16, time: b.seconds * 2})
	return err
}

// flat compares the smallest with the largest store.
func (b *bench) flat() {
	if len(b.users) < 2 {
		return
	}
	small, large := fmt.Sprintf("%d users: ", b.users[0]), fmt.Sprintf("%d users: ", b.users[len(b.users)-1])
	for _, f := range slices.Clone(b.figures) {
		what, ok := strings.CutPrefix(f.Name, large)
		if !ok {
			continue
		}
		i := slices.IndexFunc(b.figures, func(g Figure) bool { return g.Name == small+what })
		if i < 0 || f.Value == 0 || f.Unit == "s" {
			continue
		}
		cost := b.figures[i].Value / f.Value
		if f.Unit == "ms" {
			cost = 1 / cost
		}
		b.add(Figure{Name: fmt.Sprintf("cost at %d over %d users: %s", b.users[len(b.users)-1], b.users[0], what), Value: cost, Unit: "x", Target: "under 1.2"})
	}
}

func parsePeer(s string) (name string, l load, err error) {
	name, rest, _ := strings.Cut(s, "=")
	parts := strings.Split(rest, ",")
	if name == "" || len(parts) < 3 || len(parts) > 4 {
		return "", l, fmt.Errorf("%q: wants NAME=TOKEN_URL,CLIENT,SECRET[,AUDIENCE]", s)
	}
	u, err := url.Parse(parts[0])
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return "", l, fmt.Errorf("%q: wants http://HOST:PORT/PATH as the token endpoint", parts[0])
	}
	v := url.Values{"grant_type": {"client_credentials"}, "client_id": {parts[1]}, "client_secret": {parts[2]}}
	if len(parts) == 4 {
		v.Set("audience", parts[3])
	}
	req := request("POST", u.Host, u.RequestURI(), formType, []byte(v.Encode()))
	return name, load{address: u.Host, worker: always(expect(req, http.StatusOK))}, nil
}

func (b *bench) peersLoad(ctx context.Context) error {
	for _, p := range b.peers {
		name, l, err := parsePeer(p)
		if err != nil {
			return err
		}
		l.time, l.conns = b.seconds, b.conns
		r := l.run(ctx)
		if r.err != nil {
			fmt.Fprintf(os.Stderr, "  %s: %d failed, the first: %v\n", name, r.Failed, r.err)
		}
		b.add(Figure{Name: "peer " + name + ": client_credentials", Value: r.Rate, Unit: "/s", Failed: r.Failed, latency: &r.latency})
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func short(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func (b *bench) table() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "| figure\t| value\t| of the limit\t| target\t| p50\t| p99\t| p99.9 ms\t| failed\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, f := range b.figures {
		ratio, l, failed := "", [3]string{}, ""
		if f.Limit > 0 {
			ratio = fmt.Sprintf("%.2f of %s %s", f.Ratio, short(f.Limit), f.Of)
		}
		if f.latency != nil {
			l = [3]string{short(f.P50), short(f.P99), short(f.P999)}
			failed = strconv.Itoa(f.Failed)
		}
		fmt.Fprintf(w, "| %s\t| %s %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", f.Name, short(f.Value), f.Unit, ratio, f.Target, l[0], l[1], l[2], failed)
	}
	_ = w.Flush() // a report that nobody reads is no error
}

func (b *bench) writeJSON() error {
	raw, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.json, append(raw, '\n'), 0o644)
}
