package cli

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

// outsideFlags name the hosts on the other side of rows that lead out, in the words
// of network render.
type outsideFlags struct {
	LB        []string `name:"lb" sep:"," placeholder:"PEER" help:"Load balancers that take no part in the run: addresses, for the callbacks of row webtask-callback."`
	Depot     []string `sep:"," placeholder:"PEER" help:"The depot of updates, assets and examples: a host name, HOST=ADDRESS or an address."`
	DNS       []string `name:"dns" sep:"," placeholder:"PEER" help:"Name servers: addresses. They are asked by UDP and TCP."`
	Providers []string `sep:"," placeholder:"PEER" help:"Identity providers that users log in through."`
	SMTP      []string `name:"smtp" sep:"," placeholder:"PEER" help:"Mail servers."`
	Traces    []string `sep:"," placeholder:"PEER" help:"Collectors of traces."`
	Config    string   `type:"existingfile" placeholder:"FILE" help:"Configuration of a node: network.sites, network.proxy, the mail server and the collector of traces. Flags win."`
	Proxy     string   `placeholder:"URL" help:"http://HOST:PORT: the proxy that the appliance will be configured with (network.proxy)."`
	CA        string   `name:"ca" type:"existingfile" placeholder:"FILE" help:"PEM file: roots that outside hosts' certificates may be of, beside the public ones."`
}

// outside is what the flags say, ready for a run.
type outside struct {
	hosts   []preflight.Outsider
	notes   []string
	ca      *x509.CertPool
	proxy   *url.URL
	env     func(*url.URL) (*url.URL, error)
	profile string // of the configuration
}

// load reads the configuration that is named, nil where none is.
func (f *outsideFlags) load(std IO) (*appliance.Config, error) {
	if f.Config == "" {
		return nil, nil
	}
	cfg, err := (&source{Config: f.Config}).load(std.Env)
	return &cfg, err
}

// outside lists the hosts of the rows that lead out, each name once with all of its
// rows.
func (f *outsideFlags) outside(std IO, cfg *appliance.Config, table netcontract.Table) (*outside, error) {
	named := map[firewall.Site][]string{}
	proxy := f.Proxy
	if cfg != nil {
		named = cfg.Sites()
		if proxy == "" {
			proxy = cfg.Network.Proxy
		}
	}
	for site, list := range map[firewall.Site][]string{firewall.LoadBalancers: f.LB, firewall.Depot: f.Depot, firewall.DNS: f.DNS,
		firewall.Providers: f.Providers, firewall.Mail: f.SMTP, firewall.Traces: f.Traces} {
		if len(list) > 0 {
			named[site] = list
		}
	}
	sites, err := firewall.ParseSites(named)
	if err != nil {
		return nil, err
	}
	out := &outside{}
	if out.proxy, err = parseProxy(proxy); err != nil {
		return nil, err
	}
	env := environment(std.Env)
	out.env = (&httpproxy.Config{HTTPProxy: env("HTTP_PROXY"), HTTPSProxy: env("HTTPS_PROXY"), NoProxy: env("NO_PROXY")}).ProxyFunc()
	if f.CA != "" {
		if out.ca, err = readRoots(f.CA); err != nil {
			return nil, err
		}
	}
	for _, row := range table.Rows() {
		if row.Section != netcontract.External || !row.Dials() || row.ID == netcontract.CLI {
			continue // answers to the command line leave on its own connections
		}
		_, _, peers := firewall.PeersOf(row, sites)
		for _, p := range peers {
			out.add(row.ID, p)
		}
	}
	return out, nil
}

// add puts a row to the host that is its peer.
func (o *outside) add(row netcontract.RowID, p firewall.Peer) {
	host := preflight.Outsider{Rows: []netcontract.RowID{row}, Name: p.Host}
	for _, prefix := range p.Prefixes {
		if !prefix.IsSingleIP() {
			o.notes = append(o.notes, fmt.Sprintf("row %s: %s is a network, and no host of it is named: it was not probed", row, prefix))
			continue
		}
		host.Addresses = append(host.Addresses, prefix.Addr())
	}
	if p.Host != "" && !strings.Contains(p.Host, ".") && len(host.Addresses) > 0 {
		host.Name = "" // a label for people
	}
	if host.Name == "" && len(host.Addresses) == 0 {
		return
	}
	for i := range o.hosts {
		if h := &o.hosts[i]; h.Name == host.Name && slices.Equal(h.Addresses, host.Addresses) {
			h.Rows = append(h.Rows, row)
			return
		}
	}
	o.hosts = append(o.hosts, host)
}

func parseProxy(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, usageError("--proxy: it is no proxy's URL; allowed is http://HOST:PORT or https://HOST:PORT")
	}
	return u, nil
}

// maxRoots bounds the file of --ca, in bytes.
const maxRoots = 4 << 20

func readRoots(file string) (*x509.CertPool, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, usageError(fmt.Sprintf("--ca: %v", err))
	}
	if info.Size() > maxRoots {
		return nil, usageError(fmt.Sprintf("--ca: %s has %d bytes; allowed are %d", file, info.Size(), maxRoots))
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError(fmt.Sprintf("--ca: %v", err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, usageError(fmt.Sprintf("--ca: %s has no certificate in PEM", file))
	}
	return pool, nil
}

// environment looks variables up, in capitals and in small letters, as others do
// for proxies.
func environment(all []string) func(name string) string {
	return func(name string) string {
		for _, n := range []string{name, strings.ToLower(name)} {
			for _, v := range all {
				if value, ok := strings.CutPrefix(v, n+"="); ok && value != "" {
					return value
				}
			}
		}
		return ""
	}
}

// own is this host where it is alone: its name and the addresses that others see.
func own() (preflight.Host, error) {
	name, err := os.Hostname()
	if err != nil {
		return preflight.Host{}, fmt.Errorf("find this host's name: %w", err)
	}
	h := preflight.Host{Name: name, Role: preflight.Node}
	all, err := ownAddresses()
	for _, a := range all {
		if a.IsGlobalUnicast() && !a.IsLoopback() {
			h.Addresses = append(h.Addresses, a)
		}
	}
	return h, err
}
