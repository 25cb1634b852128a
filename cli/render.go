package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/files"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/netcontract"
)

// sitesFlags say who is on the other side of rows.
type sitesFlags struct {
	Nodes      []string `sep:"," placeholder:"NODE" help:"The nodes: ADDRESS, or NAME=ADDRESS[+ADDRESS], with commas between."`
	LB         []string `name:"lb" sep:"," placeholder:"PEER" help:"Load balancers: addresses or networks."`
	Depot      []string `sep:"," placeholder:"PEER" help:"The depot of updates, assets and examples: a host name, HOST=ADDRESS, addresses or networks."`
	CLI        []string `name:"cli" sep:"," placeholder:"PEER" help:"Where the command line is used from."`
	Monitoring []string `sep:"," placeholder:"PEER" help:"Who reads the health endpoints."`
	JumpHost   []string `sep:"," placeholder:"PEER" help:"Jump hosts."`
	DNS        []string `name:"dns" sep:"," placeholder:"PEER" help:"Name servers."`
	Providers  []string `sep:"," placeholder:"PEER" help:"Identity providers that users log in through."`
	SMTP       []string `name:"smtp" sep:"," placeholder:"PEER" help:"Mail servers."`
	Traces     []string `sep:"," placeholder:"PEER" help:"Collectors of traces."`
	Address    []string `placeholder:"HOST=ADDRESS" help:"Where a host is that is named without addresses. May be repeated."`
	Resolve    bool     `help:"Ask the name servers where hosts are that are named without addresses."`
	Without    []string `sep:"," placeholder:"ROW" help:"Leave rows out."`
}

// policy compiles a contract with the peers of the flags, and of the configuration
// where flags say nothing.
func (f *sitesFlags) policy(ctx context.Context, table netcontract.Table, cfg *appliance.Config, byLabel bool) (firewall.Policy, error) {
	named := map[firewall.Site][]string{}
	if cfg != nil {
		named = cfg.Sites()
	}
	for site, list := range map[firewall.Site][]string{
		firewall.Nodes: f.Nodes, firewall.LoadBalancers: f.LB, firewall.Depot: f.Depot, firewall.CLI: f.CLI, firewall.Monitoring: f.Monitoring,
		firewall.JumpHosts: f.JumpHost, firewall.DNS: f.DNS, firewall.Providers: f.Providers, firewall.Mail: f.SMTP, firewall.Traces: f.Traces,
	} {
		if len(list) > 0 {
			named[site] = list
		}
	}
	sites, err := firewall.ParseSites(named)
	if err != nil {
		return firewall.Policy{}, err
	}
	o := firewall.Options{Addresses: map[string][]netip.Addr{}, NodesByLabel: byLabel}
	for _, id := range f.Without {
		o.Without = append(o.Without, netcontract.RowID(id))
	}
	if err := f.addresses(o.Addresses); err != nil {
		return firewall.Policy{}, err
	}
	p, err := firewall.Compile(table, sites, o)
	if err != nil || !f.Resolve {
		return p, err
	}
	if err := resolve(ctx, p, o.Addresses); err != nil {
		return p, err
	}
	return firewall.Compile(table, sites, o)
}

// maxNamed bounds the hosts that are resolved or named with --address.
const maxNamed = 256

func (f *sitesFlags) addresses(into map[string][]netip.Addr) error {
	if len(f.Address) > maxNamed {
		return usageError(fmt.Sprintf("--address stands %d times; allowed are %d", len(f.Address), maxNamed))
	}
	for _, text := range f.Address {
		host, addr, ok := strings.Cut(text, "=")
		a, err := netip.ParseAddr(addr)
		if !ok || err != nil || host == "" || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return usageError(fmt.Sprintf("--address %q: allowed is HOST=ADDRESS, such as depot.example.com=10.0.0.9", text))
		}
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		into[host] = append(into[host], a.Unmap())
	}
	return nil
}

