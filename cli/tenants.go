package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/client"
)

type tenantsCmd struct {
	Create tenantsCreateCmd `cmd:"" help:"Make a tenant."`
	Ls     tenantsLsCmd     `cmd:"" help:"List the tenants."`
	Delete tenantsDeleteCmd `cmd:"" help:"Delete a tenant with everything in it."`
}

type tenantsCreateCmd struct {
	local
	output
	Name  string   `arg:"" help:"Name: 3 to 63 lower-case letters, digits and hyphens. It becomes the first label of the host and never changes."`
	Owner []string `placeholder:"MAIL" help:"Mail address of an owner. May be repeated."`
}

func (tenantsCreateCmd) Help() string {
	return `Prints the id and the secret of a client for the new tenant's Management API.

Example:
  portcullis tenants create acme --owner ann@acme.example`
}

func (c *tenantsCreateCmd) Run(ctx context.Context, std IO) error {
	t, err := client.NewLocal(c.Data).CreateTenant(ctx, c.Name, c.Owner)
	if err != nil {
		return err
	}
	return c.print(std.Out, t, func(w io.Writer) {
		fmt.Fprintf(w, "tenant\t%s\nurl\t%s\nclient_id\t%s\nclient_secret\t%s\n", t.Name, t.URL, t.ClientID, t.ClientSecret)
	})
}

type tenantsLsCmd struct {
	local
	output
}

func (tenantsLsCmd) Help() string { return "Example:\n  portcullis tenants ls -o json" }

func (c *tenantsLsCmd) Run(ctx context.Context, std IO) error {
	ts, err := client.NewLocal(c.Data).Tenants(ctx)
	if err != nil {
		return err
	}
	return c.print(std.Out, ts, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tURL\tOWNERS\tCREATED")
		for _, t := range ts {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Name, t.URL, strings.Join(t.Owners, ", "), t.CreatedAt.Format(time.RFC3339))
		}
	})
}

type tenantsDeleteCmd struct {
	local
	Name string `arg:"" help:"Name of the tenant."`
	Yes  bool   `help:"Do not ask."`
}

func (tenantsDeleteCmd) Help() string {
	return `Users, applications, keys and logs of the tenant are gone afterwards. Asks first.

Example:
  portcullis tenants delete acme --yes`
}

func (c *tenantsDeleteCmd) Run(ctx context.Context, std IO) error {
	if !c.Yes {
		question := fmt.Sprintf("Delete the tenant %s with all its users, applications, keys and logs? Type its name: ", c.Name)
		if err := confirm(std, question, c.Name); err != nil {
			return err
		}
	}
	if err := client.NewLocal(c.Data).DeleteTenant(ctx, c.Name); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "deleted %s\n", c.Name)
	return nil
}
