//go:build linux

package chaos

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/deploy"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/internal/patronilab"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/ratelimit"
)

const (
	domain  = "id.lab.test"
	baseURL = "https://" + domain
	// patience bounds everything that is waited for on a busy machine.
	patience = 90 * time.Second
)

// Options say what cluster there is to be.
type Options struct {
	// Nodes is 3 when it is 0.
	Nodes int
	// Spare hosts have a firewall and a place in the balancer, and are no nodes yet.
	Spare int
	// Clock makes Node.SetClock work.
	Clock bool
	// Settings are further settings of every node, KEY=VALUE.
	Settings []string
	// Databases is the number of PostgreSQL servers, 1 to 3; 0 means one for each of
	// the first three nodes. With External they are on hosts of their own.
	Databases int
	External  bool
	// Tmpfs gives each node's data folder a file system of this many MiB; 0 means the
	// machine's.
	Tmpfs int
	// DatabaseDisk gives each PostgreSQL a disk of this many MiB; 0 means the machine's.
	DatabaseDisk int
	// Patroni makes the database the reference deployment's, with its own failover;
	// Cluster.Database is nil then.
	Patroni bool
	// Search gives the cluster a search engine, on the host of the second node.
	Search bool
}

// Cluster is an appliance of several nodes in a lab.
type Cluster struct {
	Lab      *lab.Lab
	Nodes    []*Node
	Database *Database
	Patroni  *patronilab.Database // nil without Options.Patroni
	Search   *Search              // nil without Options.Search

	t         testing.TB
	options   Options
	dir       string
	binary    string
	dsn       string
	roots     *x509.CertPool
	firewalls map[string]func()
}

// Require skips the test where a cluster cannot be, with a line that says why; in
// CI it fails.
func Require(t testing.TB) {
	t.Helper()
	lab.Require(t)
	if _, err := exec.LookPath("haproxy"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("chaos: haproxy is missing; install the package haproxy")
		}
		t.Skip("chaos: haproxy is missing; install the package haproxy")
	}
}

// newHosts builds the program and the hosts of a cluster, each with its firewall.
func newHosts(t testing.TB, o Options) *Cluster {
	t.Helper()
	Require(t)
	c := &Cluster{t: t, options: o, dir: t.TempDir(), firewalls: map[string]func(){}}
	var err error
	if c.binary, err = Build(c.dir, o.Clock); err != nil {
		t.Fatal(err)
	}
	services := []string{}
	if o.External {
		services = append(services, "db1", "db2", "db3")
	}
	c.Lab = lab.New(t, lab.Options{Nodes: o.Nodes + o.Spare, IPv4Only: true, Services: services})
	for _, h := range c.Lab.Nodes() {
		c.protect(h)
	}
	return c
}

// New brings a cluster up; it goes with the test.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	c := newHosts(t, o)
	if o.Patroni {
		c.Patroni = patronilab.Start(t, c.Lab.Nodes()[:o.Nodes])
		c.dsn = c.Patroni.SecretDSN()
	} else {
		c.Database = newDatabase(t, c)
		c.dsn = c.Database.DSN()
	}
	if o.Search {
		c.Search = newSearch(t, c.dir, c.Lab.Nodes()[1])
		c.options.Settings = append(c.options.Settings, "search.urls="+c.Search.URL())
	}
	for i, h := range c.Lab.Nodes()[:o.Nodes] {
		n := c.newNode(h)
		if i == 0 {
			n.found()
		} else {
			n.join()
		}
		c.Nodes = append(c.Nodes, n)
		n.Start()
	}
	c.balance()
	c.Settled()
	return c
}

// Run runs the program on the node's host, for what an operator does there.
func (n *Node) Run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := n.Host.Command(ctx, n.c.binary, args...)
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("portcullis %s: %w: %s%s", strings.Join(args, " "), err, out.Bytes(), fault.Bytes())
	}
	return out.String(), nil
}

// must is Run for what has to succeed.
func (n *Node) must(args ...string) string {
	n.c.t.Helper()
	out, err := n.Run(args...)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return out
}

