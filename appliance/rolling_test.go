package appliance_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/deploy"
	"github.com/portcullis-id/portcullis/internal/balancertest"
	"github.com/portcullis-id/portcullis/store/storetest"
)

// member is a node of a cluster that can be stopped and started again.
type member struct {
	t     *testing.T
	name  string
	cfg   appliance.Config
	stop  context.CancelFunc
	ended chan error
}

func (m *member) start() {
	m.t.Helper()
	n, err := appliance.New(m.cfg, appliance.Options{Version: "test", Log: m.t.Output()})
	if err != nil {
		m.t.Fatal(err)
	}
	ready := make(chan struct{})
	n.OnReady = func(appliance.Ready) { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.ended = cancel, make(chan error, 1)
	go func() { m.ended <- n.Run(ctx) }()
	select {
	case <-ready:
	case err := <-m.ended:
		m.ended <- err
		m.t.Fatalf("%s did not start: %v", m.name, err)
	case <-time.After(time.Minute):
		m.t.Fatalf("%s was not ready within a minute", m.name)
	}
}

func (m *member) end() {
	m.t.Helper()
	m.stop()
	if err := <-m.ended; err != nil {
		m.t.Errorf("%s ended with: %v", m.name, err)
	}
	m.ended <- nil // for the clean-up
}

var openConnections = regexp.MustCompile(`portcullis_connections_open\{surface="(?:https|terminated)"\} ([0-9.]+)`)

// serving reports whether the balancer sends something to the node.
func (m *member) serving() bool {
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, fmt.Sprintf("http://%s:%d/metrics", m.cfg.Listen.Address, m.cfg.Listen.Health), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.SetBasicAuth("api_keys_health", m.cfg.Health.APIKey.Reveal())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, found := range openConnections.FindAllStringSubmatch(string(raw), -1) {
		if found[1] != "0" {
			return true
		}
	}
	return false
}

// newMembers makes a cluster whose nodes have addresses of their own and the same
// ports, behind a balancer at 127.0.0.1.
func newMembers(t *testing.T, count int, b *deploy.Balancer) []*member {
	t.Helper()
	b.HTTPS, b.HTTP, b.TerminatedPort, b.PublicHTTPS, b.PublicHTTP, b.Listen = port(t), port(t), port(t), port(t), port(t), "127.0.0.1"
	b.Domain = "localhost"
	health, control := port(t), port(t)
	var all []*member
	var tokens []string
	for i := range count {
		m := &member{t: t, name: "node" + strconv.Itoa(i+1)}
		cfg := clusterConfig(t)
		cfg.Listen.Address = fmt.Sprintf("127.0.0.%d", 11+i)
		cfg.PublicPort = b.PublicHTTPS
		cfg.Listen.HTTPS, cfg.Listen.HTTP, cfg.Listen.Health, cfg.Listen.Control = b.HTTPS, b.HTTP, health, control
		cfg.Listen.Drain = b.Drain
		cfg.RateLimits.Enabled = false // it asks more than one client may
		cfg.Proxies.Networks = []string{"127.0.0.1"}
		if b.Mode == deploy.PassThrough {
			cfg.Listen.ProxyProtocol = "require"
		} else {
			cfg.Listen.Terminated, cfg.Listen.TerminatedTLS = b.TerminatedPort, !b.Plain
		}
		var f *appliance.Founding
		var err error
		if i == 0 {
			cfg.Database.DSN = config.Secret(storetest.PostgresDSN(t))
			if f, err = appliance.InitCluster(t.Context(), cfg, nil, m.name, cfg.Listen.Address, count-1, time.Hour); err == nil {
				tokens = f.Tokens
			}
		} else {
			f, err = appliance.JoinCluster(t.Context(), cfg, dialPlain, tokens[i-1], m.name, cfg.Listen.Address)
		}
		if err != nil {
			t.Fatal(err)
		}
		m.cfg = load(t, f.Config)
		m.cfg.Listen.Drain = b.Drain
		m.start()
		t.Cleanup(func() {
			m.stop()
			if err := <-m.ended; err != nil {
				t.Errorf("%s ended with: %v", m.name, err)
			}
		})
		b.Nodes = append(b.Nodes, deploy.Node{Name: m.name, Address: netip.MustParseAddr(cfg.Listen.Address)})
		all = append(all, m)
	}
	b.CA = filepath.Join(all[0].cfg.Data, "root-ca.pem")
	return all
}

// TestRollingRestart: every node of three is stopped and started again, one after
// the other, behind the real balancers under load, and no request fails.
func TestRollingRestart(t *testing.T) {
	for _, kind := range []deploy.Kind{deploy.HAProxy, deploy.Nginx} {
		for _, mode := range []deploy.Mode{deploy.PassThrough, deploy.Terminated} {
			t.Run(string(kind)+" "+string(mode), func(t *testing.T) {
				rollingRestart(t, deploy.Balancer{Kind: kind, Mode: mode, Drain: 4})
			})
		}
	}
}

func rollingRestart(t *testing.T, b deploy.Balancer) {
	members := newMembers(t, 3, &b)
	roots := x509.NewCertPool()
	raw, err := os.ReadFile(b.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(raw)
	b.Certificate = filepath.Join(t.TempDir(), "front.pem")
	if err := os.WriteFile(b.Certificate, []byte(frontCertificate(t, members[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	running := balancertest.Start(t, b)
	backend := map[deploy.Mode]string{deploy.PassThrough: "nodes_https", deploy.Terminated: "nodes"}[b.Mode]
	settled := func(m *member) {
		t.Helper()
		for range 600 {
			if b.Kind == deploy.HAProxy {
				if slices.Contains(running.Up(backend), m.name) {
					return
				}
			} else if m.serving() { // nginx tries a node again after 5 s
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("the balancer does not take %s back", m.name)
	}
	for _, m := range members {
		if b.Kind == deploy.HAProxy {
			settled(m)
		}
	}

	// A node that has joined a moment ago hears of changes by the database, a second late,
	// until the others know it.
	eventually(t, "the nodes see each other", func() bool {
		for _, m := range members {
			all, err := client.NewLocal(m.cfg.Data).Cluster(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(all.Nodes, func(v client.ClusterNode) bool { return !v.Self && v.Network != "up" }) || len(all.Nodes) < len(members) {
				return false
			}
		}
		return true
	})

	// The set-up goes through the balancer too.
	n := &node{t: t, issuer: fmt.Sprintf("https://localhost:%d/", b.PublicHTTPS), roots: roots, local: client.NewLocal(members[0].cfg.Data)}
	tok, err := n.local.Token(t.Context(), client.TokenRequest{Tenant: "main"})
	if err != nil {
		t.Fatal(err)
	}
	n.token = tok.AccessToken
	app := n.application(map[string]any{"grant_types": []string{"authorization_code", "refresh_token", "client_credentials", "http://auth0.com/oauth/grant-type/password-realm"}})
	n.api(http.MethodPost, "resource-servers", map[string]any{"name": "api", "identifier": "https://api.example.com"})
	n.api(http.MethodPost, "client-grants", map[string]any{"client_id": app.id, "audience": "https://api.example.com", "scope": []string{}})

	// Every node has to have heard of the application: what a cache has may be seconds old.
	_, first := n.user()
	fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true, DialContext: loopback}}
	eventually(t, "all nodes know the application", func() bool {
		for range 4 * len(members) {
			resp, err := fresh.PostForm(strings.TrimSuffix(n.issuer, "/")+"/oauth/token", url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database},
				"client_id": {app.id}, "client_secret": {app.secret}, "username": {first}, "password": {userPassword}, "scope": {"openid"}})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return false
			}
		}
		return true
	})

	load, stopLoad := context.WithCancel(t.Context())
	defer stopLoad()
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	base := strings.TrimSuffix(n.issuer, "/")
	form := func(v url.Values) (string, string, string) {
		return http.MethodPost, base + "/oauth/token", v.Encode()
	}
	// Most clients keep their connections, on HTTP/1.1 and on HTTP/2; the others open one
	// for each request.
	for i := range 8 {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: i%4 == 3, ForceAttemptHTTP2: i%2 == 0, DialContext: loopback}
		hc := &http.Client{Transport: transport, Timeout: 30 * time.Second}
		t.Cleanup(transport.CloseIdleConnections)
		_, email := n.user() // one each: who changes one user at the same moment may be told to try again
		wg.Go(func() {
			for round := 0; load.Err() == nil; round++ {
				method, to, body := http.MethodGet, base+"/.well-known/openid-configuration", ""
				switch round % 5 {
				case 1, 3:
					method, to, body = form(url.Values{"grant_type": {"client_credentials"}, "client_id": {app.id}, "client_secret": {app.secret}, "audience": {"https://api.example.com"}})
				case 4:
					method, to, body = form(url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database}, "client_id": {app.id}, "client_secret": {app.secret},
						"username": {email}, "password": {userPassword}, "scope": {"openid"}})
				}
				req, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				if body != "" {
					req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					req.GetBody = nil // nothing may be sent a second time behind the test's back
				}
				resp, err := hc.Do(req)
				for err != nil && strings.Contains(err.Error(), "REFUSED_STREAM") {
					// It says that nothing was done with the request, and that the client is to send it
					// again (RFC 9113 section 8.7).
					req.Body = io.NopCloser(strings.NewReader(body))
					resp, err = hc.Do(req)
				}
				if err == nil {
					var answer []byte
					answer, err = io.ReadAll(resp.Body)
					resp.Body.Close()
					if err == nil && resp.StatusCode != 200 {
						err = fmt.Errorf("status %d: %s", resp.StatusCode, answer)
					}
				}
				done.Add(1)
				if err != nil && failed.Add(1) <= 10 {
					t.Errorf("%s: client %d, %s %s: %v", time.Now().UTC().Format(time.TimeOnly+".000"), i, method, to, err)
				}
				select { // a load, and not a flood
				case <-load.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	log := func(what string, m *member) {
		t.Logf("%s: %s %s", time.Now().UTC().Format(time.TimeOnly+".000"), m.name, what)
	}
	for _, m := range members {
		log("is told to stop", m)
		m.end()
		log("has stopped", m)
		m.start()
		log("answers again", m)
		settled(m)
	}
	stopLoad()
	wg.Wait()
	t.Logf("%d requests while three nodes were restarted, %d failed", done.Load(), failed.Load())
	if done.Load() < 200 {
		t.Errorf("%d requests are no load", done.Load())
	}
}

// loopback connects to 127.0.0.1, whatever the name.
func loopback(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

// frontCertificate is what a balancer that ends TLS shows to clients, with its key:
// of the nodes' own authority.
func frontCertificate(t *testing.T, m *member) string {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(m.cfg.Data, "root-ca.pem"), filepath.Join(m.cfg.Data, "root-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: private}} {
		if err := pem.Encode(&b, block); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
