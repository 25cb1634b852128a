package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/netcontract"
)

type networkCmd struct {
	Contract  networkContractCmd  `cmd:"" help:"Print every port, direction and host of the appliance."`
	Audit     networkAuditCmd     `cmd:"" help:"Compare the node on this host, and the host's firewall, with the contract."`
	Addresses networkAddressesCmd `cmd:"" help:"Compare what the contract's outside hosts lead to now with what is published."`
	Diff      networkDiffCmd      `cmd:"" help:"Compare two profiles of the contract, or a contract that was saved as JSON."`
	Render    networkRenderCmd    `cmd:"" help:"Write the firewall of a node: nftables, iptables, firewalld, ufw, clouds, Kubernetes, documents."`
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

type networkAuditCmd struct {
	local
	output
}

func (networkAuditCmd) Help() string {
	return `Shows four things: the node's own sockets; what the kernel holds it to (network.enforce); what was refused;
and how the host's live firewall (nftables, iptables of both kinds, ufw, firewalld, Docker's rules) differs from
the contract, with the command that mends it.

A node does this by itself every minute: a socket of no row, or a difference of the firewall, is an error in its
log, in the metrics portcullis_network_undeclared_sockets and portcullis_network_firewall_findings, and the
answer of the health check network. Reading the firewall wants CAP_NET_ADMIN; without it the node says so. Exit
code 1 means that there is a finding. docs/enforcement.md says more.

Example:
  portcullis network audit --data /var/lib/portcullis`
}

func (c *networkAuditCmd) Run(ctx context.Context, std IO) error {
	a, err := client.NewLocal(c.Data).Audit(ctx)
	if err != nil {
		return err
	}
	err = c.print(std.Out, a, func(w io.Writer) {
		fmt.Fprintf(w, "%d listeners and %d outgoing connections, %d of no row\n", a.Listeners, a.Outgoing, len(a.Findings))
		for _, f := range a.Findings {
			fmt.Fprintln(w, f.Sentence)
		}
		fmt.Fprintln(w, a.Enforcement.Sentence)
		for _, r := range a.Enforcement.Refused {
			fmt.Fprintln(w, r.Sentence)
		}
		if a.Firewall.Firewall != "" {
			fmt.Fprintf(w, "the host's firewall is %s: %s from the contract\n", a.Firewall.Firewall, count(len(a.Firewall.Findings), "difference"))
		}
		for _, d := range a.Firewall.Findings {
			fmt.Fprintln(w, d.Sentence)
			if d.Remedy != "" {
				fmt.Fprintln(w, "  remedy: "+d.Remedy)
			}
		}
		if a.Firewall.Note != "" {
			fmt.Fprintln(w, a.Firewall.Note)
		}
	})
	if err == nil && len(a.Findings)+len(a.Firewall.Findings) > 0 {
		err = silentExit(ExitFailed)
	}
	return err
}

type networkDiffCmd struct {
	sitesFlags
	output
	Rules string `placeholder:"FORMAT" help:"Show the difference as rules too, in a format of network render; wants the peers, as there."`
	Old   string `arg:"" help:"Profile, or a file of network contract --format json."`
	New   string `arg:"" help:"Profile, or a file of network contract --format json."`
}

func (networkDiffCmd) Help() string {
	return `Shows the rows that were added, removed and changed, so that a firewall is ready before a version or a
profile is. Exit code 1 means that they differ.

Examples:
  portcullis network diff psaas portcullis
  portcullis network contract -o json > before.json
  portcullis network diff before.json portcullis
  portcullis network diff before.json portcullis --rules nftables --nodes 10.0.0.11,10.0.0.12 --lb 10.0.0.5`
}

// contractDiff is what network diff prints.
type contractDiff struct {
	Changes []netcontract.Change `json:"changes"`
	Rules   []ruleLine           `json:"rules,omitempty"`
}

// ruleLine is a line of rules that one side alone has.
type ruleLine struct {
	Kind string `json:"kind"` // added or removed
	File string `json:"file"`
	Rule string `json:"rule"`
}

func (c *networkDiffCmd) Run(ctx context.Context, std IO) error {
	before, err := contractOf(c.Old)
	if err != nil {
		return err
	}
	after, err := contractOf(c.New)
	if err != nil {
		return err
	}
	d := contractDiff{Changes: netcontract.Diff(before.Lines(), after.Lines())}
	if c.Rules != "" {
		if d.Rules, err = c.rules(ctx, before, after); err != nil {
			return err
		}
	}
	err = c.print(std.Out, d, func(w io.Writer) {
		for _, ch := range d.Changes {
			fmt.Fprintln(w, ch)
		}
		if len(d.Changes) == 0 {
			fmt.Fprintln(w, "no row differs")
		}
		file := ""
		for _, r := range d.Rules {
			if r.File != file {
				file = r.File
				fmt.Fprintf(w, "\n%s\n", file)
			}
			fmt.Fprintf(w, "%s %s\n", map[string]string{"added": "+", "removed": "-"}[r.Kind], r.Rule)
		}
	})
	if err == nil && len(d.Changes) > 0 {
		err = silentExit(ExitFailed)
	}
	return err
}

// rules renders both contracts with the same peers and compares the lines.
func (c *networkDiffCmd) rules(ctx context.Context, before, after netcontract.Table) ([]ruleLine, error) {
	format, err := firewall.ParseFormat(c.Rules)
	if err != nil {
		return nil, usageError("--rules: " + err.Error())
	}
	var sides [2]map[string][]string
	for i, table := range []netcontract.Table{before, after} {
		p, err := c.policy(ctx, table, nil, format.NodesByLabel())
		if err != nil {
			return nil, err
		}
		if len(p.Flows) == 0 {
			return nil, usageError("--rules wants the peers, such as --nodes 10.0.0.11,10.0.0.12 --lb 10.0.0.5")
		}
		files, err := firewall.Render(p, format)
		if err != nil {
			return nil, err
		}
		sides[i] = map[string][]string{}
		for _, f := range files {
			sides[i][f.Name] = ruleLines(f.Content)
		}
	}
	var names []string
	for _, s := range sides {
		for name := range s {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	var out []ruleLine
	for _, name := range names {
		for _, l := range sides[0][name] {
			if !slices.Contains(sides[1][name], l) {
				out = append(out, ruleLine{"removed", name, l})
			}
		}
		for _, l := range sides[1][name] {
			if !slices.Contains(sides[0][name], l) {
				out = append(out, ruleLine{"added", name, l})
			}
		}
	}
	return out, nil
}

// ruleLines are the lines of a file that are no comments.
func ruleLines(content string) []string {
	var out []string
	for l := range strings.Lines(content) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out
}

// contractOf reads a profile's contract, or one that was saved.
func contractOf(name string) (netcontract.Table, error) {
	if profile, err := netcontract.ParseProfile(name); err == nil {
		return netcontract.Contract(profile)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return netcontract.Table{}, usageError(fmt.Sprintf("%s is neither a profile (portcullis, psaas) nor a file that can be read: %v", name, err))
	}
	table, err := netcontract.ParseTable(raw)
	if err != nil {
		return table, usageError(fmt.Sprintf("%s is no contract as `network contract --format json` writes it: %v", name, err))
	}
	return table, nil
}
