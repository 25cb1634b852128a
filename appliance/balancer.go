package appliance

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

// proxyHeaderTimeout is how long a connection may take to send its PROXY header.
// A balancer sends it with its first packet. The library bounds the size: 107
// bytes in version 1, 16 + 4,096 in version 2.
const proxyHeaderTimeout = 5 * time.Second

// trustedBy reports whether a connection comes from one of the networks.
func trustedBy(networks []netip.Prefix, a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// proxied reads the PROXY protocol's header (versions 1 and 2) off connections of
// trusted balancers, so that RemoteAddr is the client's address. The header of
// anybody else is never read: with accept it is the first bytes of a TLS handshake
// or of a request that fails; with require the connection is closed at once, as is
// one of a balancer that sends no header.
func proxied(l net.Listener, mode string, trusted []netip.Prefix) net.Listener {
	if mode != proxyAccept && mode != proxyRequire {
		return l
	}
	return &proxyproto.Listener{
		Listener:          l,
		ReadHeaderTimeout: proxyHeaderTimeout,
		ValidateHeader:    checkProxyHeader,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			switch {
			case !trustedBy(trusted, o.Upstream) && mode == proxyRequire:
				return proxyproto.REJECT, proxyproto.ErrInvalidUpstream // closes it and goes on
			case !trustedBy(trusted, o.Upstream):
				return proxyproto.SKIP, nil
			case mode == proxyRequire:
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.USE, nil
		},
	}
}

var errProxyHeader = errors.New("the PROXY header names no TCP connection")

// checkProxyHeader refuses headers that name no client on TCP. LOCAL (and UNKNOWN
// in version 1) is the balancer speaking for itself, such as in a health check: the
// connection's own address counts (PROXY protocol section 2.2).
func checkProxyHeader(h *proxyproto.Header) error {
	if h.Command.IsLocal() {
		return nil
	}
	// A path of a Unix socket would be an address that no rule for addresses knows.
	src, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok || src.IP == nil || src.IP.IsUnspecified() || src.IP.IsMulticast() {
		return errProxyHeader
	}
	return nil
}

// onlyFrom closes connections of everybody outside of some networks before a byte
// of theirs is read.
type onlyFrom struct {
	net.Listener
	networks []netip.Prefix
}

func (l onlyFrom) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || trustedBy(l.networks, c.RemoteAddr()) {
			return c, err
		}
		_ = c.Close() // a stranger's; there is nothing to do about it
	}
}

// terminated serves what a balancer sends that has ended the client's TLS. It has
// to say in X-Forwarded-Proto how the client came: silence would let a balancer
// that serves plain HTTP pass for one that does not.
func terminated(cfg *Config, next http.Handler) http.Handler {
	sendOn := secure(cfg, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch proto := r.Header.Values("X-Forwarded-Proto"); {
		case r.URL.Path == "/testall", len(proto) == 1 && proto[0] == "https":
			next.ServeHTTP(w, r)
		case len(proto) == 1 && proto[0] == "http":
			plain := r.Clone(r.Context())
			plain.TLS = nil // of the balancer, not of the client
			sendOn.ServeHTTP(w, plain)
			r.Pattern = plain.Pattern
		default:
			refuse(w, r, "forwarded_proto_required", "The load balancer has to set X-Forwarded-Proto to https or http, once, instead of what the client sent.")
		}
	})
}

// forwardedHost takes the Host that the client asked for from a balancer's
// X-Forwarded-Host, where the settings say that it writes one.
func forwardedHost(cfg *Config, next http.Handler) http.Handler {
	if !cfg.Proxies.ForwardedHost {
		return next
	}
	trusted := cfg.trustedProxies()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts := r.Header.Values("X-Forwarded-Host")
		peer := peerAddr(r)
		if len(hosts) == 0 || !containsAddr(trusted, peer) {
			next.ServeHTTP(w, r)
			return
		}
		if len(hosts) > 1 || hosts[0] == "" || strings.ContainsAny(hosts[0], ", \t") {
			refuse(w, r, "forwarded_host_ambiguous", "The load balancer has to set X-Forwarded-Host to one name, instead of what the client sent.")
			return
		}
		r.Host = hosts[0]
		next.ServeHTTP(w, r)
	})
}

func containsAddr(networks []netip.Prefix, a netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// refuse answers a request that a balancer has to be set up differently for.
func refuse(w http.ResponseWriter, r *http.Request, code, message string) {
	e := problem.New(problem.Invalid, code, "%s", message)
	web.EventFrom(r.Context()).Fail(e)
	status := e.HTTPStatus()
	if isAPI(r.URL.Path) {
		_ = web.JSON(w, status, map[string]any{"statusCode": status, "error": http.StatusText(status), "message": e.Message, "errorCode": e.Code})
		return
	}
	http.Error(w, fmt.Sprintf("%s\nRequest id: %s", e.Message, web.RequestID(r.Context())), status)
}
