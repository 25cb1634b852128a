package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/searchindex"
)

type searchCmd struct {
	Status  searchStatusCmd  `cmd:"" help:"Show the search index: engine, lag, groups, builds."`
	Rebuild searchRebuildCmd `cmd:"" help:"Make the search index anew from the database."`
}

type searchStatusCmd struct {
	local
	output
}

func (searchStatusCmd) Help() string {
	return `Asks the node on this host, for all nodes. Exit code 1 when the search engine does not answer.

Example:
  portcullis search status -o json`
}

func (c *searchStatusCmd) Run(ctx context.Context, std IO) error {
	st, err := client.NewLocal(c.Data).Search(ctx)
	if err != nil {
		return err
	}
	err = c.print(std.Out, st, func(w io.Writer) {
		engine := st.Engine
		if engine == "" {
			engine = "does not answer"
		}
		fmt.Fprintf(w, "engine\t%s\n", engine)
		if st.Down != "" {
			fmt.Fprintf(w, "cause\t%s\n", st.Down)
		}
		fmt.Fprintf(w, "documents\t%d users, %d log events\nwaiting\t%s, the oldest for %s\n", st.Documents["users"], st.Documents["logs"],
			count(st.Queued, "write"), time.Duration(st.Lag*float64(time.Second)).Round(time.Second))
		if st.Failed > 0 {
			fmt.Fprintf(w, "refused\t%s; one of them: %s\n", count(st.Failed, "document"), st.Example)
		}
		fmt.Fprintln(w, "\nGROUP\tNODE\tGENERATION\tSEARCHED\tBUILT\tNOW")
		for _, g := range st.Groups {
			built := "never"
			if g.BuiltAt != nil {
				built = g.BuiltAt.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\n", g.Group, or(g.Node, "none"), g.Generation, map[bool]string{true: "index", false: "database"}[g.Live], built, doing(g))
		}
	})
	if err == nil && st.Down != "" {
		return silentExit(ExitFailed)
	}
	return err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// doing is what happens in a group at this moment, in words.
func doing(g searchindex.GroupStatus) string {
	switch {
	case g.Build != nil:
		return fmt.Sprintf("building generation %d: %s of %s, %s done (%s)", g.Generation+1, g.Build.Kind, or(g.Build.Tenant, "the first tenant"), count(g.Build.Done, "document"), g.Build.Reason)
	case g.Wanted != "":
		return "about to build: " + g.Wanted
	}
	return "-"
}

type searchRebuildCmd struct {
	local
	output
	Detach bool `help:"Do not wait until it is complete."`
}

func (searchRebuildCmd) Help() string {
	return `Searches go to the present index until the new one is complete, with everything that was written meanwhile.
The node that fills the index does the work; when it stops, another goes on where it was.

Example:
  portcullis search rebuild`
}

func (c *searchRebuildCmd) Run(ctx context.Context, std IO) error {
	l := client.NewLocal(c.Data)
	before, err := l.RebuildSearch(ctx)
	if err != nil {
		return err
	}
	if c.Detach {
		return c.print(std.Out, map[string]any{"groups": len(before), "complete": false}, func(w io.Writer) {
			fmt.Fprintf(w, "the index of %s is being built; `portcullis search status` shows how far it is\n", count(len(before), "group"))
		})
	}
	start := time.Now()
	last := ""
	for {
		st, err := l.Search(ctx)
		if err != nil {
			return err
		}
		var left []string
		done, all := 0, 0
		for _, g := range st.Groups {
			if g.Generation > before[g.Group] {
				all++
				continue
			}
			if g.Build != nil {
				done += g.Build.Done
			}
			left = append(left, fmt.Sprint(g.Group))
		}
		if len(left) == 0 {
			return c.print(std.Out, map[string]any{"groups": len(before), "complete": true, "documents": st.Documents, "seconds": time.Since(start).Seconds()}, func(w io.Writer) {
				fmt.Fprintf(w, "complete: %s, %d users, %d log events, in %s\n", count(all, "group"), st.Documents["users"], st.Documents["logs"], time.Since(start).Round(100*time.Millisecond))
			})
		}
		line := fmt.Sprintf("%d of %s complete; %s in the others (%s)", all, count(len(before), "group"), count(done, "document"), strings.Join(left, ", "))
		if st.Down != "" {
			line += "; it waits for the search engine: " + st.Down
		}
		if line != last {
			fmt.Fprintln(std.Err, line)
			last = line
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the build goes on without this command; `portcullis search status` shows how far it is: %w", ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}
