package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/control"
	"github.com/portcullis-id/portcullis/health"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/telemetry"
	"github.com/portcullis-id/portcullis/web"
)

// ErrRestart is how Run ends when the node is to start again: it was asked to, or
// the cluster has new settings.
var ErrRestart = control.ErrRestart

// hostOwn begins the settings that belong to one host, which a cluster neither
// hands out nor changes: an end without a dot names one setting.
var hostOwn = []string{"data", "listen.", "tls.", "database.", "site.", "master_key_file", "root_tenant"}

func ofHost(key string) bool {
	return slices.ContainsFunc(hostOwn, func(own string) bool {
		return key == own || strings.HasSuffix(own, ".") && strings.HasPrefix(key, own)
	})
}

// configFile is where a host that joins keeps what the cluster has handed out.
const configFile = "portcullis.yaml"

// ConfigFile is the configuration that `cluster init` and `join` leave in a data
// folder.
func ConfigFile(data string) string { return filepath.Join(data, configFile) }

// Founding is the outcome of InitCluster and JoinCluster.
type Founding struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Address string   `json:"address"`
	Config  string   `json:"config"`
	Tokens  []string `json:"tokens,omitempty"`
}

// nodeAddress is where the other nodes reach this one.
func (c *Config) nodeAddress(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil || address == "" {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(c.Listen.Control))
}

// InitCluster makes a cluster in the database of a configuration, and this host its
// first node, with tokens for others. The configuration is left in the data folder.
func InitCluster(ctx context.Context, cfg Config, env []string, name, address string, tokens int, ttl time.Duration) (*Founding, error) {
	if cfg.sqlite() {
		return nil, problem.New(problem.Invalid, "needs_postgres", "database.dsn: a cluster wants PostgreSQL, such as postgres://portcullis:PASSWORD@10.0.0.21,10.0.0.22:27017/portcullis; the database is %s, which one node alone can use (`portcullis store copy` moves it)", cfg.DatabaseName())
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	sealer, err := cfg.sealer(env)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, cfg.dsn(), store.Options{Sealer: sealer})
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // every write was acknowledged
	id, err := control.Found(ctx, db, cfg.Data, name, cfg.nodeAddress(address), time.Now())
	if err != nil {
		return nil, err
	}
	out := &Founding{ID: id.ID, Name: id.Name, Address: id.Address, Config: ConfigFile(cfg.Data)}
	if err := writeConfig(cfg); err != nil {
		return nil, err
	}
	service, err := control.New(cfg.Data, control.Deps{Docs: db, Now: time.Now})
	if err != nil {
		return nil, err
	}
	for range tokens {
		t, err := service.Token(ctx, ttl)
		if err != nil {
			return nil, err
		}
		out.Tokens = append(out.Tokens, t)
	}
	return out, nil
}

// JoinCluster makes this host a node of the cluster that made the token. What all
// nodes have in common comes from there; cfg gives what is this host's own.
func JoinCluster(ctx context.Context, cfg Config, dial control.Dial, token, name, address string) (*Founding, error) {
	t, err := control.ParseJoinToken(token)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	id, err := control.Join(ctx, dial, t, cfg.Data, name, cfg.nodeAddress(address), func(g control.Grant) error { return cfg.keep(g) })
	if err != nil {
		return nil, err
	}
	return &Founding{ID: id.ID, Name: id.Name, Address: id.Address, Config: ConfigFile(cfg.Data)}, nil
}

// grantFiles are what a node may be handed, by name, and how it is configured to
// use it.
var grantFiles = map[string]func(c *Config, path string){
	"master.key":  func(c *Config, path string) { c.MasterKeyFile = path },
	"tls.crt":     func(c *Config, path string) { c.TLS.Certificate = path },
	"tls.key":     func(c *Config, path string) { c.TLS.Key = path },
	"root-ca.pem": func(*Config, string) {},
	"root-ca.key": func(*Config, string) {},
}

// keep writes what a cluster has handed out into the data folder.
func (c *Config) keep(g control.Grant) error {
	for name, content := range g.Files {
		use, ok := grantFiles[name]
		if !ok {
			return fmt.Errorf("the cluster's node sent a file %q, which this version does not know; join with the same version of the program", name)
		}
		path := filepath.Join(c.Data, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("keep what the cluster handed out: %w", err)
		}
		use(c, path)
	}
	c.Joining = false
	settings := maps.Clone(g.Settings)
	if c.Site.Name != "" {
		// The host says which site it is of: that, and the site's database, are not what
		// the node that handed this out has.
		maps.DeleteFunc(settings, func(key, _ string) bool { return key == "database.dsn" || strings.HasPrefix(key, "site.") })
	}
	if err := c.overlay(settings, "the cluster"); err != nil {
		return err
	}
	return writeConfig(*c)
}

