package netcontract

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// RowID names a row of the contract. It is stable: configuration, metrics and
// documents refer to rows by it.
type RowID string

// The rows between the nodes of a cluster.
const (
	Database        RowID = "database"
	Control         RowID = "control"
	RateLimit       RowID = "rate-limit"
	WebtaskLogs     RowID = "webtask-logs"
	WebtaskControl  RowID = "webtask-control"
	SearchHTTP      RowID = "search-http"
	SearchTransport RowID = "search-transport"
	Grafana         RowID = "grafana"
	Maintenance     RowID = "maintenance"
	ICMPEcho        RowID = "icmp"
)

// The rows between the appliance and the world. SMTP and Traces stand in the
// portcullis profile alone.
const (
	LB              RowID = "lb"
	WebtaskCallback RowID = "webtask-callback"
	CLI             RowID = "cli"
	UpdatePackages  RowID = "update-packages"
	UpdateImages    RowID = "update-images"
	CDN             RowID = "cdn"
	Examples        RowID = "examples"
	Telemetry       RowID = "telemetry"
	JumpHost        RowID = "jump-host"
	Health          RowID = "health"
	DNS             RowID = "dns"
	Social          RowID = "social"
	SMTP            RowID = "smtp"
	Traces          RowID = "traces"
)

// Section is the half of the list that a row belongs to.
type Section string

// The sections.
const (
	BetweenNodes Section = "between-nodes" // every node to every other node of the cluster
	External     Section = "external"      // the appliance and everything else
)

// Protocol is what travels on a row's ports.
type Protocol string

// The protocols. A row of ICMP has no ports.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp"
)

// Direction is who opens the connection, seen from a node.
type Direction string

// The directions.
const (
	Inbound  Direction = "inbound"              // the peer connects to the node
	Outbound Direction = "outbound"             // the node connects to the peer
	Both     Direction = "inbound and outbound" // either side connects
	Mutual   Direction = "mutual"               // each node connects to each other node
)

// Need says whether a row's ports have to be open.
type Need string

// The needs.
const (
	Required    Need = "required"
	Conditional Need = "conditional" // required when the row's Condition holds
	Optional    Need = "optional"
)

// PortRange is one port, or a run of ports with both ends in it, 1 to 65535.
type PortRange struct {
	From, To uint16
	// Alternative means that this range may be open instead of the one before it.
	Alternative bool
}

// String is "443" or "9300-9400".
func (p PortRange) String() string {
	if p.From == p.To {
		return strconv.Itoa(int(p.From))
	}
	return fmt.Sprintf("%d-%d", p.From, p.To)
}

// Contains reports whether the port is in the range.
func (p PortRange) Contains(port int) bool { return port >= int(p.From) && port <= int(p.To) }

// Host is an outside host that a row names.
type Host struct {
	Name      string
	Addresses []netip.Addr // as published; empty when the name alone counts
}

// String is "name (address, address)".
func (h Host) String() string {
	if len(h.Addresses) == 0 {
		return h.Name
	}
	s := make([]string, len(h.Addresses))
	for i, a := range h.Addresses {
		s[i] = a.String()
	}
	return h.Name + " (" + strings.Join(s, ", ") + ")"
}

// Row is one line of the contract.
type Row struct {
	ID      RowID
	Section Section
	// Line is the row's line in its table of the published list, from 1. Rows that
	// share a line are one row there. It is 0 for a row that the published list has
	// not, or states below its tables.
	Line      int
	Ports     []PortRange
	Protocols []Protocol
	Direction Direction
	Peer      string // who is on the other side, in words
	Hosts     []Host // who that is by name, where the profile or the settings know it
	Use       string
	// Listed is the answer in the list's column "Required?". A row with a Condition
	// is needed when that holds, whatever Listed says.
	Listed    bool
	Condition string // "rate limiting is used"; empty when nothing decides
	Note      string
	Owner     string // folder of the room that serves or uses the row
	Added     bool   // the appliance has this row, the published list has not
}

// Need says whether the row has to be open.
func (r Row) Need() Need {
	switch {
	case r.Condition != "":
		return Conditional
	case r.Listed:
		return Required
	}
	return Optional
}

