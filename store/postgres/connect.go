package postgres

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// DefaultPort is where a connection string without a port leads: row database of
// the network contract.
const DefaultPort = 27017

// Config bounds the work with the database. The zero value works.
type Config struct {
	// MaxConnections of the pool, 4 to 1000; 0 means 32. The server has to allow as
	// many for each node.
	MaxConnections int
	// ConnectTimeout bounds the way to one host: TCP, TLS and the log-in. 0 means 3 s.
	ConnectTimeout time.Duration
	// StatementTimeout is how long the server works on one statement. 0 means 30 s.
	StatementTimeout time.Duration
	// FailoverTimeout is how long a request waits for a database that went away, from
	// the moment at which it went. 0 means 10 s.
	FailoverTimeout time.Duration
	// Standby is a connection string for reads that may be seconds old: those of the
	// tenants' logs. Empty means that everything is read where it is written.
	Standby string
	// Waiting is called while a request waits for the database to come back; what it
	// returns is called after it.
	Waiting func(ctx context.Context) (resume func())
	// Name is what the server shows of the connections; "" means a node's.
	Name string
	// Dial replaces the TCP dialer, in tests.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *slog.Logger // nil means that outages are not logged
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		value *time.Duration
		is    time.Duration
	}{{&c.ConnectTimeout, 3 * time.Second}, {&c.StatementTimeout, 30 * time.Second}, {&c.FailoverTimeout, 10 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.is
		}
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 32
	}
	if c.Name == "" {
		c.Name = applicationName()
	}
	if c.Waiting == nil {
		c.Waiting = func(context.Context) func() { return func() {} }
	}
	if c.Dial == nil {
		d := &net.Dialer{}
		d.SetMultipathTCP(false) // Landlock's network rules do not see it
		c.Dial = d.DialContext
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// split takes a connection string apart: a URL without hosts, which Go's parser does
// not take when there are several, and HOST:PORT of each.
func split(dsn string) (*url.URL, []string, error) {
	scheme, rest, ok := strings.Cut(dsn, "://")
	if !ok || scheme != "postgres" && scheme != "postgresql" {
		return nil, nil, errDSN()
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	user, names := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, names = authority[:i+1], authority[i+1:]
	}
	u, err := url.Parse(scheme + "://" + user + tail)
	if err != nil || u.Fragment != "" {
		return nil, nil, errDSN()
	}
	q := u.Query()
	ports := strings.Split(q.Get("port"), ",")
	var hosts []string
	if names == "" && q.Has("host") {
		names = q.Get("host")
	}
	for i, h := range strings.Split(names, ",") {
		port := ports[min(i, len(ports)-1)]
		switch host, own, err := net.SplitHostPort(h); {
		case strings.HasPrefix(h, "/"): // the folder of a socket
		case err == nil && !q.Has("host"):
			h, port = host, own
		case strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]"):
			h = strings.TrimSuffix(strings.TrimPrefix(h, "["), "]")
		}
		if port == "" {
			port = strconv.Itoa(DefaultPort)
		}
		if n, err := strconv.ParseUint(port, 10, 16); h == "" && (i > 0 || names != "") || err != nil || n == 0 || strings.ContainsAny(h, "[]") {
			return nil, nil, errDSN()
		}
		hosts = append(hosts, net.JoinHostPort(h, port))
	}
	q.Del("host")
	q.Del("port")
	u.RawQuery = q.Encode()
	return u, hosts, nil
}

