package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/portcullis-id/portcullis/addresses"
	"github.com/portcullis-id/portcullis/egress"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/web"
)

// addressesEvery is how often a node asks where the outside hosts are.
const addressesEvery = 15 * time.Minute

// depotListFile keeps the newest list that the depot has signed.
const depotListFile = "depot-addresses.jws"

func (n *NetworkConfig) validateDepotKey(report func(key, reason string)) {
	if n.DepotKey == "" {
		return
	}
	if _, err := addresses.ParseKey(n.DepotKey); err != nil {
		report("depot_key", err.Error())
	}
}

// depotHosts are the names of depots.
func (c *Config) depotHosts() []string {
	sites, err := firewall.ParseSites(map[firewall.Site][]string{firewall.Depot: c.Network.Sites.Depot})
	if err != nil {
		return nil // Validate refused what does not parse
	}
	var out []string
	for _, p := range sites[firewall.Depot] {
		if p.Host != "" {
			out = append(out, p.Host)
		}
	}
	return out
}

// targets are the outside hosts with names of the contract, the configuration and
// the connections. social are the hosts of connections.
func (c *Config) targets(table netcontract.Table, social []string) []addresses.Target {
	var out []addresses.Target
	at := map[string]int{}
	add := func(row netcontract.RowID, host string, published []netip.Addr, port int, depot bool) {
		i, ok := at[host]
		if !ok {
			i = len(out)
			at[host] = i
			out = append(out, addresses.Target{Host: host})
		}
		t := &out[i]
		t.Depot = t.Depot || depot
		if !slices.Contains(t.Rows, row) {
			t.Rows = append(t.Rows, row)
		}
		if port != 0 && !slices.Contains(t.Ports, port) {
			t.Ports = append(t.Ports, port)
		}
		for _, a := range published {
			if !slices.Contains(t.Published, a) {
				t.Published = append(t.Published, a)
			}
		}
	}
	// HTTP goes over the proxy, where there is one, and only that has to be let through.
	https := 443
	if c.Network.Proxy != "" {
		https = 0
		if u, err := url.Parse(c.Network.Proxy); err == nil {
			port, err := strconv.Atoi(u.Port())
			if err != nil {
				port = 80
			}
			add(netcontract.Social, u.Hostname(), nil, port, false)
		}
	}
	// The profile that is shown, with the hosts that it publishes.
	for _, row := range table.Rows() {
		for _, h := range row.Hosts {
			add(row.ID, h.Name, h.Addresses, 0, false) // no node of this program calls them
		}
	}
	if sites, err := firewall.ParseSites(c.Sites()); err == nil {
		for _, s := range []struct {
			site firewall.Site
			rows []netcontract.RowID
			port int
		}{
			{firewall.Depot, []netcontract.RowID{netcontract.UpdatePackages, netcontract.UpdateImages, netcontract.CDN, netcontract.Examples, netcontract.Telemetry}, https},
			{firewall.Providers, []netcontract.RowID{netcontract.Social}, https},
			{firewall.Mail, []netcontract.RowID{netcontract.SMTP}, c.SMTP.Port},
			{firewall.Traces, []netcontract.RowID{netcontract.Traces}, c.tracesPort()},
		} {
			for _, p := range sites[s.site] {
				if p.Host == "" {
					continue // addresses do not move
				}
				var published []netip.Addr
				for _, a := range p.Prefixes {
					if a.IsSingleIP() {
						published = append(published, a.Addr())
					}
				}
				for _, row := range s.rows {
					add(row, p.Host, published, s.port, s.site == firewall.Depot)
				}
			}
		}
	}
	for _, h := range social {
		add(netcontract.Social, h, nil, https, false)
	}
	return out
}

// tracesPort is where the collector of traces listens, 0 when a proxy calls it.
func (c *Config) tracesPort() int {
	if c.Network.Proxy != "" {
		return 0
	}
	for _, e := range c.declared(netcontract.Table{}).Dial {
		if e.Row == netcontract.Traces {
			return e.Port
		}
	}
	return 0
}

