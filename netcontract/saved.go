package netcontract

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"unicode"
)

// Bounds of a saved contract.
const (
	maxSaved     = 1 << 20 // bytes
	maxSavedRows = 256
	maxSavedText = 500 // bytes of one field
)

var (
	idForm   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	nameForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)
)

// ParseTable reads a contract that Render wrote as JSON, of this version or of
// another. The error names the row, and what is wrong with it.
func ParseTable(raw []byte) (Table, error) {
	var t Table
	if len(raw) > maxSaved {
		return t, fmt.Errorf("it has %d bytes; allowed are %d", len(raw), maxSaved)
	}
	var saved jsonTable
	if err := json.Unmarshal(raw, &saved); err != nil {
		return t, err
	}
	if saved.Schema != 1 {
		return t, fmt.Errorf("its schema is %d; allowed is 1", saved.Schema)
	}
	if n := len(saved.BetweenNodes) + len(saved.External); n == 0 || n > maxSavedRows {
		return t, fmt.Errorf("it has %d rows; allowed are 1 to %d", n, maxSavedRows)
	}
	t.profile = Profile(saved.Profile)
	if t.profile != "" && !idForm.MatchString(string(t.profile)) {
		return t, fmt.Errorf("profile %q is no name; allowed are small letters, digits and dashes", clip(string(t.profile)))
	}
	for _, part := range []struct {
		section Section
		rows    []jsonRow
	}{{BetweenNodes, saved.BetweenNodes}, {External, saved.External}} {
		for _, j := range part.rows {
			r, err := j.row(part.section)
			if err != nil {
				return t, fmt.Errorf("row %q: %w", clip(string(j.ID)), err)
			}
			if slices.ContainsFunc(t.rows, func(o Row) bool { return o.ID == r.ID }) {
				return t, fmt.Errorf("row %q stands twice; allowed is once", r.ID)
			}
			t.rows = append(t.rows, r)
		}
	}
	for _, n := range saved.Notes {
		if !printable(n.Text) {
			return t, fmt.Errorf("a note of row %q is no line of text of at most %d bytes", clip(string(n.Row)), maxSavedText)
		}
		t.notes = append(t.notes, Note(n))
	}
	return t, nil
}

func (j jsonRow) row(section Section) (Row, error) {
	r := Row{ID: j.ID, Section: section, Line: j.Line, Protocols: j.Protocols, Direction: j.Direction, Peer: j.Peer,
		Use: j.Use, Listed: j.Required, Condition: j.Condition, Note: j.Note, Owner: j.Owner, Added: j.Added}
	if !idForm.MatchString(string(r.ID)) {
		return r, fmt.Errorf("the id has to be 1 to 32 small letters, digits and dashes")
	}
	for field, text := range map[string]string{"peer": r.Peer, "use": r.Use, "condition": r.Condition, "note": r.Note, "owner": r.Owner} {
		if !printable(text) {
			return r, fmt.Errorf("%s is no line of text of at most %d bytes", field, maxSavedText)
		}
	}
	if !slices.Contains([]Direction{Inbound, Outbound, Both, Mutual}, r.Direction) {
		return r, fmt.Errorf("direction %q is not known; allowed are %s", clip(string(r.Direction)), join([]Direction{Inbound, Outbound, Both, Mutual}))
	}
	icmp := slices.Equal(r.Protocols, []Protocol{ICMP})
	if len(r.Protocols) == 0 || len(r.Protocols) > 2 || !icmp && slices.ContainsFunc(r.Protocols, func(p Protocol) bool { return p != TCP && p != UDP }) {
		return r, fmt.Errorf("protocols %v are not known; allowed are tcp, udp, both, or icmp alone", r.Protocols)
	}
	if icmp != (len(j.Ports) == 0) || len(j.Ports) > 15 {
		return r, fmt.Errorf("it has %d ports; allowed are 1 to 15 ranges, and none for icmp", len(j.Ports))
	}
	for _, p := range j.Ports {
		if p.From == 0 || p.From > p.To {
			return r, fmt.Errorf("port range %d-%d; allowed are 1 to 65535, the lower one first", p.From, p.To)
		}
		r.Ports = append(r.Ports, PortRange(p))
	}
	if len(j.Hosts) > maxSavedRows {
		return r, fmt.Errorf("it has %d hosts; allowed are %d", len(j.Hosts), maxSavedRows)
	}
	for _, h := range j.Hosts {
		if !nameForm.MatchString(h.Name) {
			return r, fmt.Errorf("host %q is no name of a host", clip(h.Name))
		}
		host := Host{Name: h.Name}
		for _, text := range h.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				return r, fmt.Errorf("host %s: %q is no address", h.Name, clip(text))
			}
			host.Addresses = append(host.Addresses, a.Unmap())
		}
		r.Hosts = append(r.Hosts, host)
	}
	return r, nil
}

func printable(s string) bool {
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return len(s) <= maxSavedText
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
