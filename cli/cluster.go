package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/client"
)

type clusterCmd struct {
	Init     clusterInitCmd     `cmd:"" help:"Make a cluster, and this host its first node."`
	Token    clusterTokenCmd    `cmd:"" help:"Make a token with which one node can join."`
	Ls       clusterLsCmd       `cmd:"" help:"List the nodes, as the node on this host sees them."`
	Drain    clusterDrainCmd    `cmd:"" help:"Let a node finish what it has and take no new work."`
	Activate clusterActivateCmd `cmd:"" help:"Let a drained node take work again."`
	Reboot   clusterRebootCmd   `cmd:"" help:"Let a node's program start again."`
	Revoke   clusterRevokeCmd   `cmd:"" help:"Make a node's certificates unbelieved; it gets a new one."`
	Remove   clusterRemoveCmd   `cmd:"" help:"Take a node out of the cluster for good."`
	Render   clusterRenderCmd   `cmd:"" help:"Write what stands around the nodes: load balancers, database, systemd."`
	Settings clusterSettingsCmd `cmd:"" help:"Show and change what all nodes work with."`
}

// newNode is embedded in commands that make this host a node.
type newNode struct {
	Name    string `placeholder:"NAME" help:"Name of this node; the host's name when it is left out."`
	Address string `required:"" placeholder:"HOST[:PORT]" help:"Where the other nodes reach this one (row control, 7777 unless listen.control says otherwise)."`
	Start   bool   `help:"Start the node afterwards."`
}

func (n *newNode) name() (string, error) {
	if n.Name != "" {
		return n.Name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find this host's name: %w", err)
	}
	name, _, _ = strings.Cut(name, ".")
	return name, nil
}

// run starts the node with the configuration that was left in its data folder.
func (n *newNode) run(ctx context.Context, std IO, f *appliance.Founding) error {
	if !n.Start {
		return nil
	}
	start := startCmd{source: source{Config: f.Config}, again: []string{"start", "--config", f.Config}}
	return start.Run(ctx, std)
}

type clusterInitCmd struct {
	source
	output
	newNode
	Database string        `placeholder:"DSN" help:"The cluster's PostgreSQL, the same as --set database.dsn=DSN."`
	Domain   string        `placeholder:"DOMAIN" help:"Parent of all tenants' host names, the same as --set domain=DOMAIN."`
	Tokens   int           `default:"2" help:"Make so many tokens for further nodes."`
	TTL      time.Duration `default:"24h" help:"How long the tokens work: 1m to 168h."`
}

func (clusterInitCmd) Help() string {
	return `The database is PostgreSQL. What all nodes have in common — settings, the master key, the certificate of the
listeners — is handed to those that join; this host's configuration is left in DATA/portcullis.yaml. Each
token is for one node and a secret: who has it gets the cluster's secrets.

Examples:
  portcullis cluster init --address 10.0.0.11 --domain id.example.com --database postgres://portcullis:…@10.0.0.21,10.0.0.22/portcullis --config portcullis.yaml
  portcullis cluster init --start --address 10.0.0.11 --domain id.example.com --database postgres://… --set tls.local=true --data /var/lib/portcullis`
}

func (c *clusterInitCmd) Run(ctx context.Context, std IO) error {
	if c.Set == nil {
		c.Set = map[string]string{}
	}
	for key, value := range map[string]string{"database.dsn": c.Database, "domain": c.Domain} {
		if value != "" {
			c.Set[key] = value
		}
	}
	if c.Tokens < 0 || c.Tokens > 100 {
		return usageError(fmt.Sprintf("--tokens is %d; allowed are 0 to 100", c.Tokens))
	}
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	name, err := c.name()
	if err != nil {
		return err
	}
	f, err := appliance.InitCluster(ctx, cfg, std.Env, name, c.Address, c.Tokens, c.TTL)
	if err != nil {
		return err
	}
	err = c.print(std.Out, f, func(w io.Writer) {
		fmt.Fprintf(w, "node\t%s (%s) at %s\nconfiguration\t%s\n", f.Name, f.ID, f.Address, f.Config)
		if !c.Start {
			fmt.Fprintf(w, "start it with\tportcullis start --config %s\n", f.Config)
		}
		for i, t := range f.Tokens {
			if i == 0 {
				fmt.Fprintf(w, "\nOn each further host, once this node runs, one of these lines; each works once, within %v:\n\n", c.TTL)
			}
			fmt.Fprintf(w, "  portcullis join --start --address THIS-HOSTS-ADDRESS %s\n", t)
		}
		if len(f.Tokens) > 0 {
			fmt.Fprintln(w)
		}
	})
	if err != nil {
		return err
	}
	return c.run(ctx, std, f)
}

type joinCmd struct {
	source
	output
	newNode
	Token string `arg:"" help:"Token of portcullis cluster token. - reads it from standard input."`
}

