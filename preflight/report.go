package preflight

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Formats of a report.
var Formats = []string{"text", "json", "junit", "html"}

// Write writes a report in a format. colour is for terminals.
func (r *Report) Write(w io.Writer, format string, colour bool) error {
	switch format {
	case "text":
		_, err := io.WriteString(w, r.text(colour))
		return err
	case "json":
		return r.json(w)
	case "junit":
		return r.junit(w)
	case "html":
		return page.Execute(w, r)
	}
	return problem.New(problem.Invalid, "invalid_format", "format %q; allowed are %s", format, strings.Join(Formats, ", "))
}

// json writes finding by finding: a matrix of many nodes is not held twice.
func (r *Report) json(w io.Writer) error {
	encode := func(v any, prefix string) ([]byte, error) {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetIndent(prefix, "  ")
		enc.SetEscapeHTML(false)
		err := enc.Encode(v)
		return bytes.TrimRight(b.Bytes(), "\n"), err
	}
	frame := *r
	frame.Findings = nil
	raw, err := encode(frame, "")
	if err != nil {
		return err
	}
	before, after, ok := bytes.Cut(raw, []byte("\n  \"findings\": null"))
	if !ok {
		return fmt.Errorf("the report has no place for its findings")
	}
	out := bufio.NewWriter(w)
	_, _ = out.Write(before) // an error stays until Flush
	_, _ = out.WriteString("\n  \"findings\": [")
	for i, f := range r.Findings {
		one, err := encode(f, "    ")
		if err != nil {
			return err
		}
		if i > 0 {
			_ = out.WriteByte(',')
		}
		_, _ = out.WriteString("\n    ")
		_, _ = out.Write(one)
	}
	if len(r.Findings) > 0 {
		_, _ = out.WriteString("\n  ")
	}
	_ = out.WriteByte(']')
	_, _ = out.Write(after)
	_ = out.WriteByte('\n')
	return out.Flush()
}

// pair is one cell's place in the matrix.
type pair struct{ From, To string }

// cell is the worst of a row's findings for a pair.
type cell struct {
	State   string // ok, fail, optional or none
	Verdict Verdict
	Title   string
}

// matrix is the report's findings by pair and row, made once.
type matrix struct {
	of    int // findings that it was made of
	pairs []pair
	rows  []netcontract.RowID
	cells map[pair]map[netcontract.RowID]cell
}

func (r *Report) matrix() *matrix {
	if r.cells != nil && r.cells.of == len(r.Findings) {
		return r.cells
	}
	m := &matrix{of: len(r.Findings), cells: map[pair]map[netcontract.RowID]cell{}}
	rows := map[netcontract.RowID]bool{}
	for _, f := range r.Findings {
		p := pair{f.From, f.To}
		if m.cells[p] == nil {
			m.cells[p] = map[netcontract.RowID]cell{}
			m.pairs = append(m.pairs, p)
		}
		if !rows[f.Row] {
			rows[f.Row] = true
			m.rows = append(m.rows, f.Row)
		}
		state := "ok"
		if !f.OK {
			state = "optional"
			if f.Required() {
				state = "fail"
			}
		}
		if c, known := m.cells[p][f.Row]; !known || c.State == "ok" && state != "ok" || state == "fail" {
			m.cells[p][f.Row] = cell{state, f.Verdict, f.Sentence}
		}
	}
	slices.SortFunc(m.pairs, func(a, b pair) int {
		if c := strings.Compare(a.From, b.From); c != 0 {
			return c
		}
		return strings.Compare(a.To, b.To)
	})
	slices.Sort(m.rows)
	r.cells = m
	return m
}

// Pairs are the ordered pairs of hosts that have findings.
func (r *Report) Pairs() []pair { return r.matrix().pairs }

// Rows are the rows that have findings.
func (r *Report) Rows() []netcontract.RowID { return r.matrix().rows }

// Cell sums up a row of a pair: the worst of its findings.
func (r *Report) Cell(p pair, row netcontract.RowID) cell {
	if c, ok := r.matrix().cells[p][row]; ok {
		return c
	}
	return cell{State: "none"}
}

// Failures are the findings that do not hold.
func (r *Report) Failures() []Finding {
	var all []Finding
	for _, f := range r.Findings {
		if !f.OK {
			all = append(all, f)
		}
	}
	return all
}

// Summary says in one line how the run ended.
func (r *Report) Summary() string {
	failed, optional := 0, 0
	for _, f := range r.Failures() {
		if f.Required() {
			failed++
		} else {
			optional++
		}
	}
	text := fmt.Sprintf("%d of %d checks hold", len(r.Findings)-failed-optional, len(r.Findings))
	if failed > 0 {
		text += fmt.Sprintf(", %d required fail", failed)
	}
	if optional > 0 {
		text += fmt.Sprintf(", %d optional fail", optional)
	}
	if r.Unfinished {
		text += "; broken off, this is what is known so far"
	}
	return text + fmt.Sprintf(" (%.1f s)", r.Took)
}

