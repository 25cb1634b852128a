package cli

import (
	"context"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/netcontract"
)

type networkCmd struct {
	Contract networkContractCmd `cmd:"" help:"Print every port, direction and host of the appliance."`
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
