package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/netcontract"
)

type networkCmd struct {
	Contract  networkContractCmd  `cmd:"" help:"Print every port, direction and host of the appliance."`
	Audit     networkAuditCmd     `cmd:"" help:"Compare the sockets of the node on this host with the contract."`
	Addresses networkAddressesCmd `cmd:"" help:"Compare what the contract's outside hosts lead to now with what is published."`
	Diff      networkDiffCmd      `cmd:"" help:"Compare two profiles of the contract, or a contract that was saved as JSON."`
}

type networkContractCmd struct {
	local
	Live    bool   `help:"Ask the node on this host for the hosts of the connections that exist, for row social."`
	Profile string `default:"portcullis" help:"portcullis, or psaas for the published list of the PSaaS Appliance."`
	Format  string `default:"table" help:"table, markdown or json."`
	JSON    string `name:"output" short:"o" enum:"text,json" default:"text" help:"json is the same as --format json."`
}

func (networkContractCmd) Help() string {
	return `Examples:
  portcullis network contract --profile psaas --format markdown
  portcullis network contract --live`
}

func (c *networkContractCmd) Run(ctx context.Context, std IO) error {
	if c.JSON == "json" {
		c.Format = "json"
	}
	profile, err := netcontract.ParseProfile(c.Profile)
	if err != nil {
		return usageError(err.Error())
	}
	format, err := netcontract.ParseFormat(c.Format)
	if err != nil {
		return usageError(err.Error())
	}
	table, err := netcontract.Contract(profile)
	if err != nil {
		return err
	}
	if c.Live {
		names, err := client.NewLocal(c.Data).SocialHosts(ctx)
		if err != nil {
			return err
		}
		hosts := make([]netcontract.Host, len(names))
		for i, name := range names {
			hosts[i] = netcontract.Host{Name: name}
		}
		table = table.WithHosts(netcontract.Social, hosts...)
	}
	return netcontract.Render(std.Out, table, format)
}

type networkAuditCmd struct {
	local
	output
}

func (networkAuditCmd) Help() string {
	return `A node does this by itself every minute: a socket of no row is an error in its log, the metric
portcullis_network_undeclared_sockets and the answer of the health check network. Exit code 1 means that
there is one.

Example:
  portcullis network audit --data /var/lib/portcullis`
}

func (c *networkAuditCmd) Run(ctx context.Context, std IO) error {
	a, err := client.NewLocal(c.Data).Audit(ctx)
	if err != nil {
		return err
	}
	err = c.print(std.Out, a, func(w io.Writer) {
		fmt.Fprintf(w, "%d listeners and %d outgoing connections, %d of no row\n", a.Listeners, a.Outgoing, len(a.Findings))
		for _, f := range a.Findings {
			fmt.Fprintln(w, f.Sentence)
		}
	})
	if err == nil && len(a.Findings) > 0 {
		err = silentExit(ExitFailed)
	}
	return err
}

type networkDiffCmd struct {
	output
	Old string `arg:"" help:"Profile, or a file of network contract --format json."`
	New string `arg:"" help:"Profile, or a file of network contract --format json."`
}

func (networkDiffCmd) Help() string {
	return `Shows the rows that were added, removed and changed, so that a firewall is ready before a version or a
profile is. Exit code 1 means that they differ.

Examples:
  portcullis network diff psaas portcullis
  portcullis network contract -o json > before.json
  portcullis network diff before.json portcullis`
}

func (c *networkDiffCmd) Run(std IO) error {
	before, err := contractOf(c.Old)
	if err != nil {
		return err
	}
	after, err := contractOf(c.New)
	if err != nil {
		return err
	}
	changes := netcontract.Diff(before, after)
	err = c.print(std.Out, changes, func(w io.Writer) {
		for _, ch := range changes {
			fmt.Fprintln(w, ch)
		}
		if len(changes) == 0 {
			fmt.Fprintln(w, "no row differs")
		}
	})
	if err == nil && len(changes) > 0 {
		err = silentExit(ExitFailed)
	}
	return err
}

// contractOf reads a profile's contract, or one that was saved.
func contractOf(name string) ([]netcontract.Line, error) {
	if profile, err := netcontract.ParseProfile(name); err == nil {
		table, err := netcontract.Contract(profile)
		return table.Lines(), err
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError(fmt.Sprintf("%s is neither a profile (portcullis, psaas) nor a file that can be read: %v", name, err))
	}
	lines, err := netcontract.ParseLines(raw)
	if err != nil {
		return nil, usageError(fmt.Sprintf("%s is no contract as `network contract --format json` writes it: %v", name, err))
	}
	return lines, nil
}
