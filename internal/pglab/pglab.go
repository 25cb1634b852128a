//go:build linux

package pglab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
)

// Port is where the servers listen: the port of row database.
const Port = 27017

// User and Database are what every server has.
const (
	User     = "portcullis"
	Database = "portcullis"
)

// patience bounds everything that a server is waited for, on a busy machine.
const patience = 60 * time.Second

// Server is a PostgreSQL on a host of the lab.
type Server struct {
	t    testing.TB
	host *lab.Host
	bin  string // folder of PostgreSQL's programs
	dir  string // folder of data, socket and log
	as   *user.User
	mib  int // of a disk of its own; 0: it has none

	process *lab.Process
}

// Require skips the test where a lab cannot be, or PostgreSQL is missing.
func Require(t testing.TB) {
	t.Helper()
	lab.Require(t)
	if _, err := programs(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("pglab: ", err)
		}
		t.Skip("pglab: " + err.Error())
	}
}

// programs finds the newest PostgreSQL's folder of programs.
func programs() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(dirs) == 0 {
		return "", fmt.Errorf("PostgreSQL is missing; install the package postgresql-15")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 for what is no version
		return n
	}
	best := slices.MaxFunc(dirs, func(a, b string) int { return version(a) - version(b) })
	if _, err := user.Lookup("postgres"); err != nil {
		return "", fmt.Errorf("the user postgres is missing; install the package postgresql-15")
	}
	return filepath.Dir(best), nil
}

// Start makes a new server that nobody else knows, and starts it. It goes with the
// test.
func Start(t testing.TB, host *lab.Host) *Server {
	t.Helper()
	return StartOn(t, host, 0)
}

// StartOn is Start with a disk of its own for the server, of some MiB, and for each
// of its replicas; 0 means the machine's.
func StartOn(t testing.TB, host *lab.Host, mib int) *Server {
	t.Helper()
	s := prepare(t, host, mib)
	s.run("initdb", "-D", s.data(), "-U", User, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
	s.write(filepath.Join(s.data(), "pg_hba.conf"), "local all all trust\nhost all all all trust\nlocal replication all trust\nhost replication all all trust\n")
	s.Run()
	s.Query("CREATE DATABASE " + Database)
	return s
}

func prepare(t testing.TB, host *lab.Host, mib int) *Server {
	t.Helper()
	Require(t)
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	as, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pglab-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, host: host, bin: bin, dir: dir, as: as, mib: mib}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the log of PostgreSQL on %s ends:\n%s", host.Name(), s.logTail())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if mib > 0 {
		lab.Disk(t, dir, mib)
		t.Cleanup(s.Kill) // before its disk goes
	}
	uid, gid := s.ids()
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Server) ids() (uid, gid int) {
	s.t.Helper()
	uid, err := strconv.Atoi(s.as.Uid)
	if err != nil {
		s.t.Fatal(err)
	}
	if gid, err = strconv.Atoi(s.as.Gid); err != nil {
		s.t.Fatal(err)
	}
	return uid, gid
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	uid, gid := s.ids()
	if err := os.Chown(path, uid, gid); err != nil {
		s.t.Fatal(err)
	}
}

// command is one of PostgreSQL's programs, on the host, as the user postgres: the
// server refuses to run as root.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := s.host.Command(ctx, "setpriv", append([]string{"--reuid=" + s.as.Uid, "--regid=" + s.as.Gid, "--clear-groups", filepath.Join(s.bin, name)}, args...)...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PGHOST="+s.dir, "PGPORT="+strconv.Itoa(Port), "PGUSER="+User, "PGDATABASE="+Database, "PGCONNECT_TIMEOUT=5")
	return cmd
}

func (s *Server) run(name string, args ...string) string {
	s.t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		s.t.Fatalf("pglab: %s: %s: %v\n%s", s.host.Name(), name, err, s.logTail())
	}
	return out
}

func (s *Server) try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, fault bytes.Buffer
	cmd := s.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &fault
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(fault.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func (s *Server) logTail() string {
	raw, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4000):])
}

// Run starts the server again after Stop or Kill, and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	if s.Running() {
		return
	}
	// ip and setpriv become the server: the process that is started is the server's own.
	cmd := s.command(context.Background(), "postgres", "-D", s.data(), "-p", strconv.Itoa(Port), "-h", "*", "-k", s.dir,
		"-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "wal_level=replica", "-c", "max_wal_senders=10",
		"-c", "wal_keep_size=256MB", "-c", "hot_standby=on", "-c", "wal_sender_timeout=5s", "-c", "wal_receiver_timeout=5s",
		"-c", "wal_retrieve_retry_interval=500ms", "-c", "cluster_name="+s.host.Name())
	var err error
	if s.process, err = lab.Start(cmd, filepath.Join(s.dir, "log")); err != nil {
		s.t.Fatal(err)
	}
	s.await("the server answers", func() (bool, error) {
		if !s.Running() {
			return false, fmt.Errorf("it ended: %s", s.logTail())
		}
		_, err := s.try("pg_isready", "-q", "-d", "postgres")
		return err == nil, nil
	})
}

