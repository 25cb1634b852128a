package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/internal/ports"
)

// node is a child process.
type node struct {
	cmd     *exec.Cmd
	data    string
	http    string // host:port
	https   string
	host    string // of the Host header, plain HTTP
	issuer  string
	ready   time.Duration // from the start of the process to the line "ready"
	first   time.Duration // from the start of the process to the first 200
	ended   chan error
	log     *os.File
	local   *client.Local
	token   string
	tlsConf *tls.Config
}

// start starts the binary on a data folder and waits for its first 200.
func start(ctx context.Context, binary, data string, settings ...string) (_ *node, err error) {
	return startAs(ctx, []string{binary}, data, settings)
}

// startAs starts the binary by a command of several words.
func startAs(ctx context.Context, command []string, data string, settings []string) (_ *node, err error) {
	var port [3]int
	for i := range port {
		if port[i], err = ports.Free(); err != nil {
			return nil, err
		}
	}
	n := &node{data: data, ended: make(chan error, 1), local: client.NewLocal(data)}
	n.http, n.https = fmt.Sprintf("127.0.0.1:%d", port[0]), fmt.Sprintf("127.0.0.1:%d", port[1])
	n.host, n.issuer = "localhost", "https://localhost/" // the same at each start, whatever the ports
	args := append(command[1:len(command):len(command)], "start", "--dev", "--data", data,
		"--set", fmt.Sprintf("listen.http=%d", port[0]), "--set", fmt.Sprintf("listen.https=%d", port[1]), "--set", fmt.Sprintf("listen.health=%d", port[2]),
		"--set", "public_port=443", "--set", "trusted_proxies.networks=127.0.0.1", "--set", "log.format=json",
		"--set", "rate_limits.enabled=false") // what the node can do, and not what it would let a client do
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	if n.log, err = os.Create(data + ".log"); err != nil { // beside the folder, so that it has no part in the store's size
		return nil, err
	}
	n.cmd = exec.Command(command[0], args...)
	n.cmd.Stderr = n.log
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		said := false
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.HasPrefix(s.Text(), "ready ") && !said {
				said = true
				close(ready)
			}
		}
		n.ended <- n.cmd.Wait()
	}()
	poll := expect(request("GET", n.host, "/.well-known/openid-configuration", "", nil), http.StatusOK)
	c := &conn{address: n.http}
	defer c.close()
	for poll(c) != nil {
		select {
		case err := <-n.ended:
			return nil, fmt.Errorf("the node ended: %w; its log is %s", err, n.log.Name())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), n.stop())
		case <-time.After(2 * time.Millisecond):
		}
	}
	n.first = time.Since(began)
	<-ready
	n.ready = time.Since(began)
	pem, err := os.ReadFile(filepath.Join(data, "root-ca.pem"))
	if err != nil {
		return nil, errors.Join(err, n.stop())
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	n.tlsConf = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	t, err := n.local.Token(ctx, client.TokenRequest{Tenant: "main", TTL: 86400})
	if err != nil {
		return nil, errors.Join(err, n.stop())
	}
	n.token = t.AccessToken
	return n, nil
}

// stop ends the node cleanly.
func (n *node) stop() error {
	defer n.log.Close()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-n.ended:
		return err
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the node did not stop within a minute"), n.cmd.Process.Kill())
	}
}

// alone waits until the node has no other process at work, which is the search for
// damage after a start.
func (n *node) alone(ctx context.Context) error {
	for {
		// Children belong to the thread that made them; there are few.
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.cmd.Process.Pid))
		if err != nil {
			return err
		}
		var raw []byte
		for _, t := range tasks {
			more, _ := os.ReadFile(t) // a thread may end meanwhile
			raw = append(raw, more...)
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// rss is the node's resident memory in MiB.
func (n *node) rss() (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// profile writes a CPU profile that covers d.
func (n *node) profile(ctx context.Context, file string, d time.Duration) error {
	raw, err := n.local.Profile(ctx, fmt.Sprintf("profile?seconds=%d", int(d.Seconds())))
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o644)
}

// api calls the Management API.
func (n *node) api(method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, "http://"+n.http+"/api/v2"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Host = n.host
	req.Header.Set("Authorization", "Bearer "+n.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}