// resolve fills in where the hosts are whose addresses nobody said.
func resolve(ctx context.Context, p firewall.Policy, into map[string][]netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var hosts []string
	for _, g := range p.Groups {
		for _, h := range g.Unknown {
			if !slices.Contains(hosts, h) {
				hosts = append(hosts, h)
			}
		}
	}
	errs := make([]error, len(hosts))
	found := make([][]netip.Addr, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() { found[i], errs[i] = net.DefaultResolver.LookupNetIP(ctx, "ip", h) })
	}
	wg.Wait()
	for i, h := range hosts {
		if errs[i] != nil {
			return fmt.Errorf("--resolve: %s: %s", h, lookupError(errs[i]))
		}
		into[h] = append(into[h], found[i]...)
	}
	return nil
}

type networkRenderCmd struct {
	sitesFlags
	Format  string `placeholder:"FORMAT" help:"markdown, html, csv, json, nftables, iptables, firewalld, ufw, terraform-aws, terraform-gcp, terraform-azure, networkpolicy or cilium."`
	Output  string `short:"o" enum:"text,json" default:"text" help:"json is the same as --format json."`
	Dir     string `type:"path" placeholder:"DIR" help:"Write the files there; without it they are printed."`
	Profile string `placeholder:"NAME" help:"Profile of the contract: portcullis or psaas. The configuration's own where one is given."`
	Config  string `type:"existingfile" placeholder:"FILE" help:"Configuration of a node: network.sites, the mail server and the collector of traces are peers. Flags win."`
}

func (networkRenderCmd) Help() string {
	return `The firewall of a node, from the contract and the addresses of who is on the other side: default-drop, both
families of addresses, both directions, nobody but the peers of a row, and the row's id at each rule. A row
whose peers nobody has named allows nothing, and is listed at the head of the file. The same input gives the
same text. docs/firewall.md says how each format is checked and loaded.

Examples:
  portcullis network render --format nftables --nodes 10.0.0.11,10.0.0.12,10.0.0.13 --lb 10.0.0.5 --dns 10.0.0.53 \
    --depot depot.example.com=10.0.0.9 --monitoring 10.0.9.2 > portcullis.nft
  portcullis network render --format ufw --config /etc/portcullis/portcullis.yaml --dir /etc/ufw
  portcullis network render --format markdown --nodes 10.0.0.11 --lb 10.0.0.0/28`
}

func (c *networkRenderCmd) Run(ctx context.Context, std IO) error {
	if c.Output == "json" && c.Format == "" {
		c.Format = string(firewall.JSON)
	}
	if c.Format == "" {
		return usageError("--format is missing: " + c.formats())
	}
	format, err := firewall.ParseFormat(c.Format)
	if err != nil {
		return usageError(err.Error())
	}
	var cfg *appliance.Config
	if c.Config != "" {
		loaded, err := (&source{Config: c.Config}).load(std.Env)
		if err != nil {
			return err
		}
		cfg = &loaded
		if c.Profile == "" {
			c.Profile = loaded.Network.Profile
		}
	}
	profile, err := netcontract.ParseProfile(c.Profile)
	if err != nil {
		return usageError(err.Error())
	}
	table, err := netcontract.Contract(profile)
	if err != nil {
		return err
	}
	p, err := c.policy(ctx, table, cfg, format.NodesByLabel())
	if err != nil {
		return err
	}
	if len(p.Flows) == 0 {
		return usageError("nobody is named: say who the peers are, such as --nodes 10.0.0.11,10.0.0.12 --lb 10.0.0.5, or --config FILE with network.sites")
	}
	files, err := firewall.Render(p, format)
	if err != nil {
		return err
	}
	return writeFiles(std.Out, c.Dir, files)
}

func (c *networkRenderCmd) formats() string {
	var names []string
	for _, f := range firewall.Formats() {
		names = append(names, string(f))
	}
	return "allowed are " + strings.Join(names, ", ")
}

// writeFiles writes files below a folder and says which, or prints them: several
// with a line above each that says which one it is.
func writeFiles(w io.Writer, dir string, rendered []files.File) error {
	for _, f := range rendered {
		if dir == "" {
			if len(rendered) > 1 {
				fmt.Fprintf(w, "# ==== %s\n", f.Name)
			}
			if _, err := io.WriteString(w, f.Content); err != nil {
				return fmt.Errorf("print what was rendered: %w", err)
			}
			continue
		}
		path, err := f.Write(dir, 0o640)
		if err != nil {
			return fmt.Errorf("write what was rendered: %w", err)
		}
		fmt.Fprintln(w, path)
	}
	return nil
}
