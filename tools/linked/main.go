// Command linked says what the binary links: each module, its version, its licence
// and how many of its packages are in.
//
//	cd tools && go build -o linked/linked ./linked && cd .. && tools/linked/linked [-update]
//
// It compares with docs/linked.md and fails, with the lines that differ, when the
// page is not true; -update writes the page. It fails in either case on a licence
// that is not in allowed: the binary is given to others, and each of them has to
// be able to keep to its terms.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

const page = "docs/linked.md"

// allowed are licences that let a binary be given away under terms of one's own,
// with their notices.
var allowed = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "blessing", "CC0-1.0", "ISC", "MIT", "MPL-2.0", "Unlicense", "Zlib"}

// apart are licence files of what is not in the binary.
var apart = map[string]string{
	"modernc.org/memory/LICENSE-LOGO": "a picture on the module's page",
}

// told are licence files whose text the classifier does not know, or that leave the
// choice between licences, with the first line that they have to have and the SPDX
// identifier of the one that is taken.
var told = map[string][2]string{
	"modernc.org/sqlite/LICENSE-SQLITE":                     {"SQLite Is Public Domain", "blessing"},
	"kernel.org/pub/linux/libs/security/libcap/psx/License": {"/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */", "BSD-3-Clause"},
}

type module struct {
	path, version, dir string
	licences           []string
	packages           int
}

func main() {
	update := flag.Bool("update", false, "write "+page)
	flag.Parse()
	if err := run(*update); err != nil {
		fmt.Fprintln(os.Stderr, "linked:", err)
		os.Exit(1)
	}
}

func run(update bool) error {
	modules, err := list()
	if err != nil {
		return err
	}
	if err := classify(modules); err != nil {
		return err
	}
	var bad []string
	for _, m := range modules {
		for _, l := range m.licences {
			if !slices.Contains(allowed, l) {
				bad = append(bad, fmt.Sprintf("%s %s is under %s, which is not allowed; allowed are %s", m.path, m.version, l, strings.Join(allowed, ", ")))
			}
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	got := render(modules)
	if update {
		return os.WriteFile(page, []byte(got), 0o644)
	}
	want, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if d := differ(string(want), got); d != "" {
		return fmt.Errorf("%s is not what the binary links (-page +binary); if the change is meant, run make golden:\n%s", page, d)
	}
	return nil
}

// list asks the go command for the packages of the binary, as a release is built:
// the answer must not depend on the machine.
func list() ([]*module, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Module", "./cmd/portcullis")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	found := map[string]*module{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Module *struct {
				Path, Version, Dir string
				Main               bool
				Replace            *struct{ Path, Version, Dir string }
			}
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if p.Module == nil || p.Module.Main {
			continue // the standard library, and ourselves
		}
		m := found[p.Module.Path]
		if m == nil {
			m = &module{path: p.Module.Path, version: p.Module.Version, dir: p.Module.Dir}
			if r := p.Module.Replace; r != nil {
				m.version, m.dir = r.Version+" of "+r.Path, r.Dir
			}
			found[m.path] = m
		}
		m.packages++
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *module) int { return strings.Compare(a.path, b.path) }), nil
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)

// classify reads the licence files at the root of each module.
func classify(modules []*module) error {
	c, err := assets.DefaultClassifier()
	if err != nil {
		return fmt.Errorf("read the licences' texts: %w", err)
	}
	for _, m := range modules {
		entries, err := os.ReadDir(m.dir)
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		for _, e := range entries {
			if e.IsDir() || apart[m.path+"/"+e.Name()] != "" || !licenceFile.MatchString(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(m.dir, e.Name()))
			if err != nil {
				return err
			}
			names := namesIn(c, text)
			if t, ok := told[m.path+"/"+e.Name()]; ok && strings.HasPrefix(string(text), t[0]+"\n") {
				names = []string{t[1]}
			}
			if len(names) == 0 {
				return fmt.Errorf("%s: no known licence in %s", m.path, e.Name())
			}
			m.licences = append(m.licences, names...)
		}
		slices.Sort(m.licences)
		if m.licences = slices.Compact(m.licences); len(m.licences) == 0 {
			return fmt.Errorf("%s has no licence file", m.path)
		}
	}
	return nil
}

func namesIn(c *classifier.Classifier, text []byte) []string {
	var out []string
	for _, match := range c.Match(text).Matches {
		if (match.MatchType == "License" || match.MatchType == "Header") && match.Confidence >= 0.9 {
			out = append(out, match.Name)
		}
	}
	return out
}

func render(modules []*module) string {
	var b strings.Builder
	b.WriteString(`# What the binary links

Each module outside of the standard library that is in the binary, with the
licence that its files name and the number of its packages that are in. The page is
generated: ` + "`make lint`" + ` compares it with the code, ` + "`make golden`" + ` writes it. Why each of
those that we chose is here says [dependencies.md](dependencies.md).

| module | version | licence | packages |
|---|---|---|---|
`)
	packages := 0
	for _, m := range modules {
		fmt.Fprintf(&b, "| %s | %s | %s | %d |\n", m.path, m.version, strings.Join(m.licences, ", "), m.packages)
		packages += m.packages
	}
	fmt.Fprintf(&b, "\n%d modules, %d packages.\n", len(modules), packages)
	return b.String()
}

// differ lists the lines that only one of the two has.
func differ(page, binary string) string {
	a, b := strings.Split(page, "\n"), strings.Split(binary, "\n")
	var out []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			out = append(out, "+ "+l)
		}
	}
	if len(out) == 0 && page != binary {
		return "the lines stand in another order"
	}
	return strings.Join(out, "\n")
}
