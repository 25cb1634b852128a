package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Config is the operator's word on outgoing connections. The zero value reaches
// public addresses over HTTPS and nothing else.
type Config struct {
	// AllowedHosts may live on private addresses, on any port, and answer plain
	// HTTP: host names, "*.corp.example" for the names below one, addresses, and CIDR
	// blocks. A block opens its addresses to every name that leads there, but other
	// ports and plain HTTP only to URLs that give the address itself.
	AllowedHosts []string
	// AllowedNets are more such blocks.
	AllowedNets []netip.Prefix
	// Proxy is the URL of an HTTP proxy for calls over HTTP, or empty. The
	// environment is not asked. Connections that are not HTTP never use it.
	Proxy string
	// NoProxy are hosts, in the forms of AllowedHosts, that are called directly.
	NoProxy []string
	// ConnectTimeout bounds name resolution and connecting; 0 means 5 seconds.
	ConnectTimeout time.Duration
	// Timeout bounds a whole call over HTTP, its body included; 0 means 10 seconds.
	Timeout time.Duration
	// MaxBody bounds a response's body in bytes; 0 means 1 MiB.
	MaxBody int64
	// Roots are the certificate authorities to trust; nil means the host's.
	Roots *x509.CertPool
	// Dialling, when it is set, is told of each connection before it is made, with the
	// row that it is for; network is tcp4, tcp6, udp4 or udp6.
	Dialling func(row netcontract.RowID, network string, to netip.AddrPort)
}

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Counts is what happened on one row since start.
type Counts struct {
	Succeeded int64 // requests that were answered, with whatever status, and connections made
	Refused   int64 // stopped by the guard
	Failed    int64 // failed by the network or the peer
}

// Dialer makes every outgoing connection. It is safe for concurrent use.
type Dialer struct {
	cfg      Config
	table    netcontract.Table
	resolver Resolver
	allowed  hostSet
	noProxy  hostSet
	proxy    *url.URL

	mu     sync.Mutex
	counts map[netcontract.RowID]Counts
}

// New makes a Dialer for the rows of the table. A nil resolver means the host's.
// It does no I/O. The error names the setting that is wrong.
func New(cfg Config, table netcontract.Table, resolver Resolver) (*Dialer, error) {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 1 << 20
	}
	d := &Dialer{cfg: cfg, table: table, resolver: resolver, counts: map[netcontract.RowID]Counts{}}
	var err error
	if d.allowed, err = parseHosts(cfg.AllowedHosts); err != nil {
		return nil, fmt.Errorf("allowed hosts: %w", err)
	}
	if d.noProxy, err = parseHosts(cfg.NoProxy); err != nil {
		return nil, fmt.Errorf("hosts without proxy: %w", err)
	}
	for _, p := range cfg.AllowedNets {
		if !p.IsValid() {
			return nil, errors.New("allowed nets: a block is not valid; allowed are blocks such as 10.0.0.0/8")
		}
		d.allowed.nets = append(d.allowed.nets, p.Masked())
	}
	if cfg.Proxy != "" {
		u, err := url.Parse(cfg.Proxy)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return nil, errors.New("proxy: it is not a proxy's URL; allowed is http://HOST:PORT or https://HOST:PORT")
		}
		d.proxy = u
	}
	return d, nil
}

// hostSet is a list of names, of names below a name, and of blocks.
type hostSet struct {
	names []string // "host", or ".host" for the names below it
	nets  []netip.Prefix
}

func parseHosts(list []string) (hostSet, error) {
	var set hostSet
	for _, s := range list {
		s = strings.TrimSpace(s)
		if p, err := netip.ParsePrefix(s); err == nil {
			set.nets = append(set.nets, p.Masked())
			continue
		}
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			a = a.Unmap().WithZone("")
			set.nets = append(set.nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		name, below := strings.CutPrefix(s, "*.")
		host, err := hostName(name)
		if err != nil {
			return hostSet{}, fmt.Errorf("%q is %w, addresses, and blocks such as 10.0.0.0/8", s, err)
		}
		if below {
			host = "." + host
		}
		set.names = append(set.names, host)
	}
	return set, nil
}

// has reports whether the set names the target. A name is never in a block: what
// it leads to is judged when it is dialled.
func (s hostSet) has(t target) bool {
	if t.host == "" {
		return slices.ContainsFunc(s.nets, func(p netip.Prefix) bool { return p.Contains(t.addr) })
	}
	return slices.ContainsFunc(s.names, func(h string) bool {
		return t.host == h || strings.HasPrefix(h, ".") && strings.HasSuffix(t.host, h)
	})
}

// hostName brings a name to the form in which it is compared and resolved.
func hostName(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errors.New("not a host name; allowed are names such as idp.example.com")
	}
	h, err := idna.Lookup.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil || h == "" || len(h) > 253 || strings.ContainsAny(h, "/:@%[] \t") {
		// Names with underscores are not IDNA, and yet in use inside companies.
		plain := strings.ToLower(strings.TrimSuffix(s, "."))
		for _, r := range plain {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
				plain = ""
				break
			}
		}
		// Punycode that IDNA refuses would be called by another name than was judged.
		if plain == "" || len(plain) > 253 || strings.Contains("."+plain, ".xn--") || strings.Contains("."+plain+".", "..") {
			return "", errors.New("not a host name; allowed are names such as idp.example.com")
		}
		h = plain
	}
	return strings.ToLower(h), nil
}