// await asks until it is so.
func (s *Server) await(what string, so func() (bool, error)) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ok, err := so()
		if ok {
			return
		}
		if err != nil || time.Now().After(deadline) {
			s.t.Fatalf("pglab: %s: %s did not happen: %v\n%s", s.host.Name(), what, err, s.logTail())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Running reports whether the server's process is there.
func (s *Server) Running() bool { return s.process.Running() }

// Kill ends every process of the server at once, as a power cut would: no client
// is told, though the kernel closes their connections. Where that is too kind,
// lab.Unplug the host first.
func (s *Server) Kill() {
	if !s.Running() {
		return
	}
	// Stopped, it makes no more children. It may have ended meanwhile.
	_ = syscall.Kill(s.process.Pid(), syscall.SIGSTOP)
	for _, child := range s.children() {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	s.process.Kill()
}

// children are the processes that the server has made; none when it has ended.
func (s *Server) children() (pids []int) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.process.Pid()))
	if err != nil {
		return nil
	}
	for _, f := range strings.Fields(string(raw)) {
		if child, err := strconv.Atoi(f); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// Stop ends the server in order: transactions that run are rolled back.
func (s *Server) Stop() {
	s.t.Helper()
	if s.Running() {
		s.run("pg_ctl", "-D", s.data(), "-m", "fast", "-w", "stop")
		<-s.process.Ended()
	}
}

// Fill takes all the room of the server's disk; free gives it back.
func (s *Server) Fill() (free func()) {
	s.t.Helper()
	if s.mib == 0 {
		s.t.Fatal("the server is on the machine's own disk, which nobody wants full")
	}
	return lab.Fill(s.t, s.dir)
}

// Pause stops the server's processes where they are, so that it is there and does
// not answer; the returned function lets them go on.
func (s *Server) Pause() (resume func()) {
	s.t.Helper()
	server, err := s.process.Pause()
	if err != nil {
		s.t.Fatal(err)
	}
	children := s.children()
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGSTOP)
	}
	return func() {
		server()
		for _, child := range children {
			_ = syscall.Kill(child, syscall.SIGCONT)
		}
	}
}

// Replica makes a server on another host that streams from this one, and starts
// it. It goes with the test.
func (s *Server) Replica(host *lab.Host) *Server {
	s.t.Helper()
	r := prepare(s.t, host, s.mib)
	r.follow(s)
	return r
}

// Rejoin makes this server, which was killed or stopped, a replica of another one.
// What it had of its own is gone.
func (s *Server) Rejoin(primary *Server) {
	s.t.Helper()
	s.Kill()
	if err := os.RemoveAll(s.data()); err != nil {
		s.t.Fatal(err)
	}
	s.follow(primary)
}

func (s *Server) follow(primary *Server) {
	s.t.Helper()
	s.run("pg_basebackup", "-D", s.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-d", fmt.Sprintf("host=%s port=%d user=%s application_name=%s", primary.host.Addrs()[0], Port, User, s.host.Name()))
	// What the primary waits for is its own business.
	path := filepath.Join(s.data(), "postgresql.auto.conf")
	raw, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	var keep []string
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "synchronous_standby_names") {
			keep = append(keep, line)
		}
	}
	s.write(path, strings.Join(keep, ""))
	s.Run()
	primary.await("replication to "+s.host.Name(), func() (bool, error) {
		out, err := primary.TryQuery("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '" + s.host.Name() + "'")
		return out == "1", err
	})
}

// Synchronous makes commits wait until one of the standbys has them on its disk
// too, and waits until that holds. Without standbys, commits wait for nobody.
func (s *Server) Synchronous(standbys ...*Server) {
	s.t.Helper()
	var names []string
	for _, r := range standbys {
		names = append(names, `"`+r.host.Name()+`"`)
	}
	setting := ""
	if len(names) > 0 {
		setting = "ANY 1 (" + strings.Join(names, ", ") + ")"
	}
	s.Query("ALTER SYSTEM SET synchronous_standby_names = '" + setting + "'")
	s.Query("SELECT pg_reload_conf()")
	want := "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
	if len(names) == 0 {
		want = "SELECT current_setting('synchronous_standby_names') = ''"
	}
	s.await("synchronous replication", func() (bool, error) {
		out, err := s.TryQuery(want)
		return out == "t", err
	})
}

// Promote makes a replica the primary, and waits until it takes writes.
func (s *Server) Promote() {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.data(), "-w", "promote")
	s.await("the promotion", func() (bool, error) {
		out, err := s.TryQuery("SELECT pg_is_in_recovery()")
		return out == "f", err
	})
}

// Query runs a statement on the server itself, by its socket, and returns what it
// prints: columns parted by "|", a row a line.
func (s *Server) Query(statement string) string {
	s.t.Helper()
	out, err := s.TryQuery(statement)
	if err != nil {
		s.t.Fatalf("pglab: %s: %s: %v", s.host.Name(), statement, err)
	}
	return out
}

// TryQuery is Query for what may fail.
func (s *Server) TryQuery(statement string) (string, error) {
	db := Database
	if strings.HasPrefix(statement, "CREATE DATABASE") {
		db = "postgres"
	}
	return s.try("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", db, "-c", statement)
}

// Host is where the server runs.
func (s *Server) Host() *lab.Host { return s.host }

// Address is where the server listens, HOST:PORT.
func (s *Server) Address() string {
	return net.JoinHostPort(s.host.Addrs()[0].String(), strconv.Itoa(Port))
}

// DSN names the servers in one connection string, in their order.
func DSN(servers ...*Server) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.Address())
	}
	u := url.URL{Scheme: "postgres", User: url.User(User), Host: strings.Join(hosts, ","), Path: "/" + Database, RawQuery: "sslmode=disable"}
	return u.String()
}