// overlay lays settings over the configuration and checks the whole of it. The
// faults name the source.
func (c *Config) overlay(values map[string]string, source string) error {
	err := config.Load(c, config.Sources{Flags: values})
	var faults config.Faults
	if errors.As(err, &faults) {
		for i := range faults {
			faults[i].Source = source
		}
		return faults
	}
	return err
}

func writeConfig(cfg Config) error {
	base := Default()
	for _, path := range []*string{&cfg.Data, &cfg.MasterKeyFile, &cfg.TLS.Certificate, &cfg.TLS.Key} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path) // the file is read from any folder
		if err != nil {
			return err
		}
		*path = absolute
	}
	var text strings.Builder
	text.WriteString("# What this node of a cluster works with. It holds secrets: keep it to the node's user.\n")
	if err := config.WriteChanged(&text, &cfg, &base); err != nil {
		return err
	}
	if err := os.WriteFile(ConfigFile(cfg.Data), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("keep the configuration: %w", err)
	}
	return nil
}

// grant is what a node that joins is handed: this node's settings that are not its
// host's own, the master key, and the certificate of the listeners.
func (c *Config) grant(env []string) (control.Grant, error) {
	base := Default()
	g := control.Grant{Settings: map[string]string{}, Files: map[string]string{}}
	shared := *c
	shared.PublicPort = c.Hosts().Port // whatever port the new host listens on
	g.Settings["root_tenant"], g.Settings["database.dsn"] = c.RootTenant, c.dsn()
	for key, value := range config.Changed(&shared, &base) {
		if !ofHost(key) || strings.HasPrefix(key, "database.") || strings.HasPrefix(key, "site.") {
			g.Settings[key] = value
		}
	}
	if _, ok := fromEnv(env, masterKeyVariable); ok {
		return g, problem.New(problem.Invalid, "key_in_environment", "the master key of this node comes from %s and is not in a file that could be handed out: join through a node that has it in a file", masterKeyVariable)
	}
	files := map[string]string{"master.key": c.masterKeyFile()}
	switch {
	case c.TLS.Certificate != "":
		files["tls.crt"], files["tls.key"] = c.TLS.Certificate, c.TLS.Key
	case c.localAuthority():
		files["root-ca.pem"], files["root-ca.key"] = filepath.Join(c.Data, "root-ca.pem"), filepath.Join(c.Data, "root-ca.key")
		g.Settings["tls.local"] = "true"
	}
	for name, path := range files {
		raw, err := os.ReadFile(path) // #nosec G304 -- a file of the configuration
		if err != nil {
			return g, fmt.Errorf("read what a new node is handed: %w", err)
		}
		g.Files[name] = string(raw)
	}
	return g, nil
}

// joinCluster looks whether this host is a node of a cluster, and lays the
// cluster's settings over the configuration.
func (n *Node) joinCluster(ctx context.Context) error {
	if !control.Joined(n.cfg.Data) {
		exists, err := control.Exists(ctx, n.store)
		if exists {
			return control.NotAMember(n.cfg.DatabaseName(), n.cfg.Data)
		}
		if err != nil || n.cfg.sqlite() { // a file has a lock of its own
			return err
		}
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("read the host's name: %w", err)
		}
		n.alone = &control.Alone{Docs: n.store, Logger: n.logger, Data: n.cfg.Data, Database: n.cfg.DatabaseName(), Host: host, Site: n.cfg.Site.Name}
		return n.alone.Claim(ctx)
	}
	if n.cfg.sqlite() {
		return problem.New(problem.Invalid, "needs_postgres", "%s has the identity of a cluster's node, and database.dsn names no PostgreSQL: start with the configuration that joining left in %s", n.cfg.Data, ConfigFile(n.cfg.Data))
	}
	settings, err := control.LoadSettings(ctx, n.store)
	if err != nil {
		return err
	}
	values, err := settings.All()
	if err != nil {
		return err
	}
	if err := n.cfg.overlay(values, "the cluster's settings"); err != nil {
		return err
	}
	if n.logger, err = telemetry.NewLogger(n.lines, n.cfg.Log.Level, n.cfg.Log.Format); err != nil {
		return err
	}
	n.settings = settings.Version
	return nil
}

