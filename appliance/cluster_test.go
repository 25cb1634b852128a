package appliance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/storetest"
)

// cluster is several nodes in this process, on one PostgreSQL.
type cluster struct {
	t     *testing.T
	nodes []*node
	// ahead is how far each node's clock is ahead, in nanoseconds.
	ahead []*atomic.Int64
}

func clusterConfig(t *testing.T) configuration {
	cfg := appliance.Default()
	cfg.Domain, cfg.DefaultTenant, cfg.TLS.Local = "localhost", "main", true
	cfg.Data = t.TempDir()
	cfg.Listen.Address = "127.0.0.1"
	cfg.Listen.HTTPS, cfg.Listen.HTTP, cfg.Listen.Health, cfg.Listen.Control = port(t), port(t), port(t), port(t)
	cfg.Listen.RateLimit = port(t)
	cfg.Passwords.MemoryKiB, cfg.Passwords.Time = 8192, 1
	cfg.Health.APIKey = "health-key-of-the-test"
	cfg.Log.Level = "warn"
	return cfg
}

func dialPlain(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// load reads the configuration that joining has left, as `start` does.
func load(t *testing.T, file string) configuration {
	t.Helper()
	cfg := appliance.Default()
	if err := config.Load(&cfg, config.Sources{File: file}); err != nil {
		t.Fatal(err)
	}
	cfg.Listen.Drain = 0 // nobody in front has to notice a stop
	return cfg
}

func startCluster(t *testing.T, size int) *cluster {
	t.Helper()
	c := &cluster{t: t}
	cfg := clusterConfig(t)
	cfg.Database.DSN = config.Secret(storetest.PostgresDSN(t))
	f, err := appliance.InitCluster(t.Context(), cfg, nil, "node1", "127.0.0.1", size-1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c.start(f)
	for i, token := range f.Tokens {
		own := clusterConfig(t)
		f, err := appliance.JoinCluster(t.Context(), own, dialPlain, token, fmt.Sprintf("node%d", i+2), "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		c.start(f)
	}
	eventually(t, "the nodes see each other", func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *node) bool { return len(n.up()) != size })
	})
	return c
}