func (joinCmd) Help() string {
	return `Everything that the nodes have in common comes from the cluster. --set gives what is this host's own, such as
listen.address. The configuration is left in DATA/portcullis.yaml. A host of another site than that of the node
which made the token names its site (site.name and what belongs to it) and its site's database (database.dsn).

Examples:
  portcullis join --start --address 10.0.0.12 --data /var/lib/portcullis pcj1-…
  portcullis join --address node2.internal:7777 --name node2 - < token`
}

func (c *joinCmd) Run(ctx context.Context, std IO) error {
	token := c.Token
	if token == "-" {
		raw, err := io.ReadAll(io.LimitReader(std.In, 64<<10))
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		token = string(raw)
	}
	c.joining = true
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	name, err := c.name()
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		var d net.Dialer
		d.SetMultipathTCP(false)
		return d.DialContext(ctx, "tcp", address)
	}
	f, err := appliance.JoinCluster(ctx, cfg, dial, token, name, c.Address)
	if err != nil {
		return err
	}
	err = c.print(std.Out, f, func(w io.Writer) {
		fmt.Fprintf(w, "node\t%s (%s) at %s\nconfiguration\t%s\n", f.Name, f.ID, f.Address, f.Config)
		if !c.Start {
			fmt.Fprintf(w, "start it with\tportcullis start --config %s\n", f.Config)
		}
	})
	if err != nil {
		return err
	}
	return c.run(ctx, std, f)
}

type clusterTokenCmd struct {
	local
	output
	TTL time.Duration `default:"24h" help:"How long it works: 1m to 168h."`
}

func (clusterTokenCmd) Help() string {
	return `The token is for one node and a secret: who has it gets the cluster's secrets.

Example:
  portcullis cluster token --ttl 1h`
}

func (c *clusterTokenCmd) Run(ctx context.Context, std IO) error {
	t, err := client.NewLocal(c.Data).JoinToken(ctx, c.TTL)
	if err != nil {
		return err
	}
	return c.print(std.Out, t, func(w io.Writer) { fmt.Fprintln(w, t.Token) })
}

type clusterLsCmd struct {
	local
	output
}

func (clusterLsCmd) Help() string {
	return `DATABASE is whether a node's heartbeats arrive in the database, NETWORK whether it answers on row control:
suspect after three seconds of silence, down after ten, unknown where the answering node has just started, or it has
just joined, and it was not heard of yet. CLOCK is how far its clock is ahead of the answering
node's. Exit code 1 means that a node is down, or that the nodes work with different settings.

Example:
  portcullis cluster ls -o json`
}

func (c *clusterLsCmd) Run(ctx context.Context, std IO) error {
	cl, err := client.NewLocal(c.Data).Cluster(ctx)
	if err != nil {
		return err
	}
	well := !slices.ContainsFunc(cl.Nodes, func(n client.ClusterNode) bool {
		return n.Database == "down" || n.Network == "down" || n.Settings != cl.Settings
	})
	err = c.print(std.Out, cl, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tADDRESS\tSTATE\tDATABASE\tNETWORK\tCLOCK\tSETTINGS\tVERSION\t")
		for _, n := range cl.Nodes {
			var marks []string
			if n.Leader {
				marks = append(marks, "leads")
			}
			if n.Self {
				marks = append(marks, "answers")
			}
			clock := "-"
			if n.SkewMS != nil {
				clock = fmt.Sprintf("%+.1f ms ±%.1f", *n.SkewMS, *n.SkewBoundMS)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", n.Name, n.Address, n.State, n.Database, n.Network, clock, n.Settings, n.Version, strings.Join(marks, ", "))
		}
		if tw, ok := w.(*tabwriter.Writer); ok {
			_ = tw.Flush()
		}
		same := 0
		for _, n := range cl.Nodes {
			if n.Settings == cl.Settings {
				same++
			}
		}
		fmt.Fprintf(w, "\n%d of %d nodes work with version %d of the settings\n", same, len(cl.Nodes), cl.Settings)
	})
	if err == nil && !well {
		err = silentExit(ExitFailed)
	}
	return err
}

// onNode is embedded in commands that do something to one node.
type onNode struct {
	local
	Node string `arg:"" help:"Name or id of the node."`
}

func (c *onNode) act(ctx context.Context, std IO, action, done string) error {
	if err := client.NewLocal(c.Data).ClusterAction(ctx, c.Node, action); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "%s %s\n", c.Node, done)
	return nil
}

type clusterDrainCmd struct{ onNode }

func (clusterDrainCmd) Help() string {
	return `The node says to load balancers that it is not ready, and goes on answering what still comes.

Example:
  portcullis cluster drain node2`
}

func (c *clusterDrainCmd) Run(ctx context.Context, std IO) error {
	return c.act(ctx, std, "drain", "drains")
}

type clusterActivateCmd struct{ onNode }

func (clusterActivateCmd) Help() string { return "Example:\n  portcullis cluster activate node2" }

func (c *clusterActivateCmd) Run(ctx context.Context, std IO) error {
	return c.act(ctx, std, "activate", "is active")
}

type clusterRebootCmd struct{ onNode }

func (clusterRebootCmd) Help() string {
	return `The node drains, ends, and its program starts again in its place; where network.enforce is on, its supervisor has to
start it (exit code 75). The host itself is not touched.

Example:
  portcullis cluster reboot node2`
}

