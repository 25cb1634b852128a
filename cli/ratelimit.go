package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/ratelimit"
)

type ratelimitCmd struct {
	Ls    ratelimitLsCmd    `cmd:"" help:"List the rate limits, and how often they were reached."`
	Show  ratelimitShowCmd  `cmd:"" help:"Show one bucket type with the keys that are nearest to their limits, or one key."`
	Set   ratelimitSetCmd   `cmd:"" help:"Change a limit on all nodes, while they run."`
	Reset ratelimitResetCmd `cmd:"" help:"Fill the bucket of a key, so that it may go on at once."`
}

type ratelimitLsCmd struct {
	local
	output
}

func (ratelimitLsCmd) Help() string {
	return `The counts are those of this node since it started. What was changed at run time follows the list.

Example:
  portcullis ratelimit ls -o json`
}

func (c *ratelimitLsCmd) Run(ctx context.Context, std IO) error {
	all, err := client.NewLocal(c.Data).RateLimits(ctx)
	if err != nil {
		return err
	}
	return c.print(std.Out, all, func(w io.Writer) { printRateLimits(w, all) })
}

func printRateLimits(w io.Writer, all client.RateLimits) {
	if !all.Enabled {
		fmt.Fprintln(w, "Requests over HTTP are not limited: rate_limits.enabled is false.")
	}
	fmt.Fprintln(w, "BUCKET\tKEY\tLIMIT\tWITHOUT THE OWNER\tALLOWED\tLIMITED\tFALLBACK")
	for _, b := range all.Buckets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", b.Name, b.Key, b.Limit, b.OnFailure, b.Counts.Allowed, b.Counts.Limited, b.Counts.Fallback)
	}
	for _, o := range all.Overrides {
		fmt.Fprintf(w, "set at run time: %s\n", overrideText(o))
	}
	if len(all.Service.Peers) > 0 {
		fmt.Fprintf(w, "counting together: %s; of %d calls %d failed\n", strings.Join(all.Service.Peers, ", "), all.Service.Calls, all.Service.Failed)
	}
}

func overrideText(o ratelimit.Override) string {
	out := o.Bucket
	switch {
	case o.Key != "":
		out += " key=" + o.Key
	case o.Match != "":
		out += " match=" + o.Match
	}
	if l, err := o.Spec.Limit(); err == nil {
		out += ": " + l.String()
	}
	if o.OnFailure != "" {
		out += ", without the owner " + string(o.OnFailure)
	}
	if !o.Until.IsZero() {
		out += ", until " + o.Until.Format(time.RFC3339)
	}
	return out
}

type ratelimitShowCmd struct {
	local
	output
	Bucket string `arg:"" help:"Bucket type, as 'portcullis ratelimit ls' names it."`
	Key    string `placeholder:"KEY" help:"One key, with the parts that the list names and | between, such as acme|203.0.113.7."`
	Prefix string `placeholder:"TEXT" help:"Keys that begin so, such as a tenant's."`
}

func (ratelimitShowCmd) Help() string {
	return `Lists at most 100 keys of each node. Keys whose buckets are full are not remembered.

Examples:
  portcullis ratelimit show login --prefix 'acme|'
  portcullis ratelimit show management-api --key acme -o json`
}

