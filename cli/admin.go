package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/portcullis-id/portcullis/client"
)

// local is embedded in commands that speak to the node on this host.
type local struct {
	Data string `default:"data" env:"PORTCULLIS_DATA" placeholder:"DIR" help:"The node's data folder."`
}

type adminCmd struct {
	Token adminTokenCmd `cmd:"" help:"Print a short-lived token of a tenant's Management API."`
}

type adminTokenCmd struct {
	local
	output
	Tenant string        `required:"" placeholder:"NAME" help:"The tenant."`
	Scope  []string      `placeholder:"SCOPE" help:"Scopes of the token; all when none is named."`
	TTL    time.Duration `default:"1h" help:"How long the token works, 1m to 24h."`
}

func (adminTokenCmd) Help() string {
	return `The node has to run on this host, as the same user. The token goes to standard output, alone.

Example:
  portcullis admin token --tenant main --scope read:users --ttl 10m`
}

func (c *adminTokenCmd) Run(ctx context.Context, std IO) error {
	t, err := client.NewLocal(c.Data).Token(ctx, client.TokenRequest{Tenant: c.Tenant, Scopes: c.Scope, TTL: int(c.TTL / time.Second)})
	if err != nil {
		return err
	}
	return c.print(std.Out, t, func(w io.Writer) { fmt.Fprintln(w, t.AccessToken) })
}
