package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/portcullis-id/portcullis/appliance"
)

type keysCmd struct {
	RotateMaster keysRotateMasterCmd `cmd:"" help:"Seal all secrets in the database with a new master key."`
}

type keysRotateMasterCmd struct {
	source
	output
	Yes bool `help:"Do not ask."`
}

func (keysRotateMasterCmd) Help() string {
	return `The node has to be stopped. The new key is made beside the old one (master.key.next) and takes its
place when all secrets are sealed with it; the old one stays as master.key.old, for older backups. A run
that was broken off goes on where it stopped when it is begun again.

Example:
  portcullis keys rotate-master --config /etc/portcullis/portcullis.yaml --yes`
}

func (c *keysRotateMasterCmd) Run(ctx context.Context, std IO) error {
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := confirm(std, "Seal all secrets with a new master key? Have a backup of the database and of the key. Type yes: ", "yes"); err != nil {
			return err
		}
	}
	result, err := appliance.RotateMaster(ctx, cfg, std.Env, func(done int) {
		fmt.Fprintf(std.Err, "\rsealed again: %d", done)
	})
	fmt.Fprintln(std.Err)
	if err != nil {
		return err
	}
	return c.print(std.Out, result, func(w io.Writer) {
		fmt.Fprintf(w, "secrets sealed again\t%d\nkey\t%s\nold key, for older backups\t%s\n", result.Sealed, result.KeyFile, result.OldKeyFile)
	})
}