// found makes the cluster, with this node as its first.
func (n *Node) found() {
	n.c.t.Helper()
	args := []string{"cluster", "init", "--data", n.Data, "--name", n.Host.Name(), "--address", n.Host.Addr4().String(), "--tokens", "0"}
	for _, s := range append(append(n.own(), n.c.settings()...), n.c.options.Settings...) {
		args = append(args, "--set", s)
	}
	n.must(args...)
}

// join makes the host a node of the cluster, with settings of its own, by a token of
// the first node that runs.
func (n *Node) join(settings ...string) {
	n.c.t.Helper()
	var token string
	for _, m := range n.c.Nodes {
		if m.Running() {
			token = strings.TrimSpace(m.must("cluster", "token", "--data", m.Data))
			break
		}
	}
	args := []string{"join", token, "--data", n.Data, "--name", n.Host.Name(), "--address", n.Host.Addr4().String()}
	for _, s := range append(n.own(), settings...) {
		args = append(args, "--set", s)
	}
	n.must(args...)
}

// Join makes a spare host a node, and starts it.
func (c *Cluster) Join() *Node {
	c.t.Helper()
	n := c.newNode(c.Lab.Nodes()[len(c.Nodes)])
	n.join()
	n.Start()
	c.Nodes = append(c.Nodes, n)
	return n
}

// Remove takes the last node out of the cluster, as an operator does on another
// node: it drains, and is removed when the balancer has left it alone.
func (c *Cluster) Remove() {
	c.t.Helper()
	n := c.Nodes[len(c.Nodes)-1]
	c.Nodes[0].must("cluster", "drain", "--data", c.Nodes[0].Data, n.Host.Name())
	c.Eventually("the balancer leaves the node alone", func() error {
		if up := c.up(); up >= len(c.Nodes) {
			return fmt.Errorf("%d nodes are up", up)
		}
		return nil
	})
	c.Nodes[0].must("cluster", "remove", "--yes", "--data", c.Nodes[0].Data, n.Host.Name())
	select {
	case <-n.process.Ended():
	case <-time.After(patience):
		c.t.Fatalf("%s was removed, and goes on", n.Host.Name())
	}
	c.Nodes = c.Nodes[:len(c.Nodes)-1]
}

