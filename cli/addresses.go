package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/netcontract"
)

type networkAddressesCmd struct {
	local
	output
	Live    bool   `help:"Ask the node on this host: its depot, mail server, collector and identity providers too, the depot's signed list, and the host's firewall."`
	Profile string `default:"portcullis" help:"portcullis, or psaas for the published list of the PSaaS Appliance."`
	DNS     string `placeholder:"ADDRESS" help:"Name server to ask, with a port if it is not 53; the host's own when it is left out."`
}

func (networkAddressesCmd) Help() string {
	return `Asks what the outside hosts of the contract lead to now, and compares it with the addresses that they are
published with: a firewall that allows addresses breaks an update when a host has moved. Exit code 1 means
that a host has, or that a name does not resolve.

With --live the node on this host answers, as it sees the network: also for the hosts of its configuration and
of the connections that exist; with the depot's signed list (network.depot_key), which tells of addresses ahead of
a change; and with what the host's firewall blocks, each with the rule to add. A node looks by itself every 15
minutes: what is new is a warning in its log, counts in portcullis_network_address_findings, and stands in the
detail of the health check network. docs/enforcement.md says more.

Examples:
  portcullis network addresses --live --data /var/lib/portcullis
  portcullis network addresses --profile psaas
  portcullis network addresses --profile psaas --dns 10.0.0.53`
}

// hostAddresses is what one host of the contract leads to.
type hostAddresses struct {
	Host      string              `json:"host"`
	Rows      []netcontract.RowID `json:"rows"`
	Published []netip.Addr        `json:"published"`
	Now       []netip.Addr        `json:"now"`
	Gained    []netip.Addr        `json:"gained"`
	Gone      []netip.Addr        `json:"gone"`
	Error     string              `json:"error,omitempty"`
}

// lookupTime bounds one question to a name server.
const lookupTime = 5 * time.Second

func (c *networkAddressesCmd) Run(ctx context.Context, std IO) error {
	if c.Live {
		return c.live(ctx, std)
	}
	profile, err := netcontract.ParseProfile(c.Profile)
	if err != nil {
		return usageError(err.Error())
	}
	table, err := netcontract.Contract(profile)
	if err != nil {
		return err
	}
	resolver, err := c.resolver()
	if err != nil {
		return err
	}
	hosts := outsideHosts(table)
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			now, err := resolver.LookupNetIP(ctx, "ip", h.Host)
			if err != nil {
				h.Error = lookupError(err)
				return
			}
			for _, a := range now {
				h.Now = append(h.Now, a.Unmap())
			}
			h.Gained, h.Gone = netcontract.Host{Name: h.Host, Addresses: h.Published}.Moved(now)
		})
	}
	wg.Wait()
	bad := false
	err = c.print(std.Out, hosts, func(w io.Writer) {
		if len(hosts) == 0 {
			fmt.Fprintf(w, "the profile %s names no outside host: its depot is the operator's own\n", c.Profile)
		}
		for _, h := range hosts {
			fmt.Fprintln(w, h.text())
		}
	})
	for _, h := range hosts {
		bad = bad || h.Error != "" || len(h.Gained)+len(h.Gone) > 0
	}
	if err == nil && bad {
		err = silentExit(ExitFailed)
	}
	return err
}

// live asks the node.
func (c *networkAddressesCmd) live(ctx context.Context, std IO) error {
	if c.DNS != "" {
		return usageError("--dns is for a look without the node; leave --live or --dns out")
	}
	a, err := client.NewLocal(c.Data).Addresses(ctx)
	if err != nil {
		return err
	}
	found := 0
	for _, h := range a.Hosts {
		found += len(h.Findings)
	}
	err = c.print(std.Out, a, func(w io.Writer) {
		if len(a.Hosts) == 0 {
			fmt.Fprintln(w, "nobody outside is named: no depot, no mail server, no collector of traces, no identity provider")
		}
		for _, h := range a.Hosts {
			who := fmt.Sprintf("%s (row %s)", h.Host, strings.Join(h.Rows, ", "))
			if len(h.Findings) == 0 {
				fmt.Fprintf(w, "ok\t%s\t%s\n", who, list(h.Now))
			}
			for _, f := range h.Findings {
				fmt.Fprintf(w, "%s\t%s\t%s\n", strings.ToUpper(f.Kind), who, f.Sentence)
				if f.Rule != "" {
					fmt.Fprintf(w, "\t\t  rule: %s\n", f.Rule)
				}
			}
		}
		if a.List > 0 {
			fmt.Fprintf(w, "the depot's signed list has version %d\n", a.List)
		}
		if a.Note != "" {
			fmt.Fprintln(w, a.Note)
		}
	})
	if err == nil && found > 0 {
		err = silentExit(ExitFailed)
	}
	return err
}

func (h *hostAddresses) text() string {
	rows := make([]string, len(h.Rows))
	for i, r := range h.Rows {
		rows[i] = string(r)
	}
	who := fmt.Sprintf("%s (row %s)", h.Host, strings.Join(rows, ", "))
	switch {
	case h.Error != "":
		return fmt.Sprintf("FAIL\t%s\t%s", who, h.Error)
	case len(h.Gained) > 0:
		return fmt.Sprintf("MOVED\t%s\tallow %s too; published are %s", who, list(h.Gained), list(h.Published))
	case len(h.Gone) > 0:
		return fmt.Sprintf("MOVED\t%s\tleads to %s now; %s is published and gone", who, list(h.Now), list(h.Gone))
	}
	return fmt.Sprintf("ok\t%s\t%s", who, list(h.Now))
}

func list(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}

// outsideHosts are the hosts of a table, each once.
func outsideHosts(table netcontract.Table) []*hostAddresses {
	hosts := []*hostAddresses{}
	known := map[string]*hostAddresses{}
	for _, row := range table.Rows() {
		for _, h := range row.Hosts {
			if known[h.Name] == nil {
				known[h.Name] = &hostAddresses{Host: h.Name, Published: h.Addresses, Now: []netip.Addr{}, Gained: []netip.Addr{}, Gone: []netip.Addr{}}
				hosts = append(hosts, known[h.Name])
			}
			known[h.Name].Rows = append(known[h.Name].Rows, row.ID)
		}
	}
	return hosts
}

func (c *networkAddressesCmd) resolver() (*net.Resolver, error) {
	if c.DNS == "" {
		return &net.Resolver{}, nil
	}
	server := c.DNS
	if _, err := netip.ParseAddr(server); err == nil {
		server = net.JoinHostPort(server, "53")
	}
	if _, err := netip.ParseAddrPort(server); err != nil {
		return nil, usageError(fmt.Sprintf("--dns %q is no address of a name server; allowed are 10.0.0.53, fd00::53, 10.0.0.53:5353 and [fd00::53]:5353", c.DNS))
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server)
	}}, nil
}

func lookupError(err error) string {
	var e *net.DNSError
	switch {
	case errors.As(err, &e) && e.IsNotFound:
		return "the name does not resolve"
	case errors.As(err, &e) && e.IsTimeout:
		return "the name server does not answer"
	}
	return err.Error()
}