func (c *cluster) start(f *appliance.Founding) {
	c.t.Helper()
	ahead := &atomic.Int64{}
	n := startConfig(c.t, load(c.t, f.Config), func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	c.nodes, c.ahead = append(c.nodes, n), append(c.ahead, ahead)
}

// up are the nodes that a node reaches, itself among them.
func (n *node) up() []string {
	n.t.Helper()
	var names []string
	for _, m := range n.cluster().Nodes {
		if m.Network == "up" && m.Database == "up" {
			names = append(names, m.Name)
		}
	}
	return names
}

func (n *node) cluster() client.Cluster {
	n.t.Helper()
	cl, err := n.local.Cluster(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return cl
}

// eventually waits for something that takes a moment, and is generous: how long it
// takes is measured elsewhere.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(until) {
			t.Fatalf("not within a minute: %s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// machineToken asks for a token of an application.
func (n *node) machineToken(id, secret string) answer {
	n.t.Helper()
	return n.form(n.browser(), "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "audience": {"https://api.test/"}})
}

func (n *node) ready() int {
	n.t.Helper()
	return n.do(http.DefaultClient, http.MethodGet, n.health+"/readyz", nil, nil).StatusCode
}

func TestCluster(t *testing.T) {
	c := startCluster(t, 3)
	first, second, third := c.nodes[0], c.nodes[1], c.nodes[2]

	t.Run("a login that begins at one node goes on at others", func(t *testing.T) {
		app := first.application(nil)
		_, email := second.user()
		b := first.browser()
		verifier := strings.Repeat("v", 43)
		page := first.get(b, "/authorize", app.request(verifier))
		b2 := second.browser()
		b2.Jar = b.Jar
		back := second.back(second.submit(b2, page, map[string]string{"username": email, "password": userPassword}))
		got := third.exchange(app, back.Get("code"), verifier, nil)
		if got.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
		again := first.exchange(app, back.Get("code"), verifier, nil)
		if again.StatusCode == http.StatusOK {
			t.Error("the code worked at two nodes")
		}
	})

	t.Run("what one node changes no other keeps", func(t *testing.T) {
		first.api(http.MethodPost, "resource-servers", map[string]any{"name": "api", "identifier": "https://api.test/"})
		made := first.api(http.MethodPost, "clients", map[string]any{"name": "machine", "app_type": "non_interactive", "grant_types": []string{"client_credentials"}})
		id, secret := made["client_id"].(string), made["client_secret"].(string)
		grant := first.api(http.MethodPost, "client-grants", map[string]any{"client_id": id, "audience": "https://api.test/", "scope": []string{}})
		for _, n := range c.nodes {
			if a := n.machineToken(id, secret); a.StatusCode != http.StatusOK {
				t.Fatalf("a grant that was made at another node: %d %s", a.StatusCode, a.body)
			}
		}
		if a := third.apiAs(third.token, http.MethodDelete, "client-grants/"+grant["id"].(string), nil); a.StatusCode != http.StatusNoContent {
			t.Fatal(a.body)
		}
		for _, n := range c.nodes {
			eventually(t, "the grant is gone at every node", func() bool { return n.machineToken(id, secret).StatusCode != http.StatusOK })
		}
		if first.metric(`portcullis_cluster_invalidations_total{outcome="received"}`) == 0 {
			t.Error("no invalidation was received")
		}
	})

	t.Run("one leads", func(t *testing.T) {
		leads := func(n *node) string {
			for _, m := range n.cluster().Nodes {
				if m.Leader {
					return m.Name
				}
			}
			return ""
		}
		eventually(t, "all know one leader", func() bool {
			leader := leads(first)
			return leader != "" && leads(second) == leader && leads(third) == leader
		})
		before := first.cluster().Term
		old := leads(first)
		if err := first.local.ClusterAction(t.Context(), old, "drain"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a node that drains leads no more", func() bool {
			now := leads(first) // nobody, between the two
			return now != "" && now != old
		})
		if after := first.cluster().Term; after <= before {
			t.Errorf("the term went from %d to %d", before, after)
		}
		drained := c.nodes[slices.IndexFunc(c.nodes, func(n *node) bool { return n.name() == old })]
		eventually(t, "a node that drains is not ready", func() bool { return drained.ready() == http.StatusServiceUnavailable })
		if a := drained.get(drained.browser(), "/.well-known/openid-configuration", nil); a.StatusCode != http.StatusOK {
			t.Errorf("a node that drains answers what still comes: %d", a.StatusCode)
		}
		if err := first.local.ClusterAction(t.Context(), old, "activate"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is ready again", func() bool { return drained.ready() == http.StatusOK })
	})

	t.Run("a revoked certificate is replaced", func(t *testing.T) {
		if err := first.local.ClusterAction(t.Context(), "node2", "revoke"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the others do not believe it", func() bool { return len(first.up()) == 2 || first.metric(`portcullis_cluster_nodes{sight="up"}`) < 3 })
		eventually(t, "it is back with another", func() bool { return len(first.up()) == 3 && len(second.up()) == 3 })
	})

	t.Run("a node with a wrong clock takes no requests", func(t *testing.T) {
		c.ahead[2].Store(int64(10 * time.Minute))
		eventually(t, "it is not ready", func() bool { return third.ready() == http.StatusServiceUnavailable })
		a := third.get(third.browser(), "/authorize", url.Values{"client_id": {"x"}})
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %s", a.StatusCode, a.body)
		}
		if first.ready() != http.StatusOK {
			t.Error("a node with a good clock is not ready")
		}
		c.ahead[2].Store(0)
		eventually(t, "it is ready again", func() bool { return third.ready() == http.StatusOK })
	})

	t.Run("settings", func(t *testing.T) {
		for values, want := range map[string]string{"listen.https=9443": "a setting of each host", "log.level=loud": "allowed are", "no.such=1": "no such setting"} {
			k, v, _ := strings.Cut(values, "=")
			_, err := first.local.ChangeClusterSettings(t.Context(), client.ClusterSettings{Values: map[string]string{k: v}})
			if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want it refused with %q", values, err, want)
			}
		}
		version, err := first.local.ChangeClusterSettings(t.Context(), client.ClusterSettings{Values: map[string]string{"log.level": "error", "smtp.password": "hunter2"}, Sequential: true})
		if err != nil || version != 1 {
			t.Fatalf("version %d, %v", version, err)
		}
		shown, err := second.local.ClusterSettings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if raw, _ := json.Marshal(shown); strings.Contains(string(raw), "hunter2") || shown.Values["log.level"] != "error" {
			t.Errorf("got %s", raw)
		}
		// One node after the other ends, to start again.
		for range c.nodes {
			ended := c.anyEnds()
			for i, n := range c.nodes {
				if i != ended && n.ready() != http.StatusOK {
					t.Errorf("node%d is not ready while node%d starts again", i+1, ended+1)
				}
			}
			c.nodes[ended] = startConfig(c.t, c.nodes[ended].cfg, time.Now)
		}
		first, second, third = c.nodes[0], c.nodes[1], c.nodes[2]
		eventually(t, "all work with it", func() bool {
			cl := first.cluster()
			return !slices.ContainsFunc(cl.Nodes, func(n client.ClusterNode) bool { return n.Settings != 1 })
		})
	})

	t.Run("a node that is removed ends, and is not believed", func(t *testing.T) {
		if err := first.local.ClusterAction(t.Context(), "node3", "remove"); err != nil {
			t.Fatal(err)
		}
		third.gone = true
		if err := <-third.ended; err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("it ended with %v", err)
		}
		eventually(t, "the others forget it", func() bool { return len(first.cluster().Nodes) == 2 && len(second.cluster().Nodes) == 2 })
		n, err := appliance.New(third.cfg, appliance.Options{Log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("started again it ended with %v", err)
		}
	})
}

// name is the node's own name in the cluster.
func (n *node) name() string {
	for _, m := range n.cluster().Nodes {
		if m.Self {
			return m.Name
		}
	}
	return ""
}

// anyEnds waits until one of the nodes ends to start again.
func (c *cluster) anyEnds() int {
	c.t.Helper()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		for i, n := range c.nodes {
			select {
			case err := <-n.ended:
				n.gone = true
				if !errors.Is(err, appliance.ErrRestart) {
					c.t.Fatalf("a node ended with: %v", err)
				}
				return i
			default:
			}
		}
	}
	c.t.Fatal("no node started again within a minute")
	return -1
}

func TestWhoMayNotJoin(t *testing.T) {
	dsn := storetest.PostgresDSN(t)
	cfg := clusterConfig(t)
	if _, err := appliance.InitCluster(t.Context(), cfg, nil, "node1", "127.0.0.1", 0, time.Hour); problem.From(err).Code != "needs_postgres" {
		t.Errorf("a cluster on SQLite: %v", err)
	}
	cfg.Database.DSN = config.Secret(dsn)
	if _, err := appliance.InitCluster(t.Context(), cfg, nil, "a name", "127.0.0.1", 0, time.Hour); problem.From(err).Code != "invalid_name" {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := appliance.InitCluster(t.Context(), cfg, nil, "node1", "0.0.0.0", 0, time.Hour); problem.From(err).Code != "invalid_address" {
		t.Errorf("a bad address: %v", err)
	}
	f, err := appliance.InitCluster(t.Context(), cfg, nil, "node1", "127.0.0.1", 2, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appliance.InitCluster(t.Context(), cfg, nil, "node1", "127.0.0.1", 0, time.Hour); problem.From(err).Code != "already_joined" {
		t.Errorf("a second time on one host: %v", err)
	}
	other := clusterConfig(t)
	other.Database.DSN, other.MasterKeyFile = config.Secret(dsn), load(t, f.Config).Data+"/master.key"
	if _, err := appliance.InitCluster(t.Context(), other, nil, "node2", "127.0.0.1", 0, time.Hour); problem.From(err).Code != "cluster_exists" {
		t.Errorf("a second time in one database: %v", err)
	}
	stranger, err := appliance.New(other, appliance.Options{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Run(t.Context()); problem.From(err).Code != "not_a_member" {
		t.Errorf("a node that has not joined starts: %v", err)
	}

	if _, err := appliance.JoinCluster(t.Context(), clusterConfig(t), dialPlain, f.Tokens[0], "node2", "127.0.0.1"); problem.From(err).Code != "cluster_unreachable" {
		t.Errorf("nobody is there: %v", err)
	}
	n := startConfig(t, load(t, f.Config), time.Now)
	if _, err := appliance.JoinCluster(t.Context(), clusterConfig(t), dialPlain, f.Tokens[0], "node1", "127.0.0.1"); problem.From(err).Code != "name_taken" {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err := appliance.JoinCluster(t.Context(), clusterConfig(t), dialPlain, f.Tokens[0], "node2", "127.0.0.1"); problem.From(err).Code != "invalid_token" {
		t.Errorf("a token that was used: %v", err)
	}
	second := clusterConfig(t)
	if _, err := appliance.JoinCluster(t.Context(), second, dialPlain, f.Tokens[1], "node2", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if _, err := appliance.JoinCluster(t.Context(), second, dialPlain, f.Tokens[1], "node2", "127.0.0.1"); problem.From(err).Code != "already_joined" {
		t.Errorf("a host that has joined: %v", err)
	}
	if _, err := n.local.JoinToken(t.Context(), time.Second); problem.From(err).Code != "invalid_ttl" {
		t.Errorf("a token for a second: %v", err)
	}
	if err := n.local.ClusterAction(t.Context(), "node9", "drain"); !problem.Is(err, problem.NotFound) || !strings.Contains(err.Error(), "node1") {
		t.Errorf("a node that is none: %v", err)
	}
}
