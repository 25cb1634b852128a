package appliance

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/portcullis-id/portcullis/audit"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/enforce"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/web"
)

// auditEvery is how often a node looks at its own sockets.
const auditEvery = time.Minute

// declared is what this node may do: the contract's rows, at the ports that its
// configuration gives them.
func (c *Config) declared(table netcontract.Table) audit.Declared {
	d := audit.FromContract(table)
	for row, port := range map[netcontract.RowID][]int{netcontract.LB: {c.Listen.HTTPS, c.Listen.HTTP, c.Listen.Terminated}, netcontract.Health: {c.Listen.Health}, netcontract.RateLimit: {c.Listen.RateLimit}} {
		for _, p := range port {
			d.Listen = append(d.Listen, audit.Endpoint{Row: row, Protocol: "tcp", Port: p})
		}
	}
	dial := func(row netcontract.RowID, port int) {
		d.Dial = append(d.Dial, audit.Endpoint{Row: row, Protocol: "tcp", Port: port})
	}
	dial(netcontract.SMTP, c.SMTP.Port)
	for _, dsn := range []config.Secret{c.Database.DSN, c.Database.Standby, c.Site.Peer} {
		for _, p := range store.Ports(dsn.Reveal()) {
			dial(netcontract.Database, p)
		}
	}
	for row, raw := range map[netcontract.RowID]string{netcontract.Traces: c.Traces.Endpoint, netcontract.Social: c.Network.Proxy} {
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			port := u.Port()
			if port == "" {
				port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
			}
			if p, err := strconv.Atoi(port); err == nil {
				dial(row, p)
			}
		}
	}
	for _, raw := range c.Search.URLs {
		if u, err := url.Parse(raw); err == nil {
			port := u.Port()
			if port == "" {
				port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
			}
			if p, err := strconv.Atoi(port); err == nil {
				dial(netcontract.SearchHTTP, p)
			}
		}
	}
	if c.Dev || len(c.Network.AllowedHosts) > 0 {
		// Providers that the operator has named inside the network may be on any port.
		d.Trusted = func(a netip.Addr) bool { return a.IsPrivate() || a.IsLoopback() }
	}
	return d
}

// declared is what the configuration declares, with the ports of row control that
// the nodes of the cluster have by their addresses.
func (n *Node) declared() audit.Declared {
	d := n.cfg.declared(n.contract)
	if n.control == nil {
		return d
	}
	declare := func(list []audit.Endpoint, address string) []audit.Endpoint {
		if _, port, err := net.SplitHostPort(address); err == nil {
			if p, err := strconv.Atoi(port); err == nil {
				list = append(list, audit.Endpoint{Row: netcontract.Control, Protocol: "tcp", Port: p})
			}
		}
		return list
	}
	d.Listen = declare(d.Listen, n.control.Address())
	d.Dial = declare(d.Dial, n.control.Address()) // where the others are too, as a rule
	for _, v := range n.control.Members() {
		d.Dial = declare(d.Dial, v.Address)
		if p := v.Ports[string(netcontract.RateLimit)]; p != 0 {
			d.Dial = append(d.Dial, audit.Endpoint{Row: netcontract.RateLimit, Protocol: "tcp", Port: p})
		}
	}
	return d
}

// networkReport is what `portcullis network audit` shows.
type networkReport struct {
	Node string `json:"node"`
	*audit.Report
	Enforcement enforce.Status        `json:"enforcement"`
	Firewall    *audit.FirewallReport `json:"firewall"`
}

func (n *Node) buildAudit() {
	n.audit = audit.NewWatch(n.declared, auditEvery, func(ctx context.Context, f audit.Finding) {
		n.logger.ErrorContext(ctx, "a socket of no row of the network contract", "protocol", f.Protocol, "local", f.Local, "remote", f.Remote, "finding", f.Sentence)
	})
	n.metrics.Gauge("portcullis_network_undeclared_sockets", "Listeners and connections of this process that no row of the network contract declares.",
		func() float64 { return float64(n.audit.Findings()) })
	n.metrics.Counter("portcullis_network_refused_connections_total", "Connections to ports of no row that network.enforce refused, or would refuse when it is audit.",
		func() float64 { return float64(n.enforce.Refused()) })
}

// localAudit looks now, for `portcullis network audit`.
func (n *Node) localAudit(w http.ResponseWriter, _ *http.Request) error {
	report, err := n.audit.Look()
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, networkReport{hostName(), report, n.enforce.Status(), n.firewall.Look()})
}