// buildControl makes the control plane of a node of a cluster. It is nil on a
// single node.
func (n *Node) buildControl() error {
	if !control.Joined(n.cfg.Data) {
		return nil
	}
	var err error
	n.control, err = control.New(n.cfg.Data, control.Deps{
		Docs: n.store, Missed: n.store.Changes, Caches: n.cache, Database: n.reachDatabase, Logger: n.logger, Version: n.opts.Version, Settings: n.settings, Now: n.opts.Now,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return n.dialer.DialContext(netcontract.Control, host)(ctx, "tcp", address)
		},
		Grant: func(context.Context) (control.Grant, error) { return n.own.grant(n.opts.Env) },
		Stop:  func(reason error) { n.stop(reason) },
	})
	if err != nil {
		return err
	}
	n.cache.Share(n.control.Announce)
	n.drain.cluster = n.control.Draining
	gauge := func(name, help string, value func() int64) {
		n.metrics.Gauge(name, help, func() float64 { return float64(value()) })
	}
	gauge("portcullis_cluster_leader", "1 on the node that leads the cluster.", func() int64 {
		if n.control.Leads() {
			return 1
		}
		return 0
	})
	gauge("portcullis_cluster_settings_version", "Version of the cluster's settings that this node works with.", func() int64 { return n.settings })
	for _, sight := range []control.Sight{control.Unknown, control.Up, control.Suspect, control.Down} {
		n.metrics.LabelledGauge("portcullis_cluster_nodes", "Nodes of the cluster, by how this one sees them on row control.", map[string]string{"sight": string(sight)}, func() float64 {
			count := 0.0
			for _, v := range n.control.Members() {
				if v.Network == sight {
					count++
				}
			}
			return count
		})
	}
	for i, outcome := range []string{"sent", "failed", "received", "found_in_database"} {
		n.metrics.LabelledCounter("portcullis_cluster_invalidations_total", "Invalidations of caches, by what became of them.", map[string]string{"outcome": outcome}, func() float64 {
			sent, failed, received, caughtUp := n.control.Pushed()
			return float64([]int64{sent, failed, received, caughtUp}[i])
		})
	}
	return nil
}

// clusterSurface opens row control.
func (n *Node) clusterSurface(ctx context.Context) (surface, error) {
	_, port, err := net.SplitHostPort(n.control.Address())
	if err != nil {
		return surface{}, err
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return surface{}, err
	}
	l, err := listen(ctx, netcontract.Control, n.cfg.Listen.Address, p)
	if err != nil {
		return surface{}, err
	}
	return surface{row: netcontract.Control, name: "control", listener: tls.NewListener(l, n.control.TLSConfig()), handler: n.wrap(n.control.Handler())}, nil
}

// clusterCheck is the health check of a node of a cluster. It is core: a load
// balancer leaves out who drains, or has a wrong clock.
func (n *Node) clusterCheck() health.Check {
	return health.Check{Name: "cluster", Core: true, Run: func(context.Context) health.Result {
		if err := n.control.ClockFault(); err != nil {
			return health.Result{Message: problem.From(err).Message}
		}
		if n.control.Draining() {
			return health.Result{Message: "this node drains: it takes no new work"}
		}
		up, all := 0, n.control.Members()
		for _, v := range all {
			if v.Network == control.Up {
				up++
			}
		}
		return health.Result{OK: true, Value: float64(up), Threshold: float64(len(all)), Unit: "nodes up", Message: fmt.Sprintf("%d of %d nodes answer on row control", up, len(all))}
	}}
}

// reachDatabase asks the database for something, and returns for how long it has been
// there.
func (n *Node) reachDatabase(ctx context.Context) (time.Duration, error) {
	if err := n.store.Ping(ctx); err != nil {
		return 0, err
	}
	return n.store.Reached(), nil
}

// bearsDatabase reports whether the node goes on taking requests, though its database
// has not answered for a time: they wait for a primary that takes its place, as long
// as requests wait for one. Where another node reaches the database it is this one
// that is cut off, and requests are better off there.
func (n *Node) bearsDatabase(ctx context.Context, failing time.Duration) bool {
	if n.cfg.sqlite() || failing >= n.cfg.Database.FailoverTimeout {
		return false
	}
	if back := n.store.Reached(); back > 0 && back < failing {
		return true // the check is of before
	}
	return n.control == nil || !n.control.DatabaseElsewhere(ctx, failing)
}