// protect loads the firewall that the contract asks for: what no row declares is
// dropped, in both directions.
func (c *Cluster) protect(h *lab.Host) {
	c.t.Helper()
	named := map[firewall.Site][]string{}
	for site, hosts := range map[firewall.Site][]string{firewall.LoadBalancers: {"lb"}, firewall.Monitoring: {"monitoring"}, firewall.CLI: {"cli"},
		firewall.JumpHosts: {"jump"}, firewall.DNS: {"dns"}, firewall.Depot: {"depot"}} {
		for _, name := range hosts {
			named[site] = append(named[site], c.Lab.Host(name).Addr4().String())
		}
	}
	for _, n := range c.Lab.Nodes() {
		named[firewall.Nodes] = append(named[firewall.Nodes], n.Addr4().String())
	}
	if c.options.External {
		for _, name := range []string{"db1", "db2", "db3"} {
			named[firewall.Nodes] = append(named[firewall.Nodes], c.Lab.Host(name).Addr4().String())
		}
	}
	table, err := netcontract.Contract("")
	if err != nil {
		c.t.Fatal(err)
	}
	sites, err := firewall.ParseSites(named)
	if err != nil {
		c.t.Fatal(err)
	}
	policy, err := firewall.Compile(table, sites, firewall.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	files, err := firewall.Render(policy, firewall.NFTables)
	if err != nil {
		c.t.Fatal(err)
	}
	c.firewalls[h.Name()] = h.Nft(files[0].Content)
}

// Node is one node of the cluster.
type Node struct {
	Host *lab.Host
	Data string

	c       *Cluster
	log     string // file
	read    int    // how much of it complaints have read
	process *lab.Process
}

func (c *Cluster) newNode(h *lab.Host) *Node {
	c.t.Helper()
	n := &Node{Host: h, c: c, Data: filepath.Join(c.dir, h.Name()), log: filepath.Join(c.dir, h.Name()+".log")}
	if err := os.MkdirAll(n.Data, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if c.options.Tmpfs > 0 {
		lab.Disk(c.t, n.Data, c.options.Tmpfs)
	}
	c.t.Cleanup(func() {
		n.Kill()
		if c.t.Failed() {
			c.t.Logf("the log of %s ends:\n%s", h.Name(), tail(n.log, 3000))
		}
	})
	return n
}

// Start starts the node and waits until it answers.
func (n *Node) Start() {
	n.c.t.Helper()
	if err := n.TryStart(); err != nil {
		n.c.t.Fatal(err)
	}
}

// TryStart is Start for what may fail.
func (n *Node) TryStart() error {
	ready, err := n.launch()
	if err != nil {
		return err
	}
	select {
	case <-ready:
		return nil
	case <-n.process.Ended():
		return fmt.Errorf("%s ended at its start:\n%s", n.Host.Name(), tail(n.log, 2000))
	case <-time.After(patience):
		return fmt.Errorf("%s is not ready after %s:\n%s", n.Host.Name(), patience, tail(n.log, 2000))
	}
}

// launch starts the node's process; ready is closed once it answers.
func (n *Node) launch() (<-chan struct{}, error) {
	ready := make(chan struct{})
	if n.Running() {
		close(ready)
		return ready, nil
	}
	cmd := n.Host.Command(context.Background(), n.c.binary, "start", "--config", filepath.Join(n.Data, "portcullis.yaml"))
	cmd.Dir = n.c.dir
	cmd.Env = append(os.Environ(), "CHAOS_CLOCK="+n.Data+".clock")
	cmd.Stdout = &untilReady{ready: ready}
	var err error
	n.process, err = lab.Start(cmd, n.log)
	return ready, err
}

// untilReady reads what the node prints, up to the line that says that it answers.
type untilReady struct {
	seen  []byte
	ready chan struct{}
	said  bool
}

func (u *untilReady) Write(p []byte) (int, error) {
	if u.seen = append(u.seen, p...); !u.said && bytes.Contains(u.seen, []byte("ready ")) {
		u.said = true
		close(u.ready)
	}
	return len(p), nil
}

// own are the settings of one host.
func (n *Node) own() []string {
	return []string{"listen.https=0", "listen.http=80", "listen.terminated=4443", "listen.terminated_tls=false", "listen.health=9110"}
}

// settings are what all nodes have in common.
func (c *Cluster) settings() []string {
	return []string{"domain=" + domain, "default_tenant=main", "public_port=443",
		"trusted_proxies.networks=" + c.Lab.Host("lb").Addr4().String(),
		"database.dsn=" + c.dsn,
		"passwords.memory_kib=8192", "passwords.time=1", "log.level=info",
		// All logins come from one address; and the load asks for /userinfo more often than
		// the ten times at once that a token has, where a node that was killed has counted.
		"rate_limits.buckets=login unlimited,userinfo unlimited"}
}

// Running reports whether the node's process is there.
func (n *Node) Running() bool { return n.process.Running() }

// Kill is kill -9.
func (n *Node) Kill() { n.process.Kill() }

// Stop asks the node to end, as a supervisor does, and waits until it has.
func (n *Node) Stop() {
	n.c.t.Helper()
	if err := n.process.Stop(patience); err != nil {
		n.c.t.Fatalf("%s: %v", n.Host.Name(), err)
	}
}

// Freeze stops the node's process where it is; resume lets it go on.
func (n *Node) Freeze() (resume func()) {
	n.c.t.Helper()
	resume, err := n.process.Pause()
	if err != nil {
		n.c.t.Fatal(err)
	}
	return resume
}

// SetClock moves the node's wall clock from the machine's.
func (n *Node) SetClock(by time.Duration) {
	n.c.t.Helper()
	if !n.c.options.Clock {
		n.c.t.Fatal("this cluster was made without a clock")
	}
	if err := os.WriteFile(n.Data+".clock", fmt.Appendf(nil, "%d\n", int64(by.Seconds())), 0o600); err != nil {
		n.c.t.Fatal(err)
	}
}

// Pid is the node's process.
func (n *Node) Pid() int { return n.process.Pid() }

// Token makes a token for the Management API on the node.
func (n *Node) Token(ctx context.Context) (string, error) {
	t, err := client.NewLocal(n.Data).Token(ctx, client.TokenRequest{Tenant: "main", TTL: 86400})
	return t.AccessToken, err
}

// balance starts HAProxy on the host lb, with the file that
// `portcullis cluster render --lb haproxy --mode terminated --plain` writes.
func (c *Cluster) balance() {
	c.t.Helper()
	pemFile := filepath.Join(c.dir, "lb.pem")
	var raw []byte
	raw, c.roots = certificate(c.t)
	if err := os.WriteFile(pemFile, raw, 0o600); err != nil {
		c.t.Fatal(err)
	}
	b := deploy.Balancer{Cluster: deploy.Cluster{Domain: domain, Root: c.dir}, Kind: deploy.HAProxy, Mode: deploy.Terminated, Plain: true, Certificate: pemFile}
	for _, h := range c.Lab.Nodes() {
		b.Nodes = append(b.Nodes, deploy.Node{Name: h.Name(), Address: h.Addr4()})
	}
	files, err := deploy.RenderBalancer(b)
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(files[0].Content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(c.socket()), 0o700); err != nil {
		c.t.Fatal(err)
	}
	balancer, err := lab.Start(c.Lab.Host("lb").Command(context.Background(), "haproxy", "-db", "-f", file), filepath.Join(c.dir, "haproxy.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(balancer.Kill)
	c.Eventually("the balancer answers", func() error { return c.Reach(c.t.Context()) })
}

// socket is where HAProxy is asked; a socket's path is short.
func (c *Cluster) socket() string { return filepath.Join(c.dir, "run/haproxy/admin.sock") }

// certificate makes one for the balancer: its file, and who trusts it.
func certificate(t testing.TB) ([]byte, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain, "*." + domain},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), pool
}

// Transport speaks to the balancer from the host outside.
func (c *Cluster) Transport() *http.Transport {
	outside, lb := c.Lab.Host("outside"), net.JoinHostPort(c.Lab.Host("lb").Addr4().String(), "443")
	return &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return outside.Dial(ctx, "tcp4", lb) },
		TLSClientConfig: &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(64)},
		// Shorter than the balancer keeps one: who asks on a connection that ends meanwhile
		// would not know whether it was heard.
		MaxIdleConnsPerHost: 128, IdleConnTimeout: 4 * time.Second,
	}
}

