package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/problem"
)

type storeCmd struct {
	Verify storeVerifyCmd `cmd:"" help:"Look for damage in a database file."`
	Copy   storeCopyCmd   `cmd:"" help:"Copy everything from one database to another, of either engine."`
}

type storeVerifyCmd struct {
	source
	output
	File string `arg:"" optional:"" type:"path" help:"Database file; the configured one when it is left out."`
}

func (storeVerifyCmd) Help() string {
	return `Looks at every page of the database and only reads, whether a node runs on it or not. A node does this by
itself after each start, in the background. Exit code 3 means that damage was found.

Examples:
  portcullis store verify --data /var/lib/portcullis
  portcullis store verify backup/portcullis.db`
}

// verified is the result of a search that found nothing.
type verified struct {
	Database string `json:"database"`
	OK       bool   `json:"ok"`
}

func (c *storeVerifyCmd) Run(ctx context.Context, std IO) error {
	cfg := appliance.Default()
	var err error
	switch {
	case c.File != "":
		cfg.Database.DSN = config.Secret("sqlite:" + c.File)
	case c.Data != "" && c.Config == "":
		cfg.Data = c.Data // nothing else of a configuration counts here
	default:
		if cfg, err = c.load(std.Env); err != nil {
			return err
		}
	}
	err = appliance.Verify(ctx, cfg)
	if problem.From(err).Code == "database_corrupt" {
		return exitError{err, appliance.ExitDamaged}
	}
	if err != nil {
		return err
	}
	return c.print(std.Out, verified{cfg.DatabaseName(), true}, func(w io.Writer) { fmt.Fprintf(w, "%s\tno damage\n", cfg.DatabaseName()) })
}
