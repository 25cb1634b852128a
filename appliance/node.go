package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis-id/portcullis/addresses"
	"github.com/portcullis-id/portcullis/audit"
	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/control"
	"github.com/portcullis-id/portcullis/dashboard"
	"github.com/portcullis-id/portcullis/egress"
	"github.com/portcullis-id/portcullis/enforce"
	"github.com/portcullis-id/portcullis/health"
	"github.com/portcullis-id/portcullis/login"
	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/mgmt"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/searchindex"
	"github.com/portcullis-id/portcullis/signing"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/telemetry"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/upstream"
	"github.com/portcullis-id/portcullis/web"
)

// Options are what a node needs beside its configuration.
type Options struct {
	Version string
	Log     io.Writer // where the log goes
	Env     []string  // for the master key
	// Program is this program's file, to run the integrity check in a process of its
	// own at the lowest priority. Empty means no check beside the node.
	Program string
	Now     func() time.Time
}

// Node is one running appliance.
type Node struct {
	cfg    Config
	own    Config // cfg without the cluster's settings
	opts   Options
	lines  *telemetry.LogBuffer
	logger *slog.Logger

	// OnReady is called once, when the node answers.
	OnReady func(Ready)

	store     *store.Store
	site      *siteWatch // nil in an appliance on one site
	cache     *tenant.Cache
	directory *tenant.Directory
	keys      *tenant.Keys
	log       *tenant.LogWriter
	dialer    *egress.Dialer
	contract  netcontract.Table
	hasher    *password.Hasher
	mailbox   *mail.Mailbox
	smtp      *mail.SMTP
	outbox    *mail.Outbox
	users     *authn.Service
	oauth     *oauth.Provider
	pages     *login.Pages
	mgmt      *mgmt.API
	health    *health.Service
	metrics   *telemetry.Metrics
	tracer    *telemetry.Tracer
	setup     *dashboard.Setup
	upstream  *upstream.Service
	gate      *overload.Gate
	audit     *audit.Watch
	limits    *limits
	enforce   *enforce.Guard
	firewall  *audit.FirewallWatch
	addresses *addresses.Watch
	control   *control.Service        // nil on a single node
	alone     *control.Alone          // nil in a cluster, and on SQLite
	search    *searchindex.Indexer    // nil where the store searches
	indexed   bool                    // without search: other nodes have it
	conns     map[string]*connections // by surface
	drain     *drain
	rooms     roster

	settings int64              // version of the cluster's settings in cfg
	stop     func(reason error) // ends Run

	closeOnce sync.Once
}

// New makes a node of a configuration that was validated. It opens nothing yet.
func New(cfg Config, opts Options) (*Node, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	lines := telemetry.NewLogBuffer(opts.Log)
	logger, err := telemetry.NewLogger(lines, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return nil, errors.Join(err, lines.Close())
	}
	return &Node{cfg: cfg, own: cfg, opts: opts, lines: lines, logger: logger, drain: newDrain()}, nil
}

// scopes are those of a tenant's Management API.
func (n *Node) scopes(root bool) []string { return mgmt.Scopes(root) }

