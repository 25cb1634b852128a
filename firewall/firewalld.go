package firewall

import (
	"encoding/xml"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// renderFirewalld writes configuration below /etc/firewalld: a service for each
// row, an ipset for each group and family, and two policies that drop what they do
// not accept. Zones stay as they are: the policies come before them.
func renderFirewalld(p Policy) ([]File, error) {
	var files []File
	add := func(name, content string) {
		files = append(files, File{Name: name, Content: content})
	}
	for _, g := range p.Groups {
		for _, v6 := range families() {
			list := g.prefixes(v6)
			if len(list) == 0 {
				continue
			}
			b := &page{}
			b.line(`<?xml version="1.0" encoding="utf-8"?>`)
			b.line(`<ipset type="hash:net">`)
			b.line(`  <short>Portcullis: %s, IPv%s</short>`, g.Name, familyDigit(v6))
			b.line(`  <option name="family" value="%s"/>`, map[bool]string{false: "inet", true: "inet6"}[v6])
			for _, e := range prefixTexts(list) {
				b.line(`  <entry>%s</entry>`, e)
			}
			b.line(`</ipset>`)
			add("ipsets/"+ipset(g.Name, v6)+".xml", b.String())
		}
	}
	written := map[netcontract.RowID]bool{}
	for _, f := range p.Flows {
		if g := p.Group(f.Group); written[f.Row] || f.Protocol == netcontract.ICMP || len(g.V4)+len(g.V6) == 0 {
			continue
		}
		written[f.Row] = true
		b := &page{}
		b.line(`<?xml version="1.0" encoding="utf-8"?>`)
		b.line(`<service>`)
		b.line(`  <short>Portcullis: %s</short>`, f.Row)
		b.line(`  <description>Row %s of the network contract: %s</description>`, f.Row, escape(f.Use))
		for _, protocol := range protocolsOf(p, f.Row) {
			for _, r := range f.Ports {
				b.line(`  <port protocol="%s" port="%s"/>`, protocol, r)
			}
		}
		b.line(`</service>`)
		add("services/"+service(f.Row)+".xml", b.String())
	}
	for _, d := range []Direction{In, Out} {
		b := &page{}
		b.line(`<?xml version="1.0" encoding="utf-8"?>`)
		b.line(`<policy target="DROP" priority="-100">`)
		b.line(`  <short>Portcullis: %s</short>`, map[Direction]string{In: "what comes in", Out: "what goes out"}[d])
		var omitted page
		omitted.omissions(p, "")
		b.line(`  <description>The network contract of a Portcullis node, profile %s. What no row declares is dropped.%s</description>`, p.Profile, escape(strings.ReplaceAll("\n"+strings.TrimSpace(omitted.String()), "\n", " ")))
		side, ingress, egress, neighbours := "source", "ANY", "HOST", neighboursIn
		if d == Out {
			side, ingress, egress, neighbours = "destination", "HOST", "ANY", neighboursOut
		}
		b.line(`  <ingress-zone name="%s"/>`, ingress)
		b.line(`  <egress-zone name="%s"/>`, egress)
		for _, v6 := range families() {
			family, types := "ipv4", icmpErrors
			if v6 {
				family, types = "ipv6", append(append([]icmpType{}, icmpv6Errors...), neighbours...)
			}
			for _, t := range types {
				b.line(`  <rule family="%s"><icmp-type name="%s"/><accept/></rule>`, family, t.name)
			}
		}
		for _, f := range p.Flows {
			if f.Direction != d {
				continue
			}
			for _, v6 := range families() {
				if len(p.Group(f.Group).prefixes(v6)) == 0 {
					continue
				}
				what := `<service name="` + service(f.Row) + `"/>`
				if f.Protocol == netcontract.ICMP {
					what = `<icmp-type name="echo-request"/>`
				} else if f.Protocol != protocolsOf(p, f.Row)[0] {
					continue // the service has both protocols
				}
				b.line(`  <!-- row %s -->`, f.Row)
				b.line(`  <rule family="%s"><%s ipset="%s"/>%s<accept/></rule>`, map[bool]string{false: "ipv4", true: "ipv6"}[v6], side, ipset(f.Group, v6), what)
			}
		}
		b.line(`</policy>`)
		add("policies/portcullis-"+string(d)+".xml", b.String())
	}
	return files, nil
}

func ipset(group string, v6 bool) string { return "portcullis-" + group + familyDigit(v6) }

func service(row netcontract.RowID) string { return "portcullis-" + string(row) }

// protocolsOf are those of a row's flows, in the contract's order.
func protocolsOf(p Policy, row netcontract.RowID) []netcontract.Protocol {
	var out []netcontract.Protocol
	var direction Direction
	for _, f := range p.Flows {
		if f.Row == row && (direction == "" || f.Direction == direction) {
			direction = f.Direction
			out = append(out, f.Protocol)
		}
	}
	return out
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
