// Package balancertest starts Debian's HAProxy and nginx for tests, with the
// configuration that package deploy renders. A test is skipped, with a line that
// says so, where the program is missing; in CI it fails, as scripts/test installs
// what it wants.
package balancertest

import (
	"bytes"
	"errors"
	"net"
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
)

// debian names what each balancer needs.
var debian = map[deploy.Kind]struct{ program, packages string }{
	deploy.HAProxy: {"haproxy", "haproxy"},
	deploy.Nginx:   {"nginx", "nginx libnginx-mod-stream"},
}

// Balancer is a load balancer that runs.
type Balancer struct {
	Kind   deploy.Kind
	socket string // HAProxy's, for administration
	t      testing.TB
}

// Start runs b until the test ends. Where b names no Root, it gets a folder of its
// own. It returns when the balancer listens.
func Start(t testing.TB, b deploy.Balancer) *Balancer {
	t.Helper()
	d, ok := debian[b.Kind]
	if !ok {
		t.Fatalf("no program for %s is known", b.Kind)
	}
	path, err := exec.LookPath(d.program)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: install %s", d.program, d.packages)
		}
		t.Skipf("SKIPPED: %s is missing: install %s", d.program, d.packages)
	}
	// A Unix socket's name has at most 97 bytes, which t.TempDir can exceed.
	dir, err := os.MkdirTemp("", "lb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if b.Root == "" {
		b.Root = dir
	}
	for _, sub := range []string{"run/haproxy", "var/log/nginx"} {
		if err := os.MkdirAll(filepath.Join(b.Root, sub), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	files, err := deploy.RenderBalancer(b)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, filepath.Base(files[0].Name))
	if err := os.WriteFile(config, []byte(files[0].Content), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-db", "-f", config}
	if b.Kind == deploy.Nginx {
		args = []string{"-c", config, "-g", "daemon off;"}
	}
	var out lines
	cmd := exec.Command(path, args...) // #nosec G204 -- a test's own program
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // it is told to end: how it does is no matter
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			raw, _ := os.ReadFile(filepath.Join(b.Root, "var/log/nginx/error.log")) // nginx' own words
			t.Logf("%s: %s%s", d.program, out.String(), raw)
		}
	})
	address := net.JoinHostPort(b.Listen, strconv.Itoa(b.PublicHTTPS))
	running := &Balancer{Kind: b.Kind, socket: filepath.Join(b.Root, "run/haproxy/admin.sock"), t: t}
	for range 500 {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			if _, err := os.Stat(running.socket); err == nil || b.Kind != deploy.HAProxy {
				return running
			}
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", d.program, out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not listen on %s: %s", d.program, address, out.String())
	return nil
}

// Up says which servers of a backend HAProxy takes for healthy.
func (b *Balancer) Up(backend string) []string {
	b.t.Helper()
	c, err := net.Dial("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("show stat\n")); err != nil {
		b.t.Fatal(err)
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(c); err != nil && !errors.Is(err, net.ErrClosed) {
		b.t.Fatal(err)
	}
	var up []string
	for line := range strings.Lines(raw.String()) {
		f := strings.Split(line, ",")
		if len(f) > 17 && f[0] == backend && f[1] != "BACKEND" && strings.HasPrefix(f[17], "UP") {
			up = append(up, f[1])
		}
	}
	return up
}

// lines is what a program printed. It is safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