// Reach asks the cluster for something through the balancer.
func (c *Cluster) Reach(ctx context.Context) error {
	s := &Scene{base: baseURL, transport: c.Transport()}
	defer s.transport.CloseIdleConnections()
	if a := s.do(ctx, nil, "GET", "/.well-known/openid-configuration", "", ""); a.status != http.StatusOK {
		return fmt.Errorf("%d %s", a.status, a.fault())
	}
	return nil
}

// Scene makes applications and users through the balancer.
func (c *Cluster) Scene(ctx context.Context, users int) *Scene {
	c.t.Helper()
	token, err := c.Nodes[0].Token(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := NewScene(ctx, baseURL, c.Transport(), token, users)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(s.transport.CloseIdleConnections)
	s.search = c.options.Search
	return s
}

// Limit gives applications tokens that nothing refills, and waits until every node
// knows.
func (c *Cluster) Limit(tokens int, clients ...string) {
	c.t.Helper()
	n := c.Nodes[0]
	for _, id := range clients {
		n.must("ratelimit", "set", "token-client", "--data", n.Data, "--key", "main|"+id, "--size", strconv.Itoa(tokens))
	}
	c.Eventually("every node knows the limit", func() error {
		for _, n := range c.Nodes {
			all, err := client.NewLocal(n.Data).RateLimits(c.t.Context())
			if err != nil {
				return err
			}
			for _, id := range clients {
				if !slices.ContainsFunc(all.Overrides, func(o ratelimit.Override) bool { return o.Key == "main|"+id }) {
					return fmt.Errorf("%s does not know it", n.Host.Name())
				}
			}
		}
		return nil
	})
}

// Direct is the scene as it is reached on one node, from the balancer's host.
func (c *Cluster) Direct(s *Scene, n *Node) *Scene {
	lb, to := c.Lab.Host("lb"), net.JoinHostPort(n.Host.Addr4().String(), "80")
	direct := *s
	direct.base, direct.balanced = "http://"+domain, true
	direct.transport = &http.Transport{MaxIdleConnsPerHost: 32,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return lb.Dial(ctx, "tcp4", to) }}
	c.t.Cleanup(direct.transport.CloseIdleConnections)
	return &direct
}

