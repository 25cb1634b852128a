//go:build linux

package patronilab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/deploy"
	"github.com/portcullis-id/portcullis/internal/lab"
)

// patience bounds what is waited for.
const patience = 2 * time.Minute

// Database is the reference database on hosts of a lab.
type Database struct {
	t        testing.TB
	hosts    []*lab.Host
	root     string // with {node}
	dsn      string
	password string
	client   *http.Client

	mu      sync.Mutex
	running map[string]*lab.Process
}

// Require skips the test where the database cannot be, with a line that says why; in
// CI it fails.
func Require(t testing.TB) {
	t.Helper()
	lab.Require(t)
	for _, p := range []struct{ program, debian string }{{"patroni", "patroni"}, {"etcd", "etcd-server"}, {"/usr/lib/postgresql/15/bin/postgres", "postgresql-15"}, {"openssl", "openssl"}} {
		if _, err := exec.LookPath(p.program); err == nil {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("patronilab: %s is missing; install the package %s", p.program, p.debian)
		}
		t.Skipf("patronilab: %s is missing; install the package %s", p.program, p.debian)
	}
}

// Start renders and installs the files for three hosts and starts everything. It
// returns when there are a primary, a synchronous standby and another one.
func Start(t testing.TB, hosts []*lab.Host) *Database {
	t.Helper()
	Require(t)
	dir, err := os.MkdirTemp("", "pl") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- the users of the servers go through it
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	d := &Database{t: t, hosts: hosts, root: dir + "/{node}", running: map[string]*lab.Process{}}
	rendered := deploy.Database{Cluster: deploy.Cluster{Domain: "id.example.com", Root: d.root}}
	for _, h := range hosts {
		rendered.Nodes = append(rendered.Nodes, deploy.Node{Name: h.Name(), Address: h.Addr4()})
	}
	files, err := deploy.RenderHosts(&rendered, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, err := f.Write(out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.command(out, "./prepare.sh")
	for _, name := range d.Names() {
		d.command(filepath.Join(out, name), "./install.sh")
		// The package of PostgreSQL has made this one on a host of its own.
		d.command(out, "install", "-d", "-o", "postgres", "-g", "postgres", "-m", "2775", d.at(name, "/var/run/postgresql"))
	}
	ca := d.at(hosts[0].Name(), "/etc/portcullis/database/ca.crt")
	d.dsn = rendered.DSN(ca)
	raw, err := os.ReadFile(filepath.Join(out, "secrets", "application")) // #nosec G304 -- a file of the test's own
	if err != nil {
		t.Fatal(err)
	}
	d.password = strings.TrimSpace(string(raw))
	pem, err := os.ReadFile(ca) // #nosec G304 -- a file of the test's own
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	t.Cleanup(d.end)
	transport := &http.Transport{DialContext: d.dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	d.client = &http.Client{Timeout: 2 * time.Second, Transport: transport}
	for _, name := range d.Names() {
		d.etcd(name)
	}
	for _, name := range d.Names() {
		d.Patroni(name)
	}
	d.Whole()
	return d
}

// Whole waits until there are a primary, a synchronous standby and another one.
func (d *Database) Whole() {
	d.t.Helper()
	d.Wait("a primary, a synchronous standby and a standby", func(m map[string]string) bool {
		roles := map[string]int{}
		for _, role := range m {
			roles[role]++
		}
		return roles["leader"] == 1 && roles["sync_standby"] == 1 && roles["replica"] == len(d.hosts)-2
	})
}

// DSN is what the nodes are given, without the password.
func (d *Database) DSN() string { return d.dsn }

// Password is that of the nodes' user.
func (d *Database) Password() string { return d.password }

// SecretDSN is DSN with the password in it.
func (d *Database) SecretDSN() string {
	u, err := url.Parse(d.dsn)
	if err != nil {
		d.t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), d.password)
	return u.String()
}

// Names are those of the hosts.
func (d *Database) Names() []string {
	var all []string
	for _, h := range d.hosts {
		all = append(all, h.Name())
	}
	return all
}

// Primary is the host of the primary, and "" where there is none.
func (d *Database) Primary() string { return d.who("leader") }

// Standby is the host of the synchronous standby, and "" where there is none.
func (d *Database) Standby() string { return d.who("sync_standby") }

func (d *Database) who(has string) string {
	for _, m := range d.views() {
		for name, role := range m {
			if role == has {
				return name
			}
		}
	}
	return ""
}

// Another waits until another host than one has the primary.
func (d *Database) Another(than string) string {
	d.t.Helper()
	return d.Wait("another primary", func(m map[string]string) bool {
		for name, role := range m {
			if role == "leader" && name != than {
				return true
			}
		}
		return false
	})["leader"]
}

// Switchover hands the primary over in order, as an operator does.
func (d *Database) Switchover(from, to string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	cmd := d.host(from).Command(ctx, "patronictl", "-c", d.at(from, "/etc/patroni/config.yml"), "switchover", "portcullis", "--leader", from, "--candidate", to, "--force")
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("patronictl switchover: %v\n%s", err, out)
	}
}

func (d *Database) host(name string) *lab.Host {
	d.t.Helper()
	for _, h := range d.hosts {
		if h.Name() == name {
			return h
		}
	}
	d.t.Fatalf("there is no database on a host %q", name)
	return nil
}

func (d *Database) at(node, path string) string {
	return strings.ReplaceAll(d.root, "{node}", node) + path
}

func (d *Database) command(dir, name string, args ...string) {
	d.t.Helper()
	cmd := exec.Command(name, args...) // #nosec G204 -- what a test names
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// environment reads a file as systemd's EnvironmentFile does.
func (d *Database) environment(path string) []string {
	d.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	var env []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			env = append(env, line)
		}
	}
	return env
}

