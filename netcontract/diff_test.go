package netcontract_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/portcullis-id/portcullis/netcontract"
)

func lines(t *testing.T, p netcontract.Profile) []netcontract.Line {
	t.Helper()
	table, err := netcontract.Contract(p)
	if err != nil {
		t.Fatal(err)
	}
	return table.Lines()
}

func TestDiff(t *testing.T) {
	before := lines(t, netcontract.ProfilePortcullis)
	if d := netcontract.Diff(before, before); len(d) != 0 {
		t.Errorf("a contract differs from itself: %v", d)
	}
	after := slices.Clone(before)
	i := slices.IndexFunc(after, func(l netcontract.Line) bool { return l.ID == netcontract.WebtaskLogs })
	after = slices.Delete(after, i, i+1)
	j := slices.IndexFunc(after, func(l netcontract.Line) bool { return l.ID == netcontract.Database })
	after[j].Ports = "5432"
	after = append(after, netcontract.Line{ID: "new-row", Ports: "1", Protocols: "udp", Direction: netcontract.Inbound, Peer: "you", Need: netcontract.Optional})
	var got []string
	for _, c := range netcontract.Diff(before, after) {
		got = append(got, c.String())
	}
	want := []string{"~ database: port is 5432, was 27017", "+ new-row: udp 1, inbound, you, optional"}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2][:15] != "- webtask-logs:" {
		t.Errorf("%q", got)
	}
}

func TestSavedContractsAreReadAgain(t *testing.T) {
	for _, p := range []netcontract.Profile{netcontract.ProfilePortcullis, netcontract.ProfilePSaaS} {
		table, err := netcontract.Contract(p)
		if err != nil {
			t.Fatal(err)
		}
		var saved bytes.Buffer
		if err := netcontract.Render(&saved, table, netcontract.JSON); err != nil {
			t.Fatal(err)
		}
		back, err := netcontract.ParseTable(saved.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if d := netcontract.Diff(table.Lines(), back.Lines()); len(d) != 0 {
			t.Errorf("%s: %v", p, d)
		}
	}
	for _, bad := range []string{"", "{}", `{"schema":1}`, `{"schema":1,"external":[{"ports":[{"from":70000}]}]}`, row(`"id":"Lb"`), row(`"direction":"up"`),
		row(`"protocols":["sctp"]`), row(`"protocols":["icmp"]`), row(`"ports":[]`), row(`"ports":[{"from":0,"to":1}]`), row(`"ports":[{"from":2,"to":1}]`),
		row(`"use":"two\nlines"`), row(`"hosts":[{"name":"a b"}]`), row(`"hosts":[{"name":"a","addresses":["x"]}]`)} {
		if _, err := netcontract.ParseTable([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a contract", bad)
		}
	}
	if _, err := netcontract.ParseTable([]byte(row(`"use":"all"`))); err != nil {
		t.Errorf("a good row is refused: %v", err)
	}
}

// row is a saved contract of one row, in which the last of two equal fields counts.
func row(field string) string {
	return `{"schema":1,"external":[{"id":"lb","ports":[{"from":443,"to":443}],"protocols":["tcp"],"direction":"inbound",` + field + `}]}`
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte(row(`"use":"all"`)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		table, err := netcontract.ParseTable(raw)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := netcontract.Render(&again, table, netcontract.JSON); err != nil {
			t.Fatal(err)
		}
		back, err := netcontract.ParseTable(again.Bytes())
		if err != nil {
			t.Fatalf("what was read cannot be saved and read again: %v", err)
		}
		if d := netcontract.Diff(table.Lines(), back.Lines()); len(d) != 0 {
			t.Errorf("a contract differs from itself: %v", d)
		}
	})
}
