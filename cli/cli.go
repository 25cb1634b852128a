package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/problem"
)

// Exit codes that scripts can use.
const (
	ExitOK     = 0
	ExitFailed = 1 // the command ran and the answer is no
	ExitUsage  = 2 // the command line or the configuration is wrong
)

// IO is where a command reads and writes.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Env      []string
	Version  string
}

type commands struct {
	Start     startCmd     `cmd:"" help:"Run a node."`
	Admin     adminCmd     `cmd:"" help:"Work as the node's own administrator, on its host."`
	Tenants   tenantsCmd   `cmd:"" help:"Make, list and delete tenants."`
	Config    configCmd    `cmd:"" help:"Check and show the configuration."`
	Preflight preflightCmd `cmd:"" help:"Prove the network contract between hosts, and say who is to blame where it fails."`
	Network   networkCmd   `cmd:"" help:"Show the network contract."`
	Cluster   clusterCmd   `cmd:"" help:"Make a cluster of nodes, and look after it."`
	Join      joinCmd      `cmd:"" help:"Make this host a node of a cluster."`
	Depot     depotCmd     `cmd:"" help:"Publish what nodes fetch from a depot."`
	Keys      keysCmd      `cmd:"" help:"Work with the keys of a node."`
	Store     storeCmd     `cmd:"" help:"Work with a node's database."`
	Ratelimit ratelimitCmd `cmd:"" help:"Show and change how often things may happen."`
	Search    searchCmd    `cmd:"" help:"Look at the search index and build it."`
	Site      siteCmd      `cmd:"" help:"Two sites: which one is active, and change it."`
	Version   versionCmd   `cmd:"" help:"Show the version."`
}

// Main runs the command line and returns the exit code.
func Main(args []string, std IO) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := -1
	parser, err := newParser(ctx, std, func(c int) { code = c })
	if err != nil {
		fmt.Fprintln(std.Err, "portcullis:", err)
		return ExitUsage
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if code >= 0 { // --help was asked for
		return code
	}
	if err != nil {
		fmt.Fprintf(std.Err, "portcullis: %v\nTry `portcullis --help`, or --help after any command.\n", err)
		return ExitUsage
	}
	if err := k.Run(); err != nil {
		var silent silentExit
		if errors.As(err, &silent) {
			return int(silent)
		}
		code := fail(std.Err, err)
		var exit exitError
		if errors.As(err, &exit) {
			code = exit.code
		}
		return code
	}
	return ExitOK
}

func newParser(ctx context.Context, std IO, exit func(code int)) (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("portcullis"),
		kong.Description("A self-hosted identity appliance. `portcullis start --dev` runs one here and now."),
		kong.UsageOnError(),
		kong.Writers(std.Out, std.Err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
		kong.Vars{"version": std.Version},
	)
}

// fail shows an error as an operator wants to read it.
func fail(w io.Writer, err error) int {
	var faults config.Faults
	var usage usageError
	switch {
	case errors.As(err, &faults):
		fmt.Fprintf(w, "portcullis: the configuration has %s:\n", count(len(faults), "fault"))
		for _, f := range faults {
			fmt.Fprintln(w, "  "+f.String())
		}
		return ExitUsage
	case errors.As(err, &usage):
		fmt.Fprintln(w, "portcullis:", usage.Error())
		return ExitUsage
	}
	var e *problem.Error
	if errors.As(err, &e) && e.Err != nil && !strings.Contains(e.Message, e.Err.Error()) {
		fmt.Fprintf(w, "portcullis: %s\n  cause: %v\n", e.Message, e.Err)
		return ExitFailed
	}
	fmt.Fprintln(w, "portcullis:", err)
	return ExitFailed
}

// exitError ends the program with a code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// silentExit ends the program with a code after everything has been said.
type silentExit int

func (e silentExit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

type usageError string

func (u usageError) Error() string { return string(u) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// output is embedded in commands that print something.
type output struct {
	Output string `short:"o" enum:"text,json" default:"text" help:"Form of the output: text or json."`
}

// print writes v as JSON, or calls text.
func (o output) print(w io.Writer, v any, text func(w io.Writer)) error {
	if o.Output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	text(tw)
	return tw.Flush()
}

// confirm asks before something that cannot be undone.
func confirm(std IO, question, answer string) error {
	fmt.Fprint(std.Err, question)
	line, err := bufio.NewReader(std.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != answer {
		return usageError("nothing was done: the answer was not " + answer)
	}
	return nil
}

type versionCmd struct{ output }

func (versionCmd) Help() string { return "Example:\n  portcullis version -o json" }

func (c *versionCmd) Run(std IO) error {
	return c.print(std.Out, map[string]string{"version": std.Version}, func(w io.Writer) { fmt.Fprintln(w, std.Version) })
}
