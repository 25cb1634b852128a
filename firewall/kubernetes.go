package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// nodeLabel selects the pods of the nodes. Their addresses change, so that they
// are peers by their label and not by address.
const nodeLabel = "app.kubernetes.io/name: portcullis"

// renderNetworkPolicy writes what the standard object can say: addresses and
// ports, and neither names nor ICMP.
func renderNetworkPolicy(p Policy) ([]File, error) {
	b := &page{}
	b.header(p, "#", "The pods of the nodes carry the label "+nodeLabel+"; between nodes it takes the place of addresses.",
		"The standard object knows no ICMP and no host names: the row icmp, and hosts without addresses, want --format cilium.")
	b.line("apiVersion: networking.k8s.io/v1")
	b.line("kind: NetworkPolicy")
	b.line("metadata:")
	b.line("  name: portcullis-node")
	b.line("spec:")
	b.line("  podSelector:")
	b.line("    matchLabels:")
	b.line("      %s", nodeLabel)
	b.line("  policyTypes: [Ingress, Egress]")
	for _, d := range []Direction{In, Out} {
		key, side := "ingress", "from"
		if d == Out {
			key, side = "egress", "to"
		}
		b.line("  %s:", key)
		p.byRow(d, func(flows []Flow) {
			f, g := flows[0], p.Group(flows[0].Group)
			if f.Protocol == netcontract.ICMP || f.Group != string(Nodes) && len(g.V4)+len(g.V6) == 0 {
				return
			}
			b.line("    # row %s", f.Row)
			b.line("    - %s:", side)
			if f.Group == string(Nodes) {
				b.line("        - podSelector:")
				b.line("            matchLabels:")
				b.line("              %s", nodeLabel)
			} else {
				for _, c := range g.all() {
					b.line("        - ipBlock:")
					b.line("            cidr: %s", c)
				}
			}
			b.line("      ports:")
			for _, f := range flows {
				for _, r := range f.Ports {
					b.line("        - protocol: %s", strings.ToUpper(string(f.Protocol)))
					b.line("          port: %d", r.From)
					if r.To != r.From {
						b.line("          endPort: %d", r.To)
					}
				}
			}
		})
	}
	return []File{{Name: "networkpolicy.yaml", Content: b.String()}}, nil
}

// all are the prefixes of both families, with their bits.
func (g Group) all() []string { return cidrs(append(append([]netip.Prefix{}, g.V4...), g.V6...)) }

// byRow calls f with the flows of each row in a direction: one for each protocol.
func (p Policy) byRow(d Direction, f func([]Flow)) {
	var flows []Flow
	for _, flow := range p.Flows {
		if flow.Direction != d {
			continue
		}
		if len(flows) > 0 && flows[0].Row != flow.Row {
			f(flows)
			flows = nil
		}
		flows = append(flows, flow)
	}
	if len(flows) > 0 {
		f(flows)
	}
}

// renderCilium writes a CiliumNetworkPolicy, which knows names and ICMP too.
func renderCilium(p Policy) ([]File, error) {
	b := &page{}
	p.Omissions = slices.DeleteFunc(slices.Clone(p.Omissions), func(o Omission) bool { return o.Host != "" })
	b.header(p, "#", "The pods of the nodes carry the label "+nodeLabel+"; between nodes it takes the place of addresses.",
		"Names are watched by Cilium's DNS proxy, through the rule of row dns.")
	b.line("apiVersion: cilium.io/v2")
	b.line("kind: CiliumNetworkPolicy")
	b.line("metadata:")
	b.line("  name: portcullis-node")
	b.line("spec:")
	b.line("  endpointSelector:")
	b.line("    matchLabels:")
	b.line("      %s", nodeLabel)
	for _, d := range []Direction{In, Out} {
		key, side := "ingress", "from"
		if d == Out {
			key, side = "egress", "to"
		}
		b.line("  %s:", key)
		p.byRow(d, func(flows []Flow) {
			f, g := flows[0], p.Group(flows[0].Group)
			peers := func(body func()) {
				b.line("    # row %s", f.Row)
				body()
				if f.Protocol == netcontract.ICMP {
					b.line("      icmps:")
					b.line("        - fields:")
					b.line("            - family: IPv4")
					b.line("              type: 8")
					b.line("            - family: IPv6")
					b.line("              type: 128")
					return
				}
				b.line("      toPorts:")
				b.line("        - ports:")
				for _, f := range flows {
					for _, r := range f.Ports {
						b.line("            - port: \"%d\"", r.From)
						if r.To != r.From {
							b.line("              endPort: %d", r.To)
						}
						b.line("              protocol: %s", strings.ToUpper(string(f.Protocol)))
					}
				}
				if f.Row == netcontract.DNS && d == Out {
					b.line("          rules:")
					b.line("            dns:")
					b.line("              - matchPattern: \"*\"")
				}
			}
			if f.Group == string(Nodes) {
				peers(func() {
					b.line("    - %sEndpoints:", side)
					b.line("        - matchLabels:")
					b.line("            %s", nodeLabel)
				})
				return
			}
			if all := g.all(); len(all) > 0 {
				peers(func() {
					b.line("    - %sCIDR:", side)
					for _, c := range all {
						b.line("        - %s", c)
					}
				})
			}
			if d == Out && len(g.Hosts) > 0 {
				peers(func() {
					b.line("    - toFQDNs:")
					for _, h := range g.Hosts {
						b.line("        - matchName: %s", h)
					}
				})
			}
		})
	}
	return []File{{Name: "ciliumnetworkpolicy.yaml", Content: b.String()}}, nil
}
