package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

type preflightCmd struct {
	Run_  preflightRunCmd   `cmd:"" name:"run" default:"withargs" help:"Probe every row of the contract between the hosts."`
	Token preflightTokenCmd `cmd:"" help:"Make the token that the hosts of one run share."`
}

type preflightTokenCmd struct{ output }

func (preflightTokenCmd) Help() string {
	return `The token is a secret: who has it can ask the responders what a host's firewall does.

Example:
  portcullis preflight token`
}

func (c *preflightTokenCmd) Run(std IO) error {
	token := preflight.NewToken()
	return c.print(std.Out, map[string]string{"token": token}, func(w io.Writer) { fmt.Fprintln(w, token) })
}

type preflightRunCmd struct {
	Peers []string `sep:"," placeholder:"HOST" help:"All hosts of the run: NAME=ADDRESS[+ADDRESS][@ROLE], with commas between. Roles are node, lb, cli, monitoring, jump-host and outside."`
	Self  string   `placeholder:"NAME" help:"Which of them this host is. Found by its addresses when it is left out."`
	Token string   `env:"PORTCULLIS_PREFLIGHT_TOKEN" placeholder:"TOKEN" help:"The token of the run, from portcullis preflight token."`
	outsideFlags
	Profile       string        `placeholder:"NAME" help:"Profile of the contract: portcullis or psaas. The configuration's own where one is given."`
	Row           []string      `placeholder:"ROW" help:"Probe this row alone. May be repeated."`
	Thorough      bool          `help:"Probe every port of a range, not three of it."`
	Wait          time.Duration `default:"2m" help:"How long hosts that do not answer yet are waited for."`
	Linger        time.Duration `default:"15s" help:"How long this host answers the others after its own work, at the most."`
	Format        string        `enum:"text,json,junit,html" default:"text" help:"text, json, junit or html."`
	Output        string        `short:"o" enum:"text,json" default:"text" help:"json is the same as --format json."`
	File          string        `type:"path" placeholder:"FILE" help:"Write the report there."`
	ChangeRequest string        `type:"path" placeholder:"DIR" help:"Write what has to be allowed there, for whoever runs the firewalls."`
	Rerun         string        `placeholder:"TOKEN" help:"Show what became of the failures of an earlier run: the token, file or folder of its change request, or its report as JSON. Its hosts are those of this run, too."`
}

func (preflightRunCmd) Help() string {
	return `Run it with the same token on every host, before anything is installed or beside a running node. Each host
opens the ports that the contract lets it listen on, answers nobody but the others, and probes them. The
report has the whole matrix, and for each failure who is to blame and what to do.

Rows that lead out of the cluster are probed from each node, to the hosts that --depot, --dns, --providers and
the like name, or the configuration, or the profile. Without --peers one host looks at these rows alone, at
its own ports and at its firewall.

Exit codes: 0 all required rows hold, 1 a required row fails, 2 the run could not be made, 3 only optional
rows fail. Ctrl-C gives what is known so far.

Examples:
  portcullis preflight --depot depot.example.com --dns 10.0.0.53 --smtp mail.example.com
  portcullis preflight token
  portcullis preflight --token pf1-… --peers node1=10.0.0.11,node2=10.0.0.12,node3=10.0.0.13 --change-request request
  portcullis preflight --token pf1-… --rerun request
  portcullis preflight --token pf1-… --peers node1=10.0.0.11,me=203.0.113.9@outside --format html --file report.html`
}

func (c *preflightRunCmd) Run(ctx context.Context, std IO) error {
	// It runs beside what the host is for: memory counts more than processor time.
	debug.SetGCPercent(30)
	debug.SetMemoryLimit(20 << 20)
	report, stay, table, err := c.probe(ctx, std)
	if err != nil {
		var usage usageError
		if errors.As(err, &usage) {
			return err
		}
		return exitError{err, preflight.ExitCould}
	}
	defer stay()
	format := c.Format
	if c.Output == "json" {
		format = "json"
	}
	out, colour := std.Out, terminal(std.Out)
	if c.File != "" {
		f, err := os.Create(c.File)
		if err != nil {
			return exitError{fmt.Errorf("write the report: %w", err), preflight.ExitCould}
		}
		defer f.Close()
		out, colour = f, false
	}
	if err := report.Write(out, format, colour); err != nil {
		return exitError{fmt.Errorf("write the report: %w", err), preflight.ExitCould}
	}
	if c.ChangeRequest != "" {
		if err := writeChangeRequest(c.ChangeRequest, report, table); err != nil {
			return exitError{err, preflight.ExitCould}
		}
	}
	if code := report.Exit(); code != preflight.ExitHolds {
		return silentExit(code)
	}
	return nil
}

