package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/store/postgres"
)

// siteCmd is for an appliance on two sites.
type siteCmd struct {
	Status  siteStatusCmd  `cmd:"" help:"Show which site is active, and how far the other one's database is behind."`
	Promote sitePromoteCmd `cmd:"" help:"Make this site the active one."`
	Demote  siteDemoteCmd  `cmd:"" help:"Hand over to the other site, with nothing lost."`
}

type siteStatusCmd struct {
	source
	output
}

func (siteStatusCmd) Help() string {
	return `Asks the database of this site, on which the command runs with the node's own configuration.

Example:
  portcullis site status --config /etc/portcullis/portcullis.yaml -o json`
}

// siteReport is what status prints.
type siteReport struct {
	Site     string `json:"site"`
	Database string `json:"database"`
	postgres.SiteStatus
}

func (c *siteStatusCmd) Run(ctx context.Context, std IO) error {
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	site, err := appliance.OpenSite(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = site.Close() }() // it only read
	st, err := site.Status(ctx)
	if err != nil {
		return err
	}
	return c.print(std.Out, siteReport{cfg.Site.Name, cfg.DatabaseName(), st}, func(w io.Writer) {
		fmt.Fprintf(w, "this site\t%s\ndatabase\t%s\n", cfg.Site.Name, cfg.DatabaseName())
		role := "primary"
		if st.Standby {
			role = fmt.Sprintf("standby, received up to %s, applied up to %s ago", st.Received, st.Behind.Round(time.Millisecond))
		}
		fmt.Fprintf(w, "role\t%s\n", role)
		switch {
		case st.State == nil:
			fmt.Fprintf(w, "active site\tnone yet: the first node that starts takes it\n")
		case st.State.Active == "":
			fmt.Fprintf(w, "active site\tnone: handed over in epoch %d, %s\n", st.State.Epoch, st.State.Since.Format(time.RFC3339))
		default:
			fmt.Fprintf(w, "active site\t%s, in epoch %d since %s\n", st.State.Active, st.State.Epoch, st.State.Since.Format(time.RFC3339))
			lease := "none: a promotion of the other site needs the operator's word"
			if st.State.Lease > 0 {
				lease = st.State.Lease.String()
			}
			fmt.Fprintf(w, "lease\t%s\n", lease)
		}
		for _, f := range st.Followers {
			fmt.Fprintf(w, "standby %s\t%s, %s, %d bytes behind\n", f.Name, f.State, f.Sync, f.Behind)
		}
	})
}

type sitePromoteCmd struct {
	source
	output
	Down bool `name:"yes-the-other-site-is-down" help:"The other site's nodes or its database are off, and stay off until its database was made a standby of this one."`
}

func (sitePromoteCmd) Help() string {
	return `Runs at the site that is to become active, with its nodes' configuration. The other site must not write
any more. It does not when it has handed over (portcullis site demote), and when its lease has ended
(site.lease), which this command waits for. Otherwise the operator has to know, and to say so: two active
sites tear the data apart.

The database's user needs pg_promote, ALTER SYSTEM on primary_conninfo and pg_reload_conf: see
docs/two-sites.md. A database that something else has promoted, such as Patroni, is taken as it is.

Examples:
  portcullis site promote --config /etc/portcullis/portcullis.yaml
  portcullis site promote --config /etc/portcullis/portcullis.yaml --yes-the-other-site-is-down -o json`
}

func (c *sitePromoteCmd) Run(ctx context.Context, std IO) error {
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	site, err := appliance.OpenSite(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = site.Close() }() // what it did was acknowledged
	p, err := site.Promote(ctx, cfg.Site.Name, c.Down, func(what string) { fmt.Fprintln(std.Err, what) })
	if err != nil {
		return err
	}
	return c.print(std.Out, p, func(w io.Writer) {
		if p.Outcome == "was_active" {
			fmt.Fprintf(w, "nothing to do: by this database site %s is the active one, since epoch %d\n", p.Site, p.Epoch)
			fmt.Fprintln(w, "If its nodes do not answer, their log says why: when the other site was promoted later, this database has to become a standby of that one's.")
			return
		}
		fmt.Fprintf(w, "site %s is active, in epoch %d; its nodes begin to answer by themselves\n", p.Site, p.Epoch)
		fmt.Fprintln(w, "Make the other site's database a standby of this one before its nodes start again.")
	})
}

type siteDemoteCmd struct {
	source
	output
	Yes bool `help:"Do not ask."`
}

func (siteDemoteCmd) Help() string {
	return `Runs at the active site. Its nodes stop to answer; when the standbys of the other site (site.standbys) have
everything, the command ends, and the other site can be promoted with nothing lost. Until then no site
answers.

Example:
  portcullis site demote --config /etc/portcullis/portcullis.yaml --yes`
}

func (c *siteDemoteCmd) Run(ctx context.Context, std IO) error {
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	if len(cfg.Site.Standbys) == 0 {
		return usageError("site.standbys is empty: name the other site's standbys, which have to have everything first")
	}
	if !c.Yes {
		if err := confirm(std, "Stop this site's nodes from answering, and hand over to the other site? Type yes: ", "yes"); err != nil {
			return err
		}
	}
	site, err := appliance.OpenSite(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = site.Close() }() // what it did was acknowledged
	state, err := site.Demote(ctx, cfg.Site.Name, cfg.Site.Standbys, func(what string) { fmt.Fprintln(std.Err, what) })
	if err != nil {
		return err
	}
	return c.print(std.Out, state, func(w io.Writer) {
		fmt.Fprintf(w, "site %s has handed over in epoch %d; now run `portcullis site promote` at the other site\n", cfg.Site.Name, state.Epoch)
	})
}
