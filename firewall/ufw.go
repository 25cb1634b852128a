package firewall

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// renderUFW writes an application profile, the script that adds the rules, and the
// two files that ufw loads before its rules: they alone can speak of ICMP.
func renderUFW(p Policy) ([]File, error) {
	profile, script := &page{}, &page{}
	profile.line("# Row by row the ports of a Portcullis node. `ufw app list` shows them.")
	named := map[netcontract.RowID]bool{}
	for _, f := range p.Flows {
		if g := p.Group(f.Group); named[f.Row] || f.Protocol == netcontract.ICMP || len(g.V4)+len(g.V6) == 0 {
			continue
		}
		named[f.Row] = true
		profile.line("")
		profile.line("[%s]", app(f.Row))
		profile.line("title=Portcullis: %s", f.Row)
		profile.line("description=%s", f.Use)
		profile.line("ports=%s", ufwPorts(p, f))
	}
	script.line("#!/bin/sh")
	script.header(p, "#",
		"Copy applications.d/portcullis, before.rules and before6.rules to /etc/ufw, then run this as root.",
		"Rules that ufw has already stay: `ufw reset` first, if they are not wanted.")
	script.line("set -eu")
	script.line("ufw default deny incoming")
	script.line("ufw default deny outgoing")
	script.line("ufw default deny routed")
	for _, d := range []Direction{In, Out} {
		for _, v6 := range families() {
			p.each(d, v6, func(f Flow, peers []netip.Prefix) {
				if f.Protocol == netcontract.ICMP || f.Protocol != protocolsOf(p, f.Row)[0] {
					return // in before.rules; and a profile has both protocols
				}
				for _, peer := range peers {
					if d == In {
						script.line("ufw allow in from %s to any app %s comment 'row %s'", prefixText(peer), app(f.Row), f.Row)
					} else {
						script.line("ufw allow out to %s app %s comment 'row %s'", prefixText(peer), app(f.Row), f.Row)
					}
				}
			})
		}
	}
	script.line("ufw --force enable")
	script.line("ufw reload")
	files := []File{{Name: "applications.d/portcullis", Content: profile.String()}}
	for _, v6 := range families() {
		six := strings.TrimPrefix(familyDigit(v6), "4")
		b := &page{}
		b.line("# Loaded by ufw before its own rules: the host itself, answers, ICMP.")
		b.line("*filter")
		for _, chain := range []string{"before-input", "before-output", "before-forward", "not-local"} {
			b.line(":ufw%s-%s - [0:0]", six, chain)
		}
		for _, c := range []struct {
			chain     string
			direction Direction
		}{{"before-input", In}, {"before-output", Out}} {
			chain := "ufw" + six + "-" + c.chain
			for _, r := range iptablesBase(c.direction, v6) {
				b.line("-A %s %s", chain, r)
			}
			p.each(c.direction, v6, func(f Flow, peers []netip.Prefix) {
				if f.Protocol != netcontract.ICMP {
					return
				}
				for _, peer := range peers {
					b.line("-A %s %s", chain, iptablesRule(f, peer))
				}
			})
		}
		b.line("COMMIT")
		files = append(files, File{Name: fmt.Sprintf("before%s.rules", six), Content: b.String()})
	}
	return append(files, File{Name: "portcullis-ufw.sh", Content: script.String(), Executable: true}), nil
}

func app(row netcontract.RowID) string { return "Portcullis-" + string(row) }

// ufwPorts are ports as an application profile has them; without a protocol they
// are of both.
func ufwPorts(p Policy, f Flow) string {
	s := make([]string, len(f.Ports))
	for i, r := range f.Ports {
		s[i] = colon(r)
	}
	ports := strings.Join(s, ",")
	if protocols := protocolsOf(p, f.Row); len(protocols) == 1 {
		return ports + "/" + string(protocols[0])
	}
	return ports
}