// otherNodes are the hosts of the other nodes, for the health check network.
func (n *Node) otherNodes(context.Context) []string {
	if n.control == nil {
		return nil
	}
	var hosts []string
	for _, v := range n.control.Members() {
		if host, _, err := net.SplitHostPort(v.Address); err == nil && !v.Self {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// localCluster is what the socket in the data folder serves of a cluster.
func (n *Node) localCluster(mux *http.ServeMux, handle func(func(http.ResponseWriter, *http.Request) error) http.Handler) {
	route := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.Handle(pattern, handle(func(w http.ResponseWriter, r *http.Request) error {
			if n.control == nil {
				return problem.New(problem.NotFound, "no_cluster", "this node is a single one; `portcullis cluster init` makes a cluster")
			}
			return h(w, r)
		}))
	}
	route("GET /cluster", n.localClusterState)
	route("POST /cluster/tokens", n.localClusterToken)
	route("POST /cluster/nodes/{node}/{action}", n.localClusterAction)
	route("GET /cluster/settings", n.localClusterSettings)
	route("PATCH /cluster/settings", n.localChangeSettings)
}

func (n *Node) localClusterState(w http.ResponseWriter, r *http.Request) error {
	settings, err := control.LoadSettings(r.Context(), n.store)
	if err != nil {
		return err
	}
	leader, term, members := n.control.State()
	return web.JSON(w, http.StatusOK, client.Cluster{
		Fingerprint: n.control.Fingerprint(), Leader: leader, Term: term, Settings: settings.Version,
		CertificateUntil: n.control.CertificateUntil().UTC(), Nodes: clusterNodes(members),
	})
}

func clusterNodes(views []control.View) []client.ClusterNode {
	out := make([]client.ClusterNode, len(views))
	for i, v := range views {
		out[i] = client.ClusterNode{ID: v.ID, Name: v.Name, Address: v.Address, Version: v.Version, State: string(v.State), Leader: v.Leader, Self: v.Self,
			Database: string(v.Database), Network: string(v.Network), Settings: v.Settings, JoinedAt: v.JoinedAt}
		if v.Skew != nil {
			out[i].SkewMS, out[i].SkewBoundMS = &v.Skew.Offset, &v.Skew.Bound
		}
	}
	return out
}

func (n *Node) localClusterToken(w http.ResponseWriter, r *http.Request) error {
	var req client.JoinTokenRequest
	if err := decode(r, &req, "{ttl}"); err != nil {
		return err
	}
	ttl := time.Duration(req.TTL) * time.Second
	token, err := n.control.Token(r.Context(), ttl)
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, client.JoinToken{Token: token, ExpiresAt: n.opts.Now().Add(ttl).UTC().Truncate(time.Second)})
}

func (n *Node) localClusterAction(w http.ResponseWriter, r *http.Request) error {
	node, action := r.PathValue("node"), r.PathValue("action")
	var err error
	switch action {
	case "drain":
		err = n.control.SetState(r.Context(), node, control.Draining)
	case "activate":
		err = n.control.SetState(r.Context(), node, control.Active)
	case "remove":
		err = n.control.Remove(r.Context(), node)
	case "reboot":
		err = n.control.Restart(r.Context(), node)
	case "revoke":
		err = n.control.Revoke(r.Context(), node)
	default:
		err = problem.New(problem.NotFound, "no_such_action", "there is no action %q; allowed are drain, activate, remove, reboot and revoke", action)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (n *Node) localClusterSettings(w http.ResponseWriter, r *http.Request) error {
	v, err := control.LoadSettings(r.Context(), n.store)
	if err != nil {
		return err
	}
	all, err := v.All()
	if err != nil {
		return err
	}
	for _, k := range config.SecretKeys(&n.cfg) {
		if _, ok := all[k]; ok {
			all[k] = config.Secret(all[k]).String()
		}
	}
	return web.JSON(w, http.StatusOK, client.ClusterSettings{Version: v.Version, Values: all, Sequential: v.Sequential, Nodes: clusterNodes(n.control.Members())})
}

func (n *Node) localChangeSettings(w http.ResponseWriter, r *http.Request) error {
	var req client.ClusterSettings
	if err := decode(r, &req, "{values, sequential}"); err != nil {
		return err
	}
	for k := range req.Values {
		if ofHost(k) {
			return problem.New(problem.Invalid, "setting_of_a_host", "%s is a setting of each host, in its own configuration; a cluster has all others in common", k)
		}
	}
	version, err := n.control.SetSettings(r.Context(), req.Values, config.SecretKeys(&n.cfg), req.Sequential, func(values map[string]string) error {
		trial := n.cfg
		err := trial.overlay(values, "the cluster's settings")
		var faults config.Faults
		if errors.As(err, &faults) {
			return problem.New(problem.Invalid, "invalid_settings", "%s", faults.Error())
		}
		return err
	})
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, client.ClusterSettings{Version: version})
}

// localAuthority reports whether the node makes its own certificates.
func (c *Config) localAuthority() bool {
	if c.TLS.Certificate != "" || !c.Dev && !c.TLS.Local {
		return false
	}
	_, err := os.Stat(filepath.Join(c.Data, "root-ca.pem"))
	return !errors.Is(err, fs.ErrNotExist)
}

func (c *Config) sqlite() bool { return strings.HasPrefix(c.dsn(), "sqlite:") }