// Run opens the store, builds the rooms, serves until ctx ends, and leaves
// nothing behind that was acknowledged and is not on disk. A node of a cluster may
// end by itself, with ErrRestart or the reason why it is no node any more.
func (n *Node) Run(ctx context.Context) error {
	tuneRuntime()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n.stop = stop
	if err := n.open(ctx); err != nil {
		return err
	}
	defer func() { _ = n.Close() }()
	if err := n.build(ctx); err != nil {
		return err
	}
	surfaces, ready, err := n.listen(ctx)
	if err != nil {
		return err
	}

	// Background work outlives the listeners: what the last requests caused is still
	// written and sent on its way.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	background := map[string]func(context.Context) error{
		"tenant logs": n.log.Run, "mail": n.outbox.Run, "purge": n.purge,
		"integrity":       n.verify,
		"network audit":   n.audit.Run,
		"rate limits":     n.limits.service.Run,
		"host firewall":   n.firewall.Run,
		"addresses":       n.addresses.Run,
		"password resets": func(ctx context.Context) error { return n.users.Run(ctx, n.mgmt.Tenants) },
		"jobs":            func(ctx context.Context) error { return n.mgmt.Run(ctx, n.mgmt.Tenants) },
	}
	if n.search != nil {
		background["search index"] = n.search.Run
	} else {
		background["search index of others"] = n.watchSearch
	}
	for name, run := range background {
		g.Go(n.rooms.watch(name, func() error { return run(work) }))
	}
	if n.control != nil {
		g.Go(n.rooms.watch("control plane", func() error { return n.control.Run(work) }))
	}
	if n.alone != nil {
		g.Go(n.rooms.watch("claim to the database", func() error { return n.alone.Keep(work, n.stop) }))
	}

	n.logger.InfoContext(ctx, "the node answers", "version", n.opts.Version, "url", ready.URL)
	if n.OnReady != nil {
		n.OnReady(ready)
	}
	n.drain.handOver = n.leaveRateLimits
	err = serve(ctx, n.logger, surfaces, n.conns, n.drain, time.Duration(n.cfg.Listen.Drain)*time.Second)
	n.logger.InfoContext(ctx, "the node stops")
	n.limits.service.Close()
	stopWork()
	err = errors.Join(err, g.Wait())
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// Close lets go of the store and writes the last lines of the log. It may be
// called twice.
func (n *Node) Close() error {
	var err error
	n.closeOnce.Do(func() {
		if n.tracer != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			err = n.tracer.Close(ctx)
		}
		if n.site != nil {
			n.site.stop()
		}
		if n.alone != nil {
			n.alone.Release()
		}
		if n.store != nil {
			err = errors.Join(err, n.store.Close())
		}
		err = errors.Join(err, n.lines.Close())
	})
	return err
}

func (n *Node) open(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	sealer, err := n.cfg.sealer(n.opts.Env)
	if err != nil {
		return err
	}
	if n.cfg.Site.Name != "" {
		n.site = newSiteWatch(n)
		if err := n.site.await(ctx); err != nil {
			return err
		}
	}
	if n.store, err = store.Open(ctx, n.cfg.dsn(), store.Options{Sealer: sealer, Now: n.opts.Now, Database: n.bounds()}); err != nil {
		return err
	}
	if n.site != nil {
		if err := n.site.start(ctx); err != nil {
			return err
		}
		n.store.SetGuard(n.site.Refusal)
	}
	return n.joinCluster(ctx)
}

