package appliance_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// address is where the node's HTTPS listener is.
func (n *node) address() string {
	n.t.Helper()
	u, err := url.Parse(n.issuer)
	if err != nil {
		n.t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", u.Port())
}

// answers fails the test when the node does not serve a new client.
func (n *node) answers(after string) {
	n.t.Helper()
	if a := n.get(n.browser(), "/.well-known/openid-configuration", nil); a.StatusCode != http.StatusOK {
		n.t.Errorf("after %s the node answers %d", after, a.StatusCode)
	}
}

// settles waits until the process has about as many goroutines as before.
func settles(t *testing.T, before int, after string) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= before+50 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("after %s there are %d goroutines, before there were %d", after, runtime.NumGoroutine(), before)
}

// TestConnectionFloods opens many more connections than are allowed, idle ones
// and such that send their headers slowly.
func TestConnectionFloods(t *testing.T) {
	const most = 32
	n := startWith(t, "", func(c *configuration) { c.Listen.MaxConnections = most })
	plain := net.JoinHostPort("127.0.0.1", fmt.Sprint(n.cfg.Listen.HTTP))
	before := runtime.NumGoroutine()
	for name, first := range map[string]string{
		"idle connections":   "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"slow headers":       "GET /authorize HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"silent connections": "",
	} {
		var conns []net.Conn
		for range 10 * most {
			c, err := net.Dial("tcp", plain)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			if _, err := io.WriteString(c, first); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
				t.Fatal(err)
			}
			if strings.HasSuffix(first, "\r\n\r\n") {
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("%s: a new connection is not served: %v", name, err)
				}
			}
		}
		n.answers(name)
		if open := n.metric(`portcullis_connections_open{surface="http"}`); open > most {
			t.Errorf("%s: %v connections are open, allowed are %d", name, open, most)
		}
		for _, c := range conns {
			c.Close()
		}
		settles(t, before, name)
	}
}

// metric reads one series.
func (n *node) metric(series string) float64 {
	n.t.Helper()
	a := n.do(&http.Client{}, http.MethodGet, n.health+"/metrics", http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("api_keys_health:"+n.key))}}, nil)
	for line := range strings.Lines(a.body) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			var f float64
			if _, err := fmt.Sscan(v, &f); err != nil {
				n.t.Fatal(err)
			}
			return f
		}
	}
	n.t.Fatalf("there is no series %s: %d", series, a.StatusCode)
	return 0
}

func TestOversizedRequests(t *testing.T) {
	n := start(t, "")
	c := n.browser()
	if a := n.do(c, "GET", "/authorize", http.Header{"X-Big": {strings.Repeat("x", 200<<10)}}, nil); a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("200 KiB of headers: %d", a.StatusCode)
	}
	for path, typ := range map[string]string{"/oauth/token": "application/x-www-form-urlencoded", "/u/login": "application/x-www-form-urlencoded", "/api/v2/clients": "application/json"} {
		body := strings.Repeat("a", 3<<20)
		if typ == "application/json" {
			body = `{"name":"` + body + `"}`
		} else {
			body = "state=" + body
		}
		h := http.Header{"Content-Type": {typ}, "Authorization": {"Bearer " + n.token}}
		if a := n.do(n.browser(), "POST", path, h, strings.NewReader(body)); a.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("3 MiB to %s: %d %.200s", path, a.StatusCode, a.body)
		}
	}
	n.answers("oversized requests")
}

// h2 is a raw HTTP/2 connection, for what no client library does.
func (n *node) h2() (net.Conn, *http2.Framer) {
	n.t.Helper()
	c, err := tls.Dial("tcp", n.address(), &tls.Config{RootCAs: n.roots, ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		n.t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		n.t.Fatal(err)
	}
	go func() { // what the server says has to be read, or it stops
		_, _ = io.Copy(io.Discard, c)
	}()
	return c, f
}

// TestRapidReset opens streams and resets them at once (CVE-2023-44487).
func TestRapidReset(t *testing.T) {
	n := start(t, "")
	n.answers("the start")
	before := runtime.NumGoroutine()
	_, f := n.h2()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/authorize?client_id=x"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	most := 0
	for i := range 20_000 {
		id := uint32(2*i + 1)
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		if err == nil {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			t.Logf("the server closed the connection after %d streams", i)
			break
		}
		if i%500 == 0 {
			most = max(most, runtime.NumGoroutine())
		}
	}
	if most > before+1000 {
		t.Errorf("%d goroutines at the same time", most)
	}
	n.answers("rapid resets")
	settles(t, before, "rapid resets")
}

// TestContinuationFlood sends header blocks that never end (CVE-2023-45288).
func TestContinuationFlood(t *testing.T) {
	n := start(t, "")
	_, f := n.h2()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	if err := enc.WriteField(hpack.HeaderField{Name: "x-filler", Value: strings.Repeat("x", 8<<10), Sensitive: true}); err != nil {
		t.Fatal(err)
	}
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true})
	sent := 0
	for ; err == nil && sent < 64<<20; sent += block.Len() {
		err = f.WriteContinuation(1, false, block.Bytes())
	}
	if err == nil {
		t.Errorf("the server took %d bytes of one header block", sent)
	}
	n.answers("a flood of continuations")
}

// TestHealthAndAdminLiveUnderLoad fills a node with requests that wait, and asks for more.
func TestHealthAndAdminLiveUnderLoad(t *testing.T) {
	n := start(t, "")
	app := n.application(nil)
	_, email := n.user()
	done := make(chan int)
	const flood = 300
	for range flood {
		go func() {
			form := url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database}, "username": {email}, "password": {"wrong"},
				"client_id": {app.id}, "client_secret": {app.secret}}
			resp, err := n.browser().PostForm(n.issuer+"oauth/token", form)
			if err != nil {
				done <- 0
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
				done <- 0
				return
			}
			done <- resp.StatusCode
		}()
	}
	for range 5 {
		if a := n.apiAs(n.token, http.MethodGet, "clients", nil); a.StatusCode != http.StatusOK {
			t.Errorf("the Management API answers %d", a.StatusCode)
		}
		if a := n.get(n.browser(), "/testall", nil); a.StatusCode != http.StatusOK {
			t.Errorf("/testall answers %d", a.StatusCode)
		}
	}
	counts := map[int]int{}
	for range flood {
		counts[<-done]++
	}
	if counts[0] > 0 || counts[http.StatusInternalServerError] > 0 {
		t.Errorf("answers by status: %v", counts)
	}
	t.Logf("answers by status: %v", counts)
	n.answers("the flood")
}
