package netcontract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portcullis-id/portcullis/internal/golden"
	"github.com/portcullis-id/portcullis/netcontract"
)

func contract(t *testing.T, p netcontract.Profile) netcontract.Table {
	t.Helper()
	table, err := netcontract.Contract(p)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func render(t *testing.T, table netcontract.Table, f netcontract.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := netcontract.Render(&b, table, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	ext := map[netcontract.Format]string{netcontract.Text: "txt", netcontract.Markdown: "md", netcontract.JSON: "json"}
	for _, p := range netcontract.Profiles() {
		for _, f := range netcontract.Formats() {
			t.Run(string(p)+" "+string(f), func(t *testing.T) {
				golden.Equal(t, "testdata/"+string(p)+"."+ext[f], render(t, contract(t, p), f))
			})
		}
	}
}

func TestDocumentIsGenerated(t *testing.T) {
	golden.Equal(t, "../docs/network.md", render(t, contract(t, netcontract.ProfilePortcullis), netcontract.Markdown))
}

// markdownTables reads the cells of the page's tables back, without their heads.
func markdownTables(page string) [][][]string {
	var tables [][][]string
	in := false
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "|") {
			in = false
			continue
		}
		if !in {
			tables, in = append(tables, nil), true
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		tables[len(tables)-1] = append(tables[len(tables)-1], cells)
	}
	for i := range tables {
		tables[i] = tables[i][2:]
	}
	return tables
}

// The published list, typed off it: ports, hosts, addresses and flags.
func TestPSaaSIsThePublishedList(t *testing.T) {
	page := string(render(t, contract(t, netcontract.ProfilePSaaS), netcontract.Markdown))
	tables := markdownTables(page)
	if len(tables) != 2 {
		t.Fatalf("%d tables, want 2", len(tables))
	}

	var nodes [][]string // port, use, required
	for _, r := range tables[0] {
		nodes = append(nodes, []string{r[0], r[1], r[2]})
	}
	wantNodes := [][]string{
		{"27017", "Database", "Yes"},
		{"7777", "Control", "Yes"},
		{"9001", "Rate Limiting", "Yes"},
		{"8721", "Webtask Logging/Control", "Yes"},
		{"8701", "Webtask Logging/Control", "Yes"},
		{"9200, 9300-9400", "Elastic Search", "Yes"},
		{"3000", "Grafana instrumentation", "No"},
		{"22", "Maintenance", "No"},
		{"ICMP", "Healthcheck", "No"},
	}
	if d := cmp.Diff(wantNodes, nodes); d != "" {
		t.Errorf("between nodes (-list +page):\n%s", d)
	}

	var external [][]string // use, direction, port, required
	for _, r := range tables[1] {
		external = append(external, []string{r[0], r[1], r[3], r[5]})
	}
	wantExternal := [][]string{
		{"All", "Inbound", "80/(443 or 4443)", "Yes"},
		{"Webtask", "Outbound", "443", "Yes"},
		{"Command Line Interface", "Inbound and outbound", "10121", "No"},
		{"Updates", "Outbound", "80/443", "Yes"},
		{"Updates", "Outbound", "443", "Yes"},
		{"Web extensions, Hooks, and Management Dashboard", "Outbound", "443", "Yes"},
		{"Examples", "Outbound", "443", "No"},
		{"Usage & Telemetry", "Outbound", "443", "Yes"},
		{"Maintenance", "Inbound", "22", "No"},
		{"Healthcheck", "Inbound", "9110", "No"},
		{"DNS", "Inbound and outbound", "53", "Yes"},
	}
	if d := cmp.Diff(wantExternal, external); d != "" {
		t.Errorf("external (-list +page):\n%s", d)
	}

	peers := map[int]string{
		0: "Your load balancer", 1: "Your load balancer", 2: "CLI applications",
		3: "apt-mirror.it.auth0.com (52.8.153.197)", 4: "docker.it.auth0.com (52.9.124.234)", 5: "cdn.auth0.com",
		6: "github.com", 7: "app-gateway.it.auth0.com (52.40.103.203)", 8: "Jump Host", 9: "Monitoring Endpoint",
		10: "Local domain servers",
	}
	for i, want := range peers {
		if got := tables[1][i][2]; !strings.HasPrefix(got, want) {
			t.Errorf("external row %d: peer %q, want %q", i+1, got, want)
		}
	}

	_, notes, _ := strings.Cut(page, "## Notes")
	if n := strings.Count(notes, "\n* "); n != 2 {
		t.Errorf("%d notes, want 2", n)
	}
	for _, note := range []string{"rate limiting is used", "instrumentation is used", "logging and debugging", "load balancer", "social providers", "jump host"} {
		if !strings.Contains(page, note) {
			t.Errorf("the page does not mention %q", note)
		}
	}
}

func TestRowsOfTheDesign(t *testing.T) {
	for _, c := range []struct {
		id        netcontract.RowID
		ports     string
		protocols string
		direction netcontract.Direction
		need      netcontract.Need
	}{
		{netcontract.Database, "27017", "tcp", netcontract.Mutual, netcontract.Required},
		{netcontract.Control, "7777", "tcp", netcontract.Mutual, netcontract.Required},
		{netcontract.RateLimit, "9001", "tcp", netcontract.Mutual, netcontract.Conditional},
		{netcontract.WebtaskLogs, "8721", "tcp", netcontract.Mutual, netcontract.Required},
		{netcontract.WebtaskControl, "8701", "tcp", netcontract.Mutual, netcontract.Required},
		{netcontract.SearchHTTP, "9200", "tcp", netcontract.Mutual, netcontract.Required},
		{netcontract.SearchTransport, "9300-9400", "tcp", netcontract.Mutual, netcontract.Required},
		{netcontract.Grafana, "3000", "tcp", netcontract.Mutual, netcontract.Conditional},
		{netcontract.Maintenance, "22", "tcp", netcontract.Mutual, netcontract.Optional},
		{netcontract.ICMPEcho, "ICMP", "icmp", netcontract.Mutual, netcontract.Optional},
		{netcontract.LB, "80/(443 or 4443)", "tcp", netcontract.Inbound, netcontract.Required},
		{netcontract.WebtaskCallback, "443", "tcp", netcontract.Outbound, netcontract.Required},
		{netcontract.CLI, "10121", "tcp", netcontract.Both, netcontract.Optional},
		{netcontract.UpdatePackages, "80/443", "tcp", netcontract.Outbound, netcontract.Required},
		{netcontract.UpdateImages, "443", "tcp", netcontract.Outbound, netcontract.Required},
		{netcontract.CDN, "443", "tcp", netcontract.Outbound, netcontract.Required},
		{netcontract.Examples, "443", "tcp", netcontract.Outbound, netcontract.Optional},
		{netcontract.Telemetry, "443", "tcp", netcontract.Outbound, netcontract.Required},
		{netcontract.JumpHost, "22", "tcp", netcontract.Inbound, netcontract.Optional},
		{netcontract.Health, "9110", "tcp", netcontract.Inbound, netcontract.Optional},
		{netcontract.DNS, "53", "tcp+udp", netcontract.Both, netcontract.Required},
		{netcontract.Social, "443", "tcp", netcontract.Outbound, netcontract.Conditional},
	} {
		for _, p := range netcontract.Profiles() {
			t.Run(string(p)+" "+string(c.id), func(t *testing.T) {
				r, ok := contract(t, p).Row(c.id)
				if !ok {
					t.Fatal("no such row")
				}
				if got := r.PortText(); got != c.ports {
					t.Errorf("ports %q, want %q", got, c.ports)
				}
				if got := r.ProtocolText(); got != c.protocols {
					t.Errorf("protocols %q, want %q", got, c.protocols)
				}
				if r.Direction != c.direction || r.Need() != c.need {
					t.Errorf("direction %q need %q, want %q %q", r.Direction, r.Need(), c.direction, c.need)
				}
				if r.Use == "" || r.Peer == "" || r.Owner == "" || r.Added {
					t.Errorf("incomplete row: %+v", r)
				}
			})
		}
	}
}

func TestRowsBeyondTheList(t *testing.T) {
	for id, ports := range map[netcontract.RowID]string{netcontract.SMTP: "25/465/587", netcontract.Traces: "4318"} {
		if _, ok := contract(t, netcontract.ProfilePSaaS).Row(id); ok {
			t.Errorf("%s is in the psaas profile", id)
		}
		r, ok := contract(t, netcontract.ProfilePortcullis).Row(id)
		if !ok || !r.Added || r.Line != 0 || r.PortText() != ports || r.Need() != netcontract.Conditional {
			t.Errorf("%s: %+v", id, r)
		}
	}
	for _, r := range contract(t, netcontract.ProfilePortcullis).Rows() {
		if r.Added != (r.ID == netcontract.SMTP || r.ID == netcontract.Traces) {
			t.Errorf("%s: Added is %v", r.ID, r.Added)
		}
	}
}

// The default profile names no host: everything outside is the operator's.
func TestPortcullisNamesNoHost(t *testing.T) {
	for _, r := range contract(t, "").Rows() {
		if len(r.Hosts) != 0 {
			t.Errorf("%s names %v", r.ID, r.Hosts)
		}
	}
}

func TestEveryIDIsShown(t *testing.T) {
	for _, p := range netcontract.Profiles() {
		table := contract(t, p)
		text, page := string(render(t, table, netcontract.Text)), string(render(t, table, netcontract.Markdown))
		var doc struct {
			BetweenNodes []struct{ ID netcontract.RowID } `json:"between_nodes"`
			External     []struct{ ID netcontract.RowID } `json:"external"`
		}
		if err := json.Unmarshal(render(t, table, netcontract.JSON), &doc); err != nil {
			t.Fatal(err)
		}
		if got, want := len(doc.BetweenNodes)+len(doc.External), len(table.Rows()); got != want {
			t.Errorf("%s: %d rows in the JSON form, want %d", p, got, want)
		}
		seen := map[netcontract.RowID]bool{}
		for _, r := range table.Rows() {
			if seen[r.ID] {
				t.Errorf("%s: %s twice", p, r.ID)
			}
			seen[r.ID] = true
			if !strings.Contains(text, "\n"+string(r.ID)+" ") || !strings.Contains(page, "`"+string(r.ID)+"`") {
				t.Errorf("%s: %s is not shown", p, r.ID)
			}
		}
	}
}

func TestRowPort(t *testing.T) {
	table := contract(t, "")
	for id, want := range map[netcontract.RowID]int{
		netcontract.LB: 80, netcontract.Health: 9110, netcontract.CLI: 10121,
		netcontract.Control: 7777, netcontract.SearchTransport: 9300, netcontract.ICMPEcho: 0,
	} {
		if r, _ := table.Row(id); r.Port() != want {
			t.Errorf("%s: port %d, want %d", id, r.Port(), want)
		}
	}
	for _, c := range []struct {
		id         netcontract.RowID
		want, port int
	}{
		{netcontract.LB, 443, 443}, {netcontract.LB, 4443, 4443}, {netcontract.LB, 8443, 80},
		{netcontract.SearchTransport, 9350, 9350}, {netcontract.ICMPEcho, 7, 0}, {"nonsense", 443, 0},
	} {
		if got := table.Port(c.id, c.want); got != c.port {
			t.Errorf("%s: port %d, want %d", c.id, got, c.port)
		}
	}
	if _, ok := table.Row("nonsense"); ok {
		t.Error("found a row that does not exist")
	}
}

func TestRowAllows(t *testing.T) {
	table := contract(t, "")
	for _, c := range []struct {
		name  string
		id    netcontract.RowID
		proto netcontract.Protocol
		port  int
		want  bool
	}{
		{"a listed port", netcontract.LB, netcontract.TCP, 443, true},
		{"an alternative", netcontract.LB, netcontract.TCP, 4443, true},
		{"a port of another row", netcontract.LB, netcontract.TCP, 9110, false},
		{"the first of a range", netcontract.SearchTransport, netcontract.TCP, 9300, true},
		{"the last of a range", netcontract.SearchTransport, netcontract.TCP, 9400, true},
		{"below a range", netcontract.SearchTransport, netcontract.TCP, 9299, false},
		{"above a range", netcontract.SearchTransport, netcontract.TCP, 9401, false},
		{"the wrong protocol", netcontract.Social, netcontract.UDP, 443, false},
		{"the second protocol", netcontract.DNS, netcontract.UDP, 53, true},
		{"ICMP has no port", netcontract.ICMPEcho, netcontract.ICMP, 0, true},
		{"TCP on the ICMP row", netcontract.ICMPEcho, netcontract.TCP, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := table.Row(c.id)
			if got := r.Allows(c.proto, c.port); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestWithHostsLeavesTheTableAlone(t *testing.T) {
	before := contract(t, "")
	after := before.WithHosts(netcontract.Social, netcontract.Host{Name: "idp.example"})
	if r, _ := before.Row(netcontract.Social); len(r.Hosts) != 0 {
		t.Errorf("the old table names %v", r.Hosts)
	}
	if r, _ := after.Row(netcontract.Social); len(r.Hosts) != 1 || r.Hosts[0].Name != "idp.example" {
		t.Errorf("the new table names %v", r.Hosts)
	}
	after.Rows()[0].Ports[0].From = 1
	if after.Rows()[0].Port() != 27017 {
		t.Error("Rows hands out the table's own memory")
	}
	if !strings.Contains(string(render(t, after, netcontract.Markdown)), "| idp.example |") {
		t.Error("the page does not show the host")
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name string
		err  func() error
		want []string // in the error; nil means none
	}{
		{"no profile", func() error { _, err := netcontract.ParseProfile(""); return err }, nil},
		{"a profile", func() error { _, err := netcontract.ParseProfile("psaas"); return err }, nil},
		{"an unknown profile", func() error { _, err := netcontract.ParseProfile("Psaas"); return err }, []string{`"Psaas"`, "portcullis, psaas"}},
		{"a contract of an unknown profile", func() error { _, err := netcontract.Contract("x"); return err }, []string{`"x"`, "portcullis, psaas"}},
		{"no format", func() error { _, err := netcontract.ParseFormat(""); return err }, nil},
		{"a format", func() error { _, err := netcontract.ParseFormat("json"); return err }, nil},
		{"an unknown format", func() error { _, err := netcontract.ParseFormat("yaml"); return err }, []string{`"yaml"`, "table, markdown, json"}},
		{"rendering in an unknown format", func() error { return netcontract.Render(&bytes.Buffer{}, netcontract.Table{}, "pdf") }, []string{`"pdf"`, "table, markdown, json"}},
		{"a writer that fails", func() error { return netcontract.Render(broken{}, netcontract.Table{}, netcontract.JSON) }, []string{"disk full"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.err()
			if (err == nil) != (c.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }
