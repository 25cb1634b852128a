package appliance

import "fmt"

// The values of listen.proxy_protocol.
const (
	proxyOff     = "off"
	proxyAccept  = "accept"
	proxyRequire = "require"
)

// maxDrain bounds listen.drain: who stops a node wants it to stop.
const maxDrain = 3600

// validateBalancer checks what the listeners of a node expect from a load
// balancer in front of it. Each way to name the client's address to the node needs
// somebody whose word counts.
func (c *Config) validateBalancer(report func(key, reason string)) {
	l := &c.Listen
	oneOf(report, "listen.proxy_protocol", l.ProxyProtocol, proxyOff, proxyAccept, proxyRequire)
	port(report, "listen.terminated", l.Terminated, true)
	between(report, "listen.drain", l.Drain, 0, maxDrain)
	if l.Terminated != 0 && (l.Terminated == l.HTTPS || l.Terminated == l.HTTP) {
		report("listen.terminated", fmt.Sprintf("wants another port than listen.https and listen.http, got %d", l.Terminated))
	}
	if len(c.Proxies.Networks) > 0 || c.Joining {
		return
	}
	const missing = "the load balancers' addresses in trusted_proxies.networks: nobody else is let in, or believed"
	if l.ProxyProtocol == proxyAccept || l.ProxyProtocol == proxyRequire {
		report("listen.proxy_protocol", "is "+l.ProxyProtocol+" and wants "+missing)
	}
	if l.Terminated != 0 {
		report("listen.terminated", "wants "+missing)
	}
	if c.Proxies.ForwardedHost {
		report("trusted_proxies.forwarded_host", "wants "+missing)
	}
}