// build makes the rooms and fills their interfaces.
func (n *Node) build(ctx context.Context) (err error) {
	cfg := n.cfg
	hosts := cfg.Hosts()
	n.metrics = telemetry.NewMetrics(n.opts.Version)
	// One more than the processors: a request that waits for a lock leaves none idle.
	n.gate = overload.New(overload.Config{Slots: processors + 1})
	n.conns = map[string]*connections{}
	for _, surface := range []string{"https", "http", "terminated", "health", "rate limits"} {
		n.conns[surface] = newConnections(maxConnections(cfg.Listen.MaxConnections))
	}
	n.cache = tenant.NewCache(n.store, 0)
	if n.site != nil {
		n.site.onEpoch(n.cache.InvalidateAll)
	}
	n.directory = tenant.NewDirectory(hosts, n.cache)
	if err := n.buildControl(); err != nil {
		return err
	}
	if err := n.restrict(ctx); err != nil {
		return err
	}
	engine, err := signing.Named(cfg.Signing.Engine)
	if err != nil {
		return err
	}
	n.logger.InfoContext(ctx, "tokens are signed", "by", engine.Name())
	n.keys = tenant.NewKeys(n.cache, engine)
	n.log = tenant.NewLogWriter(n.cache, n.logger, n.opts.Now)
	if n.limits, err = newLimits(cfg.RateLimits, n.rateLimitCluster(), n.cache, n.log, n.logger, n.opts.Now); err != nil {
		return err
	}
	allowed := cfg.Network.AllowedHosts
	if cfg.Dev {
		// Other providers of a developer run on the same machine.
		allowed = append([]string{"localhost", "127.0.0.0/8", "::1/128"}, allowed...)
	}
	if n.dialer, err = egress.New(egress.Config{AllowedHosts: allowed, Proxy: cfg.Network.Proxy, Dialling: n.enforce.Connect}, n.contract, nil); err != nil {
		return err
	}
	if err := n.buildSearch(ctx); err != nil {
		return err
	}
	workers := cfg.Passwords.Workers
	if workers == 0 {
		workers = max(1, processors-1) // a processor is left to everything else
	}
	if n.hasher, err = password.New(password.Config{MemoryKiB: cfg.Passwords.MemoryKiB, Time: cfg.Passwords.Time, Workers: workers}); err != nil {
		return err
	}
	n.connectRateLimits()
	var transport mail.Transport
	switch {
	case cfg.SMTP.Host != "":
		n.smtp = mail.NewSMTP(mail.SMTPConfig{Host: cfg.SMTP.Host, Port: cfg.SMTP.Port, Username: cfg.SMTP.Username, Password: cfg.SMTP.Password.Reveal(),
			From: cfg.SMTP.From, TLS: cfg.SMTP.TLS}, n.dialer.DialContext(netcontract.SMTP, cfg.SMTP.Host))
		transport = n.smtp
	case cfg.Dev:
		n.mailbox = mail.NewMailbox()
		transport = n.mailbox
	}
	n.outbox = mail.NewOutbox(n.cache, func(ctx context.Context) ([]string, error) { return n.mgmt.Tenants(ctx) }, transport, n.log, n.logger)
	n.users = authn.New(n.cache, n.directory, n.hasher, n.outbox, n.log, n.logger)
	n.oauth = oauth.New(oauth.Deps{Docs: n.cache, Directory: n.directory, Keys: n.keys, Users: passwords{n.users}, Log: n.log, Logger: n.logger, Now: n.opts.Now})
	social := n.dialer.Client(netcontract.Social, egress.Options{})
	social.Transport = pausing{social.Transport}
	n.upstream = upstream.New(n.cache, n.directory, social, n.dialer.CheckURL, n.opts.Now)
	if n.pages, err = login.New(login.Deps{Directory: n.directory, Flow: n.oauth, Users: n.users, Upstream: n.upstream, Logger: n.logger}); err != nil {
		return err
	}
	n.oauth.SetPages(n.pages)
	n.mgmt = mgmt.New(mgmt.Deps{Cache: n.cache, Directory: n.directory, Keys: n.keys, Users: n.users, Tokens: n.oauth, Log: n.log, Logger: n.logger,
		CheckURL: n.dialer.CheckURL, CheckConnection: n.upstream.CheckOptions})
	if cfg.Traces.Endpoint != "" {
		client := n.dialer.Client(netcontract.Traces, egress.Options{Trusted: []string{hostOf(cfg.Traces.Endpoint)}})
		if n.tracer, err = telemetry.NewTracer(ctx, cfg.Traces.Endpoint, n.opts.Version, client); err != nil {
			return err
		}
	}
	n.buildAudit()
	n.buildDrift()
	if err := n.buildAddresses(); err != nil {
		return err
	}
	if err := n.buildHealth(); err != nil {
		return err
	}
	n.registerMetrics()
	n.warnOfReplication(ctx)
	if _, err := n.mgmt.EnsureTenant(ctx, cfg.RootTenant, true); err != nil {
		return err
	}
	if cfg.DefaultTenant != "" && cfg.DefaultTenant != cfg.RootTenant {
		if _, err := n.mgmt.EnsureTenant(ctx, cfg.DefaultTenant, false); err != nil {
			return err
		}
	}
	return nil
}

