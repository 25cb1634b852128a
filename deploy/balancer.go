package deploy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Kind is a load balancer that a configuration is written for.
type Kind string

// The kinds.
const (
	HAProxy Kind = "haproxy"
	Nginx   Kind = "nginx"
	Envoy   Kind = "envoy"
	AWS     Kind = "aws" // Terraform: a network or an application load balancer
)

// Kinds lists the kinds.
func Kinds() []Kind { return []Kind{HAProxy, Nginx, Envoy, AWS} }

// ParseKind reads a kind. The error names what is allowed.
func ParseKind(s string) (Kind, error) {
	if slices.Contains(Kinds(), Kind(s)) {
		return Kind(s), nil
	}
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return "", problem.New(problem.Invalid, "invalid_lb", "lb: %q is not known: allowed are %s", clip(s), strings.Join(names, ", "))
}

// Mode is what the balancer does with TLS.
type Mode string

// The modes.
const (
	// PassThrough hands TCP on, with the PROXY protocol before it: TLS ends at the
	// nodes.
	PassThrough Mode = "passthrough"
	// Terminated ends TLS at the balancer, which speaks HTTP to the nodes' listener
	// for balancers, over TLS again unless Plain.
	Terminated Mode = "terminated"
)

// ParseMode reads a mode. The error names what is allowed.
func ParseMode(s string) (Mode, error) {
	if m := Mode(s); m == PassThrough || m == Terminated {
		return m, nil
	}
	return "", problem.New(problem.Invalid, "invalid_mode", "mode: %q is not known: allowed are %s, %s", clip(s), PassThrough, Terminated)
}

// Balancer is a load balancer in front of a cluster.
type Balancer struct {
	Cluster
	Kind Kind
	Mode Mode
	// Addresses are those that the balancer's connections come from, for the nodes'
	// trusted_proxies.networks, which a comment shows.
	Addresses []netip.Prefix

	Listen                  string // IP address that the balancer listens on; empty means all
	PublicHTTPS, PublicHTTP int    // its ports; 0 means 443 and 80

	HTTPS, HTTP, TerminatedPort int    // the nodes' ports; 0 means the contract's
	Plain                       bool   // Terminated: plain HTTP behind the balancer
	Certificate                 string // Terminated: PEM file with the certificate, its chain and its key
	CA                          string // Terminated: PEM file of who signed the nodes' certificates
	Drain                       int    // seconds that the nodes drain for; 0 means enough for this balancer
}

// The files of Debian.
const (
	systemCA           = "/etc/ssl/certs/ca-certificates.crt"
	defaultCertificate = "/etc/ssl/private/portcullis.pem"
)

// drains is how long each kind of balancer needs to notice, in seconds, with room:
// HAProxy and Envoy ask each second; nginx notices by the refused connection; the
// health checks of AWS ask each 5 seconds, and what they find travels.
var drains = map[Kind]int{HAProxy: 10, Nginx: 10, Envoy: 10, AWS: 60}

// withDefaults fills in what was left open.
func (b Balancer) withDefaults() Balancer {
	set := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	table := contract()
	set(&b.PublicHTTPS, 443)
	set(&b.PublicHTTP, 80)
	set(&b.HTTPS, table.Port(netcontract.LB, 443))
	set(&b.HTTP, table.Port(netcontract.LB, 80))
	set(&b.TerminatedPort, table.Port(netcontract.LB, 4443))
	set(&b.Drain, drains[b.Kind])
	if b.Certificate == "" {
		b.Certificate = defaultCertificate
	}
	if b.CA == "" {
		b.CA = systemCA
	}
	return b
}

// RenderBalancer writes the configuration of a load balancer. The error names
// every field that is wrong.
func RenderBalancer(b Balancer) ([]File, error) {
	b = b.withDefaults()
	var f faults
	f.cluster(b.Cluster, 1)
	if _, err := ParseKind(string(b.Kind)); err != nil {
		f.add("lb", "got %q", clip(string(b.Kind)))
	}
	if _, err := ParseMode(string(b.Mode)); err != nil {
		f.add("mode", "got %q; allowed are %s, %s", clip(string(b.Mode)), PassThrough, Terminated)
	}
	for field, n := range map[string]int{"public-https": b.PublicHTTPS, "public-http": b.PublicHTTP, "https": b.HTTPS, "http": b.HTTP, "terminated": b.TerminatedPort} {
		f.port(field, n)
	}
	f.path("certificate", b.Certificate)
	f.path("ca", b.CA)
	if b.Listen != "" {
		if _, err := netip.ParseAddr(b.Listen); err != nil {
			f.add("listen", "got %q; allowed is an IP address", clip(b.Listen))
		}
	}
	if b.Plain && b.Mode == PassThrough {
		f.add("plain", "is for --mode terminated: what passes through is TLS")
	}
	if b.Kind == AWS && slices.ContainsFunc(b.Nodes, func(n Node) bool { return !n.Address.Is4() }) {
		f.add("nodes", "allowed for aws are IPv4 addresses: its target groups have one family")
	}
	slices.Sort(f) // of a map
	if err := f.err(); err != nil {
		return nil, err
	}
	names := map[Kind]string{HAProxy: "haproxy.cfg", Nginx: "nginx.conf", Envoy: "envoy.yaml", AWS: "aws.tf"}
	text, err := render(names[b.Kind]+".tmpl", b)
	if err != nil {
		return nil, err
	}
	return []File{{Name: "lb/" + names[b.Kind], Content: text}}, nil
}

