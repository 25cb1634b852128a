package cli

import (
	"fmt"
	"io"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/config"
)

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Check the configuration as start would, and name every fault."`
	Show  configShowCmd  `cmd:"" help:"Show the configuration."`
}

type configCheckCmd struct {
	source
	output
}

func (configCheckCmd) Help() string {
	return `Exit code 0: a node would start with it. 2: it has faults; each line names file, line, key and what is allowed.

Example:
  portcullis config check --config portcullis.yaml`
}

func (c *configCheckCmd) Run(std IO) error {
	if _, err := c.load(std.Env); err != nil {
		return err
	}
	return c.print(std.Out, map[string]bool{"ok": true}, func(w io.Writer) { fmt.Fprintln(w, "the configuration is good") })
}

type configShowCmd struct {
	source
	output
	Effective bool `help:"What a node would run with: file, environment and flags together, and not only the defaults."`
}

func (configShowCmd) Help() string {
	return `Without --effective the defaults, as a file to begin with. Secrets are redacted.

Examples:
  portcullis config show > portcullis.yaml
  portcullis config show --effective -o json`
}

func (c *configShowCmd) Run(std IO) error {
	cfg := appliance.Default()
	if c.Dev {
		cfg = appliance.DefaultDev()
	}
	if c.Effective {
		var err error
		if cfg, err = c.load(std.Env); err != nil {
			return err
		}
	}
	if c.Output == "json" {
		return c.print(std.Out, config.Show(&cfg), nil)
	}
	return config.YAML(std.Out, &cfg)
}
