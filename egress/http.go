package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Options are what one caller wants otherwise. The zero value takes the Dialer's
// configuration.
type Options struct {
	// Trusted are hosts that the operator's settings name for this use, in the forms
	// of Config.AllowedHosts. Never put a tenant's setting here.
	Trusted []string
	// Timeout bounds a whole call; 0 means Config.Timeout.
	Timeout time.Duration
	// MaxBody bounds a response's body in bytes; 0 means Config.MaxBody.
	MaxBody int64
	// Redirects is how many redirects of a GET or HEAD are followed; 0 means 5, less
	// than 0 none. Of other methods none is followed: the body may hold a secret.
	Redirects int
	// Roots are the certificate authorities to trust; nil means Config.Roots.
	Roots *x509.CertPool
	// Direct keeps the calls away from the proxy: they stay inside the network.
	Direct bool
}

// Client makes an HTTP client for a row. Each request, and each redirect of it,
// passes the guard; a row that is unknown or inbound only fails every request.
// Errors of the guard are problem.Invalid inside the *url.Error, a body beyond
// the bound is problem.TooLarge when it is read.
func (d *Dialer) Client(id netcontract.RowID, opts Options) *http.Client {
	if opts.Timeout <= 0 {
		opts.Timeout = d.cfg.Timeout
	}
	if opts.MaxBody <= 0 {
		opts.MaxBody = d.cfg.MaxBody
	}
	if opts.Redirects == 0 {
		opts.Redirects = 5
	}
	g := &guard{d: d, id: id, maxBody: opts.MaxBody}
	g.row, g.err = d.row(id)
	if more, err := parseHosts(opts.Trusted); err != nil {
		g.err = fmt.Errorf("trusted hosts: %w", err)
	} else {
		g.more = more
	}
	g.direct = d.transport(func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.dial(ctx, g.row, network, address, g.more)
	})
	if opts.Roots != nil {
		g.direct.TLSClientConfig.RootCAs = opts.Roots
	}
	if d.proxy != nil && !opts.Direct {
		g.proxied = d.transport(func(ctx context.Context, network, _ string) (net.Conn, error) { return d.dialProxy(ctx, id, network) })
		g.proxied.Proxy = http.ProxyURL(d.proxy)
		g.proxied.TLSClientConfig.RootCAs = g.direct.TLSClientConfig.RootCAs
	}
	return &http.Client{
		Transport: g,
		Timeout:   opts.Timeout,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if first := via[0].Method; first != http.MethodGet && first != http.MethodHead {
				return http.ErrUseLastResponse
			}
			if len(via) > opts.Redirects {
				if opts.Redirects < 0 {
					return http.ErrUseLastResponse
				}
				return problem.New(problem.Unavailable, "too_many_redirects", "more than %d redirects", opts.Redirects)
			}
			return nil
		},
	}
}

func (d *Dialer) transport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // the environment has no say
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: d.cfg.Roots},
		TLSHandshakeTimeout:    d.cfg.ConnectTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    8,
		MaxConnsPerHost:        64,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// dialProxy reaches the proxy, which the operator named, wherever it lives.
func (d *Dialer) dialProxy(ctx context.Context, row netcontract.RowID, network string) (net.Conn, error) {
	port := d.proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[d.proxy.Scheme]
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, refused("the proxy's port is not a number")
	}
	t, err := parseTarget(d.proxy.Hostname(), n)
	if err != nil {
		return nil, err
	}
	return d.connect(ctx, row, network, t, true)
}

// guard judges each request before a transport sees it, pooled connections
// included.
type guard struct {
	d               *Dialer
	id              netcontract.RowID
	row             netcontract.Row
	more            hostSet
	err             error // why no request can pass
	maxBody         int64
	direct, proxied *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := g.roundTrip(req)
	g.d.count(g.id, err)
	return resp, err
}

func (g *guard) roundTrip(req *http.Request) (*http.Response, error) {
	t, err := g.check(req.URL)
	transport := g.direct
	if err == nil && g.proxied != nil && !g.d.noProxy.has(t) {
		transport = g.proxied
		err = g.checkBehindProxy(req.Context(), t)
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // as a RoundTripper has to, also on errors
		}
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		var p *problem.Error
		if errors.As(err, &p) {
			return nil, err
		}
		return nil, problem.Wrap(problem.Unavailable, "connection_failed", err, "no answer from %s", t.name())
	}
	if resp.ContentLength > g.maxBody {
		_ = resp.Body.Close()
		return nil, tooLarge(g.maxBody)
	}
	resp.Body = &boundedBody{body: resp.Body, left: g.maxBody, max: g.maxBody}
	return resp, nil
}

func (g *guard) check(u *url.URL) (target, error) {
	if g.err != nil {
		return target{}, g.err
	}
	t, err := g.d.checkURL(u, g.more)
	if err != nil {
		return t, err
	}
	return t, g.d.checkPort(g.row, netcontract.TCP, t, g.more)
}

// checkBehindProxy judges where a proxy would go. A name that this node can
// resolve is judged by its addresses; one that only the proxy can resolve is left
// to the proxy, which stands outside.
func (g *guard) checkBehindProxy(ctx context.Context, t target) error {
	if t.host == "" || g.d.trusts(t, g.more) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.d.cfg.ConnectTimeout)
	defer cancel()
	addrs, err := g.d.resolver.LookupNetIP(ctx, "ip", t.host)
	if err != nil {
		return nil // the proxy resolves it
	}
	for _, a := range addrs {
		if reason := g.d.refusal(a.Unmap(), false); reason != "" {
			return refused("the host %q is not allowed: its address %s is %s; the operator's setting of allowed hosts opens hosts inside", t.host, a, reason)
		}
	}
	return nil
}

// CloseIdleConnections lets http.Client pass the call on.
func (g *guard) CloseIdleConnections() {
	g.direct.CloseIdleConnections()
	if g.proxied != nil {
		g.proxied.CloseIdleConnections()
	}
}

func tooLarge(n int64) error {
	return problem.New(problem.TooLarge, "response_too_large", "the answer is larger than the %d bytes that are allowed", n)
}

// boundedBody ends a body with an error, and not as if it were complete, when it
// is larger than it may be. It counts what decompression makes of it.
type boundedBody struct {
	body io.ReadCloser
	left int64
	max  int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.body.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		b.left = 0
		return n, tooLarge(b.max)
	}
	b.left -= int64(n)
	return n, err
}

func (b *boundedBody) Close() error { return b.body.Close() }

// ReadAll reads to the end, or fails with problem.TooLarge after n bytes.
func ReadAll(r io.Reader, n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, n+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > n {
		return nil, tooLarge(n)
	}
	return b, nil
}
