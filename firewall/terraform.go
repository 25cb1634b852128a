package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// block is an HCL block whose arguments are aligned as terraform fmt does it.
type block struct {
	*page
	indent string
}

func (b *page) block(format string, args ...any) block {
	b.line(format+" {", args...)
	return block{b, "  "}
}

func (b block) args(pairs ...string) {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		width = max(width, len(pairs[i]))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		b.line("%s%-*s = %s", b.indent, width, pairs[i], pairs[i+1])
	}
}

func (b block) end() { b.line("}"); b.line("") }

func (b *page) variable(name, kind, description string) {
	v := b.block("variable %q", name)
	v.args("type", kind, "description", strconv.Quote(description))
	v.end()
}

func hclList(list []string) string {
	s := make([]string, len(list))
	for i, e := range list {
		s[i] = strconv.Quote(e)
	}
	return "[" + strings.Join(s, ", ") + "]"
}

func (p Policy) locals(b *page) {
	l := b.block("locals")
	var pairs []string
	for _, g := range p.Groups {
		for _, v6 := range families() {
			if list := g.prefixes(v6); len(list) > 0 {
				pairs = append(pairs, local(g.Name, v6), hclList(cidrs(list)))
			}
		}
	}
	l.args(pairs...)
	l.end()
}

func local(group string, v6 bool) string {
	return strings.ReplaceAll(group, "-", "_") + "_v" + familyDigit(v6)
}

// label names a rule: row, direction, ports where a row has several, family.
func label(f Flow, port string, v6 bool, sep string) string {
	parts := []string{string(f.Row), string(f.Direction), string(f.Protocol)}
	if port != "" {
		parts = append(parts, port)
	}
	parts = append(parts, "v"+familyDigit(v6))
	return strings.NewReplacer("-", sep, "_", sep).Replace(strings.Join(parts, sep))
}

// renderAWS writes a security group. Its rules are resources of their own, so that
// a plan names each.
func renderAWS(p Policy) ([]File, error) {
	b := &page{}
	b.header(p, "#", "Give the group to every node. AWS drops what no rule allows; without egress blocks Terraform removes AWS's rule that allows everything out.")
	b.line("")
	b.variable("vpc_id", "string", "VPC of the nodes")
	p.locals(b)
	g := b.block(`resource "aws_security_group" "portcullis_node"`)
	g.args("name", `"portcullis-node"`, "description", `"Portcullis network contract"`, "vpc_id", "var.vpc_id")
	g.end()
	for _, f := range p.Flows {
		kind, side := "ingress", "cidr_ipv"
		if f.Direction == Out {
			kind = "egress"
		}
		for _, v6 := range families() {
			if len(p.Group(f.Group).prefixes(v6)) == 0 {
				continue
			}
			rule := func(port, protocol, from, to string) {
				b.line("# row %s", f.Row)
				r := b.block(`resource "aws_vpc_security_group_%s_rule" %q`, kind, label(f, port, v6, "_"))
				r.args("for_each", "toset(local."+local(f.Group, v6)+")", "security_group_id", "aws_security_group.portcullis_node.id",
					"description", strconv.Quote("row "+string(f.Row)), "ip_protocol", strconv.Quote(protocol), "from_port", from, "to_port", to,
					side+familyDigit(v6), "each.value")
				r.end()
			}
			if f.Protocol == netcontract.ICMP {
				// AWS has the ICMP type in from_port and the code in to_port.
				rule("", map[bool]string{false: "icmp", true: "icmpv6"}[v6], map[bool]string{false: "8", true: "128"}[v6], "-1")
				continue
			}
			for _, r := range f.Ports {
				rule(r.String(), string(f.Protocol), strconv.Itoa(int(r.From)), strconv.Itoa(int(r.To)))
			}
		}
	}
	return []File{{Name: "portcullis.tf", Content: strings.TrimRight(b.String(), "\n") + "\n"}}, nil
}

