package egress_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/egress"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// resolver answers from a table. A name with several answers gives the next one
// at each question and then stays with the last.
type resolver struct {
	mu    sync.Mutex
	names map[string][][]string
	asked []string
}

func (r *resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, host)
	answers := r.names[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(answers) > 1 {
		r.names[host] = answers[1:]
	}
	var out []netip.Addr
	for _, s := range answers[0] {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

func names(pairs ...string) *resolver {
	r := &resolver{names: map[string][][]string{}}
	for i := 0; i < len(pairs); i += 2 {
		r.names[pairs[i]] = append(r.names[pairs[i]], strings.Fields(pairs[i+1]))
	}
	return r
}

func dialer(t *testing.T, cfg egress.Config, r egress.Resolver) *egress.Dialer {
	t.Helper()
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 2 * time.Second
	}
	d, err := egress.New(cfg, table, r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wantRefused(t *testing.T, err error, says string) {
	t.Helper()
	var p *problem.Error
	if !errors.As(err, &p) || p.Kind != problem.Invalid || p.Code != "destination_not_allowed" {
		t.Fatalf("not refused: %v", err)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("%q does not say %q", err, says)
	}
}

func TestCheckURL(t *testing.T) {
	inside := egress.Config{
		AllowedHosts: []string{"idp.corp.test", "*.lab.test", "10.1.0.0/16", "fd00::1"},
		AllowedNets:  []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")},
	}
	for _, c := range []struct {
		name, in, says string // says "" means allowed
		cfg            egress.Config
	}{
		{name: "a public host", in: "https://idp.example.com/.well-known/openid-configuration"},
		{name: "a port of its own", in: "https://idp.example.com:8443/"},
		{name: "a public address", in: "https://8.8.8.8/"},
		{name: "a public IPv6 address", in: "https://[2606:4700::1111]/"},
		{name: "a name of other letters", in: "https://bücher.example/"},
		{name: "plain HTTP", in: "http://idp.example.com/", says: "https://"},
		{name: "another scheme", in: "file:///etc/passwd", says: "https://"},
		{name: "no scheme", in: "idp.example.com", says: "https://"},
		{name: "no host", in: "https:///x", says: "host"},
		{name: "a password", in: "https://user:hunter2@idp.example.com/", says: "user name"},
		{name: "port 0", in: "https://idp.example.com:0/", says: "1 to 65535"},
		{name: "a port too high", in: "https://idp.example.com:65536/", says: "1 to 65535"},
		{name: "not a URL", in: "https://a b/", says: "cannot be read"},
		{name: "loopback", in: "https://127.0.0.1/", says: "loopback"},
		{name: "all of loopback", in: "https://127.9.9.9/", says: "loopback"},
		{name: "loopback by name", in: "https://localhost/", says: "inside"},
		{name: "loopback by name with a dot", in: "https://LocalHost./", says: "inside"},
		{name: "below localhost", in: "https://x.localhost/", says: "inside"},
		{name: "IPv6 loopback", in: "https://[::1]/", says: "loopback"},
		{name: "metadata", in: "https://169.254.169.254/latest", says: "metadata"},
		{name: "metadata over IPv6", in: "https://[fd00:ec2::254]/", says: "metadata"},
		{name: "metadata by name", in: "https://metadata.google.internal/", says: "inside"},
		{name: "metadata on a public address", in: "https://168.63.129.16/", says: "metadata"},
		{name: "link-local", in: "https://169.254.1.1/", says: "link-local"},
		{name: "IPv6 link-local", in: "https://[fe80::1]/", says: "link-local"},
		{name: "a zone", in: "https://[fe80::1%25eth0]/", says: "interface"},
		{name: "private, 10", in: "https://10.0.0.1/", says: "private"},
		{name: "private, 172", in: "https://172.31.255.255/", says: "private"},
		{name: "beside private, 172", in: "https://172.32.0.1/"},
		{name: "private, 192", in: "https://192.168.1.1/", says: "private"},
		{name: "private, IPv6", in: "https://[fd12::1]/", says: "private"},
		{name: "CGNAT", in: "https://100.64.0.1/", says: "carriers"},
		{name: "multicast", in: "https://224.0.0.1/", says: "multicast"},
		{name: "IPv6 multicast", in: "https://[ff02::1]/", says: "multicast"},
		{name: "unspecified", in: "https://0.0.0.0/", says: "unspecified"},
		{name: "IPv6 unspecified", in: "https://[::]/", says: "unspecified"},
		{name: "broadcast", in: "https://255.255.255.255/", says: "reserved"},
		{name: "IPv4-mapped", in: "https://[::ffff:127.0.0.1]/", says: "IPv4-mapped"},
		{name: "IPv4-mapped and public", in: "https://[::ffff:8.8.8.8]/", says: "IPv4-mapped"},
		{name: "IPv4-compatible", in: "https://[::127.0.0.1]/", says: "IPv4-compatible"},
		{name: "NAT64", in: "https://[64:ff9b::7f00:1]/", says: "NAT64"},
		{name: "6to4", in: "https://[2002:7f00:1::]/", says: "6to4"},
		{name: "IPv6 outside what is assigned", in: "https://[4000::1]/", says: "not assigned"},
		{name: "a short address", in: "https://127.1/", says: "four numbers"},
		{name: "an address as one number", in: "https://2130706433/", says: "four numbers"},
		{name: "a hexadecimal address", in: "https://0x7f000001/", says: "four numbers"},
		{name: "an octal address", in: "https://0177.0.0.1/", says: "four numbers"},
		{name: "an address in wide digits", in: "https://１２７.0.0.1/", says: "loopback"},

		{name: "a host that the operator named", in: "http://idp.corp.test:8080/", cfg: inside},
		{name: "its case does not matter", in: "https://IDP.Corp.Test./", cfg: inside},
		{name: "a host beside it", in: "http://evil-idp.corp.test/", cfg: inside, says: "https://"},
		{name: "a name below an allowed one", in: "http://a.b.lab.test/", cfg: inside},
		{name: "the name itself is not below", in: "http://lab.test/", cfg: inside, says: "https://"},
		{name: "an address of an allowed block", in: "http://10.1.2.3:8080/", cfg: inside},
		{name: "an address beside the block", in: "https://10.2.0.1/", cfg: inside, says: "private"},
		{name: "an address of a net", in: "https://192.168.7.9/", cfg: inside},
		{name: "an allowed IPv6 address", in: "https://[fd00::1]/", cfg: inside},
		{name: "localhost, allowed", in: "http://localhost:9000/", cfg: egress.Config{AllowedHosts: []string{"localhost"}}},
		{name: "a block does not open metadata", in: "https://169.254.169.254/", cfg: egress.Config{AllowedHosts: []string{"169.254.0.0/16"}}, says: "metadata"},
		{name: "its address does", in: "https://169.254.169.254/", cfg: egress.Config{AllowedHosts: []string{"169.254.169.254"}}},
		{name: "NAT64 does not hide loopback", in: "https://[64:ff9b::7f00:1]/", cfg: egress.Config{AllowedHosts: []string{"64:ff9b::/96"}}, says: "loopback"},
		{name: "NAT64 leads to the public", in: "https://[64:ff9b::808:808]/", cfg: egress.Config{AllowedHosts: []string{"64:ff9b::/96"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := names()
			err := dialer(t, c.cfg, r).CheckURL(c.in)
			if len(r.asked) != 0 {
				t.Errorf("resolved %v", r.asked)
			}
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantRefused(t, err, c.says)
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q repeats a password", err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  egress.Config
		says string
	}{
		{"a host with a path", egress.Config{AllowedHosts: []string{"idp.test/x"}}, `"idp.test/x"`},
		{"an empty host", egress.Config{AllowedHosts: []string{""}}, "allowed hosts"},
		{"a net without bits", egress.Config{AllowedNets: []netip.Prefix{{}}}, "allowed nets"},
		{"a proxy without a scheme", egress.Config{Proxy: "proxy:3128"}, "http://HOST:PORT"},
		{"a host without proxy that is none", egress.Config{NoProxy: []string{"a b"}}, "hosts without proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := egress.New(c.cfg, netcontract.Table{}, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

// server is an HTTPS server on loopback whose certificate names example.com.
func server(t *testing.T, h http.HandlerFunc) (*httptest.Server, string, *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, u.Port(), roots
}

func get(t *testing.T, c *http.Client, u string) (string, error) {
	t.Helper()
	resp, err := c.Get(u)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestClientGuardsWhatItDials(t *testing.T) {
	hits := 0
	_, port, roots := server(t, func(w http.ResponseWriter, _ *http.Request) { hits++; fmt.Fprint(w, "hello") })
	for _, c := range []struct {
		name  string
		cfg   egress.Config
		opts  egress.Options
		names *resolver
		url   string
		says  string // "" means that the server answers
	}{
		{"a name that leads to loopback", egress.Config{}, egress.Options{}, names("example.com", "127.0.0.1"), "https://example.com/", "127.0.0.1 is loopback"},
		{"a name that leads to mapped loopback", egress.Config{}, egress.Options{}, names("example.com", "::ffff:127.0.0.1"), "https://example.com/", "127.0.0.1 is loopback"},
		{"a name that leads to metadata", egress.Config{}, egress.Options{}, names("example.com", "169.254.169.254"), "https://example.com/", "metadata"},
		{"an allowed name that leads to metadata", egress.Config{AllowedHosts: []string{"example.com"}}, egress.Options{}, names("example.com", "169.254.169.254"), "https://example.com/", "metadata"},
		{"each of several addresses inside", egress.Config{}, egress.Options{}, names("example.com", "10.0.0.1 fd00::1"), "https://example.com/", "private"},
		{"a port that the row does not declare", egress.Config{}, egress.Options{}, names("example.com", "127.0.0.1"), "https://example.com:" + port, "declares 443/tcp"},
		{"plain HTTP", egress.Config{}, egress.Options{}, names("example.com", "127.0.0.1"), "http://example.com/", "https://"},
		{"an address", egress.Config{}, egress.Options{}, names(), "https://127.0.0.1:" + port, "loopback"},
		{"a host that the operator named", egress.Config{AllowedHosts: []string{"example.com"}}, egress.Options{}, names("example.com", "127.0.0.1"), "https://example.com:" + port, ""},
		{"an address that the operator named", egress.Config{AllowedHosts: []string{"127.0.0.0/8"}}, egress.Options{}, names(), "https://127.0.0.1:" + port, ""},
		{"a host that is trusted for this use", egress.Config{}, egress.Options{Trusted: []string{"example.com"}}, names("example.com", "127.0.0.1"), "https://example.com:" + port, ""},
		{"another host than the trusted one", egress.Config{}, egress.Options{Trusted: []string{"example.org"}}, names("example.com", "127.0.0.1"), "https://example.com/", "loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hits = 0
			c.cfg.Roots = roots
			d := dialer(t, c.cfg, c.names)
			body, err := get(t, d.Client(netcontract.Social, c.opts), c.url)
			if c.says == "" {
				if err != nil || body != "hello" {
					t.Fatalf("%q, %v", body, err)
				}
				if n := d.Counts()[netcontract.Social]; n != (egress.Counts{Succeeded: 1}) {
					t.Errorf("counts %+v", n)
				}
				return
			}
			wantRefused(t, err, c.says)
			if hits != 0 {
				t.Error("the server was reached")
			}
			if n := d.Counts()[netcontract.Social]; n != (egress.Counts{Refused: 1}) {
				t.Errorf("counts %+v", n)
			}
		})
	}
}

// The name leads outside when it is looked at first and inside when it is dialled
// again: the second look counts.
func TestRebinding(t *testing.T) {
	r := names("example.com", "127.0.0.1", "example.com", "10.0.0.1")
	d := dialer(t, egress.Config{AllowedNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, r)
	if err := d.CheckURL("https://example.com/"); err != nil {
		t.Fatal(err)
	}
	dial := d.DialContext(netcontract.Social)
	// The first answer is permitted; nothing listens on 443 there, or something
	// does: either way the guard let it pass.
	if c, err := dial(t.Context(), "tcp", "example.com:443"); err == nil {
		c.Close()
	} else if problem.Is(err, problem.Invalid) {
		t.Fatal(err)
	}
	_, err := dial(t.Context(), "tcp", "example.com:443")
	wantRefused(t, err, "10.0.0.1 is private")
}

func TestRedirects(t *testing.T) {
	var port string
	_, port, roots := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/inside":
			http.Redirect(w, r, "https://inside.test/", http.StatusFound)
		case "/address":
			http.Redirect(w, r, "https://169.254.169.254/", http.StatusFound)
		case "/plain":
			http.Redirect(w, r, "http://other.test/", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/post":
			http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect)
		case "/once":
			http.Redirect(w, r, "/ok", http.StatusFound)
		default:
			fmt.Fprint(w, "ok")
		}
	})
	d := dialer(t, egress.Config{Roots: roots, AllowedHosts: []string{"example.com"}},
		names("example.com", "127.0.0.1", "inside.test", "192.168.0.1"))
	base := "https://example.com:" + port
	c := d.Client(netcontract.Social, egress.Options{})
	for path, says := range map[string]string{"/inside": "private", "/address": "metadata", "/plain": "https://"} {
		_, err := get(t, c, base+path)
		wantRefused(t, err, says)
	}
	if body, err := get(t, c, base+"/once"); err != nil || body != "ok" {
		t.Errorf("one redirect: %q, %v", body, err)
	}
	if _, err := get(t, c, base+"/loop"); err == nil || !strings.Contains(err.Error(), "more than 5 redirects") {
		t.Errorf("a loop: %v", err)
	}
	resp, err := c.Post(base+"/post", "text/plain", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("a POST was redirected: %d", resp.StatusCode)
	}
	resp, err = d.Client(netcontract.Social, egress.Options{Redirects: -1}).Get(base + "/once")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Errorf("redirects are off, and it was followed: %d", resp.StatusCode)
	}
}

func TestBodyIsBounded(t *testing.T) {
	_, port, roots := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
	})
	d := dialer(t, egress.Config{Roots: roots, AllowedHosts: []string{"127.0.0.1"}}, names())
	for _, c := range []struct {
		name, path string
		max        int64
		fits       bool
	}{
		{"exactly", "/", 1000, true},
		{"exactly, length unknown", "/chunked", 1000, true},
		{"one more", "/", 999, false},
		{"one more, length unknown", "/chunked", 999, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := get(t, d.Client(netcontract.Social, egress.Options{MaxBody: c.max}), "https://127.0.0.1:"+port+c.path)
			if c.fits && (err != nil || len(body) != 1000) {
				t.Errorf("%d bytes, %v", len(body), err)
			}
			if !c.fits && !problem.Is(err, problem.TooLarge) {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		})
	}
	if b, err := egress.ReadAll(strings.NewReader("abc"), 3); err != nil || string(b) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := egress.ReadAll(strings.NewReader("abcd"), 3); !problem.Is(err, problem.TooLarge) {
		t.Errorf("error %v", err)
	}
}

func TestUndeclaredRows(t *testing.T) {
	d := dialer(t, egress.Config{AllowedHosts: []string{"example.com"}}, names("example.com", "127.0.0.1"))
	for id, says := range map[netcontract.RowID]string{"gopher": "no row", netcontract.Health: "inbound only"} {
		_, err := get(t, d.Client(id, egress.Options{}), "https://example.com/")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("client of %s: %v", id, err)
		}
		_, err = d.DialContext(id, "example.com")(t.Context(), "tcp", "example.com:443")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("dial on %s: %v", id, err)
		}
	}
}

func TestDialContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	r := names("mail.test", "127.0.0.1", "half.test", "10.9.9.9 127.0.0.1")
	d := dialer(t, egress.Config{AllowedHosts: []string{"127.0.0.1"}}, r)
	for _, c := range []struct {
		name, network, address string
		trusted                []string
		says                   string
	}{
		{"the operator's mail server on a port of its own", "tcp", "mail.test:" + port, []string{"mail.test"}, ""},
		{"the same by address", "tcp", "127.0.0.1:" + port, []string{"127.0.0.1"}, ""},
		{"a port that no row declares", "tcp", "mail.test:" + port, nil, "25/465/587"},
		{"a protocol that the row does not declare", "udp", "mail.test:25", nil, "25/465/587/tcp"},
		{"a socket of the host", "unix", "/run/x.sock", nil, "tcp and udp"},
		{"no port", "tcp", "mail.test", nil, "HOST:PORT"},
		{"port 0", "tcp", "mail.test:0", nil, "1 to 65535"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := d.DialContext(netcontract.SMTP, c.trusted...)(t.Context(), c.network, c.address)
			if c.says != "" {
				wantRefused(t, err, c.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
	t.Run("an address inside is passed over for one that is allowed", func(t *testing.T) {
		_, err := d.DialContext(netcontract.SMTP)(t.Context(), "tcp", "half.test:465")
		if problem.Is(err, problem.Invalid) { // 127.0.0.1:465 was tried, whatever came of it
			t.Error(err)
		}
	})
	t.Run("a name that does not exist", func(t *testing.T) {
		_, err := d.DialContext(netcontract.SMTP)(t.Context(), "tcp", "gone.test:25")
		if !problem.Is(err, problem.Unavailable) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a trusted host that is none", func(t *testing.T) {
		if _, err := d.DialContext(netcontract.SMTP, "a b")(t.Context(), "tcp", "mail.test:25"); err == nil {
			t.Error("no error")
		}
	})
}

func TestProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1:1")
	_, port, roots := server(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "direct") })

	r := names("example.com", "127.0.0.1", "inside.test", "10.0.0.1")
	d := dialer(t, egress.Config{
		Proxy: proxy.URL, NoProxy: []string{"example.com"}, AllowedHosts: []string{"example.com"}, Roots: roots,
	}, r)
	c := d.Client(netcontract.Social, egress.Options{})

	if _, err := get(t, c, "https://outside.test/"); !problem.Is(err, problem.Unavailable) {
		t.Errorf("a proxy that refuses: %v", err)
	}
	if len(asked) != 1 || asked[0] != "CONNECT outside.test:443" {
		t.Errorf("the proxy was asked for %v", asked)
	}
	if body, err := get(t, c, "https://example.com:"+port); err != nil || body != "direct" {
		t.Errorf("a host without proxy: %q, %v", body, err)
	}
	for u, says := range map[string]string{
		"https://10.0.0.1/": "private", "https://inside.test/": "private", "https://localhost/": "inside",
		strings.Replace(proxy.URL, "http:", "https:", 1): "loopback",
	} {
		_, err := get(t, c, u)
		wantRefused(t, err, says)
	}
	if len(asked) != 1 {
		t.Errorf("the proxy was asked for %v", asked)
	}
}

func TestTheEnvironmentHasNoSay(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1:1")
	_, port, roots := server(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "direct") })
	d := dialer(t, egress.Config{AllowedHosts: []string{"example.com"}, Roots: roots}, names("example.com", "127.0.0.1"))
	if body, err := get(t, d.Client(netcontract.Social, egress.Options{}), "https://example.com:"+port); err != nil || body != "direct" {
		t.Errorf("%q, %v", body, err)
	}
}
