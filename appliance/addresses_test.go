package appliance

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/portcullis-id/portcullis/netcontract"
)

func shown(t *testing.T, p netcontract.Profile) netcontract.Table {
	t.Helper()
	table, err := netcontract.Contract(p)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTargets(t *testing.T) {
	c := Default()
	c.Network.Sites.Depot = []string{"depot.example.com=203.0.113.9+203.0.113.10", "10.0.0.0/24"}
	c.Network.Sites.Providers = []string{"idp.example.com"}
	c.SMTP.Host, c.SMTP.Port = "mail.example.com", 465
	c.Traces.Endpoint = "http://otel.example.com:4318"
	got := map[string]string{}
	for _, target := range c.targets(shown(t, netcontract.ProfilePortcullis), []string{"idp.example.com", "github.com"}) {
		text := ""
		for _, r := range target.Rows {
			text += string(r) + " "
		}
		if target.Depot {
			text += "depot "
		}
		for _, a := range target.Published {
			text += a.String() + " "
		}
		for _, p := range target.Ports {
			text += (netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(p))).String()
		}
		got[target.Host] = text
	}
	for host, want := range map[string]string{
		"depot.example.com": "update-packages update-images cdn examples telemetry depot 203.0.113.9 203.0.113.10 0.0.0.0:443",
		"idp.example.com":   "social 0.0.0.0:443",
		"github.com":        "social 0.0.0.0:443",
		"mail.example.com":  "smtp 0.0.0.0:465",
		"otel.example.com":  "traces 0.0.0.0:4318",
	} {
		if got[host] != want {
			t.Errorf("%s: %q, want %q", host, got[host], want)
		}
	}
	if len(got) != 5 {
		t.Errorf("targets: %v", got)
	}

	// Behind a proxy only the proxy, and what is no HTTP, passes the host's firewall.
	c.Network.Proxy = "http://proxy.example.com:3128"
	for _, target := range c.targets(shown(t, netcontract.ProfilePortcullis), nil) {
		want := map[string][]int{"proxy.example.com": {3128}, "mail.example.com": {465}}[target.Host]
		if !slices.Equal(target.Ports, want) {
			t.Errorf("behind a proxy %s at %v, want %v", target.Host, target.Ports, want)
		}
	}

	// The published list is watched, and nothing of it is called.
	c = Default()
	for _, target := range c.targets(shown(t, netcontract.ProfilePSaaS), nil) {
		if len(target.Ports) != 0 {
			t.Errorf("%s would be called", target.Host)
		}
		if target.Host == "docker.it.auth0.com" && !slices.Equal(target.Published, []netip.Addr{netip.MustParseAddr("52.9.124.234")}) {
			t.Errorf("published: %v", target.Published)
		}
	}
}

func TestReplaceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	for _, want := range []string{"one", "two"} {
		if err := replaceFile(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := replaceFile(filepath.Join(t.TempDir(), "none", "list"), nil); err == nil {
		t.Error("a folder that is not there takes a file")
	}
}

// TestWanted says which flows the host's firewall is held to.
func TestWanted(t *testing.T) {
	table := shown(t, netcontract.ProfilePortcullis)
	c := Default()
	c.Network.Sites.Nodes = []string{"10.0.0.11", "10.0.0.12"}
	c.Network.Sites.Depot = []string{"depot.example.com"}
	c.Network.HostPorts = []string{"9100/tcp", "6000-6002/udp"}
	c.Database.DSN = "postgres://u:p@db1:5433,db2:5434/x"
	c.SMTP.Host, c.SMTP.Port = "mail.example.com", 587
	h := c.wanted(table, map[string][]netip.Addr{"depot.example.com": {netip.MustParseAddr("203.0.113.9")}, "mail.example.com": {netip.MustParseAddr("2001:db8::25")}}, 7790)
	got := map[string]bool{}
	for _, e := range h.Expected {
		way := "in"
		if e.Out {
			way = "out"
		}
		got[fmt.Sprintf("%s %s %d", way, e.Row, e.Port)] = true
		if e.Row == netcontract.LB && (!e.Ours || len(e.Peers) != 0) {
			t.Errorf("row lb, whose peers nobody names: %+v", e)
		}
	}
	for _, want := range []string{"in control 7790", "out control 7790", "in search-transport 9300", "in search-transport 9400", "out update-packages 443", "out smtp 587",
		"in lb 443", "in lb 80", "in health 9110", "out database 5433", "out database 5434"} {
		if !got[want] {
			t.Errorf("%s is missing: %v", want, got)
		}
	}
	for _, no := range []string{"in control 7777", "in maintenance 22", "in cli 10121", "out webtask-callback 443", "out database 27017"} {
		if got[no] {
			t.Errorf("%s is wanted, and nobody needs it", no)
		}
	}
	ports := map[string]bool{}
	for _, e := range h.Inbound {
		ports[fmt.Sprint(e.Protocol, " ", e.Port)] = true
	}
	for _, p := range []string{"tcp 9100", "tcp 7790", "udp 6000", "udp 6002", "tcp 22", "tcp 443"} {
		if !ports[p] {
			t.Errorf("%s is not declared", p)
		}
	}
	for _, p := range []string{"tcp 6000", "udp 6003", "udp 9100"} {
		if ports[p] {
			t.Errorf("%s is declared", p)
		}
	}
	dev := DefaultDev()
	if h := dev.wanted(table, nil, 0); h.Unjudged == "" {
		t.Error("a node on loopback is judged")
	}
	for _, s := range []string{"", "9100", "0/tcp", "70000/tcp", "5-4/udp", "9100/icmp", "a/tcp"} {
		if _, err := parseHostPorts(s); err == nil {
			t.Errorf("%q is taken for ports", s)
		}
	}
}