// renderGCP writes VPC firewall rules for instances with the tag portcullis-node.
func renderGCP(p Policy) ([]File, error) {
	b := &page{}
	b.header(p, "#", "Give every node the network tag portcullis-node. A rule of Google's has addresses of one family only.")
	b.line("")
	b.variable("network", "string", "Name of the nodes' VPC network")
	p.locals(b)
	rule := func(name, direction, side, ranges, action, protocol string, ports []string, priority int, row string) {
		b.line("# %s", row)
		r := b.block(`resource "google_compute_firewall" %q`, strings.ReplaceAll(name, "-", "_"))
		r.args("name", strconv.Quote("portcullis-"+name), "network", "var.network", "description", strconv.Quote(row),
			"direction", strconv.Quote(direction), "priority", strconv.Itoa(priority), side, ranges, "target_tags", `["portcullis-node"]`)
		b.line("")
		b.line("  %s {", action)
		inner := block{b, "    "}
		pairs := []string{"protocol", strconv.Quote(protocol)}
		if len(ports) > 0 {
			pairs = append(pairs, "ports", hclList(ports))
		}
		inner.args(pairs...)
		b.line("  }")
		r.end()
	}
	for _, f := range p.Flows {
		direction, side := gcpSides(f.Direction)
		for _, v6 := range families() {
			if len(p.Group(f.Group).prefixes(v6)) == 0 {
				continue
			}
			protocol := string(f.Protocol)
			if f.Protocol == netcontract.ICMP && v6 {
				protocol = "58" // Google knows ICMPv6 by its number
			}
			var ports []string
			for _, r := range f.Ports {
				ports = append(ports, r.String())
			}
			rule(label(f, "", v6, "-"), direction, side, "local."+local(f.Group, v6), "allow", protocol, ports, 1000, "row "+string(f.Row))
		}
	}
	for _, d := range []Direction{In, Out} {
		direction, side := gcpSides(d)
		for _, v6 := range families() {
			everything := map[bool]string{false: "0.0.0.0/0", true: "::/0"}[v6]
			rule(fmt.Sprintf("drop-%s-v%s", d, familyDigit(v6)), direction, side, hclList([]string{everything}), "deny", "all", nil, 65000, "no row")
		}
	}
	return []File{{Name: "portcullis.tf", Content: strings.TrimRight(b.String(), "\n") + "\n"}}, nil
}

func gcpSides(d Direction) (direction, side string) {
	if d == In {
		return "INGRESS", "source_ranges"
	}
	return "EGRESS", "destination_ranges"
}

// renderAzure writes a network security group. Azure wants a priority of its own
// for each rule of a direction.
func renderAzure(p Policy) ([]File, error) {
	b := &page{}
	b.header(p, "#", "Associate the group with the nodes' subnet or interfaces.",
		"Azure has no ICMPv6 in its rules: echo between nodes is allowed over IPv4 alone.")
	b.line("")
	b.variable("resource_group_name", "string", "Resource group of the nodes")
	b.variable("location", "string", "Region of the nodes")
	p.locals(b)
	g := b.block(`resource "azurerm_network_security_group" "portcullis_node"`)
	g.args("name", `"portcullis-node"`, "location", "var.location", "resource_group_name", "var.resource_group_name")
	g.end()
	rule := func(name, row string, priority int, d Direction, access, protocol, ports, source, destination string) {
		b.line("# %s", row)
		r := b.block(`resource "azurerm_network_security_rule" %q`, strings.ReplaceAll(name, "-", "_"))
		pairs := []string{"name", strconv.Quote(name), "description", strconv.Quote(row), "priority", strconv.Itoa(priority),
			"direction", strconv.Quote(map[Direction]string{In: "Inbound", Out: "Outbound"}[d]), "access", strconv.Quote(access),
			"protocol", strconv.Quote(protocol), "source_port_range", `"*"`}
		if strings.HasPrefix(ports, "[") {
			pairs = append(pairs, "destination_port_ranges", ports)
		} else {
			pairs = append(pairs, "destination_port_range", strconv.Quote(ports))
		}
		for _, side := range [][2]string{{"source", source}, {"destination", destination}} {
			if side[1] == "*" {
				pairs = append(pairs, side[0]+"_address_prefix", `"*"`)
			} else {
				pairs = append(pairs, side[0]+"_address_prefixes", side[1])
			}
		}
		pairs = append(pairs, "resource_group_name", "var.resource_group_name", "network_security_group_name", "azurerm_network_security_group.portcullis_node.name")
		r.args(pairs...)
		r.end()
	}
	for _, d := range []Direction{In, Out} {
		priority := 100
		for _, v6 := range families() {
			p.each(d, v6, func(f Flow, _ []netip.Prefix) {
				protocol, ports := map[netcontract.Protocol]string{netcontract.TCP: "Tcp", netcontract.UDP: "Udp", netcontract.ICMP: "Icmp"}[f.Protocol], "*"
				if f.Protocol == netcontract.ICMP && v6 {
					return
				}
				if len(f.Ports) > 0 {
					var s []string
					for _, r := range f.Ports {
						s = append(s, r.String())
					}
					ports = hclList(s)
				}
				source, destination := "local."+local(f.Group, v6), "*"
				if d == Out {
					source, destination = destination, source
				}
				rule(label(f, "", v6, "-"), "row "+string(f.Row), priority, d, "Allow", protocol, ports, source, destination)
				priority += 10
			})
		}
		rule("drop-"+string(d), "no row", 4096, d, "Deny", "*", "*", "*", "*")
	}
	return []File{{Name: "portcullis.tf", Content: strings.TrimRight(b.String(), "\n") + "\n"}}, nil
}
