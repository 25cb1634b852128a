package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Role is what a host is to the appliance.
type Role string

// The roles.
const (
	Node         Role = "node"
	LoadBalancer Role = "lb"
	CLI          Role = "cli"
	Monitoring   Role = "monitoring"
	JumpHost     Role = "jump-host"
	Depot        Role = "depot"
	DNSServer    Role = "dns"
	Outside      Role = "outside" // somebody whom no row lets in
)

// Roles lists all roles.
func Roles() []Role {
	return []Role{Node, LoadBalancer, CLI, Monitoring, JumpHost, Depot, DNSServer, Outside}
}

// maxHosts and maxAddresses bound a swarm.
const (
	maxHosts     = 256
	maxAddresses = 8
)

// Host takes part in a swarm.
type Host struct {
	Name      string       `json:"name"`
	Role      Role         `json:"role"`
	Addresses []netip.Addr `json:"addresses"`
}

// ParseHosts reads hosts in the form NAME=ADDRESS[+ADDRESS…][@ROLE], or ADDRESS
// alone, whose name is then the address. A host without a role is a node. All
// faults are reported at once, each with the host that it is in.
func ParseHosts(list []string) ([]Host, error) {
	var hosts []Host
	var faults []string
	owner := map[netip.Addr]string{}
	names := map[string]bool{}
	if len(list) > maxHosts {
		return nil, problem.New(problem.Invalid, "invalid_peers", "peers has %d hosts; allowed are %d", len(list), maxHosts)
	}
	for _, text := range list {
		h, err := parseHost(text)
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		if names[h.Name] {
			faults = append(faults, fmt.Sprintf("%q: two hosts have the name %s", text, h.Name))
		}
		names[h.Name] = true
		for _, a := range h.Addresses {
			if other, taken := owner[a]; taken {
				faults = append(faults, fmt.Sprintf("%q: the address %s is also that of %s", text, a, other))
			}
			owner[a] = h.Name
		}
		hosts = append(hosts, h)
	}
	if len(faults) > 0 {
		return nil, problem.New(problem.Invalid, "invalid_peers", "peers: %s", strings.Join(faults, "; "))
	}
	return hosts, nil
}

