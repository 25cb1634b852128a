package appliance

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/portcullis-id/portcullis/control"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/ratelimit"
)

// rateLimitPort is where row rate-limit is open on this node; 0 where it is not: in
// a cluster that limits, and wherever programs may ask with a token.
func (n *Node) rateLimitPort() int {
	if n.control != nil && n.cfg.RateLimits.Enabled || n.cfg.RateLimits.Token != "" {
		return n.cfg.Listen.RateLimit
	}
	return 0
}

// rateLimitCluster is who counts together; nil where this node counts by itself.
func (n *Node) rateLimitCluster() ratelimit.Cluster {
	if n.control == nil || n.rateLimitPort() == 0 {
		return nil
	}
	n.control.Listens(string(netcontract.RateLimit), n.rateLimitPort())
	return counters{n.control}
}

// counters are the nodes of a cluster that are active, answer, and listen on row
// rate-limit. Those that this node has not heard of yet are among them: else it would
// count alone, with full buckets, what they count too.
type counters struct{ control *control.Service }

func (c counters) Self() string { return c.control.ID() }

func (c counters) Peers() []ratelimit.Peer {
	var out []ratelimit.Peer
	for _, v := range c.control.Members() {
		port := v.Ports[string(netcontract.RateLimit)]
		host, _, err := net.SplitHostPort(v.Address)
		if err != nil || port == 0 || v.State != control.Active || v.Network != control.Up && v.Network != control.Unknown {
			continue
		}
		out = append(out, ratelimit.Peer{ID: v.ID, Host: net.JoinHostPort(host, strconv.Itoa(port))})
	}
	return out
}

// connectRateLimits lets the node ask the others.
func (n *Node) connectRateLimits() {
	if !n.limits.shared {
		return
	}
	n.limits.service.Connect(ratelimit.Wire{ClientTLS: n.control.ClientTLS, Dial: func(ctx context.Context, p ratelimit.Peer) (net.Conn, error) {
		host, _, err := net.SplitHostPort(p.Host)
		if err != nil {
			return nil, err
		}
		return n.dialer.DialContext(netcontract.RateLimit, host)(ctx, "tcp", p.Host)
	}})
}

// rateLimitSurface opens row rate-limit: for the nodes of the cluster by their
// certificates, and for programs that have the token. A node that is alone uses the
// certificate of its HTTPS listener.
func (n *Node) rateLimitSurface(ctx context.Context, certificate func(time.Time) (*tls.Certificate, error)) (surface, error) {
	access := ratelimit.Access{Token: n.cfg.RateLimits.Token.Reveal()}
	var conf *tls.Config
	switch {
	case n.control == nil:
		conf = tlsConfig(certificate, n.opts.Now)
	case access.Token == "":
		conf = n.control.ServerTLS()
	default:
		conf = n.control.TLSConfig()
	}
	if n.control != nil {
		access.Node = func(r *http.Request) (string, error) {
			if r.TLS == nil {
				return "", problem.New(problem.Unauthorized, "no_certificate", "Row rate-limit answers the cluster's nodes, by their certificates.")
			}
			return n.control.Caller(*r.TLS)
		}
	}
	l, err := listen(ctx, netcontract.RateLimit, n.cfg.Listen.Address, n.rateLimitPort())
	if err != nil {
		return surface{}, err
	}
	// Without the middleware of other surfaces: thousands of calls a second are no
	// lines of a log, and each answers a request that has its own.
	return surface{row: netcontract.RateLimit, name: "rate limits", listener: tls.NewListener(l, conf), handler: n.limits.service.Handler(access)}, nil
}

// leaveRateLimits gives what this node counts to the others, at a stop. Row
// rate-limit is still open: they go on asking until they know. Requests that still
// come to this node are decided by them.
func (n *Node) leaveRateLimits(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := n.limits.service.Leave(ctx); err != nil {
		n.logger.WarnContext(ctx, "the rate limits that this node counted could not all be handed over; others begin with a small part of each", "error", err)
	}
}
