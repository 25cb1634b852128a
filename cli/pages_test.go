package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/portcullis-id/portcullis/internal/golden"
)

// TestCommandPagesAreGenerated keeps docs/commands true: a page for each command,
// and none for a command that is gone.
func TestCommandPagesAreGenerated(t *testing.T) {
	parser, err := newParser(t.Context(), IO{Out: io.Discard, Err: io.Discard}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	const dir = "../docs/commands"
	index := &strings.Builder{}
	fmt.Fprintf(index, "# Commands\n\n%s\n\n| command | what it does |\n|---|---|\n", generated)
	known := map[string]bool{"README.md": true}
	for _, leaf := range parser.Model.Leaves(false) {
		name := "portcullis " + strings.TrimSuffix(leaf.Path(), " run")
		name = strings.ReplaceAll(name, "portcullis portcullis", "portcullis")
		file := strings.ReplaceAll(name, " ", "-") + ".md"
		known[file] = true
		fmt.Fprintf(index, "| [%s](%s) | %s |\n", name, file, leaf.Help)
		golden.Equal(t, filepath.Join(dir, file), []byte(commandPage(name, leaf)))
		if !strings.Contains(leaf.Detail, "xample") {
			t.Errorf("%s has no example in its help", name)
		}
	}
	golden.Equal(t, filepath.Join(dir, "README.md"), []byte(index.String()))
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("%s is of no command: delete it", filepath.Join(dir, f.Name()))
		}
	}
}

const generated = "<!-- Generated from the program's own help by `go test ./cli -update`; edit cli instead. -->"

// commandPage is a page in the order of a manual's.
func commandPage(name string, leaf *kong.Node) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "# %s\n\n%s\n\n%s\n\n## Synopsis\n\n```\n%s", name, generated, leaf.Help, name)
	for _, p := range leaf.Positional {
		fmt.Fprintf(b, " %s", p.Summary())
	}
	var flags []*kong.Flag
	for _, group := range leaf.AllFlags(true) {
		for _, f := range group {
			if f.Name != "help" {
				flags = append(flags, f)
			}
		}
	}
	if len(flags) > 0 {
		b.WriteString(" [flags]")
	}
	b.WriteString("\n```\n")
	text, examples, found := strings.Cut(leaf.Detail, "Examples:\n")
	if !found {
		text, examples, _ = strings.Cut(leaf.Detail, "Example:\n")
	}
	if text = strings.TrimSpace(text); text != "" {
		fmt.Fprintf(b, "\n## Description\n\n%s\n", text)
	}
	if len(leaf.Positional) > 0 {
		b.WriteString("\n## Arguments\n\n| argument | meaning |\n|---|---|\n")
		for _, p := range leaf.Positional {
			fmt.Fprintf(b, "| `%s` | %s |\n", p.Summary(), cell(p.Help))
		}
	}
	if len(flags) > 0 {
		b.WriteString("\n## Flags\n\n| flag | meaning |\n|---|---|\n")
		for _, f := range flags {
			fmt.Fprintf(b, "| `%s` | %s |\n", cell(f.String()), cell(f.Help))
		}
	}
	if examples != "" {
		lines := strings.Split(strings.TrimRight(examples, "\n"), "\n")
		for i, l := range lines {
			lines[i] = strings.TrimPrefix(l, "  ")
		}
		fmt.Fprintf(b, "\n## Examples\n\n```sh\n%s\n```\n", strings.Join(lines, "\n"))
	}
	b.WriteString("\nExit codes are 0, 1 when the answer is no or something failed, and 2 for a command line or a configuration that is wrong, unless the description says more.\n")
	return b.String()
}

// cell is text that a table can hold.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}
