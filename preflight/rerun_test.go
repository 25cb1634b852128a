package preflight

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

func failedReport() *Report {
	return &Report{Host: "a", Started: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		Hosts:   []Host{{"a", Node, []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}, {"b", LoadBalancer, []netip.Addr{netip.MustParseAddr("10.0.0.2")}}},
		Outside: []Outsider{{Rows: []netcontract.RowID{"social"}, Name: "idp.example.com"}},
		Findings: []Finding{
			{Check: Check{Row: "control", From: "a", To: "b", Address: netip.MustParseAddr("10.0.0.2"), Protocol: netcontract.TCP, Port: 7777}, Verdict: Dropped},
			{Check: Check{Row: "database", From: "a", To: "b", Address: netip.MustParseAddr("10.0.0.2"), Protocol: netcontract.TCP, Port: 27017}, Verdict: Closed},
			{Check: Check{Row: "rate-limit", From: "a", To: "b", Address: netip.MustParseAddr("10.0.0.2"), Protocol: netcontract.TCP, Port: 9001}, Verdict: Rejected},
			{Check: Check{Row: "social", From: "a", To: "idp.example.com", Host: "idp.example.com", Protocol: netcontract.TCP}, Verdict: NotResolving},
			{Check: Check{Row: "cli", From: "a", To: "b"}, Verdict: Open, OK: true},
		}}
}

func TestBeforeAndAfter(t *testing.T) {
	token, err := failedReport().Earlier().Token()
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseEarlier(" " + token + "\n")
	if err != nil || len(e.Failures) != 4 || len(e.Hosts) != 2 || e.Hosts[0].Text() != "a=10.0.0.1+fd00::1@node" || e.Outside[0].Name != "idp.example.com" {
		t.Fatalf("%v %+v", err, e)
	}
	now := failedReport()
	now.Findings[0].Verdict, now.Findings[0].OK = Open, true
	now.Findings = append(now.Findings[:2], now.Findings[3:]...)
	now.Findings[2].Verdict, now.Findings[2].OK, now.Findings[2].Address, now.Findings[2].Port = Open, true, netip.MustParseAddr("192.0.2.1"), 443
	now.Compare(e)
	var got []string
	for _, c := range now.Before {
		got = append(got, c.text())
	}
	want := []string{`holds  a -> b, row control (10.0.0.2 port 7777): was "dropped", is "open"`, `FAILS  a -> b, row database (10.0.0.2 port 27017): was "closed", is "closed"`,
		`?      a -> b, row rate-limit (10.0.0.2 port 9001): was "rejected", and was not looked at now`, `holds  a -> idp.example.com, row social: was "name not resolving", is "open"`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, colour := range []bool{true, false} {
		if s := now.text(colour); !strings.Contains(s, "what failed on 2026-11-25 12:00 UTC") || !strings.Contains(s, "was \"rejected\", and was not looked at now") {
			t.Errorf("%s", s)
		}
	}
}

func TestRerunOfWhatIsNone(t *testing.T) {
	good, err := failedReport().Earlier().Token()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "a run's token": NewToken(), "cut off": good[:len(good)/2], "changed": good[:10] + "AAAA" + good[14:], "JSON of something else": `{"a":1}`,
		"long": rerunPrefix + strings.Repeat("A", maxRerun), "no base64": rerunPrefix + "!!"} {
		if _, err := ParseEarlier(text); problem.From(err).Kind != problem.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := failedReport().Earlier()
	for range maxHosts + 1 {
		many.Hosts = append(many.Hosts, many.Hosts[0])
	}
	token, err := many.Token()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseEarlier(token); err == nil {
		t.Error("too many hosts are taken")
	}
	odd := failedReport().Earlier()
	odd.Hosts[0].Name = "a;reboot|"
	if token, err = odd.Token(); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseEarlier(token); err == nil {
		t.Error("a host that is none is taken")
	}
}

func FuzzRerun(f *testing.F) {
	good, err := failedReport().Earlier().Token()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(rerunPrefix)
	f.Add(`{"host":"a"}`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEarlier(text)
		if err != nil {
			return
		}
		if len(e.Hosts) > maxHosts || len(e.Failures) > maxFailures {
			t.Error("it is larger than a run can be")
		}
		new(Report).Compare(e)
	})
}
