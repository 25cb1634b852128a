// Command gosec runs gosec's rules over the packages below the folder that it is
// given, test files apart:
//
//	cd tools && go build -o gosec/gosec ./gosec && cd .. && tools/gosec/gosec .
//
// It is the library without its command, which links the clients of several
// outside services that we have no use for. An exception stands where it is made,
// as "#nosec Gxxx -- why"; one without a reason counts as a finding. Rules that
// are off for the whole project are listed in off, with the reason.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/securego/gosec/v2"
	"github.com/securego/gosec/v2/analyzers"
	"github.com/securego/gosec/v2/rules"
)

// off are the rules that are not run, and why.
var off = map[string]string{
	"G104": "errcheck judges errors that are dropped, by their types and a list of those that nobody can act on",
	"G304": "every file that is opened by a variable's name is named by the operator's settings, flags or folder; requests name no files",
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gosec FOLDER")
		os.Exit(2)
	}
	found, err := run(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gosec:", err)
		os.Exit(2)
	}
	for _, line := range found {
		fmt.Println(line)
	}
	if len(found) > 0 {
		os.Exit(1)
	}
}

// apart are the folders that hold no package of the binary.
var apart = regexp.MustCompile(`(^|/)(\.git|node_modules|testdata|tools|data|bin|bench|internal/lab|internal/pglab|internal/chaos|internal/balancertest)(/|$)`)

func run(root string) ([]string, error) {
	folders, err := gosec.PackagePaths(root+"/...", []*regexp.Regexp{apart})
	if err != nil {
		return nil, err
	}
	var unused []string
	for id := range off {
		unused = append(unused, id)
	}
	a := gosec.NewAnalyzer(gosec.NewConfig(), false, true, true, 2, log.New(io.Discard, "", 0))
	a.LoadRules(rules.Generate(true, rules.NewRuleFilter(true, unused...)).RulesInfo())
	a.LoadAnalyzers(analyzers.Generate(true, analyzers.NewAnalyzerFilter(true, unused...)).AnalyzersInfo())
	if err := a.Process(nil, folders...); err != nil {
		return nil, err
	}
	issues, _, faults := a.Report()
	var out []string
	for file, list := range faults {
		for _, f := range list {
			out = append(out, fmt.Sprintf("%s:%d: %s", name(root, file), f.Line, f.Err))
		}
	}
	for _, i := range issues {
		at := fmt.Sprintf("%s:%s", name(root, i.File), i.Line)
		switch {
		case len(i.Suppressions) == 0:
			out = append(out, fmt.Sprintf("%s: %s (%s)", at, i.What, i.RuleID))
		case i.Suppressions[0].Kind == "inSource" && strings.TrimSpace(i.Suppressions[0].Justification) == "":
			out = append(out, fmt.Sprintf("%s: #nosec %s without a reason: write #nosec %s -- why", at, i.RuleID, i.RuleID))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// name is a file's path below the root, as a person would give it.
func name(root, file string) string {
	abs, err := filepath.Abs(root)
	if err != nil {
		return file
	}
	rel, err := filepath.Rel(abs, file)
	if err != nil {
		return file
	}
	return rel
}