// The methods below are what templates ask.

// Passes reports whether TLS ends at the nodes.
func (b Balancer) Passes() bool { return b.Mode == PassThrough }

// IPv6 reports whether Listen is an IPv6 address.
func (b Balancer) IPv6() bool { return strings.Contains(b.Listen, ":") }

// Bind is the address to listen on, before a port; empty means all.
func (b Balancer) Bind() string {
	if b.IPv6() {
		return "[" + b.Listen + "]"
	}
	return b.Listen
}

// Path is where a file lives on the balancer.
func (b Balancer) Path(p string) string { return b.path("lb", p) }

// Linger is how long a connection to a node may be kept that nobody uses, in
// seconds: half of a drain, so that none is left when the node's listener closes.
func (b Balancer) Linger() int { return max(1, b.Drain/2) }

// Settings are the nodes' settings that go with the balancer, as YAML lines.
func (b Balancer) Settings() []string {
	networks := make([]string, len(b.Addresses))
	for i, p := range b.Addresses {
		networks[i] = p.String()
		if p.IsSingleIP() {
			networks[i] = p.Addr().String()
		}
	}
	if len(networks) == 0 {
		networks = []string{"THE BALANCER'S ADDRESSES"}
	}
	lines := []string{"listen:"}
	if b.Passes() {
		lines = append(lines, "  https: "+itoa(b.HTTPS), "  http: "+itoa(b.HTTP), "  proxy_protocol: require")
	} else {
		lines = append(lines, "  terminated: "+itoa(b.TerminatedPort), "  terminated_tls: "+map[bool]string{true: "false", false: "true"}[b.Plain])
	}
	lines = append(lines, "  drain: "+itoa(b.Drain), "trusted_proxies:", "  networks: ["+strings.Join(networks, ", ")+"]")
	if b.PublicHTTPS != b.HTTPS {
		lines = append([]string{"public_port: " + itoa(b.PublicHTTPS)}, lines...)
	}
	return lines
}

func itoa(n int) string { return strconv.Itoa(n) }

// parseNetworks reads addresses and networks.
func parseNetworks(field string, list []string) ([]netip.Prefix, error) {
	var f faults
	var out []netip.Prefix
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			f.add(field, "%q: allowed is an address or a network, such as 10.0.0.5 or 10.0.0.0/28", clip(s))
			continue
		}
		out = append(out, p)
	}
	return out, f.err()
}

// ParseAddresses reads the balancers' own addresses and networks. All faults are
// reported at once.
func ParseAddresses(list []string) ([]netip.Prefix, error) { return parseNetworks("balancers", list) }

// Fronts are the listeners of a balancer that ends TLS.
func (b Balancer) Fronts() []string { return []string{"https", "http"} }

// Group is a set of the nodes' ports that traffic goes to.
type Group struct {
	Name  string
	Port  int
	Check int // another port that is asked whether the node is ready; 0 means Port
}

// Groups are where traffic goes.
func (b Balancer) Groups() []Group {
	if b.Passes() {
		return []Group{{"nodes_https", b.HTTPS, b.HTTP}, {"nodes_http", b.HTTP, 0}}
	}
	return []Group{{"nodes", b.TerminatedPort, 0}}
}

// Label is the group's name where underscores are not allowed.
func (g Group) Label() string {
	return strings.ReplaceAll(strings.TrimPrefix(g.Name, "nodes_"), "_", "-")
}

// NameWidth is the length of the longest node's name, to align by.
func (b Balancer) NameWidth() int {
	n := 0
	for _, node := range b.Nodes {
		n = max(n, len(node.Name))
	}
	return n
}
