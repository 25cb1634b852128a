package firewall

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Site is a kind of peer that an operator has addresses for.
type Site string

// The sites.
const (
	Nodes         Site = "nodes"
	LoadBalancers Site = "lb"
	Depot         Site = "depot"
	CLI           Site = "cli"
	Monitoring    Site = "monitoring"
	JumpHosts     Site = "jump-host"
	DNS           Site = "dns"
	Providers     Site = "providers" // of identities: row social
	Mail          Site = "smtp"
	Traces        Site = "traces"
)

// sites says which site is on the other side of which rows.
var sites = []struct {
	site Site
	rows []netcontract.RowID
}{
	{Nodes, nil}, // the rows between nodes
	{LoadBalancers, []netcontract.RowID{netcontract.LB, netcontract.WebtaskCallback}},
	{Depot, []netcontract.RowID{netcontract.UpdatePackages, netcontract.UpdateImages, netcontract.CDN, netcontract.Examples, netcontract.Telemetry}},
	{CLI, []netcontract.RowID{netcontract.CLI}},
	{Monitoring, []netcontract.RowID{netcontract.Health}},
	{JumpHosts, []netcontract.RowID{netcontract.JumpHost}},
	{DNS, []netcontract.RowID{netcontract.DNS}},
	{Providers, []netcontract.RowID{netcontract.Social}},
	{Mail, []netcontract.RowID{netcontract.SMTP}},
	{Traces, []netcontract.RowID{netcontract.Traces}},
}

// AllSites lists the sites, in the order of the contract.
func AllSites() []Site {
	all := make([]Site, len(sites))
	for i, s := range sites {
		all[i] = s.site
	}
	return all
}

func siteOf(row netcontract.Row) Site {
	if row.Section == netcontract.BetweenNodes {
		return Nodes
	}
	for _, s := range sites {
		if slices.Contains(s.rows, row.ID) {
			return s.site
		}
	}
	return ""
}

// PeersOf are the peers of a row: those of its site, or the hosts of the profile
// where the site has none. Rules call the group of them by the name.
func PeersOf(row netcontract.Row, where Sites) (site Site, name string, peers []Peer) {
	site = siteOf(row)
	if peers = where[site]; len(peers) > 0 || len(row.Hosts) == 0 {
		return site, string(site), peers
	}
	for _, h := range row.Hosts {
		peer := Peer{Host: h.Name}
		for _, a := range h.Addresses {
			peer.Prefixes = append(peer.Prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
		peers = append(peers, peer)
	}
	return site, string(row.ID), peers
}

// Peer is an address, a network, or a host by its name with the addresses that are
// known of it.
type Peer struct {
	Host     string         `json:"host,omitempty"`
	Prefixes []netip.Prefix `json:"addresses,omitempty"`
}

// Sites says where the peers of each site are.
type Sites map[Site][]Peer

// Bounds of what is named.
const (
	maxPeers     = 256 // of a site
	maxAddresses = 64  // of a peer
)

// ParseSites reads peers in the forms ADDRESS, NETWORK/BITS, HOST,
// NAME=ADDRESS[+ADDRESS…] and ADDRESS[+ADDRESS…]. The name of a peer of the last
// but one form is a host's where the site has hosts with names, and a label for
// people otherwise. All faults are reported at once.
func ParseSites(named map[Site][]string) (Sites, error) {
	out := Sites{}
	var faults []string
	fault := func(site Site, format string, args ...any) {
		faults = append(faults, string(site)+": "+fmt.Sprintf(format, args...))
	}
	for site := range named {
		if !slices.Contains(AllSites(), site) {
			fault(site, "there is no such site; allowed are %s", siteNames())
		}
	}
	for _, site := range AllSites() {
		list := named[site]
		if len(list) > maxPeers {
			fault(site, "has %d peers; allowed are %d", len(list), maxPeers)
			continue
		}
		taken := map[netip.Prefix]bool{}
		for _, text := range list {
			p, err := parsePeer(text)
			if err != nil {
				fault(site, "%v", err)
				continue
			}
			if site == Nodes && len(p.Prefixes) == 0 {
				fault(site, "%q is a name; a node needs its addresses, such as %s=10.0.0.11", p.Host, p.Host)
			}
			for _, a := range p.Prefixes {
				if taken[a] {
					fault(site, "%s stands twice; allowed is once", text)
				}
				taken[a] = true
			}
			out[site] = append(out[site], p)
		}
	}
	if len(faults) > 0 {
		return nil, problem.New(problem.Invalid, "invalid_sites", "%s", strings.Join(faults, "; "))
	}
	return out, nil
}

func siteNames() string {
	var names []string
	for _, s := range AllSites() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

var hostForm = regexp.MustCompile(`^(?:[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.?$`)

func parsePeer(text string) (Peer, error) {
	var p Peer
	name, addresses, named := strings.Cut(text, "=")
	switch {
	case named:
		p.Host = name
	default:
		addresses = text
		if hostForm.MatchString(text) && !digits(text) {
			p.Host, addresses = text, ""
		}
	}
	if p.Host != "" || named {
		p.Host = strings.ToLower(strings.TrimSuffix(p.Host, "."))
		if len(p.Host) > 253 || !hostForm.MatchString(p.Host) || digits(p.Host) {
			return p, fmt.Errorf("%q is no name of a host; allowed are letters, digits, dashes and dots, at most 253", clip(name))
		}
	}
	if addresses == "" && !named && p.Host != "" {
		return p, nil
	}
	for part := range strings.SplitSeq(addresses, "+") {
		a, err := parsePrefix(part)
		if err != nil {
			return p, err
		}
		p.Prefixes = append(p.Prefixes, a)
	}
	if len(p.Prefixes) > maxAddresses {
		return p, fmt.Errorf("%s has %d addresses; allowed are %d", clip(text), len(p.Prefixes), maxAddresses)
	}
	return p, nil
}

// digits reports whether a text can only be meant as an address: its last label
// has no letter (RFC 3696 section 2).
func digits(text string) bool {
	label := text[strings.LastIndex(strings.TrimSuffix(text, "."), ".")+1:]
	return !strings.ContainsFunc(label, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' })
}

func parsePrefix(text string) (netip.Prefix, error) {
	wrong := fmt.Errorf("%q is no address; allowed are addresses such as 10.0.0.11 or fd00::11, and networks such as 10.0.0.0/24", clip(text))
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address that a peer can have; allowed are unicast addresses without a zone", text)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, wrong
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its mask; the network is %s", text, p.Masked())
	}
	if p.Addr().Is4In6() || p.Addr().IsMulticast() || p.Addr().IsLoopback() {
		return netip.Prefix{}, wrong
	}
	return p, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