func parseHost(text string) (Host, error) {
	h := Host{Role: Node}
	rest, role, hasRole := strings.Cut(text, "@")
	if hasRole {
		h.Role = Role(role)
		if !slices.Contains(Roles(), h.Role) {
			return h, fmt.Errorf("%q: there is no role %q; allowed are %s", text, clip(role), roleNames())
		}
	}
	name, addresses, named := strings.Cut(rest, "=")
	if !named {
		addresses = rest
	}
	for part := range strings.SplitSeq(addresses, "+") {
		a, err := netip.ParseAddr(part)
		if err != nil || a.IsUnspecified() || a.IsMulticast() {
			return h, fmt.Errorf("%q: %q is no address of a host; allowed are IPv4 and IPv6 addresses such as 10.0.0.11 or fd00::11", text, clip(part))
		}
		h.Addresses = append(h.Addresses, a.Unmap())
	}
	if len(h.Addresses) > maxAddresses {
		return h, fmt.Errorf("%q: has %d addresses; allowed are %d", text, len(h.Addresses), maxAddresses)
	}
	if h.Name = name; !named {
		h.Name = h.Addresses[0].String()
	}
	if h.Name == "" || len(h.Name) > 64 || strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'<>&,;|`, r) }) {
		return h, fmt.Errorf("%q: %q is no name of a host; allowed are 1 to 64 letters, digits, dots, colons and dashes", text, clip(name))
	}
	return h, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func roleNames() string {
	names := make([]string, len(Roles()))
	for i, r := range Roles() {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// Check is one thing to find out.
type Check struct {
	Row      netcontract.RowID    `json:"row"`
	From     string               `json:"from"`
	To       string               `json:"to"`
	Address  netip.Addr           `json:"address"`
	Protocol netcontract.Protocol `json:"protocol"`
	Port     int                  `json:"port,omitempty"` // 0 for ICMP
	Need     netcontract.Need     `json:"need"`
	// Closed means that the connection must not be possible: a row of nodes, seen from
	// outside.
	Closed bool `json:"must_be_closed,omitempty"`
	// Host is the name of a host outside of the run; Outside says that To is one, with a
	// name or without.
	Host    string `json:"host,omitempty"`
	Outside bool   `json:"outside,omitempty"`
	// Local means that the check is about this host itself.
	Local bool `json:"local,omitempty"`
}

func (c Check) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(c.Address, uint16(c.Port)) // #nosec G115 -- ports come from the contract, whose own are uint16
}

// Options of a plan.
type Options struct {
	Thorough bool                // every port of a range, not a sample of it
	Rows     []netcontract.RowID // those alone; empty means all
}

// sampled is how many ports of a range are probed without Thorough.
const sampled = 3

// Plan lists what a host has to find out about others.
func Plan(table netcontract.Table, self Host, peers []Host, opts Options) ([]Check, error) {
	for _, id := range opts.Rows {
		if _, ok := table.Row(id); !ok {
			return nil, problem.New(problem.Invalid, "invalid_rows", "rows: there is no row %q in the contract; `portcullis network contract` lists them", clip(string(id)))
		}
	}
	var checks []Check
	for _, row := range table.Rows() {
		if len(opts.Rows) > 0 && !slices.Contains(opts.Rows, row.ID) {
			continue
		}
		for _, peer := range peers {
			if peer.Name == self.Name {
				continue
			}
			closed, concerns := concerns(row, self.Role, peer.Role)
			if !concerns {
				continue
			}
			for _, address := range peer.Addresses {
				if !slices.ContainsFunc(self.Addresses, func(a netip.Addr) bool { return a.Is4() == address.Is4() }) && len(self.Addresses) > 0 {
					continue // no common family: nothing could be said
				}
				for _, protocol := range row.Protocols {
					for _, port := range ports(row, protocol, opts.Thorough) {
						checks = append(checks, Check{Row: row.ID, From: self.Name, To: peer.Name, Address: address, Protocol: protocol, Port: port, Need: row.Need(), Closed: closed})
					}
				}
			}
		}
	}
	return checks, nil
}

// callers says who connects to whom on the rows that are not between nodes.
var callers = map[netcontract.RowID]struct{ from, to Role }{
	netcontract.LB:              {LoadBalancer, Node},
	netcontract.CLI:             {CLI, Node},
	netcontract.Health:          {Monitoring, Node},
	netcontract.JumpHost:        {JumpHost, Node},
	netcontract.WebtaskCallback: {Node, LoadBalancer},
	netcontract.UpdatePackages:  {Node, Depot},
	netcontract.UpdateImages:    {Node, Depot},
	netcontract.CDN:             {Node, Depot},
	netcontract.Examples:        {Node, Depot},
	netcontract.Telemetry:       {Node, Depot},
	netcontract.DNS:             {Node, DNSServer},
}

// concerns reports whether a host of one role connects to one of another on a row,
// and whether it must not be able to.
func concerns(row netcontract.Row, from, to Role) (closed, ok bool) {
	if row.Section == netcontract.BetweenNodes {
		if from == Node || to != Node {
			return false, from == Node && to == Node
		}
		// Nobody but nodes may reach what nodes say to each other. SSH and ICMP have rows
		// of their own for others, and dashboards may be opened to operators.
		forbidden := from == Outside && row.ID != netcontract.ICMPEcho && row.ID != netcontract.Grafana && row.ID != netcontract.Maintenance
		return true, forbidden
	}
	c, known := callers[row.ID]
	there := known && c.from == from && c.to == to
	back := known && row.ID == netcontract.DNS && c.from == to && c.to == from // the row goes both ways
	return false, there || back
}

// serves reports whether a host of the role listens on a row.
func serves(row netcontract.Row, role Role) bool {
	if row.Section == netcontract.BetweenNodes {
		return role == Node
	}
	c, known := callers[row.ID]
	return known && (c.to == role || row.ID == netcontract.DNS && c.from == role)
}

// alternatives reports whether one open port of the row is enough among those of a
// group, and which group a port is in: a load balancer comes to 443 or to 4443, a
// mail server listens on one port of three.
func alternatives(row netcontract.Row, p int) (group int, ok bool) {
	if row.ID == netcontract.SMTP {
		return 0, true
	}
	for i, r := range row.Ports {
		next := i+1 < len(row.Ports) && row.Ports[i+1].Alternative
		if !r.Alternative {
			group = i
		}
		if r.Contains(p) {
			return group, r.Alternative || next
		}
	}
	return 0, false
}

// ports are those of a row that are probed.
func ports(row netcontract.Row, protocol netcontract.Protocol, thorough bool) []int {
	if protocol == netcontract.ICMP {
		return []int{0}
	}
	var out []int
	for _, r := range row.Ports {
		n := int(r.To) - int(r.From) + 1
		if thorough || n <= sampled {
			for p := int(r.From); p <= int(r.To); p++ {
				out = append(out, p)
			}
			continue
		}
		for i := range sampled { // both ends and between
			out = append(out, int(r.From)+i*(n-1)/(sampled-1))
		}
	}
	return out
}