// normal fills in what a connection string leaves out: the port for each host, and
// which server will do.
func normal(dsn, attrs string) (string, error) {
	u, addresses, err := split(dsn)
	if err != nil {
		return "", err
	}
	var hosts, ports []string
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return "", errDSN()
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	q := u.Query()
	if len(hosts) > 1 || hosts[0] != "" { // without one, pgx takes PGHOST, or the local server
		q.Set("host", strings.Join(hosts, ","))
	}
	q.Set("port", strings.Join(ports, ","))
	if !q.Has("target_session_attrs") {
		q.Set("target_session_attrs", attrs)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// The error of pgx has the password taken out, but not the rest of the string.
func errDSN() error {
	return problem.New(problem.Invalid, "invalid_dsn", "the database wants postgres://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE, with options as in ?sslmode=verify-full")
}

// Hosts counts the hosts that a connection string names.
func Hosts(dsn string) int {
	_, hosts, err := split(dsn)
	if err != nil {
		return 0
	}
	return len(hosts)
}

// Ports are the TCP ports that a connection string leads to; none for a local socket,
// or what is no such string.
func Ports(dsn string) []int {
	_, hosts, err := split(dsn)
	if err != nil {
		return nil
	}
	var out []int
	for _, h := range hosts {
		host, port, err := net.SplitHostPort(h)
		if err != nil || strings.HasPrefix(host, "/") {
			continue
		}
		if p, err := strconv.Atoi(port); err == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// Redacted is a connection string for people: its hosts and database, without the
// user's password and the options.
func Redacted(dsn string) string {
	u, hosts, err := split(dsn)
	if err != nil {
		return "postgres"
	}
	user := ""
	if name := u.User.Username(); name != "" {
		user = name + "@"
	}
	return "postgres://" + user + strings.Join(hosts, ",") + u.Path
}

// poolConfig reads a connection string. attrs is which server will do.
func poolConfig(dsn, attrs string, cfg Config) (*pgxpool.Config, error) {
	full, err := normal(dsn, attrs)
	if err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(full)
	if err != nil {
		return nil, errDSN()
	}
	u, err := url.Parse(full)
	if err != nil {
		return nil, errDSN()
	}
	if pc.MaxConns < 1 {
		return nil, errDSN()
	}
	// Settings in the string win.
	if !u.Query().Has("pool_max_conns") {
		pc.MaxConns = int32(min(cfg.MaxConnections, 1000)) // #nosec G115 -- bounded
	}
	if !u.Query().Has("connect_timeout") {
		pc.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	}
	params := pc.ConnConfig.RuntimeParams
	// A statement that runs for this long is broken off, and a transaction that its
	// node forgot: they hold locks that others wait for.
	for name, d := range map[string]time.Duration{"statement_timeout": cfg.StatementTimeout, "idle_in_transaction_session_timeout": max(cfg.StatementTimeout, 10*time.Second)} {
		if _, ok := params[name]; !ok {
			params[name] = strconv.FormatInt(d.Milliseconds(), 10)
		}
	}
	if _, ok := params["application_name"]; !ok {
		params["application_name"] = cfg.Name
	}
	pc.HealthCheckPeriod = 5 * time.Second
	pc.MaxConnLifetime = time.Hour
	pc.MaxConnLifetimeJitter = 10 * time.Minute
	pc.PingTimeout = cfg.ConnectTimeout
	d := &dialer{dial: cfg.Dial, timeout: cfg.ConnectTimeout, silent: map[string]time.Time{}}
	pc.ConnConfig.DialFunc = d.connect
	pc.ConnConfig.OnNotice = noteNotice
	pc.AfterConnect = settle
	return pc, nil
}

// slotKey is where a connection's custom data holds its slot in table commits.
const slotKey = "portcullis.slot"

// settle gives a new connection its slot, and lets the server notice within half a
// minute that a node is gone: its transactions hold locks until then.
func settle(ctx context.Context, c *pgx.Conn) error {
	c.PgConn().CustomData()[slotKey] = tenant.RandomString(22)
	_, err := c.Exec(ctx, "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 20000")
	if code(err) != "" && !c.IsClosed() {
		return nil // an engine that does not have the settings
	}
	return err
}

// The kernel's patience with a server that is silent: it is asked after five
// seconds, and given up after ten, whether it owes an answer or an acknowledgement.
const (
	keepIdle     = 5 * time.Second
	keepInterval = 2 * time.Second
	keepCount    = 3
	userTimeout  = 10 * time.Second
)

// dialer connects, and does not wait for long where nobody answered a moment ago:
// with several hosts, each new connection would wait for the one that is dead.
type dialer struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	timeout time.Duration

	mu     sync.Mutex
	silent map[string]time.Time // by address, since when
}

const (
	silentFor   = 30 * time.Second
	silentGrace = 500 * time.Millisecond
)

func (d *dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	since, silent := d.silent[address]
	d.mu.Unlock()
	timeout := d.timeout
	if silent && time.Since(since) < silentFor {
		timeout = min(timeout, silentGrace)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := d.dial(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil && len(d.silent) < 64 {
			d.silent[address] = time.Now()
		}
		return nil, err
	}
	delete(d.silent, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Where the kernel cannot, an outage is noticed later.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount})
		_ = setUserTimeout(tcp, userTimeout)
	}
	return conn, nil
}

// warnedKey is where a connection notes that the server warned it.
const warnedKey = "portcullis.warned"

// noteNotice notes warnings. PostgreSQL answers a commit with success and a warning
// when somebody cancelled the wait for the synchronous standby: it is on one server
// alone then.
func noteNotice(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" || n.SeverityUnlocalized == "" && n.Code == "01000" {
		c.CustomData()[warnedKey] = true
	}
}
