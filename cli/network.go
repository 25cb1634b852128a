package cli

import (
	"github.com/portcullis-id/portcullis/netcontract"
)

type networkCmd struct {
	Contract networkContractCmd `cmd:"" help:"Print every port, direction and host of the appliance."`
}

type networkContractCmd struct {
	Profile string `default:"portcullis" help:"portcullis, or psaas for the published list of the PSaaS Appliance."`
	Format  string `default:"table" help:"table, markdown or json."`
	JSON    string `name:"output" short:"o" enum:"text,json" default:"text" help:"json is the same as --format json."`
}

func (networkContractCmd) Help() string {
	return `Example:
  portcullis network contract --profile psaas --format markdown`
}

func (c *networkContractCmd) Run(std IO) error {
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
	return netcontract.Render(std.Out, table, format)
}