func (c *ratelimitShowCmd) Run(ctx context.Context, std IO) error {
	l := client.NewLocal(c.Data)
	if c.Key != "" {
		d, err := l.RateLimitKey(ctx, c.Bucket, c.Key)
		if err != nil {
			return err
		}
		return c.print(std.Out, d, func(w io.Writer) { printDecision(w, d) })
	}
	keys, err := l.RateLimitKeys(ctx, c.Bucket, c.Prefix)
	if err != nil {
		return err
	}
	return c.print(std.Out, keys, func(w io.Writer) {
		fmt.Fprintln(w, "KEY\tREMAINING\tLIMIT\tFULL IN\tNODE")
		for _, k := range keys.Keys {
			full := "never by itself"
			if k.FullIn >= 0 {
				full = (time.Duration(k.FullIn) * time.Millisecond).Round(time.Millisecond).String()
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", k.Key, k.Remaining, k.Limit, full, k.Node)
		}
		if len(keys.Away) > 0 {
			fmt.Fprintf(w, "did not answer: %s\n", strings.Join(keys.Away, ", "))
		}
	})
}

func printDecision(w io.Writer, d ratelimit.Decision) {
	if d.Unlimited {
		fmt.Fprintf(w, "%s\tunlimited\n", d.Key)
		return
	}
	fmt.Fprintf(w, "key\t%s\nremaining\t%d of %d\n", d.Key, d.Remaining, d.Limit)
	if !d.Reset.IsZero() {
		fmt.Fprintf(w, "full at\t%s\n", d.Reset.Format(time.RFC3339))
	}
	if d.Fallback {
		fmt.Fprintln(w, "the node that counts this key did not answer")
	}
}

type ratelimitSetCmd struct {
	local
	output
	Bucket      string        `arg:"" help:"Bucket type, as 'portcullis ratelimit ls' names it."`
	Key         string        `placeholder:"KEY" help:"For one key alone."`
	Match       string        `placeholder:"REGEXP" help:"For keys that match as a whole."`
	Size        int64         `placeholder:"N" help:"Tokens that the bucket holds. Without it, those that come back in one interval."`
	PerSecond   int64         `placeholder:"N" help:"Tokens that come back in a second."`
	PerMinute   int64         `placeholder:"N" help:"Tokens that come back in a minute."`
	PerHour     int64         `placeholder:"N" help:"Tokens that come back in an hour."`
	PerDay      int64         `placeholder:"N" help:"Tokens that come back in a day."`
	PerInterval int64         `placeholder:"N" help:"Tokens that come back in --interval."`
	Interval    time.Duration `placeholder:"TIME" help:"Length of the interval, such as 250ms."`
	Unlimited   bool          `help:"Count nothing."`
	OnFailure   string        `placeholder:"WAY" help:"What happens when the node that counts does not answer: share, open or closed."`
	For         time.Duration `placeholder:"TIME" help:"End the change after this time, such as 2h."`
	Default     bool          `help:"Take back what was set at run time."`
}

func (ratelimitSetCmd) Help() string {
	return `What is set here stands in the database, counts on all nodes at once, and wins over the configuration.
What had been taken from a bucket stays taken.

Examples:
  portcullis ratelimit set management-api --key acme --size 200 --per-second 100
  portcullis ratelimit set login --match 'acme\|.*\|10\.0\..*' --unlimited --for 2h
  portcullis ratelimit set management-api --key acme --default`
}

func (c *ratelimitSetCmd) Run(ctx context.Context, std IO) error {
	change := client.RateLimitChange{Remove: c.Default, Override: ratelimit.Override{Bucket: c.Bucket, Key: c.Key, Match: c.Match, OnFailure: ratelimit.Failure(c.OnFailure),
		Spec: ratelimit.Spec{Size: c.Size, PerSecond: c.PerSecond, PerMinute: c.PerMinute, PerHour: c.PerHour, PerDay: c.PerDay,
			PerInterval: c.PerInterval, Interval: c.Interval.Milliseconds(), Unlimited: c.Unlimited}}}
	switch {
	case c.Default && (!change.Spec.Zero() || c.OnFailure != "" || c.For != 0):
		return usageError("--default takes back what was set: it stands with --key or --match alone")
	case !c.Default && change.Spec.Zero() && c.OnFailure == "":
		return usageError("nothing to set: name a limit such as --per-second 50, --unlimited, --on-failure or --default")
	case c.For < 0:
		return usageError("--for wants a time such as 2h")
	case c.For > 0:
		change.Until = time.Now().Add(c.For).UTC().Truncate(time.Second)
	}
	all, err := client.NewLocal(c.Data).ChangeRateLimit(ctx, change)
	if err != nil {
		return err
	}
	return c.print(std.Out, all, func(w io.Writer) {
		if c.Default {
			fmt.Fprintf(w, "taken back: %s\n", overrideText(change.Override))
			return
		}
		fmt.Fprintf(w, "set: %s\n", overrideText(change.Override))
	})
}

type ratelimitResetCmd struct {
	local
	output
	Bucket string `arg:"" help:"Bucket type, as 'portcullis ratelimit ls' names it."`
	Key    string `required:"" placeholder:"KEY" help:"The key, as 'portcullis ratelimit show' names it."`
}

func (ratelimitResetCmd) Help() string {
	return `Nodes that have just refused the key may do so for a tenth of a second more.

Example:
  portcullis ratelimit reset login --key 'acme|ann@acme.example|203.0.113.7'`
}

func (c *ratelimitResetCmd) Run(ctx context.Context, std IO) error {
	d, err := client.NewLocal(c.Data).ResetRateLimit(ctx, c.Bucket, c.Key)
	if err != nil {
		return err
	}
	return c.print(std.Out, d, func(w io.Writer) { printDecision(w, d) })
}
