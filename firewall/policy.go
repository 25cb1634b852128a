package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Direction is seen from a node.
type Direction string

// The directions of a flow.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// Flow is traffic that a row allows between a node and the peers of a group.
type Flow struct {
	Row       netcontract.RowID       `json:"row"`
	Direction Direction               `json:"direction"`
	Group     string                  `json:"group"` // of Policy.Groups
	Protocol  netcontract.Protocol    `json:"protocol"`
	Ports     []netcontract.PortRange `json:"-"` // none for ICMP, which means echo
	PortText  string                  `json:"ports,omitempty"`
	Need      netcontract.Need        `json:"need"`
	Use       string                  `json:"use"`
}

// Group is a set of peers that rules refer to by name.
type Group struct {
	Name  string         `json:"name"`
	V4    []netip.Prefix `json:"v4"`
	V6    []netip.Prefix `json:"v6"`
	Hosts []string       `json:"hosts,omitempty"` // names, whether or not their addresses are known
	// Unknown are the names of hosts whose addresses nobody said.
	Unknown []string `json:"unknown,omitempty"`
}

// prefixes are those of one family.
func (g Group) prefixes(v6 bool) []netip.Prefix {
	if v6 {
		return g.V6
	}
	return g.V4
}

// Omission is a row that the rules leave out, with the reason.
type Omission struct {
	Row netcontract.RowID `json:"row"`
	// Host is set when it is the addresses of a host that are not known: languages that
	// know names allow it all the same.
	Host   string `json:"host,omitempty"`
	Reason string `json:"reason"`
}

// Policy is all traffic of a node, between it and known peers.
type Policy struct {
	Profile   netcontract.Profile `json:"profile"`
	Groups    []Group             `json:"groups"`
	Flows     []Flow              `json:"flows"`
	Omissions []Omission          `json:"omitted,omitempty"`
}

// Options of a policy.
type Options struct {
	// Without leaves rows out.
	Without []netcontract.RowID
	// Addresses says where hosts are that the sites or the profile name.
	Addresses map[string][]netip.Addr
	// NodesByLabel means that rules find the nodes by a label, and need no address of
	// them.
	NodesByLabel bool
}

// Compile puts the peers into the rows of the contract. A row whose peers nobody
// has named allows nothing, and stands among the omissions. Hosts of a profile are
// the peers of their row unless the row's site names others.
func Compile(table netcontract.Table, where Sites, o Options) (Policy, error) {
	p := Policy{Profile: table.Profile(), Groups: []Group{}, Flows: []Flow{}}
	for _, id := range o.Without {
		if _, ok := table.Row(id); !ok {
			return p, problem.New(problem.Invalid, "invalid_rows", "without: there is no row %q in the contract; `portcullis network contract` lists them", clip(string(id)))
		}
	}
	for _, row := range table.Rows() {
		if slices.Contains(o.Without, row.ID) {
			p.Omissions = append(p.Omissions, Omission{Row: row.ID, Reason: "left out on purpose"})
			continue
		}
		site, name, peers := PeersOf(row, where)
		if len(peers) == 0 && (site != Nodes || !o.NodesByLabel) {
			reason := fmt.Sprintf("nobody is named: --%s names %s", site, row.Peer)
			p.Omissions = append(p.Omissions, Omission{Row: row.ID, Reason: reason})
			continue
		}
		g := p.group(name, peers, o.Addresses)
		for _, h := range g.Unknown {
			p.Omissions = append(p.Omissions, Omission{row.ID, h, fmt.Sprintf("no address of %s is known: --address %s=ADDRESS says it, --resolve asks for it", h, h)})
		}
		for _, d := range []Direction{In, Out} {
			if d == In && !row.Listens() || d == Out && !row.Dials() {
				continue
			}
			for _, protocol := range row.Protocols {
				p.Flows = append(p.Flows, Flow{row.ID, d, name, protocol, row.Ports, portText(row.Ports), row.Need(), row.Use})
			}
		}
	}
	slices.SortStableFunc(p.Flows, func(a, b Flow) int { return strings.Compare(string(a.Direction), string(b.Direction)) })
	return p, nil
}

func portText(ranges []netcontract.PortRange) string {
	s := make([]string, len(ranges))
	for i, r := range ranges {
		s[i] = r.String()
	}
	return strings.Join(s, ",")
}

// group finds or makes a group.
func (p *Policy) group(name string, peers []Peer, addresses map[string][]netip.Addr) Group {
	if i := slices.IndexFunc(p.Groups, func(g Group) bool { return g.Name == name }); i >= 0 {
		return p.Groups[i]
	}
	g := Group{Name: name}
	for _, peer := range peers {
		prefixes := slices.Clone(peer.Prefixes)
		if peer.Host != "" && name != string(Nodes) {
			g.Hosts = append(g.Hosts, peer.Host)
			for _, a := range addresses[peer.Host] {
				prefixes = append(prefixes, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
			}
			if len(prefixes) == 0 {
				g.Unknown = append(g.Unknown, peer.Host)
			}
		}
		for _, a := range prefixes {
			if a.Addr().Is4() {
				g.V4 = append(g.V4, a)
			} else {
				g.V6 = append(g.V6, a)
			}
		}
	}
	g.V4, g.V6 = tidy(g.V4), tidy(g.V6)
	slices.Sort(g.Hosts)
	slices.Sort(g.Unknown)
	p.Groups = append(p.Groups, g)
	return g
}

// tidy sorts prefixes, and leaves out what another one contains.
func tidy(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := list[:0]
	for _, p := range list {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// Group is the group of that name.
func (p Policy) Group(name string) Group {
	for _, g := range p.Groups {
		if g.Name == name {
			return g
		}
	}
	return Group{}
}

// each calls f for every flow of a direction and family that has peers.
func (p Policy) each(d Direction, v6 bool, f func(Flow, []netip.Prefix)) {
	for _, flow := range p.Flows {
		if peers := p.Group(flow.Group).prefixes(v6); flow.Direction == d && len(peers) > 0 {
			f(flow, peers)
		}
	}
}

// prefixText is an address where the prefix is one.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func prefixTexts(list []netip.Prefix) []string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = prefixText(p)
	}
	return s
}

// cidrs always have their bits, as clouds want them.
func cidrs(list []netip.Prefix) []string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = p.String()
	}
	return s
}

func families() []bool { return []bool{false, true} }

func familyDigit(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}
