// Command lint runs the project's linters over the packages that it is given:
//
//	cd tools && go build -o lint/lint ./lint && cd .. && tools/lint/lint -errcheck.exclude=tools/lint/errcheck.txt ./...
//
// Few linters, all on, no baseline. Errors that nobody can act on, such as that of
// closing what was only read, are listed in errcheck.txt.
package main

import (
	"strings"

	"github.com/jingyugao/rowserrcheck/passes/rowserr"
	"github.com/kisielk/errcheck/errcheck"
	"github.com/polyfloyd/go-errorlint/errorlint"
	"github.com/ryanrolds/sqlclosecheck/pkg/analyzer"
	"github.com/timakin/bodyclose/passes/bodyclose"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/multichecker"
	"honnef.co/go/tools/staticcheck"
	"honnef.co/go/tools/stylecheck"
)

// style are the checks of stylecheck that we hold; the others are covered by
// review or by golint's heirs.
var style = map[string]bool{"ST1001": true, "ST1005": true, "ST1006": true, "ST1012": true, "ST1016": true, "ST1019": true}

func main() {
	closed := analyzer.NewAnalyzer()
	look := closed.Run
	closed.Run = func(pass *analysis.Pass) (any, error) {
		report := pass.Report
		pass.Report = func(d analysis.Diagnostic) {
			// Statements are kept there on purpose, and closed with the database.
			if !strings.HasSuffix(pass.Fset.Position(d.Pos).Filename, "store/sqlite/statements.go") {
				report(d)
			}
		}
		return look(pass)
	}
	checks := []*analysis.Analyzer{
		errcheck.Analyzer,
		errorlint.NewAnalyzer(),
		bodyclose.Analyzer,
		closed,
		rowserr.NewAnalyzer(),
	}
	for _, a := range staticcheck.Analyzers {
		checks = append(checks, a.Analyzer)
	}
	for _, a := range stylecheck.Analyzers {
		if style[a.Analyzer.Name] {
			checks = append(checks, a.Analyzer)
		}
	}
	multichecker.Main(checks...)
}