// passwords lets oauth ask authn.
type passwords struct{ users *authn.Service }

func (p passwords) Authenticate(ctx context.Context, c oauth.Credentials) (*tenant.User, error) {
	u, err := p.users.Login(ctx, authn.Attempt{Origin: authn.Origin{IP: web.ClientIP(ctx).String()}, Tenant: c.Tenant, Client: c.Client,
		Connection: c.Connection, Identifier: c.Username, Password: c.Password})
	switch e := problem.From(err); {
	case err == nil:
		return u, nil
	case e.Code == authn.CodeWrong:
		return nil, problem.Wrap(problem.Forbidden, "invalid_grant", err, "Wrong email or password.")
	case e.Code == authn.CodeBlocked:
		return nil, problem.Wrap(problem.Unauthorized, "unauthorized", err, "user is blocked")
	}
	return nil, err
}

// purge deletes what has expired, now and then.
func (n *Node) purge(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if deleted, err := n.store.Purge(ctx); err != nil && ctx.Err() == nil {
			n.logger.ErrorContext(ctx, "expired documents could not be deleted", "error", err)
		} else if deleted > 0 {
			n.logger.InfoContext(ctx, "deleted expired documents", "count", deleted)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Node) registerMetrics() {
	n.metrics.Counter("portcullis_log_lines_dropped_total", "Lines of the node's log that were lost because nobody read it.", func() float64 { return float64(n.lines.Dropped()) })
	n.limits.metrics(n.metrics)
	for surface, c := range n.conns {
		labels := map[string]string{"surface": surface}
		n.metrics.LabelledGauge("portcullis_connections_open", "Connections that are open, by listener.", labels, func() float64 { return float64(c.open()) })
		n.metrics.LabelledCounter("portcullis_connections_closed_for_room_total", "Connections that were closed because there were too many, by listener.", labels, func() float64 { return float64(c.closedForRoom()) })
	}
	for _, c := range overload.Classes() {
		labels := map[string]string{"class": c.String()}
		n.metrics.LabelledCounter("portcullis_requests_shed_total", "Requests that were turned away under overload, by class.", labels, func() float64 { return float64(n.gate.Shed(c)) })
		n.metrics.LabelledGauge("portcullis_requests_waiting", "Requests that wait for a slot, by class.", labels, func() float64 { return float64(n.gate.Waiting(c)) })
	}
	n.metrics.Gauge("portcullis_draining", "1 while the node tells load balancers to leave it out.", func() float64 {
		if n.drain.on() {
			return 1
		}
		return 0
	})
	n.metrics.Gauge("portcullis_password_hashes_waiting", "Password hashes that run or wait.", func() float64 { return float64(n.hasher.Waiting()) })
	n.metrics.Counter("portcullis_database_outages_total", "How often the connection to the database was lost.", func() float64 { return float64(n.store.Outages()) })
	n.metrics.Counter("portcullis_database_commits_resolved_total", "Commits whose answer was lost and which were looked up.", func() float64 { return float64(n.store.Resolved()) })
	n.metrics.Counter("portcullis_tenant_log_events_dropped_total", "Tenant log events that were lost because the store was away.", func() float64 { return float64(n.log.Dropped()) })
}

// handler is what the main listeners serve.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	n.oauth.Register(mux)
	n.pages.Register(mux)
	n.mgmt.Register(mux)
	n.setup.Register(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n.pages.Error(w, r, problem.New(problem.NotFound, "not_found", "There is nothing at this address."))
	})
	counted := n.limits.handler(mux)
	routed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, err := n.directory.ByHost(r.Context(), r.Host)
		if err != nil {
			web.EventFrom(r.Context()).Fail(err)
			n.pages.Error(w, r, problem.From(err))
			return
		}
		web.EventFrom(r.Context()).Set("tenant", t.Name)
		inner := r.WithContext(tenant.WithTenant(r.Context(), t))
		counted.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // for metrics and traces
	})
	return routed
}