// Port is the row's first port, the default of its listener. It is 0 for ICMP.
func (r Row) Port() int {
	if len(r.Ports) == 0 {
		return 0
	}
	return int(r.Ports[0].From)
}

// Allows reports whether the row declares this protocol on this port. The port
// does not count for ICMP.
func (r Row) Allows(p Protocol, port int) bool {
	if !slices.Contains(r.Protocols, p) {
		return false
	}
	return p == ICMP || slices.ContainsFunc(r.Ports, func(pr PortRange) bool { return pr.Contains(port) })
}

// Listens reports whether a node accepts connections on the row.
func (r Row) Listens() bool { return r.Direction != Outbound }

// Dials reports whether a node opens connections on the row.
func (r Row) Dials() bool { return r.Direction != Inbound }

// PortText is the row's ports as the published list writes them: "443",
// "80/443", "80/(443 or 4443)", "ICMP".
func (r Row) PortText() string {
	if len(r.Ports) == 0 {
		return "ICMP"
	}
	var groups []string
	for _, p := range r.Ports {
		if p.Alternative && len(groups) > 0 {
			groups[len(groups)-1] += " or " + p.String()
			continue
		}
		groups = append(groups, p.String())
	}
	if len(groups) == 1 {
		return groups[0]
	}
	for i, g := range groups {
		if strings.Contains(g, " or ") {
			groups[i] = "(" + g + ")"
		}
	}
	return strings.Join(groups, "/")
}

// ProtocolText is "tcp", "tcp+udp" or "icmp".
func (r Row) ProtocolText() string {
	s := make([]string, len(r.Protocols))
	for i, p := range r.Protocols {
		s[i] = string(p)
	}
	return strings.Join(s, "+")
}

func (r Row) clone() Row {
	r.Ports = slices.Clone(r.Ports)
	r.Protocols = slices.Clone(r.Protocols)
	r.Hosts = slices.Clone(r.Hosts)
	for i := range r.Hosts {
		r.Hosts[i].Addresses = slices.Clone(r.Hosts[i].Addresses)
	}
	return r
}

// Note is a remark below the tables.
type Note struct {
	Row  RowID // the row that it is about
	Text string
}

// Table is the contract in one profile. It is a value: what it hands out are
// copies, and With methods return another table.
type Table struct {
	profile Profile
	rows    []Row
	noted   []Row // rows that stand in the notes and not in the tables
	notes   []Note
}

// Profile is the profile that the table was made of.
func (t Table) Profile() Profile { return t.profile }

// Rows are the rows of the two tables, in the order of the list.
func (t Table) Rows() []Row {
	rows := make([]Row, len(t.rows))
	for i, r := range t.rows {
		rows[i] = r.clone()
	}
	return rows
}

// Section is the rows of one section, in the order of the list.
func (t Table) Section(s Section) []Row {
	var rows []Row
	for _, r := range t.rows {
		if r.Section == s {
			rows = append(rows, r.clone())
		}
	}
	return rows
}

// Notes are the remarks below the tables.
func (t Table) Notes() []Note { return slices.Clone(t.notes) }

// Row finds a row by its id, also one that the profile states as a note.
func (t Table) Row(id RowID) (Row, bool) {
	for _, rows := range [][]Row{t.rows, t.noted} {
		for _, r := range rows {
			if r.ID == id {
				return r.clone(), true
			}
		}
	}
	return Row{}, false
}

// Port is a port of a row for a listener's default: the wanted one if the row
// declares it, else the row's first. It is 0 when the table has no such row.
func (t Table) Port(id RowID, want int) int {
	r, _ := t.Row(id)
	if slices.ContainsFunc(r.Ports, func(p PortRange) bool { return p.Contains(want) }) {
		return want
	}
	return r.Port()
}

// WithHosts returns the table with other hosts in one row: the depot that the
// operator named, the identity providers of the connections that exist. An id
// that the table has not changes nothing.
func (t Table) WithHosts(id RowID, hosts ...Host) Table {
	t.rows, t.noted = slices.Clone(t.rows), slices.Clone(t.noted)
	for _, rows := range [][]Row{t.rows, t.noted} {
		for i := range rows {
			if rows[i].ID == id {
				rows[i].Hosts = hosts
				rows[i] = rows[i].clone()
			}
		}
	}
	return t
}