// target is where a call goes: a name or an address, never both.
type target struct {
	host string
	addr netip.Addr
	port int
}

func refused(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "destination_not_allowed", format, args...)
}

// parseTarget reads a host as a URL or a dial address has it.
func parseTarget(host string, port int) (target, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return target{addr: a, port: port}, nil
	}
	h, err := hostName(host)
	if err != nil {
		return target{}, refused("the host %q is not allowed: %v", host, err)
	}
	if a, err := netip.ParseAddr(h); err == nil { // digits of other scripts
		return target{addr: a, port: port}, nil
	}
	// 127.1, 0x7f000001 and 2130706433 are addresses to some resolvers.
	last := h[strings.LastIndexByte(h, '.')+1:]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return target{}, refused("the host %q is not allowed: an address is written as four numbers with dots, or as IPv6", host)
	}
	return target{host: h, port: port}, nil
}

// trusts reports whether the operator named the target; more are the hosts that
// the operator named for this use alone.
func (d *Dialer) trusts(t target, more hostSet) bool { return d.allowed.has(t) || more.has(t) }

// inward are names that lead inside wherever they are resolved.
func inward(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "localhost.localdomain" ||
		host == "ip6-localhost" || host == "metadata.google.internal"
}

// checkTarget judges what can be judged before a name is resolved.
func (d *Dialer) checkTarget(t target, more hostSet) error {
	trusted := d.trusts(t, more)
	switch {
	case t.addr.IsValid():
		if r := d.refusal(t.addr, trusted); r != "" {
			return refused("the address %s is not allowed: it is %s; the operator's setting of allowed hosts opens addresses inside", t.addr, r)
		}
	case inward(t.host) && !trusted:
		return refused("the host %q is not allowed: it leads inside; the operator's setting of allowed hosts opens hosts inside", t.host)
	}
	return nil
}

// CheckURL judges a URL before it is saved. It resolves no name: an address
// behind a name is judged whenever it is dialled. The error is problem.Invalid
// and says what is allowed; it does not repeat the URL, which may hold secrets.
func (d *Dialer) CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return refused("the URL cannot be read; allowed is https://HOST/PATH")
	}
	_, err = d.checkURL(u, hostSet{})
	return err
}

func (d *Dialer) checkURL(u *url.URL, more hostSet) (target, error) {
	if u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" || u.Hostname() == "" {
		return target{}, refused("the URL has to begin with https:// and a host")
	}
	if u.User != nil {
		return target{}, refused("the URL must not hold a user name or a password")
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	if s := u.Port(); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 65535 {
			return target{}, refused("the URL's port has to be a number from 1 to 65535")
		}
		port = n
	}
	t, err := parseTarget(u.Hostname(), port)
	if err != nil {
		return target{}, err
	}
	if err := d.checkTarget(t, more); err != nil {
		return target{}, err
	}
	if u.Scheme == "http" && !d.trusts(t, more) {
		return target{}, refused("the URL has to begin with https://; the operator's setting of allowed hosts permits http:// to hosts inside")
	}
	return t, nil
}

// row finds the row and makes sure that nodes call out on it.
func (d *Dialer) row(id netcontract.RowID) (netcontract.Row, error) {
	r, ok := d.table.Row(id)
	if !ok {
		return r, problem.New(problem.Internal, "undeclared_connection", "no row %q of the network contract declares this connection", string(id))
	}
	if !r.Dials() {
		return r, problem.New(problem.Internal, "undeclared_connection", "the row %q of the network contract is inbound only", string(id))
	}
	return r, nil
}

// checkPort holds a call to the ports of its row, unless the operator named the
// host: inside a company services live on ports of their own.
func (d *Dialer) checkPort(r netcontract.Row, p netcontract.Protocol, t target, more hostSet) error {
	if r.Allows(p, t.port) || d.trusts(t, more) {
		return nil
	}
	return refused("the port %d is not allowed: row %q of the network contract declares %s/%s", t.port, string(r.ID), r.PortText(), r.ProtocolText())
}