func (c *preflightRunCmd) probe(ctx context.Context, std IO) (*preflight.Report, func(), netcontract.Table, error) {
	var table netcontract.Table
	fail := func(err error) (*preflight.Report, func(), netcontract.Table, error) { return nil, nil, table, err }
	var before *preflight.Earlier
	if c.Rerun != "" {
		var err error
		if before, err = earlier(c.Rerun); err != nil {
			return fail(err)
		}
		if len(c.Peers) == 0 && len(before.Hosts) > 1 {
			for _, h := range before.Hosts {
				c.Peers = append(c.Peers, h.Text())
			}
		}
	}
	cfg, err := c.load(std)
	if err != nil {
		return fail(err)
	}
	if c.Profile == "" && cfg != nil {
		c.Profile = cfg.Network.Profile
	}
	profile, err := netcontract.ParseProfile(c.Profile)
	if err != nil {
		return fail(usageError(err.Error()))
	}
	if table, err = netcontract.Contract(profile); err != nil {
		return fail(err)
	}
	out, err := c.outside(std, cfg, table)
	if err != nil {
		return fail(err)
	}
	if before != nil && len(out.hosts) == 0 {
		out.hosts = before.Outside
	}
	self, hosts, token, err := c.swarm()
	if err != nil {
		return fail(err)
	}
	if self.Role != preflight.Node {
		out.hosts, out.notes = nil, nil // rows that lead out are the nodes'
	}
	rows := make([]netcontract.RowID, len(c.Row))
	for i, r := range c.Row {
		rows[i] = netcontract.RowID(r)
	}
	progress := func(string) {}
	if terminal(std.Err) {
		last := ""
		progress = func(text string) {
			if text != last {
				fmt.Fprintln(std.Err, text)
			}
			last = text
		}
	}
	report, stay, err := preflight.Run(ctx, preflight.Config{Table: table, Self: self, Peers: hosts, Token: token, Wait: c.Wait, Linger: c.Linger, Progress: progress,
		Outsiders: out.hosts, Notes: out.notes, CA: out.ca, Proxy: out.proxy, EnvProxy: out.env,
		Options: preflight.Options{Thorough: c.Thorough, Rows: rows}})
	if err == nil && before != nil {
		report.Compare(before)
	}
	return report, stay, table, err
}

// swarm is who takes part: this host alone, or all of --peers.
func (c *preflightRunCmd) swarm() (self preflight.Host, hosts []preflight.Host, token *preflight.Token, err error) {
	if len(c.Peers) == 0 {
		if c.Token != "" {
			return self, nil, nil, usageError("--peers is missing: name all hosts of the run, such as node1=10.0.0.11,node2=10.0.0.12; a host alone needs no token")
		}
		self, err = own()
		if c.Self != "" {
			self.Name = c.Self
		}
		return self, nil, nil, err
	}
	if c.Token == "" {
		return self, nil, nil, usageError("--token is missing: `portcullis preflight token` makes one, for all hosts of the run")
	}
	if hosts, err = preflight.ParseHosts(c.Peers); err != nil {
		return self, nil, nil, err
	}
	if token, err = preflight.ParseToken(c.Token); err != nil {
		return self, nil, nil, err
	}
	if self, err = findSelf(hosts, c.Self); err != nil {
		return self, nil, nil, err
	}
	if len(hosts) < 2 {
		return self, nil, nil, usageError("--peers names this host alone: name the others too, or leave it out")
	}
	return self, hosts, token, nil
}

// ownAddresses are those of this machine.
func ownAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	var out []netip.Addr
	for _, n := range all {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

// findSelf is the host that was named, or the one whose address this machine has.
func findSelf(hosts []preflight.Host, named string) (preflight.Host, error) {
	mine, err := ownAddresses()
	if err != nil {
		return preflight.Host{}, err
	}
	for _, h := range hosts {
		if named != "" {
			if h.Name == named {
				return h, nil
			}
			continue
		}
		if slices.ContainsFunc(h.Addresses, func(a netip.Addr) bool { return slices.Contains(mine, a) }) {
			return h, nil
		}
	}
	if named != "" {
		return preflight.Host{}, usageError(fmt.Sprintf("--self %s is none of the hosts in --peers", named))
	}
	return preflight.Host{}, usageError("none of the hosts in --peers has an address of this machine; say with --self which one it is")
}

// terminal reports whether a writer is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
