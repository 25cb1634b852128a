package appliance

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/portcullis-id/portcullis/deploy"
	"github.com/portcullis-id/portcullis/internal/balancertest"
	"github.com/portcullis-id/portcullis/internal/ports"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/web"
)

// inFront is every balancer that is tested with its real program, in every mode.
func inFront(t *testing.T, test func(t *testing.T, b deploy.Balancer)) {
	for _, kind := range []deploy.Kind{deploy.HAProxy, deploy.Nginx} {
		for _, b := range []deploy.Balancer{{Mode: deploy.PassThrough}, {Mode: deploy.Terminated}, {Mode: deploy.Terminated, Plain: true}} {
			b.Kind = kind
			name := string(kind) + " " + string(b.Mode)
			if b.Plain {
				name += " plain"
			}
			t.Run(name, func(t *testing.T) { test(t, b) })
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	p, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestUpgradesAndHTTP2PassBalancers: the node's own listeners and layers around a
// handler that speaks websocket, behind each balancer; and HTTP/2 to the client.
func TestUpgradesAndHTTP2PassBalancers(t *testing.T) {
	inFront(t, func(t *testing.T, b deploy.Balancer) {
		ca, err := loadAuthority(t.TempDir(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca.cert)
		leaf := func(time.Time) (*tls.Certificate, error) { return ca.certificate("localhost", time.Now()) }
		cfg := DefaultDev()
		cfg.Proxies.Networks = []string{"127.0.0.1"}
		trusted := cfg.trustedProxies()
		d := newDrain()

		clients := make(chan netip.Addr, 10)
		mux := http.NewServeMux()
		echo := websocket.Handler(func(c *websocket.Conn) {
			clients <- web.ClientIP(c.Request().Context())
			_, _ = io.Copy(c, c) // an echo, until the client goes
		})
		mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { echo.ServeHTTP(hijackable{w}, r) })
		mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) {
			clients <- web.ClientIP(r.Context())
			_, _ = io.WriteString(w, r.Host)
		})
		mux.HandleFunc("/testall", func(http.ResponseWriter, *http.Request) {})
		layers := func(guard func(*Config, http.Handler) http.Handler) http.Handler {
			return web.Middleware(web.Config{Logger: slog.New(slog.DiscardHandler), TrustedProxies: trusted}, d.closing(forwardedHost(&cfg, guard(&cfg, mux))))
		}
		open := func(port int) net.Listener {
			l, err := listen(t.Context(), netcontract.LB, "127.0.0.1", port)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		b.HTTPS, b.HTTP, b.TerminatedPort, b.PublicHTTPS, b.PublicHTTP = freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
		end := onlyFrom{open(b.TerminatedPort), trusted}
		var terminatedListener net.Listener = end
		if !b.Plain {
			terminatedListener = tls.NewListener(end, tlsConfig(leaf, time.Now))
		}
		surfaces := []surface{
			{row: netcontract.LB, name: "https", listener: tls.NewListener(proxied(open(b.HTTPS), proxyRequire, trusted), tlsConfig(leaf, time.Now)), handler: layers(secure)},
			{row: netcontract.LB, name: "http", listener: proxied(open(b.HTTP), proxyRequire, trusted), handler: layers(secure)},
			{row: netcontract.LB, name: "terminated", listener: terminatedListener, handler: layers(terminated), h2c: b.Plain},
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- serve(ctx, slog.New(slog.DiscardHandler), surfaces, nil, d, 0) }()
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})

		b.Cluster = deploy.Cluster{Domain: "localhost", Nodes: []deploy.Node{{Name: "node1", Address: netip.MustParseAddr("127.0.0.1")}}}
		b.Listen = "127.0.0.1"
		b.CA, b.Certificate = ca.rootFile, frontCertificate(t, ca)
		balancertest.Start(t, b)

		// The client has an address of its own.
		dial := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext
		front := net.JoinHostPort("127.0.0.1", fmt.Sprint(b.PublicHTTPS))
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}, ForceAttemptHTTP2: protocol == "HTTP/2.0"}
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+front+"/proto", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = fmt.Sprintf("acme.localhost:%d", b.PublicHTTPS)
			req.Header.Set("X-Forwarded-For", "6.6.6.6")
			req.Header.Set("X-Forwarded-Host", "evil.example")
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || resp.Proto != protocol || string(body) != req.Host {
				t.Fatalf("%s: %s %d, Host %q, %v", protocol, resp.Proto, resp.StatusCode, body, err)
			}
			if ip := <-clients; ip.String() != "127.0.0.9" {
				t.Errorf("%s: the node takes %s for the client", protocol, ip)
			}
		}

		raw, err := dial(t.Context(), "tcp", front)
		if err != nil {
			t.Fatal(err)
		}
		wsConfig, err := websocket.NewConfig(fmt.Sprintf("wss://localhost:%d/ws", b.PublicHTTPS), fmt.Sprintf("https://localhost:%d", b.PublicHTTPS))
		if err != nil {
			t.Fatal(err)
		}
		ws, err := websocket.NewClient(wsConfig, tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "localhost"}))
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		if ip := <-clients; ip.String() != "127.0.0.9" {
			t.Errorf("websocket: the node takes %s for the client", ip)
		}
		for _, text := range []string{"hello", strings.Repeat("x", 100_000)} {
			if _, err := io.WriteString(ws, text); err != nil {
				t.Fatal(err)
			}
			back := make([]byte, len(text))
			if _, err := io.ReadFull(ws, back); err != nil || string(back) != text {
				t.Fatalf("came back: %q…, %v", back[:5], err)
			}
		}
	})
}

// hijackable reaches the connection below the layers, as http.ResponseController
// does.
type hijackable struct{ http.ResponseWriter }

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// frontCertificate writes what a balancer that ends TLS shows to clients.
func frontCertificate(t *testing.T, ca *authority) string {
	t.Helper()
	pair, err := ca.certificate("localhost", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, der := range pair.Certificate {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: key}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "front.pem")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
