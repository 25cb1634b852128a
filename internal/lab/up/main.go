//go:build linux

// Command up brings a lab up for work by hand, prints its hosts and how to enter
// them, and takes it away at Ctrl-C. `make lab` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/portcullis-id/portcullis/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	var o lab.Options
	flags.IntVar(&o.Nodes, "nodes", 3, "how many nodes")
	flags.BoolVar(&o.IPv4Only, "4", false, "IPv4 alone")
	flags.BoolVar(&o.IPv6Only, "6", false, "IPv6 alone")
	services := flags.String("services", "", "more hosts, as in db,mail")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *services != "" {
		o.Services = strings.Split(*services, ",")
	}
	l, err := lab.Up(o)
	if err != nil {
		return err
	}
	l.DNS()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "host\tIPv4\tIPv6\tenter")
	for _, h := range append(l.Hosts(), l.Router()) {
		fmt.Fprintf(w, "%s\t%s\t%s\tip netns exec %s bash\n", h.Name(), word(h.Addr4()), word(h.Addr6()), h.Namespace())
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the hosts: %w", err)
	}
	fmt.Fprint(out, "\nEvery host is known to the others as NAME.lab. The router is on each way: rules that nft\nloads there are faults in the middle. Ctrl-C takes the lab away.\n")
	<-ctx.Done()
	return l.Close()
}

func word(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
