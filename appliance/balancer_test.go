package appliance_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/config"
)

// The balancer and a stranger both live on the loopback.
const (
	balancer = "127.0.0.2"
	stranger = "127.0.0.3"
)

// from connects as somebody, with first as the first bytes.
func from(t *testing.T, source string, port int, first []byte) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(first); err != nil {
		t.Fatal(err)
	}
	return c
}

// proxyHeader says that the client is 198.51.100.7.
func proxyHeader(t *testing.T, version byte) []byte {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 4711}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443})
	raw, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// over sends one request over a connection and returns the answer, or what is
// wrong with the connection.
func over(c net.Conn, request string) (*http.Response, string, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return nil, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp, string(raw), err
}

func TestProxyProtocol(t *testing.T) {
	unix := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8"), append([]byte("/run/evil.sock"), make([]byte, 216-14)...)...)
	local := []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	v1, v2 := proxyHeader(t, 1), proxyHeader(t, 2)
	huge := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"), make([]byte, 100)...)
	for _, mode := range []struct {
		name  string
		cases []struct {
			name, source string
			header       []byte
			ip           string // "" means that nothing is answered
		}
	}{
		{"off", []struct {
			name, source string
			header       []byte
			ip           string
		}{
			{"no header", balancer, nil, balancer},
			{"a header is no TLS", balancer, v2, ""},
		}},
		{"accept", []struct {
			name, source string
			header       []byte
			ip           string
		}{
			{"version 1", balancer, v1, "198.51.100.7"},
			{"version 2", balancer, v2, "198.51.100.7"},
			{"no header", balancer, nil, balancer},
			{"the balancer for itself", balancer, local, balancer},
			{"version 1, unknown", balancer, []byte("PROXY UNKNOWN\r\n"), balancer},
			{"a stranger", stranger, nil, stranger},
			{"a stranger's header", stranger, v2, ""},
			{"a path is no address", balancer, unix, ""},
			{"larger than any header", balancer, huge, ""},
			{"malformed", balancer, []byte("PROXY TCP4 198.51.100.7 nowhere 1 2\r\n"), ""},
			{"twice", balancer, append(bytes.Clone(v2), v2...), ""},
		}},
		{"require", []struct {
			name, source string
			header       []byte
			ip           string
		}{
			{"version 1", balancer, v1, "198.51.100.7"},
			{"version 2", balancer, v2, "198.51.100.7"},
			{"the balancer for itself", balancer, local, balancer},
			{"no header", balancer, nil, ""},
			{"a stranger", stranger, nil, ""},
			{"a stranger's header", stranger, v2, ""},
		}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			n := startWith(t, "", func(c *configuration) {
				c.Listen.ProxyProtocol = mode.name
				c.Proxies.Networks = []string{balancer}
				c.Listen.Address = "127.0.0.1"
			})
			if mode.name == "require" { // the set-up comes over the balancer
				n.dial = func(p string) (net.Conn, error) {
					number, err := strconv.Atoi(p)
					return from(t, balancer, number, local), err
				}
			}
			app := n.application(nil)
			for _, tt := range mode.cases {
				t.Run(tt.name, func(t *testing.T) {
					raw := from(t, tt.source, n.cfg.Listen.HTTPS, tt.header)
					c := tls.Client(raw, &tls.Config{RootCAs: n.roots, ServerName: "localhost"})
					email := strings.ReplaceAll(strings.ToLower(tt.name), " ", "-") + "@example.com"
					// A pass-through balancer writes no headers: what is in them is the client's own word.
					resp, body, err := over(c, wrongPassword(app, email, "X-Forwarded-For: 6.6.6.6\r\n"))
					if tt.ip == "" {
						if err == nil {
							t.Errorf("answered with %d %s", resp.StatusCode, body)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					want := tt.ip
					if want == balancer {
						want = "6.6.6.6" // it is the balancer's own request, and its word counts
					}
					n.loggedFrom(email, want)
				})
			}
		})
	}
}

// wrongPassword is a request that leaves an event with the client's address in the
// tenant's log.
func wrongPassword(app application, email, header string) string {
	body := url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database}, "client_id": {app.id}, "client_secret": {app.secret},
		"username": {email}, "password": {"wrong"}}.Encode()
	return fmt.Sprintf("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n%s\r\n%s", len(body), header, body)
}

