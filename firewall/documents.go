package firewall

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
)

// peerText is who is on the other side, for people.
func (g Group) peerText() string {
	all := append(append([]string{}, g.Hosts...), append(prefixTexts(g.V4), prefixTexts(g.V6)...)...)
	return strings.Join(all, ", ")
}

// entry is a flow as a firewall ticket has it.
type entry struct{ Direction, Source, Destination, Protocol, Ports, Row, Need, Use string }

func (p Policy) entries() []entry {
	var out []entry
	nodes := p.Group(string(Nodes)).peerText()
	if nodes == "" {
		nodes = "every node"
	}
	for _, f := range p.Flows {
		e := entry{string(f.Direction), p.Group(f.Group).peerText(), nodes, string(f.Protocol), f.PortText, string(f.Row), string(f.Need), f.Use}
		if f.PortText == "" {
			e.Ports = "echo"
		}
		if f.Direction == Out {
			e.Source, e.Destination = e.Destination, e.Source
		}
		out = append(out, e)
	}
	return out
}

func renderMarkdown(p Policy) ([]File, error) {
	b := &page{}
	b.line("# Firewall of the Portcullis nodes")
	b.line("")
	b.line("Network contract, profile %s. What is not listed is to be dropped, in both directions.", p.Profile)
	b.line("")
	b.line("| direction | source | destination | protocol | port | row | need | use |")
	b.line("|---|---|---|---|---|---|---|---|")
	for _, e := range p.entries() {
		b.line("| %s | %s | %s | %s | %s | `%s` | %s | %s |", e.Direction, e.Source, e.Destination, e.Protocol, e.Ports, e.Row, e.Need, e.Use)
	}
	if len(p.Omissions) > 0 {
		b.line("")
		b.line("Not allowed here:")
		b.line("")
		for _, o := range p.Omissions {
			b.line("- `%s`: %s", o.Row, o.Reason)
		}
	}
	return []File{{Name: "firewall.md", Content: b.String()}}, nil
}

var htmlPage = template.Must(template.New("firewall").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Firewall of the Portcullis nodes</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1d232a; background: #fff }
h1 { font-size: 1.5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #d5dae0; padding: .4rem .6rem; text-align: left; vertical-align: top }
th { background: #f3f5f7 }
code { font: 13px ui-monospace, monospace }
td.in { border-left: 4px solid #0b6e4f } td.out { border-left: 4px solid #1b4f9c }
</style>
</head>
<body>
<h1>Firewall of the Portcullis nodes</h1>
<p>Network contract, profile {{.Profile}}. What is not listed is to be dropped, in both directions.</p>
<div class="wide"><table>
<thead><tr><th scope="col">Direction</th><th scope="col">Source</th><th scope="col">Destination</th><th scope="col">Protocol</th><th scope="col">Port</th><th scope="col">Row</th><th scope="col">Need</th><th scope="col">Use</th></tr></thead>
<tbody>
{{range .Entries}}<tr><td class="{{.Direction}}">{{.Direction}}</td><td>{{.Source}}</td><td>{{.Destination}}</td><td>{{.Protocol}}</td><td>{{.Ports}}</td><td><code>{{.Row}}</code></td><td>{{.Need}}</td><td>{{.Use}}</td></tr>
{{end}}</tbody>
</table></div>
{{if .Omissions}}<h2>Not allowed here</h2>
<ul>
{{range .Omissions}}<li><code>{{.Row}}</code>: {{.Reason}}</li>
{{end}}</ul>
{{end}}</body>
</html>
`))

func renderHTML(p Policy) ([]File, error) {
	var b bytes.Buffer
	err := htmlPage.Execute(&b, struct {
		Policy
		Entries []entry
	}{p, p.entries()})
	if err != nil {
		return nil, fmt.Errorf("write the page: %w", err)
	}
	return []File{{Name: "firewall.html", Content: b.String()}}, nil
}

func renderCSV(p Policy) ([]File, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"direction", "source", "destination", "protocol", "port", "row", "need", "use"}}
	for _, e := range p.entries() {
		rows = append(rows, []string{e.Direction, e.Source, e.Destination, e.Protocol, e.Ports, e.Row, e.Need, e.Use})
	}
	if err := w.WriteAll(rows); err != nil {
		return nil, fmt.Errorf("write the table: %w", err)
	}
	return []File{{Name: "firewall.csv", Content: b.String()}}, nil
}

func renderJSON(p Policy) ([]File, error) {
	raw, err := json.MarshalIndent(struct {
		Schema int `json:"schema"`
		Policy
	}{1, p}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	return []File{{Name: "firewall.json", Content: string(raw) + "\n"}}, nil
}
