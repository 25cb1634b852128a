package netcontract

import (
	"fmt"
	"slices"
	"strings"
)

// Line is a row as the JSON form has it, which is stable between versions.
type Line struct {
	ID        RowID
	Section   Section
	Ports     string // as PortText writes them
	Protocols string
	Direction Direction
	Peer      string
	Hosts     string
	Need      Need
}

// Lines are the rows of a table for Diff.
func (t Table) Lines() []Line {
	var lines []Line
	for _, r := range t.Rows() {
		hosts := make([]string, len(r.Hosts))
		for i, h := range r.Hosts {
			hosts[i] = h.String()
		}
		lines = append(lines, Line{r.ID, r.Section, r.PortText(), r.ProtocolText(), r.Direction, r.Peer, strings.Join(hosts, ", "), r.Need()})
	}
	return lines
}

// Change is one difference between two contracts.
type Change struct {
	Row    RowID  `json:"row"`
	Kind   string `json:"kind"`            // added, removed or changed
	Field  string `json:"field,omitempty"` // of a changed row
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// String is the change as a line of text.
func (c Change) String() string {
	switch c.Kind {
	case "added":
		return fmt.Sprintf("+ %s: %s", c.Row, c.After)
	case "removed":
		return fmt.Sprintf("- %s: %s", c.Row, c.Before)
	}
	return fmt.Sprintf("~ %s: %s is %s, was %s", c.Row, c.Field, orNone(c.After), orNone(c.Before))
}

func orNone(s string) string {
	if s == "" {
		return "empty"
	}
	return s
}

func (l Line) text() string {
	return fmt.Sprintf("%s %s, %s, %s, %s", l.Protocols, l.Ports, l.Direction, l.Peer, l.Need)
}

// Diff lists what is different after, by row.
func Diff(before, after []Line) []Change {
	find := func(lines []Line, id RowID) (Line, bool) {
		i := slices.IndexFunc(lines, func(l Line) bool { return l.ID == id })
		if i < 0 {
			return Line{}, false
		}
		return lines[i], true
	}
	changes := []Change{}
	for _, a := range after {
		b, ok := find(before, a.ID)
		if !ok {
			changes = append(changes, Change{Row: a.ID, Kind: "added", After: a.text()})
			continue
		}
		for _, f := range []struct{ name, before, after string }{
			{"section", string(b.Section), string(a.Section)}, {"port", b.Ports, a.Ports}, {"protocol", b.Protocols, a.Protocols},
			{"direction", string(b.Direction), string(a.Direction)}, {"peer", b.Peer, a.Peer}, {"hosts", b.Hosts, a.Hosts}, {"need", string(b.Need), string(a.Need)},
		} {
			if f.before != f.after {
				changes = append(changes, Change{a.ID, "changed", f.name, f.before, f.after})
			}
		}
	}
	for _, b := range before {
		if _, ok := find(after, b.ID); !ok {
			changes = append(changes, Change{Row: b.ID, Kind: "removed", Before: b.text()})
		}
	}
	slices.SortStableFunc(changes, func(x, y Change) int { return strings.Compare(string(x.Row), string(y.Row)) })
	return changes
}