// loggedFrom waits for the event of a user and compares its address.
func (n *node) loggedFrom(email, ip string) {
	n.t.Helper()
	for range 200 {
		var events []struct {
			IP       string
			UserName string `json:"user_name"`
		}
		a := n.apiAs(n.token, http.MethodGet, "logs?per_page=100", nil)
		if err := json.Unmarshal([]byte(a.body), &events); err != nil {
			n.t.Fatal(err)
		}
		for _, e := range events {
			if e.UserName == email {
				if e.IP != ip {
					n.t.Errorf("%s came from %s, and the log says %s", email, ip, e.IP)
				}
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.t.Errorf("no event of %s is in the tenant's log", email)
}

func TestTerminated(t *testing.T) {
	for _, overTLS := range []bool{true, false} {
		t.Run(fmt.Sprintf("tls=%v", overTLS), func(t *testing.T) {
			n := startWith(t, "", func(c *configuration) {
				c.Proxies.Networks = []string{balancer}
				c.Listen.Terminated, c.Listen.TerminatedTLS = port(t), overTLS
			})
			connect := func(source string) net.Conn {
				c := from(t, source, n.cfg.Listen.Terminated, nil)
				if overTLS {
					return tls.Client(c, &tls.Config{RootCAs: n.roots, ServerName: "localhost"})
				}
				return c
			}
			if resp, _, err := over(connect(stranger), "GET /testall HTTP/1.1\r\nHost: localhost\r\n\r\n"); err == nil {
				t.Errorf("a stranger is answered with %d", resp.StatusCode)
			}
			for _, tt := range []struct {
				name, path, header string
				status             int
				location, body     string
			}{
				{"a check", "/testall", "", 200, "", "OK"},
				{"https", "/.well-known/openid-configuration", "X-Forwarded-Proto: https\r\n", 200, "", "issuer"},
				{"http is sent on", "/login", "X-Forwarded-Proto: http\r\n", 308, "https://localhost:", ""},
				{"http, a program", "/oauth/token", "X-Forwarded-Proto: http\r\n", 403, "", "Use HTTPS"},
				{"nothing said", "/.well-known/openid-configuration", "", 400, "", "X-Forwarded-Proto"},
				{"nothing said, a page", "/login", "", 400, "", "Request id: "},
				{"the client's word beside it", "/login", "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", 400, "", "instead of what the client sent"},
				{"another scheme", "/login", "X-Forwarded-Proto: wss\r\n", 400, "", "X-Forwarded-Proto"},
			} {
				resp, body, err := over(connect(balancer), "GET "+tt.path+" HTTP/1.1\r\nHost: localhost\r\n"+tt.header+"\r\n")
				if err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
				if resp.StatusCode != tt.status || !strings.HasPrefix(resp.Header.Get("Location"), tt.location) || !strings.Contains(body, tt.body) {
					t.Errorf("%s: %d, Location %q, %s", tt.name, resp.StatusCode, resp.Header.Get("Location"), body)
				}
			}
			app := n.application(nil)
			if _, _, err := over(connect(balancer), wrongPassword(app, "far@example.com", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 6.6.6.6, 198.51.100.9\r\n")); err != nil {
				t.Fatal(err)
			}
			n.loggedFrom("far@example.com", "198.51.100.9")

			// Balancers speak HTTP/2 behind themselves too, with and without TLS.
			protocols := new(http.Protocols)
			protocols.SetHTTP2(overTLS)
			protocols.SetUnencryptedHTTP2(!overTLS)
			transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: n.roots, ServerName: "localhost"},
				DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(balancer)}}).DialContext}
			defer transport.CloseIdleConnections()
			scheme := map[bool]string{true: "https", false: "http"}[overTLS]
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s://127.0.0.1:%d/testall", scheme, n.cfg.Listen.Terminated), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
				t.Errorf("HTTP/2: %s, %d", resp.Proto, resp.StatusCode)
			}
		})
	}
}