// front is what the listeners for everybody serve: tenants as the gate admits,
// and health, which never waits. guard lets through what came over TLS.
func (n *Node) front(tenants http.Handler, guard func(*Config, http.Handler) http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /testall", n.health.TestAllHandler())
	mux.Handle("/health/", http.StripPrefix("/health", n.health.StatusHandler()))
	if n.mailbox != nil {
		mux.Handle("/mailbox", n.mailbox.Handler())
		mux.Handle("/mailbox/", n.mailbox.Handler())
	}
	mux.Handle("/", fit(n.unfit, admit(n.gate, tenants)))
	return n.drain.closing(forwardedHost(&n.cfg, guard(&n.cfg, mux)))
}

// wrap is what every listener does around its handler.
func (n *Node) wrap(h http.Handler) http.Handler {
	h = web.Middleware(web.Config{Logger: n.logger, TrustedProxies: n.cfg.trustedProxies(), Observer: n.metrics.Observe, Now: n.opts.Now}, h)
	if n.tracer != nil {
		h = n.tracer.Middleware(h)
	}
	return h
}

// listen opens every port, each for a row of the contract.
func (n *Node) listen(ctx context.Context) (surfaces []surface, ready Ready, err error) {
	defer func() {
		if err != nil {
			for _, s := range surfaces {
				s.listener.Close()
			}
		}
	}()
	cfg, hosts := n.cfg, n.cfg.Hosts()
	front := cfg.DefaultTenant
	if front == "" {
		front = cfg.RootTenant
	}
	ready = Ready{URL: hosts.URL(front), Root: hosts.URL(cfg.RootTenant), Data: cfg.Data}
	var certificate func(time.Time) (*tls.Certificate, error)
	if cfg.Listen.usesTLS() {
		if certificate, ready.RootCA, err = n.certificates(); err != nil {
			return surfaces, ready, err
		}
	}
	if err := n.buildSetup(ready.RootCA); err != nil {
		return surfaces, ready, err
	}
	main := n.handler()
	public := n.wrap(n.front(main, secure))
	trusted := cfg.trustedProxies()
	n.setup.SetFront(public)

	if cfg.Listen.HTTPS != 0 {
		l, err := listen(ctx, netcontract.LB, cfg.Listen.Address, cfg.Listen.HTTPS)
		if err != nil {
			return surfaces, ready, err
		}
		over := tls.NewListener(proxied(l, cfg.Listen.ProxyProtocol, trusted), tlsConfig(certificate, n.opts.Now))
		surfaces = append(surfaces, surface{row: netcontract.LB, name: "https", listener: over, handler: public, port: l})
	}
	if cfg.Listen.HTTP != 0 {
		l, err := listen(ctx, netcontract.LB, cfg.Listen.Address, cfg.Listen.HTTP)
		if err != nil {
			return surfaces, ready, err
		}
		surfaces = append(surfaces, surface{row: netcontract.LB, name: "http", listener: proxied(l, cfg.Listen.ProxyProtocol, trusted), handler: public, port: l})
	}
	if cfg.Listen.Terminated != 0 {
		l, err := listen(ctx, netcontract.LB, cfg.Listen.Address, cfg.Listen.Terminated)
		if err != nil {
			return surfaces, ready, err
		}
		var over net.Listener = onlyFrom{l, trusted}
		if cfg.Listen.TerminatedTLS {
			over = tls.NewListener(over, tlsConfig(certificate, n.opts.Now))
		}
		surfaces = append(surfaces, surface{row: netcontract.LB, name: "terminated", listener: over, handler: n.wrap(n.front(main, terminated)), h2c: !cfg.Listen.TerminatedTLS, port: l})
	}
	if cfg.Listen.Health != 0 {
		address := cfg.Listen.HealthAddress
		if address == "" {
			address = cfg.Listen.Address
		}
		l, err := listen(ctx, netcontract.Health, address, cfg.Listen.Health)
		if err != nil {
			return surfaces, ready, err
		}
		ready.Health = "http://" + l.Addr().String()
		if cfg.Health.APIKey == "" {
			ready.HealthKey = filepath.Join(cfg.Data, healthKeyFile)
		}
		surfaces = append(surfaces, surface{row: netcontract.Health, name: "health", listener: l, handler: n.wrap(n.health.Handler(n.metrics.Handler()))})
	}
	if n.control != nil {
		s, err := n.clusterSurface(ctx)
		if err != nil {
			return surfaces, ready, err
		}
		surfaces = append(surfaces, s)
	}
	if n.rateLimitPort() != 0 {
		s, err := n.rateLimitSurface(ctx, certificate)
		if err != nil {
			return surfaces, ready, err
		}
		ready.RateLimits = s.listener.Addr().String()
		surfaces = append(surfaces, s)
	}
	local, err := listenLocal(cfg.Data)
	if err != nil {
		return surfaces, ready, err
	}
	surfaces = append(surfaces, surface{name: "local", listener: local, handler: n.wrap(n.localHandler(main))})
	if n.mailbox != nil {
		ready.Mailbox = hosts.URL(front) + "mailbox"
	}
	ready.Setup, err = n.setup.Link(ctx)
	return surfaces, ready, err
}