// Eventually asks until there is no error.
func (c *Cluster) Eventually(what string, so func() error) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := so()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Settled waits until the balancer sends to every node, and every node sees all
// others.
func (c *Cluster) Settled() {
	c.t.Helper()
	c.Eventually("all nodes are in the balancer", func() error {
		if up := c.up(); up < len(c.Nodes) {
			return fmt.Errorf("%d are up, of %d", up, len(c.Nodes))
		}
		return nil
	})
	c.Eventually("the nodes see each other", func() error {
		for _, n := range c.Nodes {
			all, err := client.NewLocal(n.Data).Cluster(c.t.Context())
			if err != nil {
				return err
			}
			for _, m := range all.Nodes {
				// Another site's nodes are members too, and wait.
				if !slices.ContainsFunc(c.Nodes, func(n *Node) bool { return n.Host.Name() == m.Name }) {
					continue
				}
				if m.Database != "up" || m.Network != "up" && !m.Self {
					return fmt.Errorf("%s sees %s %s in the database and %s on row control", n.Host.Name(), m.Name, m.Database, m.Network)
				}
			}
		}
		return nil
	})
}

// up counts the nodes that the balancer sends requests to.
func (c *Cluster) up() int {
	n := 0
	for line := range strings.Lines(c.ask("show stat")) {
		if strings.HasPrefix(line, "nodes,node") && strings.Contains(line, ",UP") {
			n++
		}
	}
	return n
}

// ask sends HAProxy a command.
func (c *Cluster) ask(command string) string {
	conn, err := net.Dial("unix", c.socket())
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(conn, command)
	var b bytes.Buffer
	_, _ = b.ReadFrom(conn) // what came is what counts
	return b.String()
}

// Leader is the node that has the lease, by the database, with its term; nil when
// none has.
func (c *Cluster) Leader() (*Node, string) {
	out, err := c.Database.Primary().TryQuery("SELECT m.doc->>'name', c.doc->>'term' FROM cluster c JOIN members m ON m.id = c.doc->>'holder' WHERE c.id = 'leader'")
	name, term, ok := strings.Cut(out, "|")
	if err != nil || !ok {
		return nil, ""
	}
	for _, n := range c.Nodes {
		if n.Host.Name() == name {
			return n, term
		}
	}
	return nil, term
}

// complaints counts what nodes said at the levels WARN and ERROR since they were
// read last.
func (c *Cluster) complaints() map[string]int {
	all := map[string]int{}
	for _, n := range c.Nodes {
		raw, err := os.ReadFile(n.log)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw[min(n.read, len(raw)):])) {
			var e struct{ Level, Msg, Error string }
			if json.Unmarshal([]byte(line), &e) == nil && (e.Level == "WARN" || e.Level == "ERROR") {
				all[fmt.Sprintf("%s %s: %.300s", e.Level, e.Msg, e.Error)]++
			}
		}
		n.read = len(raw)
	}
	return all
}

func tail(file string, n int) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-n):])
}