func (c *clusterRebootCmd) Run(ctx context.Context, std IO) error {
	return c.act(ctx, std, "reboot", "starts again")
}

type clusterRevokeCmd struct{ onNode }

func (clusterRevokeCmd) Help() string {
	return `For a key that may be known to others. Within a second no node believes the node's certificates any more; the
node itself, which has the database, gets a new one within seconds and is back.

Example:
  portcullis cluster revoke node2`
}

func (c *clusterRevokeCmd) Run(ctx context.Context, std IO) error {
	return c.act(ctx, std, "revoke", "has to get a new certificate")
}

type clusterRemoveCmd struct {
	onNode
	Yes bool `help:"Do not ask."`
}

func (clusterRemoveCmd) Help() string {
	return `Its certificate is not believed any more, and it stops. It keeps the cluster's master key: where the host is
lost or in other hands, rotate that too. Asks first.

Example:
  portcullis cluster remove node2 --yes`
}

func (c *clusterRemoveCmd) Run(ctx context.Context, std IO) error {
	if !c.Yes {
		if err := confirm(std, fmt.Sprintf("Take %s out of the cluster? Type its name: ", c.Node), c.Node); err != nil {
			return err
		}
	}
	return c.act(ctx, std, "remove", "was removed")
}

type clusterSettingsCmd struct {
	Show clusterSettingsShowCmd `cmd:"" default:"withargs" help:"Show the settings that all nodes have in common."`
	Set  clusterSettingsSetCmd  `cmd:"" help:"Change settings on all nodes."`
}

type clusterSettingsShowCmd struct {
	local
	output
}

func (clusterSettingsShowCmd) Help() string {
	return "Example:\n  portcullis cluster settings show -o json"
}

func (c *clusterSettingsShowCmd) Run(ctx context.Context, std IO) error {
	s, err := client.NewLocal(c.Data).ClusterSettings(ctx)
	if err != nil {
		return err
	}
	return c.print(std.Out, s, func(w io.Writer) {
		fmt.Fprintf(w, "version\t%d\n", s.Version)
		keys := make([]string, 0, len(s.Values))
		for k := range s.Values {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Fprintf(w, "%s\t%s\n", k, s.Values[k])
		}
	})
}

type clusterSettingsSetCmd struct {
	local
	output
	Values   []string      `arg:"" placeholder:"KEY=VALUE" help:"Settings, as in config show; an empty value takes one back to each node's own configuration."`
	Parallel bool          `help:"Let all nodes start again at once, and not one after the other."`
	Wait     time.Duration `default:"2m" help:"How long to wait until all nodes work with the change; 0 does not wait."`
}

func (clusterSettingsSetCmd) Help() string {
	return `They stand above each node's own configuration. Each node drains and starts again with them, one after the
other; one that does not come back stops the others from trying. Settings of a host (data, listen, tls,
database) are not among them. Exit code 1 means that not all nodes work with the change yet.

Examples:
  portcullis cluster settings set log.level=debug
  portcullis cluster settings set smtp.host=mail.internal smtp.port=587 --parallel`
}

func (c *clusterSettingsSetCmd) Run(ctx context.Context, std IO) error {
	change := client.ClusterSettings{Values: map[string]string{}, Sequential: !c.Parallel}
	for _, kv := range c.Values {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return usageError(fmt.Sprintf("%q is not KEY=VALUE", kv))
		}
		change.Values[k] = v
	}
	node := client.NewLocal(c.Data)
	version, err := node.ChangeClusterSettings(ctx, change)
	if err != nil {
		return err
	}
	done, all, err := c.converge(ctx, std, node, version)
	if err != nil {
		return err
	}
	err = c.print(std.Out, map[string]any{"version": version, "nodes": all, "converged": done}, func(w io.Writer) {
		fmt.Fprintf(w, "version %d: %d of %d nodes work with it\n", version, done, all)
	})
	if err == nil && done < all && c.Wait > 0 {
		err = silentExit(ExitFailed)
	}
	return err
}

// converge waits until every node works with a version. The node that is asked
// starts again meanwhile, and does not answer then.
func (c *clusterSettingsSetCmd) converge(ctx context.Context, std IO, node *client.Local, version int64) (done, all int, err error) {
	until := time.Now().Add(c.Wait)
	last := -1
	for {
		cl, askErr := node.Cluster(ctx)
		if askErr == nil {
			done, all = 0, len(cl.Nodes)
			for _, n := range cl.Nodes {
				if n.Settings >= version {
					done++
				}
			}
			if done != last && c.Wait > 0 {
				fmt.Fprintf(std.Err, "%d of %d nodes work with version %d\n", done, all, version)
			}
			last = done
			if done == all {
				return done, all, nil
			}
		}
		if time.Now().After(until) {
			if last < 0 {
				return 0, 0, errors.Join(errors.New("the change was made, and the node does not answer since"), askErr)
			}
			return done, all, nil
		}
		select {
		case <-ctx.Done():
			return done, all, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}