// DialContext returns a function that connects on a row, for protocols other
// than HTTP. It resolves the name, judges each address, and dials those that
// pass, in turn. trusted are hosts that the operator's settings name for this use,
// such as the mail server: they may live inside. Errors are problem.Invalid where
// the guard refused and problem.Unavailable where the network failed.
func (d *Dialer) DialContext(id netcontract.RowID, trusted ...string) func(ctx context.Context, network, address string) (net.Conn, error) {
	more, hostsErr := parseHosts(trusted)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if hostsErr != nil {
			return nil, fmt.Errorf("trusted hosts: %w", hostsErr)
		}
		row, err := d.row(id)
		if err != nil {
			d.count(id, err)
			return nil, err
		}
		c, err := d.dial(ctx, row, network, address, more)
		d.count(id, err)
		return c, err
	}
}

func (d *Dialer) dial(ctx context.Context, row netcontract.Row, network, address string, more hostSet) (net.Conn, error) {
	proto := netcontract.TCP
	switch network {
	case "tcp", "tcp4", "tcp6":
	case "udp", "udp4", "udp6":
		proto = netcontract.UDP
	default:
		return nil, refused("the network %q is not allowed: allowed are tcp and udp", network)
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, refused("the address is not HOST:PORT")
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return nil, refused("the port has to be a number from 1 to 65535")
	}
	t, err := parseTarget(host, port)
	if err != nil {
		return nil, err
	}
	if err := d.checkTarget(t, more); err != nil {
		return nil, err
	}
	if err := d.checkPort(row, proto, t, more); err != nil {
		return nil, err
	}
	return d.connect(ctx, row.ID, network, t, d.trusts(t, more))
}

// connect resolves, judges and dials. Only addresses are dialled, never names, so
// that what was judged is what is reached.
func (d *Dialer) connect(ctx context.Context, row netcontract.RowID, network string, t target, trusted bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ConnectTimeout)
	defer cancel()
	addrs := []netip.Addr{t.addr}
	if t.host != "" {
		found, err := d.resolver.LookupNetIP(ctx, "ip", t.host)
		if err != nil {
			return nil, problem.Wrap(problem.Unavailable, "name_not_resolved", err, "the name %q could not be resolved", t.host)
		}
		// A resolver may hand out IPv4 in its mapped form; it is the IPv4 address.
		addrs = addrs[:0]
		for _, a := range found {
			addrs = append(addrs, a.Unmap())
		}
	}
	var last error
	for i, a := range addrs {
		if reason := d.refusal(a, trusted); reason != "" {
			if last == nil {
				last = refused("the host %q is not allowed: its address %s is %s; the operator's setting of allowed hosts opens hosts inside", t.name(), a, reason)
			}
			continue
		}
		c, err := d.connectAddr(ctx, row, network, netip.AddrPortFrom(a, uint16(t.port)), trusted, len(addrs)-i) // #nosec G115 -- parseTarget's callers hold ports to 1 to 65535
		if err == nil {
			return c, nil
		}
		last = problem.Wrap(problem.Unavailable, "connection_failed", err, "no connection to %s", t.name())
		if errors.Is(err, syscall.EACCES) {
			last = problem.Wrap(problem.Unavailable, "connection_refused_here", err, "no connection to %s: this host's kernel refuses port %d to this process (network.enforce, or another security module)", t.name(), t.port)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		last = problem.New(problem.Unavailable, "name_not_resolved", "the name %q has no address", t.name())
	}
	return nil, last
}

func (t target) name() string {
	if t.host != "" {
		return t.host
	}
	return t.addr.String()
}

// connectAddr gives an address its share of the time that is left. The check at
// the socket repeats the one before it, where nothing can come in between.
func (d *Dialer) connectAddr(ctx context.Context, row netcontract.RowID, network string, ap netip.AddrPort, trusted bool, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	nd := net.Dialer{
		KeepAlive: 30 * time.Second,
		Control: func(network, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return refused("the address %q cannot be read", address)
			}
			if reason := d.refusal(at.Addr().Unmap(), trusted); reason != "" {
				return refused("the address %s is not allowed: it is %s", at.Addr(), reason)
			}
			if d.cfg.Dialling != nil {
				d.cfg.Dialling(row, network, at)
			}
			return nil
		},
	}
	nd.SetMultipathTCP(false) // Landlock's network rules do not see it
	return nd.DialContext(ctx, network, ap.String())
}

func (d *Dialer) count(id netcontract.RowID, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.counts[id]
	switch {
	case err == nil:
		c.Succeeded++
	case problem.Is(err, problem.Invalid), problem.Is(err, problem.Internal):
		c.Refused++
	default:
		c.Failed++
	}
	d.counts[id] = c
}

// Counts is a snapshot of what happened on each row that was used.
func (d *Dialer) Counts() map[netcontract.RowID]Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[netcontract.RowID]Counts, len(d.counts))
	for k, v := range d.counts {
		out[k] = v
	}
	return out
}
