package netcontract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Format is a way to write the contract down.
type Format string

// The formats.
const (
	Text     Format = "table"    // aligned columns for a terminal
	Markdown Format = "markdown" // a page in the shape of the published list
	JSON     Format = "json"     // for programs; the field names are stable
)

// Formats lists the formats, the default first.
func Formats() []Format { return []Format{Text, Markdown, JSON} }

// ParseFormat reads a format's name. The empty string is the default, table. The
// error names what is allowed.
func ParseFormat(s string) (Format, error) {
	if s == "" {
		return Text, nil
	}
	if slices.Contains(Formats(), Format(s)) {
		return Format(s), nil
	}
	return "", fmt.Errorf("format %q is not known: allowed are %s", s, join(Formats()))
}

// Render writes the table in the format. It fails on an unknown format, which
// ParseFormat would have refused, and when w does.
func Render(w io.Writer, t Table, f Format) error {
	var b bytes.Buffer
	switch f {
	case Text:
		if err := renderText(&b, t); err != nil {
			return err
		}
	case Markdown:
		renderMarkdown(&b, t)
	case JSON:
		if err := renderJSON(&b, t); err != nil {
			return err
		}
	default:
		_, err := ParseFormat(string(f))
		return err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write network contract: %w", err)
	}
	return nil
}

// peerText is the hosts where they are known, else the peer in words.
func peerText(r Row) string {
	if len(r.Hosts) == 0 {
		return r.Peer
	}
	s := make([]string, len(r.Hosts))
	for i, h := range r.Hosts {
		s[i] = h.String()
	}
	return strings.Join(s, ", ")
}

func flagText(r Row) string {
	if r.Listed {
		return "yes"
	}
	return "no"
}

// noteText is the note with the condition in front, and with the mark of a row
// that the published list has not.
func noteText(r Row) string {
	var s []string
	if r.Added {
		s = append(s, "Not on the published list")
	}
	if r.Condition != "" {
		s = append(s, "Needed if "+r.Condition)
	}
	if r.Note != "" {
		s = append(s, r.Note)
	}
	return strings.Join(s, ". ")
}

func renderText(b *bytes.Buffer, t Table) error {
	fmt.Fprintf(b, "Network contract, profile %s\n", t.profile)
	for _, s := range []struct {
		section Section
		title   string
	}{
		{BetweenNodes, "Between cluster nodes (every node to every node)"},
		{External, "External"},
	} {
		fmt.Fprintf(b, "\n%s\n", s.title)
		tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "ROW\tPORT\tPROTOCOL\tDIRECTION\tPEER\tREQUIRED\tUSE")
		for _, r := range t.Section(s.section) {
			need := flagText(r)
			switch {
			case r.Condition != "" && r.Listed:
				need += ", if " + r.Condition
			case r.Condition != "":
				need += ", unless " + r.Condition
			}
			use := r.Use
			if r.Added {
				use += " (not on the published list)"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.PortText(), r.ProtocolText(), r.Direction, peerText(r), need, use)
		}
		if err := tw.Flush(); err != nil {
			return fmt.Errorf("align network contract: %w", err)
		}
	}
	fmt.Fprintf(b, "\nNotes\n")
	for _, n := range t.notes {
		fmt.Fprintf(b, "- %s: %s\n", n.Row, n.Text)
	}
	return nil
}