// start runs a server on a host as its user, as systemd would.
func (d *Database) start(node, user string, env []string, program ...string) {
	d.t.Helper()
	args := append([]string{"--reuid=" + user, "--regid=" + user, "--init-groups", "env", "-i", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, env...)
	cmd := d.host(node).Command(context.Background(), "setpriv", append(args, program...)...)
	cmd.Dir = "/"
	p, err := lab.Start(cmd, d.at(node, "/"+user+".log"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running[user+" "+node] = p
}

func (d *Database) etcd(node string) {
	d.start(node, "etcd", d.environment(d.at(node, "/etc/default/etcd")), "/usr/bin/etcd")
}

// Patroni starts it on a host, and PostgreSQL with it.
func (d *Database) Patroni(node string) {
	d.start(node, "postgres", d.environment(d.at(node, "/etc/portcullis/database/patroni.env")), "/usr/bin/patroni", d.at(node, "/etc/patroni/config.yml"))
}

// Kill ends PostgreSQL and Patroni of a host without a word.
func (d *Database) Kill(node string) {
	d.t.Helper()
	d.mu.Lock()
	p := d.running["postgres "+node]
	d.mu.Unlock()
	postmaster := d.postmaster(node)
	p.Kill()
	if err := syscall.Kill(postmaster, syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
}

// KillPostgres ends PostgreSQL of a host without a word; Patroni sees it.
func (d *Database) KillPostgres(node string) {
	d.t.Helper()
	if err := syscall.Kill(d.postmaster(node), syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
}

// postmaster is the first process of PostgreSQL on a host.
func (d *Database) postmaster(node string) int {
	d.t.Helper()
	raw, err := os.ReadFile(d.at(node, "/var/lib/postgresql/portcullis/postmaster.pid"))
	if err != nil {
		d.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		d.t.Fatal(err)
	}
	return pid
}

// end stops Patroni first, which stops PostgreSQL, and etcd after it.
func (d *Database) end() {
	for _, user := range []string{"postgres", "etcd"} {
		var stopping sync.WaitGroup
		d.mu.Lock()
		for name, p := range d.running {
			if strings.HasPrefix(name, user+" ") {
				stopping.Go(func() {
					if p.Stop(20*time.Second) != nil {
						p.Kill()
					}
				})
			}
		}
		d.mu.Unlock()
		stopping.Wait()
	}
	if d.t.Failed() {
		for _, name := range d.Names() {
			for _, user := range []string{"etcd", "postgres"} {
				raw, _ := os.ReadFile(d.at(name, "/"+user+".log"))
				if len(raw) > 6000 {
					raw = raw[len(raw)-6000:]
				}
				d.t.Logf("%s on %s:\n%s", user, name, raw)
			}
		}
	}
}

// views are what each Patroni that answers says of the members that run, a role for
// each name. It is asked on its own host: one that is cut off answers too.
func (d *Database) views() (all []map[string]string) {
	for _, h := range d.hosts {
		req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, fmt.Sprintf("https://%s:9308/cluster", h.Addr4()), nil)
		if err != nil {
			d.t.Fatal(err)
		}
		resp, err := d.client.Do(req)
		if err != nil {
			continue
		}
		var answer struct {
			Members []struct{ Name, Role, State string }
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil {
			continue
		}
		roles := map[string]string{}
		for _, m := range answer.Members {
			if m.State == "running" || m.State == "streaming" {
				roles[m.Name] = m.Role
			}
		}
		all = append(all, roles)
	}
	return all
}

// dial connects to a host from itself.
func (d *Database) dial(ctx context.Context, network, address string) (net.Conn, error) {
	for _, h := range d.hosts {
		if strings.HasPrefix(address, h.Addr4().String()+":") {
			return h.Dial(ctx, network, address)
		}
	}
	return nil, fmt.Errorf("no host of the database has the address %s", address)
}

// Wait waits until the members are as wanted, a role for each name, and returns who
// has which role.
func (d *Database) Wait(what string, good func(map[string]string) bool) map[string]string {
	d.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, m := range d.views() {
			if !good(m) {
				continue
			}
			byRole := map[string]string{}
			for name, role := range m {
				byRole[role] = name
			}
			return byRole
		}
	}
	d.t.Fatalf("there is not %s after %s, but %v", what, patience, d.views())
	return nil
}