const (
	green, red, yellow, plain = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
)

func (r *Report) text(colour bool) string {
	var b strings.Builder
	paint := func(c, s string) string {
		if !colour {
			return s
		}
		return c + s + plain
	}
	pairs, rows := r.Pairs(), r.Rows()
	width := 4
	for _, p := range pairs {
		width = max(width, len(p.From)+len(p.To)+4)
	}
	fmt.Fprintf(&b, "%-*s", width+2, "")
	for _, row := range rows {
		fmt.Fprintf(&b, "%s  ", row)
	}
	b.WriteString("\n")
	for _, p := range pairs {
		fmt.Fprintf(&b, "%-*s", width+2, p.From+" -> "+p.To)
		for _, row := range rows {
			c := r.Cell(p, row)
			mark, tint := map[string]string{"ok": "ok", "fail": "FAIL", "optional": "opt", "none": "·"}[c.State], map[string]string{"ok": green, "fail": red, "optional": yellow}[c.State]
			cell := fmt.Sprintf("%-*s", len(row)+2, mark)
			if tint != "" {
				cell = paint(tint, cell)
			}
			b.WriteString(cell)
		}
		b.WriteString("\n")
	}
	if len(r.Before) > 0 {
		fmt.Fprintf(&b, "\nwhat failed on %s\n", r.BeforeOf.Format("2006-01-02 15:04 UTC"))
	}
	for _, c := range r.Before {
		line := c.text()
		switch {
		case c.Holds:
			line = paint(green, line)
		case c.Now != "":
			line = paint(red, line)
		}
		fmt.Fprintf(&b, "  %s\n", line)
	}
	for _, f := range r.Failures() {
		tint, word := yellow, "optional"
		if f.Required() {
			tint, word = red, "required"
		}
		fmt.Fprintf(&b, "\n%s %s -> %s, row %s (%s)\n", paint(tint, strings.ToUpper(string(f.Verdict))), f.From, f.To, f.Row, word)
		fmt.Fprintf(&b, "  %s\n", f.Sentence)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "  because %s\n", e)
		}
		if f.Remedy != "" {
			fmt.Fprintf(&b, "  do this: %s\n", f.Remedy)
		}
	}
	if len(r.Clocks) > 0 {
		b.WriteString("\n")
	}
	for _, c := range r.Clocks {
		tint := map[string]string{"PASS": green, "FAIL": red}[c.Verdict]
		line := fmt.Sprintf("clock %s -> %s: %s ahead, at most %s wrong: %s", c.From, c.To, c.Offset.Round(10_000), c.Bound.Round(10_000), c.Verdict)
		if tint != "" {
			line = paint(tint, line)
		}
		b.WriteString(line + "\n")
	}
	for _, s := range r.Silent {
		fmt.Fprintf(&b, "%s\n", paint(red, s+" never answered with the token: preflight does not run there, or no port of it can be reached."))
	}
	for _, s := range r.Missing {
		if !slices.Contains(r.Silent, s) {
			fmt.Fprintf(&b, "%s has not finished: its own findings are not in this report.\n", s)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	fmt.Fprintf(&b, "\n%s\n", r.Summary())
	return b.String()
}

// The elements of JUnit's XML that pipelines read.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
		Skipped *junitFailure `xml:"skipped,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit has a suite for each pair. Optional rows that fail are skipped ones.
func (r *Report) junit(w io.Writer) error {
	var out junitSuites
	of := map[pair][]Finding{}
	for _, f := range r.Findings {
		of[pair{f.From, f.To}] = append(of[pair{f.From, f.To}], f)
	}
	for _, p := range r.Pairs() {
		s := junitSuite{Name: p.From + " -> " + p.To}
		for _, f := range of[p] {
			c := junitCase{Class: string(f.Row), Name: fmt.Sprintf("%s %s %s", addressText(f.Address), f.Protocol, portText(f.Check)), Time: strconv.FormatFloat(f.RTT/1000, 'f', 6, 64)}
			text := strings.Join(append(slices.Clone(f.Evidence), f.Remedy), "\n")
			switch {
			case f.OK:
			case f.Required():
				c.Failure = &junitFailure{f.Sentence, text}
				s.Failures++
			default:
				c.Skipped = &junitFailure{f.Sentence, text}
				s.Skipped++
			}
			s.Cases = append(s.Cases, c)
		}
		s.Tests = len(s.Cases)
		out.Suites = append(out.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// ChangeRequest is the table that goes to whoever runs the firewalls: one line for
// each connection that fails.
func (r *Report) ChangeRequest() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"row", "from", "source", "to", "destination", "protocol", "port", "required", "verdict", "reason", "evidence", "remedy"}}
	for _, f := range r.Failures() {
		source := ""
		for _, h := range r.Hosts {
			for _, a := range h.Addresses {
				if h.Name == f.From && a.Is4() == f.Address.Is4() && source == "" {
					source = a.String()
				}
			}
		}
		destination := f.Host // a firewall that knows names wants the name, too
		if f.Address.IsValid() {
			destination = f.Address.String()
		}
		required := "no"
		if f.Required() {
			required = "yes"
		}
		p := ""
		if f.Port > 0 {
			p = port(f.Port)
		}
		rows = append(rows, []string{string(f.Row), f.From, source, f.To, destination, string(f.Protocol), p, required, string(f.Verdict), f.Sentence, strings.Join(f.Evidence, "; "), f.Remedy})
	}
	if err := w.WriteAll(rows); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// page is the whole report in one file: no script, nothing that is fetched.
var page = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preflight of {{.Host}}</title>
<style>
:root{color-scheme:light dark;--ok:#2f7d4f;--fail:#b3372f;--opt:#a06a00;--line:#d7dae0;--text:#1f2430;--soft:#5d6472;--bg:#fff}
@media (prefers-color-scheme:dark){:root{--ok:#5fbf87;--fail:#f0827a;--opt:#e0b050;--line:#353a45;--text:#e8eaf0;--soft:#9aa2b1;--bg:#15171c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--bg);max-width:72rem;margin:2rem auto;padding:0 1.25rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}.soft{color:var(--soft)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}th,td{padding:.3rem .5rem;border:1px solid var(--line);text-align:center}
th:first-child{text-align:left;white-space:nowrap}thead th{font-weight:600;writing-mode:vertical-rl;text-align:left;height:9rem}thead th:first-child{writing-mode:initial;vertical-align:bottom}
.ok{color:var(--ok)}.fail{color:#fff;background:var(--fail);font-weight:600}.optional{color:var(--opt)}.none{color:var(--soft)}
@media (prefers-color-scheme:dark){.fail{color:#15171c}}
article{border-left:4px solid var(--opt);padding:.1rem 0 .1rem 1rem;margin:1rem 0}article.required{border-color:var(--fail)}article p{margin:.25rem 0}
code{font:.85rem ui-monospace,monospace;overflow-wrap:anywhere}
</style></head><body>
<h1>Preflight of {{.Host}}</h1>
<p class="soft">{{.Summary}} · {{.Started.Format "2006-01-02 15:04:05 UTC"}} · profile {{.Profile}}</p>
<h2>Every row, every ordered pair</h2>
<div class="scroll"><table><thead><tr><th>from → to</th>{{range .Rows}}<th>{{.}}</th>{{end}}</tr></thead><tbody>
{{range $p := .Pairs}}<tr><th>{{$p.From}} → {{$p.To}}</th>{{range $row := $.Rows}}{{with $.Cell $p $row}}<td class="{{.State}}" title="{{.Title}}">{{if eq .State "ok"}}✓{{else if eq .State "none"}}·{{else}}{{.Verdict}}{{end}}</td>{{end}}{{end}}</tr>
{{end}}</tbody></table></div>
{{with .Before}}<h2>What failed before</h2><table><tbody>{{range .}}<tr><th>{{.From}} → {{.To}}, {{.Row}}{{with .Port}} port {{.}}{{end}}</th><td>{{.Verdict}}</td><td class="{{if .Holds}}ok{{else if .Now}}fail{{else}}none{{end}}">{{with .Now}}{{.}}{{else}}not looked at{{end}}</td></tr>{{end}}</tbody></table>{{end}}
{{with .Failures}}<h2>What does not hold</h2>
{{range .}}<article{{if .Required}} class="required"{{end}}><p><strong>{{.Sentence}}</strong></p>
<p class="soft">{{.From}} → {{.To}} · row {{.Row}} · {{.Verdict}}</p>
{{range .Evidence}}<p>because {{.}}</p>{{end}}{{with .Remedy}}<p>Do this: <code>{{.}}</code></p>{{end}}</article>
{{end}}{{end}}
{{with .Clocks}}<h2>Clocks</h2><table><tbody>{{range .}}<tr><th>{{.From}} → {{.To}}</th><td>{{.Offset}}</td><td>± {{.Bound}}</td><td class="{{if eq .Verdict "PASS"}}ok{{else if eq .Verdict "FAIL"}}fail{{else}}optional{{end}}">{{.Verdict}}</td></tr>{{end}}</tbody></table>{{end}}
{{range .Silent}}<p>{{.}} never answered with the token.</p>{{end}}{{range .Notes}}<p class="soft">{{.}}</p>{{end}}
</body></html>
`))
