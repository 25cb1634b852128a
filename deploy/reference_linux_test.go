package deploy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/portcullis-id/portcullis/deploy"
	"github.com/portcullis-id/portcullis/internal/lab"
)

// reference is the database of the rendered files on three hosts of the lab.
type reference struct {
	t        *testing.T
	l        *lab.Lab
	out      string // what was rendered
	root     string // with {node}
	dsn      string
	password string
	client   *http.Client

	mu      sync.Mutex
	running map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// TestDatabaseReference starts Debian's etcd, Patroni and PostgreSQL from the files
// that were rendered, on three hosts. The primary is killed with SIGKILL, Patroni
// with it, under writes: another takes over, everything that was acknowledged is
// there, and the old primary comes back as a standby.
func TestDatabaseReference(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	lab.Require(t)
	need(t, "patroni", "patroni")
	need(t, "etcd", "etcd-server")
	need(t, "/usr/lib/postgresql/15/bin/postgres", "postgresql-15")
	need(t, "openssl", "openssl")
	r := newReference(t)
	for _, name := range r.names() {
		r.etcd(name)
	}
	for _, name := range r.names() {
		r.patroni(name)
	}
	primary := r.wait("a primary and a synchronous standby", func(m map[string]string) bool {
		roles := map[string]int{}
		for _, role := range m {
			roles[role]++
		}
		return roles["leader"] == 1 && roles["sync_standby"] == 1 && roles["replica"] == 1
	})["leader"]
	t.Logf("%s is the primary", primary)

	ctx := t.Context()
	db := r.connect(ctx)
	if _, err := db.Exec(ctx, "CREATE TABLE writes (n bigint PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	db.Close(ctx)
	r.refuses()

	// One writer; a write counts when it was acknowledged.
	load, stop := context.WithCancel(ctx)
	defer stop()
	var acked []int64
	var last time.Time // when the last write was acknowledged
	var longest time.Duration
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		var db *pgx.Conn
		for n := int64(1); load.Err() == nil; n++ {
			attempt, cancel := context.WithTimeout(load, 5*time.Second)
			var err error
			if db == nil {
				db, err = r.dial(attempt)
			}
			if err == nil {
				_, err = db.Exec(attempt, "INSERT INTO writes VALUES ($1)", n)
			}
			cancel()
			if err != nil {
				if db != nil {
					_ = db.Close(context.Background()) // it is broken
					db = nil
				}
				time.Sleep(50 * time.Millisecond)
				continue
			}
			now := time.Now()
			if !last.IsZero() {
				longest = max(longest, now.Sub(last))
			}
			last = now
			acked = append(acked, n)
		}
		if db != nil {
			_ = db.Close(context.Background())
		}
	}()
	time.Sleep(3 * time.Second) // a load before the kill
	start := time.Now()
	r.kill(primary)
	next := r.wait("another primary", func(m map[string]string) bool {
		for name, role := range m {
			if role == "leader" && name != primary {
				return true
			}
		}
		return false
	})["leader"]
	t.Logf("%s is the primary %.1f s after the kill", next, time.Since(start).Seconds())
	r.writable(ctx)
	time.Sleep(2 * time.Second) // a load after it
	stop()
	<-writer
	t.Logf("measured: %d writes acknowledged, the longest time without one %.1f s", len(acked), longest.Seconds())

	db = r.connect(ctx)
	defer db.Close(ctx)
	rows, err := db.Query(ctx, "SELECT n FROM writes")
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]bool{}
	for _, n := range found {
		there[n] = true
	}
	for _, n := range acked {
		if !there[n] {
			t.Errorf("write %d was acknowledged and is lost", n)
		}
	}
	if len(acked) == 0 || acked[len(acked)-1] < 10 {
		t.Errorf("%d writes are no load", len(acked))
	}

	r.patroni(primary)
	r.wait("the old primary as a standby", func(m map[string]string) bool {
		return len(m) == 3 && m[primary] != "leader" && m[primary] != ""
	})
}

