package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/store"
)

type storeCopyCmd struct {
	source
	output
	From string `required:"" placeholder:"DSN" help:"Database to copy: sqlite:FILE or postgres://… ."`
	To   string `required:"" placeholder:"DSN" help:"Empty database to copy to, or one that an earlier run began to fill."`
}

func (storeCopyCmd) Help() string {
	return `Moves a node from SQLite to PostgreSQL, or back. The nodes of both databases have to be stopped. When
everything is there, the documents of each kind and tenant are compared by a checksum of what they mean. A
run that was broken off goes on where it stopped when it is begun again; until it has ended, no node starts
on the target.

Both databases are sealed with the same master key, which is read as by a node: from --data, --config or
PORTCULLIS_MASTER_KEY. A password need not stand in the command: PGPASSWORD and ~/.pgpass count too.

Examples:
  portcullis store copy --data data --from sqlite:data/portcullis.db --to postgres://portcullis@db1,db2/portcullis
  portcullis store copy --data data --from postgres://portcullis@db1/portcullis --to sqlite:copy.db -o json`
}

func (c *storeCopyCmd) Run(ctx context.Context, std IO) error {
	cfg := appliance.Default()
	if c.Data != "" && c.Config == "" {
		cfg.Data = c.Data // of a configuration the master key counts alone
	} else {
		var err error
		if cfg, err = c.load(std.Env); err != nil {
			return err
		}
	}
	phase := ""
	result, err := appliance.CopyStore(ctx, cfg, std.Env, c.From, c.To, func(p store.CopyProgress) {
		if p.Phase != phase && phase != "" {
			fmt.Fprintln(std.Err)
		}
		phase = p.Phase
		fmt.Fprintf(std.Err, "\r%-6s  %-20s  %d of %d documents", p.Phase, p.Kind, p.Done, p.Total)
	})
	if phase != "" {
		fmt.Fprintln(std.Err)
	}
	if err != nil {
		return err
	}
	return c.print(std.Out, result, func(w io.Writer) {
		fmt.Fprintf(w, "KIND\tTENANT\tDOCUMENTS\tCHECKSUM\n")
		for _, s := range result.Sets {
			fmt.Fprintf(w, "%s\t%s\t%d\t%.16s\n", s.Kind, s.Tenant, s.Documents, s.Checksum)
		}
		for _, l := range result.LeftOut {
			fmt.Fprintf(w, "%s\t\tleft out\t%s\n", l.Kind, l.Reason)
		}
		fmt.Fprintf(w, "\n%s, the same in %s and %s\n", count(result.Documents, "document"), result.From, result.To)
	})
}
