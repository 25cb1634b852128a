package appliance

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// oneShot is a listener that has one connection, whose bytes are given.
type oneShot struct{ conn net.Conn }

func (o *oneShot) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, net.ErrClosed
	}
	c := o.conn
	o.conn = nil
	return c, nil
}
func (o *oneShot) Close() error   { return nil }
func (o *oneShot) Addr() net.Addr { return &net.TCPAddr{} }

type givenConn struct {
	io.Reader
	remote net.Addr
	closed bool
}

func (c *givenConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *givenConn) Close() error                     { c.closed = true; return nil }
func (c *givenConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443} }
func (c *givenConn) RemoteAddr() net.Addr             { return c.remote }
func (c *givenConn) SetDeadline(time.Time) error      { return nil }
func (c *givenConn) SetReadDeadline(time.Time) error  { return nil }
func (c *givenConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzProxyHeader: whatever comes, a stranger's address stays its own and its bytes
// come through as they are; a balancer's connection has an address on TCP, and
// either fails or has lost its header alone.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{"PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\nGET /", "PROXY TCP6 2001:db8::7 ::1 4711 443\r\n\x16\x03", "PROXY UNKNOWN\r\nGET", "PROXY TCP4 0.0.0.0 10.0.0.1 1 2\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x0a\x00\x00\x01\x12\x67\x01\xbbGET", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET", "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8/run/x",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c\xc6\x33\x64\x07\x0a\x00\x00\x01\x12\x67\x01\xbb", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "GET / HTTP/1.1\r\n\r\n", "PROXY ", ""} {
		f.Add([]byte(s))
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}
	f.Fuzz(func(t *testing.T, sent []byte) {
		for _, mode := range []string{proxyAccept, proxyRequire} {
			for _, ip := range []string{"10.0.0.5", "192.0.2.1"} {
				own := &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}
				given := &givenConn{Reader: bytes.NewReader(sent), remote: own}
				c, err := proxied(&oneShot{given}, mode, trusted).Accept()
				isTrusted := ip == "10.0.0.5"
				if err != nil {
					if isTrusted || mode != proxyRequire || !given.closed {
						t.Fatalf("%s, %s: %v", mode, ip, err)
					}
					continue
				}
				if !isTrusted && mode == proxyRequire {
					t.Fatal("a stranger was let in")
				}
				addr, ok := c.RemoteAddr().(*net.TCPAddr)
				if !ok || len(addr.IP) == 0 {
					t.Fatalf("%s: the address is %v", mode, c.RemoteAddr())
				}
				got, err := io.ReadAll(c)
				switch {
				case !isTrusted && (err != nil || addr != own || !bytes.Equal(got, sent)):
					t.Fatalf("a stranger is %v and sent %q, %v", addr, got, err)
				case err != nil && addr != own:
					t.Fatalf("%s: a header that was refused still names %v", mode, addr)
				case err == nil && !bytes.HasSuffix(sent, got):
					t.Fatalf("%s: %q came through of %q", mode, got, sent)
				case err == nil && mode == proxyRequire && len(got) == len(sent):
					t.Fatal("a connection without a header was let in")
				}
			}
		}
	})
}