// certificates returns where the TLS certificate comes from: files, or the local
// authority of --dev, whose root's file it names.
func (n *Node) certificates() (get func(time.Time) (*tls.Certificate, error), rootCA string, err error) {
	if n.cfg.TLS.Certificate != "" {
		files := &certFile{cert: n.cfg.TLS.Certificate, key: n.cfg.TLS.Key}
		_, err := files.get(n.opts.Now())
		return files.get, "", err
	}
	ca, err := loadAuthority(n.cfg.Data, n.opts.Now())
	if err != nil {
		return nil, "", err
	}
	get = func(now time.Time) (*tls.Certificate, error) { return ca.certificate(n.cfg.Domain, now) }
	_, err = get(n.opts.Now())
	return get, ca.rootFile, err
}

const healthKeyFile = "health.key"

// healthKey is the password of the health endpoints: the configured one, or one
// that is made once and kept in the data folder.
func (n *Node) healthKey() (string, error) {
	if k := n.cfg.Health.APIKey.Reveal(); k != "" {
		return k, nil
	}
	path := filepath.Join(n.cfg.Data, healthKeyFile)
	raw, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(raw)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the health password: %w", err)
	}
	key := tenant.RandomString(32)
	return key, os.WriteFile(path, []byte(key+"\n"), 0o600)
}

func (n *Node) buildHealth() error {
	key, err := n.healthKey()
	if err != nil {
		return err
	}
	smtp := func() string { return n.cfg.SMTP.Host }
	checks := []health.Check{
		health.CPU(health.System{}), health.Memory(health.System{}), health.Disk(health.System{}, "/", n.cfg.Data),
		health.Services(n.rooms.status),
		health.Network(n.otherNodes, health.Ping, n.networkProblem, n.enforce.Note, n.firewall.Note, n.addresses.Note),
		health.Internet(func() string { return "" }, func(context.Context, string) error { return nil }),
		health.Email(smtp, func(ctx context.Context, _ string) error { return n.smtp.Check(ctx) }),
		health.DB(n.store.Ping, n.bearsDatabase),
		health.ReplicaSet(n.replicaSet),
	}
	if n.control != nil {
		checks = append(checks, n.clusterCheck())
	}
	if n.site != nil {
		checks = append(checks, n.site.check())
	}
	n.health, err = health.New(health.Config{Key: key, Now: n.opts.Now, Draining: n.drain.on}, append(checks, n.searchHealth()...)...)
	return err
}

// hostOf is the host of a URL that was validated.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
