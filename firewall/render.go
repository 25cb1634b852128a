package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/files"
	"github.com/portcullis-id/portcullis/problem"
)

// Format is a language that rules are written in.
type Format string

// The formats.
const (
	Markdown       Format = "markdown"
	HTML           Format = "html"
	CSV            Format = "csv"
	JSON           Format = "json"
	NFTables       Format = "nftables"
	IPTables       Format = "iptables"
	Firewalld      Format = "firewalld"
	UFW            Format = "ufw"
	TerraformAWS   Format = "terraform-aws"
	TerraformGCP   Format = "terraform-gcp"
	TerraformAzure Format = "terraform-azure"
	NetworkPolicy  Format = "networkpolicy"
	Cilium         Format = "cilium"
)

// File is one file of a rendering. Its name is a path below the folder that
// somebody writes it to, with slashes.
type File = files.File

// formats are in the order in which help lists them.
var formats = []struct {
	format Format
	render func(Policy) ([]File, error)
}{
	{Markdown, renderMarkdown},
	{HTML, renderHTML},
	{CSV, renderCSV},
	{JSON, renderJSON},
	{NFTables, renderNFTables},
	{IPTables, renderIPTables},
	{Firewalld, renderFirewalld},
	{UFW, renderUFW},
	{TerraformAWS, renderAWS},
	{TerraformGCP, renderGCP},
	{TerraformAzure, renderAzure},
	{NetworkPolicy, renderNetworkPolicy},
	{Cilium, renderCilium},
}

// Formats lists the formats.
func Formats() []Format {
	all := make([]Format, len(formats))
	for i, f := range formats {
		all[i] = f.format
	}
	return all
}

// ParseFormat reads a format's name. The error names what is allowed.
func ParseFormat(s string) (Format, error) {
	if slices.Contains(Formats(), Format(s)) {
		return Format(s), nil
	}
	var names []string
	for _, f := range Formats() {
		names = append(names, string(f))
	}
	return "", problem.New(problem.Invalid, "invalid_format", "format %q is not known: allowed are %s", clip(s), strings.Join(names, ", "))
}

// NodesByLabel reports whether the format's rules find the nodes by a label, and
// not by their addresses.
func (f Format) NodesByLabel() bool { return f == NetworkPolicy || f == Cilium }

// Render writes a policy in a format: one file, or the several that a firewall
// reads.
func Render(p Policy, f Format) ([]File, error) {
	if _, err := ParseFormat(string(f)); err != nil {
		return nil, err
	}
	for _, known := range formats {
		if known.format == f {
			return known.render(p)
		}
	}
	return nil, fmt.Errorf("format %s has no renderer", f)
}

// page builds text line by line.
type page struct{ strings.Builder }

func (b *page) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

// header says in comments what a file is, and what it does not allow.
func (b *page) header(p Policy, mark string, lines ...string) {
	b.line("%s The firewall of a Portcullis node: network contract, profile %s.", mark, p.Profile)
	for _, l := range lines {
		b.line("%s %s", mark, l)
	}
	b.line("%s Everything that no row declares is dropped, in both directions: add rules of your own for what", mark)
	b.line("%s this host needs beside the appliance, such as time servers (NTP) and DHCP.", mark)
	b.omissions(p, mark)
}

func (b *page) omissions(p Policy, mark string) {
	if len(p.Omissions) == 0 {
		return
	}
	b.line("%s Not allowed here:", mark)
	for _, o := range p.Omissions {
		b.line("%s   row %s: %s", mark, o.Row, o.Reason)
	}
}

// icmpErrors are the ICMP messages that every firewall has to let in: without
// them a path with a smaller MTU swallows what is large (RFC 4890 section 4.4.1,
// RFC 1191).
type icmpType struct {
	number int
	name   string // as iptables, nftables and firewalld call it
}

var (
	icmpErrors   = []icmpType{{3, "destination-unreachable"}, {11, "time-exceeded"}, {12, "parameter-problem"}}
	icmpv6Errors = []icmpType{{1, "destination-unreachable"}, {2, "packet-too-big"}, {3, "time-exceeded"}, {4, "parameter-problem"}}
	// neighbours are what IPv6 has in place of ARP; the hop limit of 255 proves that
	// they come from the link itself (RFC 4861 section 11.2).
	neighboursIn  = []icmpType{{134, "router-advertisement"}, {135, "neighbour-solicitation"}, {136, "neighbour-advertisement"}}
	neighboursOut = []icmpType{{133, "router-solicitation"}, {135, "neighbour-solicitation"}, {136, "neighbour-advertisement"}}
)