func newReference(t *testing.T) *reference {
	t.Helper()
	l := lab.New(t, lab.Options{Nodes: 3, IPv4Only: true})
	dir := short(t)
	if err := os.Chmod(dir, 0o755); err != nil { // the users of the servers go through it
		t.Fatal(err)
	}
	r := &reference{t: t, l: l, out: filepath.Join(dir, "out"), root: dir + "/{node}", running: map[string]*process{}}
	var named []string
	for _, h := range l.Nodes() {
		named = append(named, h.Name()+"="+h.Addr4().String())
	}
	d := deploy.Database{Cluster: deploy.Cluster{Domain: "id.example.com", Nodes: nodes(t, named...), Root: r.root}}
	files, err := deploy.RenderHosts(&d, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.out, files...)
	r.command(r.out, "./prepare.sh")
	for _, name := range r.names() {
		r.command(filepath.Join(r.out, name), "./install.sh")
		// The package of PostgreSQL has made this one on a host of its own.
		r.command(r.out, "install", "-d", "-o", "postgres", "-g", "postgres", "-m", "2775", r.at(name, "/var/run/postgresql"))
	}
	ca := r.at("node1", "/etc/portcullis/database/ca.crt")
	r.dsn = d.DSN(ca)
	raw, err := os.ReadFile(filepath.Join(r.out, "secrets", "application"))
	if err != nil {
		t.Fatal(err)
	}
	r.password = strings.TrimSpace(string(raw))
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{DialContext: l.Host("node1").Dial, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	r.client = &http.Client{Timeout: 5 * time.Second, Transport: transport}
	t.Cleanup(r.end)
	return r
}

func (r *reference) names() []string {
	var all []string
	for _, h := range r.l.Nodes() {
		all = append(all, h.Name())
	}
	return all
}

func (r *reference) at(node, path string) string {
	return strings.ReplaceAll(r.root, "{node}", node) + path
}

func (r *reference) command(dir, name string, args ...string) {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// environment reads a file as systemd's EnvironmentFile does.
func (r *reference) environment(path string) []string {
	r.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
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
func (r *reference) start(node, user string, env []string, program ...string) {
	r.t.Helper()
	args := append([]string{"--reuid=" + user, "--regid=" + user, "--init-groups", "env", "-i", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, env...)
	cmd := r.l.Host(node).Command(context.Background(), "setpriv", append(args, program...)...)
	logFile, err := os.OpenFile(r.at(node, "/"+user+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr, cmd.Dir = logFile, logFile, "/"
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); logFile.Close(); close(p.ended) }() // it is killed: an error is what it ends with
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[user+" "+node] = p
}

func (r *reference) etcd(node string) {
	r.start(node, "etcd", r.environment(r.at(node, "/etc/default/etcd")), "/usr/bin/etcd")
}

func (r *reference) patroni(node string) {
	r.start(node, "postgres", r.environment(r.at(node, "/etc/portcullis/database/patroni.env")), "/usr/bin/patroni", r.at(node, "/etc/patroni/config.yml"))
}

// kill ends PostgreSQL and Patroni of a node without a word.
func (r *reference) kill(node string) {
	r.t.Helper()
	raw, err := os.ReadFile(r.at(node, "/var/lib/postgresql/portcullis/postmaster.pid"))
	if err != nil {
		r.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	p := r.running["postgres "+node]
	r.mu.Unlock()
	if err := errors.Join(p.cmd.Process.Kill(), syscall.Kill(pid, syscall.SIGKILL)); err != nil {
		r.t.Fatal(err)
	}
	<-p.ended
}

// end stops Patroni first, which stops PostgreSQL, and etcd after it.
func (r *reference) end() {
	for _, user := range []string{"postgres", "etcd"} {
		var stopping []*process
		r.mu.Lock()
		for name, p := range r.running {
			if strings.HasPrefix(name, user+" ") {
				_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
				stopping = append(stopping, p)
			}
		}
		r.mu.Unlock()
		for _, p := range stopping {
			select {
			case <-p.ended:
			case <-time.After(20 * time.Second):
				_ = p.cmd.Process.Kill()
				<-p.ended
			}
		}
	}
	if r.t.Failed() {
		for _, name := range r.names() {
			for _, user := range []string{"etcd", "postgres"} {
				raw, _ := os.ReadFile(r.at(name, "/"+user+".log"))
				if len(raw) > 6000 {
					raw = raw[len(raw)-6000:]
				}
				r.t.Logf("%s on %s:\n%s", user, name, raw)
			}
		}
	}
}

// members asks each Patroni for the cluster's members and their roles; who runs is
// in it.
func (r *reference) members() (map[string]string, bool) {
	for _, h := range r.l.Nodes() {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, fmt.Sprintf("https://%s:9308/cluster", h.Addr4()), nil)
		if err != nil {
			r.t.Fatal(err)
		}
		resp, err := r.client.Do(req)
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
		return roles, true
	}
	return nil, false
}

// wait waits until the members are as wanted, and returns who has which role.
func (r *reference) wait(what string, good func(map[string]string) bool) map[string]string {
	r.t.Helper()
	var m map[string]string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var ok bool
		if m, ok = r.members(); ok && good(m) {
			byRole := map[string]string{}
			for name, role := range m {
				byRole[role] = name
			}
			return byRole
		}
	}
	r.t.Fatalf("there is not %s after two minutes, but %v", what, m)
	return nil
}

// dial connects as a node of the appliance does.
func (r *reference) dial(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(r.dsn)
	if err != nil {
		return nil, err
	}
	cfg.Password = r.password
	cfg.DialFunc = r.l.Host("node2").Dial
	return pgx.ConnectConfig(ctx, cfg)
}

func (r *reference) connect(ctx context.Context) *pgx.Conn {
	r.t.Helper()
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		db, err := r.dial(ctx)
		if err == nil {
			return db
		}
		last = err
	}
	r.t.Fatalf("the database takes no writes after a minute: %v", last)
	return nil
}

// writable waits until a connection to a primary is there.
func (r *reference) writable(ctx context.Context) {
	r.t.Helper()
	db := r.connect(ctx)
	_ = db.Close(ctx)
}

// refuses shows that nobody gets in without TLS, without the password, or from
// elsewhere than the nodes.
func (r *reference) refuses() {
	r.t.Helper()
	for name, change := range map[string]func(c *pgx.ConnConfig){
		"without TLS":         func(c *pgx.ConnConfig) { c.TLSConfig = nil; c.Fallbacks = nil },
		"with a wrong word":   func(c *pgx.ConnConfig) { c.Password = "wrong" },
		"from another host":   func(c *pgx.ConnConfig) { c.DialFunc = r.l.Host("lb").Dial },
		"as postgres":         func(c *pgx.ConnConfig) { c.User = "postgres" },
		"to another database": func(c *pgx.ConnConfig) { c.Database = "postgres" },
	} {
		cfg, err := pgx.ParseConfig(r.dsn)
		if err != nil {
			r.t.Fatal(err)
		}
		cfg.Password, cfg.DialFunc = r.password, r.l.Host("node2").Dial
		change(cfg)
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		if db, err := pgx.ConnectConfig(ctx, cfg); err == nil {
			_ = db.Close(ctx)
			r.t.Errorf("somebody got in %s", name)
		}
		cancel()
	}
}