// lines groups rows as the published list does. Only the psaas profile prints
// that list; the other shows each row for itself.
func lines(t Table, s Section) [][]Row {
	var out [][]Row
	for _, r := range t.Section(s) {
		if n := len(out); t.profile == ProfilePSaaS && n > 0 && r.Line != 0 && out[n-1][0].Line == r.Line {
			out[n-1] = append(out[n-1], r)
			continue
		}
		out = append(out, []Row{r})
	}
	return out
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var cellEscape = strings.NewReplacer("|", `\|`, "\n", " ")

func tableRow(b *bytes.Buffer, cells ...string) {
	b.WriteString("|")
	for _, c := range cells {
		if c != "" {
			b.WriteString(" " + cellEscape.Replace(c))
		}
		b.WriteString(" |")
	}
	b.WriteString("\n")
}

func tableHead(b *bytes.Buffer, cells ...string) {
	tableRow(b, cells...)
	b.WriteString("|" + strings.Repeat(" --- |", len(cells)) + "\n")
}

// joined puts together what the rows of one line say, each thing once.
func joined(rows []Row, sep string, get func(Row) string) string {
	var s []string
	for _, r := range rows {
		if v := get(r); !slices.Contains(s, v) {
			s = append(s, v)
		}
	}
	return strings.Join(s, sep)
}

func renderMarkdown(b *bytes.Buffer, t Table) {
	ids := func(rows []Row) string {
		return joined(rows, ", ", func(r Row) string { return "`" + string(r.ID) + "`" })
	}
	portText := func(rows []Row) string { return joined(rows, ", ", Row.PortText) }
	protocols := func(rows []Row) string { return joined(rows, "+", Row.ProtocolText) }
	notes := func(rows []Row) string { return joined(rows, ". ", noteText) }

	b.WriteString("# Network contract: IP/domain and port list\n\n")
	fmt.Fprintf(b, "<!-- Generated by `portcullis network contract --profile %s --format markdown`; edit netcontract instead. -->\n\n", t.profile)
	if t.profile == ProfilePSaaS {
		b.WriteString("The published list, row by row, with its hosts and addresses.")
	} else {
		b.WriteString("Every connection that the appliance accepts or makes is a row of this page.")
	}
	b.WriteString(" The column \"Row\" is the name by which settings, metrics and logs speak of a row.\n\n")

	b.WriteString("## Between cluster nodes\n\nOpen these ports from every node to every other node of the same cluster. A single node needs none of them.\n\n")
	tableHead(b, "Port", "Use", "Required?", "Notes", "Protocol", "Row")
	for _, l := range lines(t, BetweenNodes) {
		tableRow(b, portText(l), l[0].Use, capital(flagText(l[0])), notes(l), protocols(l), ids(l))
	}

	b.WriteString("\n## External connectivity\n\nInbound means that the peer connects to a node, outbound that a node connects to the peer.\n\n")
	tableHead(b, "Use", "Direction", "IP/DNS", "Port", "Notes", "Required?", "Protocol", "Row")
	for _, l := range lines(t, External) {
		tableRow(b, l[0].Use, capital(string(l[0].Direction)), capitalPeer(l[0]), portText(l), notes(l), capital(flagText(l[0])), protocols(l), ids(l))
	}

	b.WriteString("\n## Notes\n\n")
	for _, n := range t.notes {
		fmt.Fprintf(b, "* %s (`%s`)\n", n.Text, n.Row)
	}
}

// capitalPeer starts a phrase with a capital, but leaves host names alone.
func capitalPeer(r Row) string {
	if len(r.Hosts) > 0 {
		return peerText(r)
	}
	return capital(r.Peer)
}

type jsonPort struct {
	From        uint16 `json:"from"`
	To          uint16 `json:"to"`
	Alternative bool   `json:"alternative,omitempty"` // may be open instead of the one before it
}

type jsonHost struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
}

type jsonRow struct {
	ID        RowID      `json:"id"`
	Line      int        `json:"line,omitempty"`
	Ports     []jsonPort `json:"ports"`
	Protocols []Protocol `json:"protocols"`
	Direction Direction  `json:"direction"`
	Peer      string     `json:"peer"`
	Hosts     []jsonHost `json:"hosts"`
	Use       string     `json:"use"`
	Required  bool       `json:"required"`
	Need      Need       `json:"need"`
	Condition string     `json:"condition,omitempty"`
	Note      string     `json:"note,omitempty"`
	Owner     string     `json:"owner"`
	Added     bool       `json:"added"`
}

type jsonNote struct {
	Row  RowID  `json:"row"`
	Text string `json:"text"`
}

type jsonTable struct {
	Schema       int        `json:"schema"`
	Profile      Profile    `json:"profile"`
	BetweenNodes []jsonRow  `json:"between_nodes"`
	External     []jsonRow  `json:"external"`
	Notes        []jsonNote `json:"notes"`
}

func jsonRows(rows []Row) []jsonRow {
	out := make([]jsonRow, len(rows))
	for i, r := range rows {
		j := jsonRow{
			ID: r.ID, Line: r.Line, Ports: []jsonPort{}, Protocols: r.Protocols, Direction: r.Direction, Peer: r.Peer,
			Hosts: []jsonHost{}, Use: r.Use, Required: r.Listed, Need: r.Need(), Condition: r.Condition, Note: r.Note,
			Owner: r.Owner, Added: r.Added,
		}
		for _, p := range r.Ports {
			j.Ports = append(j.Ports, jsonPort(p))
		}
		for _, h := range r.Hosts {
			jh := jsonHost{Name: h.Name, Addresses: []string{}}
			for _, a := range h.Addresses {
				jh.Addresses = append(jh.Addresses, a.String())
			}
			j.Hosts = append(j.Hosts, jh)
		}
		out[i] = j
	}
	return out
}

func renderJSON(b *bytes.Buffer, t Table) error {
	j := jsonTable{
		Schema: 1, Profile: t.profile,
		BetweenNodes: jsonRows(t.Section(BetweenNodes)), External: jsonRows(t.Section(External)), Notes: []jsonNote{},
	}
	for _, n := range t.notes {
		j.Notes = append(j.Notes, jsonNote(n))
	}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(j); err != nil {
		return fmt.Errorf("encode network contract: %w", err)
	}
	return nil
}