// hostFirewall answers from the rules of this host.
type hostFirewall struct{ set *hostfw.Ruleset }

func (f hostFirewall) Blocks(to netip.Addr, port int) string {
	r := f.set.Outbound(hostfw.Packet{Protocol: "tcp", From: f.set.Source(to), To: to, Port: uint16(port)}) // #nosec G115 -- a port of a row
	if r.Closed() {
		return r.By
	}
	return ""
}

func (f hostFirewall) Allow(to netip.Addr, port int, row netcontract.RowID) string {
	return f.set.Allow(f.Blocks(to, port), true, "tcp", netip.PrefixFrom(to, to.BitLen()), uint16(port), "row "+string(row)) // #nosec G115 -- as above
}

func readHostFirewall() (addresses.Firewall, string) {
	set, err := hostfw.Load()
	switch {
	case errors.Is(err, hostfw.ErrNotAllowed):
		return nil, "Addresses are not compared with the host's firewall: reading it wants CAP_NET_ADMIN."
	case err != nil:
		return nil, "Addresses are not compared with the host's firewall: " + err.Error() + "."
	}
	return hostFirewall{set}, set.Partial
}

func (n *Node) buildAddresses() error {
	shown, err := netcontract.Contract(netcontract.Profile(n.cfg.Network.Profile))
	if err != nil {
		return err
	}
	hosts := n.cfg.depotHosts()
	client := n.dialer.Client(netcontract.UpdatePackages, egress.Options{Trusted: hosts, MaxBody: addresses.MaxSize + 1, Redirects: -1})
	cfg := addresses.Config{
		Node: hostName(), Resolver: net.DefaultResolver, Firewall: readHostFirewall, Now: n.opts.Now, Every: addressesEvery,
		Targets: func(ctx context.Context) ([]addresses.Target, error) {
			tenants, err := n.mgmt.Tenants(ctx)
			if err != nil {
				return nil, err
			}
			social, err := n.upstream.Hosts(ctx, tenants)
			if err != nil {
				return nil, err
			}
			return n.cfg.targets(shown, social), nil
		},
		Fetch: func(ctx context.Context, host string) ([]byte, error) {
			return addresses.Get(ctx, client, "https://"+host)
		},
		Load: func() ([]byte, error) {
			raw, err := os.ReadFile(filepath.Join(n.cfg.Data, depotListFile))
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return raw, err
		},
		Save: func(raw []byte) error { return replaceFile(filepath.Join(n.cfg.Data, depotListFile), raw) },
		Told: func(ctx context.Context, f addresses.Finding) {
			n.logger.WarnContext(ctx, "an outside host of the network contract", "kind", f.Kind, "host", f.Host, "address", f.Address, "finding", f.Sentence, "rule", f.Rule)
		},
	}
	if n.cfg.Network.DepotKey != "" {
		if cfg.Key, err = addresses.ParseKey(n.cfg.Network.DepotKey); err != nil {
			return fmt.Errorf("network.depot_key: %w", err)
		}
	}
	n.addresses = addresses.NewWatch(cfg)
	for _, kind := range addresses.Kinds() {
		n.metrics.LabelledGauge("portcullis_network_address_findings", "Outside hosts of the network contract with addresses that are not as published or that the host's firewall blocks, by kind.",
			map[string]string{"kind": kind}, func() float64 { return float64(n.addresses.Count(kind)) })
	}
	return nil
}

// hostName is how this node is called in reports.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "this node"
	}
	return name
}

// replaceFile puts a file in the place of another at once: after a crash one of the
// two is there.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// localAddresses looks now, for `portcullis network addresses --live`.
func (n *Node) localAddresses(w http.ResponseWriter, r *http.Request) error {
	report, err := n.addresses.Look(r.Context())
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, report)
}