// TestBruteForceSeesTheClient: ten wrong passwords block the address behind the
// balancer, and nobody else's who comes over the same balancer.
func TestBruteForceSeesTheClient(t *testing.T) {
	n := startWith(t, "", func(c *configuration) {
		c.Proxies.Networks = []string{balancer}
		c.Listen.Terminated, c.Listen.TerminatedTLS = port(t), false
	})
	app := n.application(nil)
	_, email := n.user()
	attempt := func(ip string) (int, string) {
		resp, body, err := over(from(t, balancer, n.cfg.Listen.Terminated, nil), wrongPassword(app, email, "X-Forwarded-Proto: https\r\nX-Forwarded-For: "+ip+"\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	blocked := false
	for range 15 {
		if _, body := attempt("198.51.100.9"); strings.Contains(body, "too_many_attempts") {
			blocked = true
			break
		}
	}
	if !blocked {
		t.Error("wrong passwords from one address were not stopped")
	}
	if _, body := attempt("198.51.100.10"); strings.Contains(body, "too_many_attempts") {
		t.Errorf("another address is blocked too: %s", body)
	}
}

func TestForwardedHost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		on     bool
		source string
		header string
		status int
	}{
		{"the balancer's word", true, balancer, "X-Forwarded-Host: localhost\r\n", 200},
		{"without it", true, balancer, "", 404},
		{"a stranger's word", true, stranger, "X-Forwarded-Host: localhost\r\n", 404},
		{"two words", true, balancer, "X-Forwarded-Host: localhost\r\nX-Forwarded-Host: evil.example\r\n", 400},
		{"a list", true, balancer, "X-Forwarded-Host: localhost, evil.example\r\n", 400},
		{"not switched on", false, balancer, "X-Forwarded-Host: localhost\r\n", 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := startWith(t, "", func(c *configuration) {
				c.Proxies.Networks, c.Proxies.ForwardedHost = []string{balancer}, tt.on
			})
			c := tls.Client(from(t, tt.source, n.cfg.Listen.HTTPS, nil), &tls.Config{RootCAs: n.roots, ServerName: "localhost"})
			resp, body, err := over(c, "GET /.well-known/openid-configuration HTTP/1.1\r\nHost: inside.example.net\r\n"+tt.header+"\r\n")
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Errorf("%d %s, want %d", resp.StatusCode, body, tt.status)
			}
		})
	}
}

// TestDrain: what a node does between the word to stop and its end.
func TestDrain(t *testing.T) {
	n := startWith(t, "", func(c *configuration) { c.Listen.Drain = 3600 })
	ready := func() (int, string) {
		a := n.do(n.browser(), http.MethodGet, n.health+"/readyz", nil, nil)
		return a.StatusCode, a.body
	}
	self := func() answer { return n.get(n.browser(), "/testall", nil) }

	a := self()
	if a.StatusCode != 200 || a.Close {
		t.Errorf("before: %d, close %v", a.StatusCode, a.Close)
	}
	// HTTP/2: GOAWAY after the answer, so that the next request opens a connection.
	h2 := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: n.roots, ServerName: "localhost"}}
	defer h2.CloseIdleConnections()
	fetch := func() (reused bool) {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/testall", n.cfg.Listen.HTTPS), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h2.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("%s: %v", resp.Proto, err)
		}
		return reused
	}
	fetch()
	if !fetch() {
		t.Error("a connection was not used again before the drain")
	}

	n.stop() // the word to stop: it serves on, for an hour if need be
	for range 100 {
		if status, _ := ready(); status == 503 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if status, body := ready(); status != 503 || body != "draining" {
		t.Errorf("/readyz of a node that drains: %d %s", status, body)
	}
	if a := self(); a.StatusCode != 404 || !a.Close {
		t.Errorf("/testall of a node that drains: %d, close %v", a.StatusCode, a.Close)
	}
	fetch() // brings GOAWAY
	fresh := false
	for range 100 { // the client's reader has yet to see it
		if fresh = !fetch(); fresh {
			break
		}
	}
	if !fresh {
		t.Error("the connection is used on and on while the node drains")
	}
	if a := n.get(n.browser(), "/.well-known/openid-configuration", nil); a.StatusCode != 200 || !a.Close {
		t.Errorf("a request while the node drains: %d, close %v", a.StatusCode, a.Close)
	}
	n.app.Hurry() // the cleanup waits for its end
}

func TestBalancerSettings(t *testing.T) {
	for _, tt := range []struct{ name, set, value, want string }{
		{"mode", "listen.proxy_protocol", "on", "allowed are: off, accept, require"},
		{"nobody to believe", "listen.proxy_protocol", "accept", "trusted_proxies.networks"},
		{"nobody to let in", "listen.terminated", "4443", "trusted_proxies.networks"},
		{"nobody to believe about the host", "trusted_proxies.forwarded_host", "true", "trusted_proxies.networks"},
		{"the same port", "listen.terminated", "8443", "another port"},
		{"too long", "listen.drain", "3601", "0 to 3600"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := appliance.DefaultDev()
			err := config.Load(&cfg, config.Sources{Flags: map[string]string{tt.set: tt.value}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.set) {
				t.Errorf("got %v, want the key and %q", err, tt.want)
			}
		})
	}
}
