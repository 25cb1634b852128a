package appliance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/audit"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/store"
)

// parseHostPorts reads 9100/tcp and 6000-6010/udp.
func parseHostPorts(s string) ([]audit.Endpoint, error) {
	wrong := fmt.Errorf("wants PORT/tcp, PORT/udp or FROM-TO/tcp, got %q", s)
	text, protocol, ok := strings.Cut(s, "/")
	if !ok || protocol != "tcp" && protocol != "udp" {
		return nil, wrong
	}
	from, to, ranged := strings.Cut(text, "-")
	if !ranged {
		to = from
	}
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil || a == 0 {
		return nil, wrong
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err != nil || b < a {
		return nil, wrong
	}
	var out []audit.Endpoint
	for p := a; p <= b; p++ {
		out = append(out, audit.Endpoint{Protocol: protocol, Port: int(p)}) // #nosec G115 -- at most 65535
	}
	return out, nil
}

// wanted is what the contract and the configuration want of this host's firewall.
// addresses are where hosts are that the sites name without an address; control is
// the port of row control on a node of a cluster, 0 on a single one.
func (c *Config) wanted(table netcontract.Table, addresses map[string][]netip.Addr, control int) audit.Host {
	h := audit.Host{Inbound: c.declared(table).Listen}
	if control != 0 {
		h.Inbound = append(h.Inbound, audit.Endpoint{Row: netcontract.Control, Protocol: "tcp", Port: control})
	}
	for _, s := range c.Network.HostPorts {
		ports, err := parseHostPorts(s)
		if err == nil { // Validate refused what does not parse
			h.Inbound = append(h.Inbound, ports...)
		}
	}
	if c.nobodyNamed() && c.onLoopback(netcontract.LB) && c.onLoopback(netcontract.Health) {
		h.Unjudged = "The host's firewall is not compared with the contract: this node listens on loopback alone, and nobody is named in network.sites."
		return h
	}
	ours := map[netcontract.RowID][]int{netcontract.LB: {c.Listen.HTTPS, c.Listen.HTTP}, netcontract.Health: {c.Listen.Health}}
	if control != 0 {
		ours[netcontract.Control] = []int{control}
	}
	named := map[netcontract.RowID]bool{}
	sites, err := firewall.ParseSites(c.Sites())
	if err != nil {
		return h // as above
	}
	p, err := firewall.Compile(table, sites, firewall.Options{Addresses: addresses})
	if err != nil {
		return h
	}
	for _, f := range p.Flows {
		row, _ := table.Row(f.Row)
		g := p.Group(f.Group)
		peers := append(append([]netip.Prefix{}, g.V4...), g.V6...)
		// A row between nodes that nothing needs may well be closed.
		if len(peers) == 0 || f.Protocol == netcontract.ICMP || row.Section == netcontract.BetweenNodes && f.Need == netcontract.Optional {
			continue
		}
		e := audit.Expected{Row: f.Row, Out: f.Direction == firewall.Out, Protocol: string(f.Protocol), Peers: peers}
		for _, port := range c.portsOf(f, ours) {
			e.Port, e.Ours = port, !e.Out && ours[f.Row] != nil
			h.Expected = append(h.Expected, e)
		}
		named[f.Row] = named[f.Row] || f.Direction == firewall.In
	}
	// This node's own listeners have to be reached by somebody.
	for row, ports := range ours {
		for _, port := range ports {
			if !named[row] && port != 0 && !c.onLoopback(row) {
				h.Expected = append(h.Expected, audit.Expected{Row: row, Protocol: "tcp", Port: port, Ours: true})
			}
		}
	}
	return h
}

func (c *Config) nobodyNamed() bool {
	for _, list := range c.Sites() {
		if len(list) > 0 {
			return false
		}
	}
	return true
}

// portsOf are a flow's ports as the configuration has them; of a run its ends.
func (c *Config) portsOf(f firewall.Flow, ours map[netcontract.RowID][]int) []int {
	var out []int
	switch own := ours[f.Row]; {
	case own != nil && f.Direction == firewall.In:
		for _, p := range own {
			if p != 0 && !c.onLoopback(f.Row) {
				out = append(out, p)
			}
		}
		return out
	case own != nil && f.Row == netcontract.Control: // the others listen where this node does
		return own
	case f.Row == netcontract.Database:
		if ports := store.Ports(c.dsn()); len(ports) > 0 {
			return ports
		}
	case f.Row == netcontract.SMTP:
		return []int{c.SMTP.Port}
	case f.Row == netcontract.Traces:
		for _, e := range c.declared(netcontract.Table{}).Dial {
			if e.Row == netcontract.Traces {
				out = append(out, e.Port)
			}
		}
		return out
	}
	for _, r := range f.Ports {
		if out = append(out, int(r.From)); r.To != r.From {
			out = append(out, int(r.To))
		}
	}
	return out
}

// onLoopback reports whether a row's listener is for this host alone: no firewall
// has to let anybody in.
func (c *Config) onLoopback(row netcontract.RowID) bool {
	address := c.Listen.Address
	if row == netcontract.Health && c.Listen.HealthAddress != "" {
		address = c.Listen.HealthAddress
	}
	a, err := netip.ParseAddr(address)
	return err == nil && a.IsLoopback()
}

// hostWanted is what the contract wants of this host's firewall now. The nodes of a
// cluster know each other, where network.sites does not name them.
func (n *Node) hostWanted() audit.Host {
	cfg, control := n.cfg, 0
	if n.control != nil {
		if _, port, err := net.SplitHostPort(n.control.Address()); err == nil {
			control, _ = strconv.Atoi(port) // 0 is the contract's own
		}
	}
	if len(cfg.Network.Sites.Nodes) == 0 {
		for _, h := range n.otherNodes(context.Background()) {
			if _, err := netip.ParseAddr(h); err == nil {
				cfg.Network.Sites.Nodes = append(cfg.Network.Sites.Nodes, h)
			}
		}
	}
	return cfg.wanted(n.contract, n.addresses.Known(), control)
}

func (n *Node) buildDrift() {
	n.firewall = audit.NewFirewallWatch(n.hostWanted, auditEvery,
		func(ctx context.Context, d audit.Drift) {
			n.logger.ErrorContext(ctx, "the host's firewall differs from the network contract", "kind", d.Kind, "row", d.Row, "protocol", d.Protocol, "ports", d.Ports,
				"peer", d.Peer, "rule", d.By, "finding", d.Sentence, "remedy", d.Remedy)
		},
		func(ctx context.Context, note string) {
			if note != "" {
				n.logger.InfoContext(ctx, "the host's firewall", "note", note)
			}
		})
	n.metrics.Gauge("portcullis_network_firewall_findings", "Differences between the host's live firewall and the network contract.",
		func() float64 { return float64(n.firewall.Findings()) })
}
