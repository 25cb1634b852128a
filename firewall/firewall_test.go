package firewall_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/hashicorp/hcl/v2"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/internal/golden"
	"github.com/portcullis-id/portcullis/netcontract"
)

// named is a network with every site in it: both families, networks, names with
// and without addresses.
var named = map[firewall.Site][]string{
	firewall.Nodes:         {"node1=10.0.0.11+fd00::11", "node2=10.0.0.12+fd00::12", "node3=10.0.0.13+fd00::13"},
	firewall.LoadBalancers: {"10.0.0.5", "fd00::5"},
	firewall.Depot:         {"depot.example.com=10.0.0.9+fd00::9"},
	firewall.CLI:           {"10.0.9.7"},
	firewall.Monitoring:    {"10.0.9.0/28", "fd00:9::/64", "10.0.9.3"},
	firewall.JumpHosts:     {"10.0.9.2"},
	firewall.DNS:           {"10.0.0.53", "fd00::53"},
	firewall.Providers:     {"accounts.example.net", "login.example.net=192.0.2.10"},
	firewall.Mail:          {"mail.example.com=10.0.0.25"},
	firewall.Traces:        {"10.0.0.18"},
}

func compile(t testing.TB, profile netcontract.Profile, named map[firewall.Site][]string, o firewall.Options) firewall.Policy {
	t.Helper()
	table, err := netcontract.Contract(profile)
	if err != nil {
		t.Fatal(err)
	}
	where, err := firewall.ParseSites(named)
	if err != nil {
		t.Fatal(err)
	}
	p, err := firewall.Compile(table, where, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func render(t testing.TB, p firewall.Policy, f firewall.Format) []firewall.File {
	t.Helper()
	files, err := firewall.Render(p, f)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// write puts the files of a rendering into a folder of the test.
func write(t testing.TB, files []firewall.File) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.Content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGolden(t *testing.T) {
	for _, f := range firewall.Formats() {
		t.Run(string(f), func(t *testing.T) {
			p := compile(t, netcontract.ProfilePortcullis, named, firewall.Options{NodesByLabel: f.NodesByLabel()})
			for _, file := range render(t, p, f) {
				golden.Equal(t, filepath.Join("testdata", "golden", string(f), filepath.FromSlash(file.Name)), []byte(file.Content))
			}
		})
	}
	// The published list has hosts of its own, one of them without an address.
	p := compile(t, netcontract.ProfilePSaaS, map[firewall.Site][]string{firewall.Nodes: named[firewall.Nodes]}, firewall.Options{})
	for _, f := range []firewall.Format{firewall.NFTables, firewall.Cilium} {
		golden.Equal(t, filepath.Join("testdata", "golden", "psaas."+string(f)), []byte(render(t, p, f)[0].Content))
	}
}

func TestTheSameInputGivesTheSameText(t *testing.T) {
	shuffled := map[firewall.Site][]string{}
	for site, list := range named {
		list = slices.Clone(list)
		slices.Reverse(list)
		shuffled[site] = list
	}
	for _, f := range firewall.Formats() {
		a := render(t, compile(t, netcontract.ProfilePortcullis, named, firewall.Options{}), f)
		b := render(t, compile(t, netcontract.ProfilePortcullis, shuffled, firewall.Options{}), f)
		for i := range a {
			if a[i].Content != b[i].Content {
				t.Errorf("%s, %s depends on the order in which peers are named", f, a[i].Name)
			}
		}
	}
}

// TestEveryRuleNamesItsRow looks for a row id at each rule that accepts, and for
// each row that has peers.
func TestEveryRuleNamesItsRow(t *testing.T) {
	p := compile(t, netcontract.ProfilePortcullis, named, firewall.Options{})
	for _, f := range firewall.Formats() {
		var all strings.Builder
		for _, file := range render(t, p, f) {
			all.WriteString(file.Content)
		}
		for _, flow := range p.Flows {
			if flow.Protocol == netcontract.ICMP && (f == firewall.NetworkPolicy) {
				continue
			}
			id := string(flow.Row)
			if !slices.ContainsFunc([]string{"row " + id, "`" + id + "`", "<code>" + id + "</code>", "," + id + ",", `"` + id + `"`}, func(s string) bool { return strings.Contains(all.String(), s) }) {
				t.Errorf("%s does not name row %s", f, id)
			}
		}
	}
}

func TestRowsWithoutPeersAllowNothing(t *testing.T) {
	p := compile(t, netcontract.ProfilePortcullis, map[firewall.Site][]string{firewall.Nodes: {"10.0.0.11"}, firewall.Providers: {"accounts.example.net"}},
		firewall.Options{Without: []netcontract.RowID{netcontract.Grafana}})
	text := render(t, p, firewall.NFTables)[0].Content
	for _, want := range []string{"row lb: nobody is named: --lb names your load balancer", "row grafana: left out on purpose", "row social: no address of accounts.example.net is known"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, not := range []string{"dport 3000", "dport 443", "dport { 80"} {
		if strings.Contains(text, not) {
			t.Errorf("it has %q", not)
		}
	}
	p = compile(t, netcontract.ProfilePortcullis, map[firewall.Site][]string{firewall.Providers: {"accounts.example.net"}},
		firewall.Options{Addresses: map[string][]netip.Addr{"accounts.example.net": {netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("::ffff:192.0.2.8")}}})
	if text := render(t, p, firewall.NFTables)[0].Content; !strings.Contains(text, "elements = { 192.0.2.7, 192.0.2.8 }") {
		t.Errorf("addresses that were said are not allowed:\n%s", text)
	}
}

func TestBadPeers(t *testing.T) {
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprintf("10.1.%d.%d", i/256, i%256)
	}
	for _, tt := range []struct {
		name string
		site firewall.Site
		list []string
		says string
	}{
		{"no address", firewall.LoadBalancers, []string{"10.0.0.300"}, `lb: "10.0.0.300" is no address`},
		{"half an address", firewall.LoadBalancers, []string{"10.0.0"}, `"10.0.0" is no address`},
		{"empty", firewall.LoadBalancers, []string{""}, `"" is no address`},
		{"host bits", firewall.CLI, []string{"10.0.0.7/24"}, "the network is 10.0.0.0/24"},
		{"mask too long", firewall.CLI, []string{"10.0.0.0/40"}, "is no address"},
		{"everybody", firewall.DNS, []string{"0.0.0.0"}, "unicast"},
		{"multicast", firewall.DNS, []string{"ff02::1"}, "unicast"},
		{"loopback", firewall.DNS, []string{"127.0.0.1"}, "unicast"},
		{"zone", firewall.DNS, []string{"fe80::1%eth0"}, "without a zone"},
		{"twice", firewall.Nodes, []string{"a=10.0.0.1", "b=10.0.0.1"}, "stands twice"},
		{"node by name", firewall.Nodes, []string{"node1.example.com"}, "a node needs its addresses"},
		{"rule in a name", firewall.Depot, []string{"a b\naccept"}, "is no"},
		{"quote in a name", firewall.Depot, []string{`a"b=10.0.0.1`}, "is no name of a host"},
		{"too many", firewall.Monitoring, many, "has 257 peers; allowed are 256"},
		{"unknown site", "moon", []string{"10.0.0.1"}, "there is no such site"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := firewall.ParseSites(map[firewall.Site][]string{tt.site: tt.list})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
	table, err := netcontract.Contract("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := firewall.Compile(table, nil, firewall.Options{Without: []netcontract.RowID{"nope"}}); err == nil || !strings.Contains(err.Error(), `no row "nope"`) {
		t.Errorf("an unknown row: %v", err)
	}
	if _, err := firewall.Render(firewall.Policy{}, "cisco"); err == nil || !strings.Contains(err.Error(), "allowed are markdown") {
		t.Errorf("an unknown format: %v", err)
	}
}

// tool skips where a program is missing, and fails in CI, which installs them.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing, and CI installs it", name)
		}
		t.Skipf("%s is not installed", name)
	}
	if os.Geteuid() != 0 {
		t.Skipf("%s wants root to check rules", name)
	}
	return path
}

func check(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestRealTools hands each rendering to the program that reads it.
func TestRealTools(t *testing.T) {
	p := compile(t, netcontract.ProfilePortcullis, named, firewall.Options{})
	t.Run("nft", func(t *testing.T) {
		nft := tool(t, "nft")
		check(t, nft, "-c", "-f", filepath.Join(write(t, render(t, p, firewall.NFTables)), "portcullis.nft"))
	})
	t.Run("iptables-restore", func(t *testing.T) {
		four, six := tool(t, "iptables-restore"), tool(t, "ip6tables-restore")
		dir := write(t, render(t, p, firewall.IPTables))
		check(t, four, "--test", filepath.Join(dir, "rules.v4"))
		check(t, six, "--test", filepath.Join(dir, "rules.v6"))
	})
	t.Run("firewalld", func(t *testing.T) {
		offline := tool(t, "firewall-offline-cmd")
		dir := write(t, render(t, p, firewall.Firewalld))
		conf, err := os.ReadFile("/etc/firewalld/firewalld.conf")
		if err != nil {
			t.Skipf("firewalld is not set up here: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "firewalld.conf"), conf, 0o644); err != nil {
			t.Fatal(err)
		}
		check(t, offline, "--system-config", dir, "--check-config")
		if out := check(t, offline, "--system-config", dir, "--info-policy", "portcullis-in"); !strings.Contains(out, "target: DROP") || !strings.Contains(out, `source ipset="portcullis-nodes6" service name="portcullis-database" accept`) {
			t.Errorf("firewalld understands something else:\n%s", out)
		}
	})
	t.Run("ufw", func(t *testing.T) {
		ufw := tool(t, "ufw")
		dir := write(t, render(t, p, firewall.UFW))
		check(t, "/bin/sh", "-n", filepath.Join(dir, "portcullis-ufw.sh"))
		root := t.TempDir() // ufw reads everything below another root
		for _, d := range []string{"etc/ufw", "etc/default", "lib/ufw", "usr/share/ufw"} {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(d)), 0o755); err != nil {
				t.Fatal(err)
			}
			check(t, "cp", "-r", "/"+d, filepath.Join(root, d))
		}
		for _, f := range render(t, p, firewall.UFW) {
			if err := os.WriteFile(filepath.Join(root, "etc/ufw", f.Name), []byte(f.Content), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		if out := check(t, ufw, "--datadir="+root, "app", "info", "Portcullis-search-transport"); !strings.Contains(out, "9300:9400/tcp") {
			t.Errorf("ufw understands something else:\n%s", out)
		}
		if out := check(t, ufw, "--datadir="+root, "--dry-run", "allow", "in", "from", "fd00::12", "to", "any", "app", "Portcullis-lb", "comment", "row lb"); !strings.Contains(out, "--dports 80,443,4443") {
			t.Errorf("ufw understands something else:\n%s", out)
		}
	})
}

func TestTerraformParses(t *testing.T) {
	p := compile(t, netcontract.ProfilePortcullis, named, firewall.Options{})
	for f, want := range map[firewall.Format]string{firewall.TerraformAWS: "aws_vpc_security_group_ingress_rule", firewall.TerraformGCP: "google_compute_firewall", firewall.TerraformAzure: "azurerm_network_security_rule"} {
		content := []byte(render(t, p, f)[0].Content)
		file, diags := hclsyntax.ParseConfig(content, string(f), hcl.InitialPos)
		if diags.HasErrors() {
			t.Errorf("%s: %v", f, diags)
			continue
		}
		if formatted := hclwrite.Format(content); !bytes.Equal(formatted, content) {
			t.Errorf("%s is not formatted as terraform fmt does it", f)
		}
		seen, locals := map[string]bool{}, map[string]bool{}
		priorities := map[string]bool{}
		for _, b := range file.Body.(*hclsyntax.Body).Blocks {
			if b.Type == "locals" {
				for name := range b.Body.Attributes {
					locals[name] = true
				}
			}
			key := b.Type + "." + strings.Join(b.Labels, ".")
			if seen[key] {
				t.Errorf("%s: %s stands twice", f, key)
			}
			seen[key] = true
			if len(b.Labels) == 2 && b.Labels[0] == want {
				seen[want] = true
				if f == firewall.TerraformAzure { // the priority is a rule's own within a direction
					var text [2]string
					for i, a := range []string{"direction", "priority"} {
						v, d := b.Body.Attributes[a].Expr.Value(nil)
						if d.HasErrors() {
							t.Fatal(d)
						}
						text[i] = v.GoString()
					}
					if k := text[0] + text[1]; priorities[k] {
						t.Errorf("two rules have %s", k)
					} else {
						priorities[k] = true
					}
				}
			}
			for _, a := range b.Body.Attributes {
				for _, v := range a.Expr.Variables() {
					if v.RootName() == "local" && !locals[v[1].(hcl.TraverseAttr).Name] {
						t.Errorf("%s: %s refers to %s, which is not there", f, key, v[1].(hcl.TraverseAttr).Name)
					}
				}
			}
		}
		if !seen[want] {
			t.Errorf("%s has no %s", f, want)
		}
	}
}

func TestKubernetesObjects(t *testing.T) {
	p := compile(t, netcontract.ProfilePortcullis, named, firewall.Options{NodesByLabel: true})
	var np networking.NetworkPolicy
	if err := yaml.UnmarshalStrict([]byte(render(t, p, firewall.NetworkPolicy)[0].Content), &np); err != nil {
		t.Fatal(err)
	}
	if len(np.Spec.PolicyTypes) != 2 || len(np.Spec.Ingress) == 0 || len(np.Spec.Egress) == 0 {
		t.Errorf("the policy is of %v, with %d and %d rules", np.Spec.PolicyTypes, len(np.Spec.Ingress), len(np.Spec.Egress))
	}
	for _, r := range np.Spec.Egress {
		if len(r.To) == 0 || len(r.Ports) == 0 {
			t.Errorf("a rule is open to everybody or for every port: %+v", r)
		}
		for _, to := range r.To {
			if to.IPBlock != nil {
				netip.MustParsePrefix(to.IPBlock.CIDR)
			}
		}
	}
	var cnp struct {
		APIVersion, Kind string
		Metadata         map[string]string
		Spec             struct {
			EndpointSelector any
			Ingress          []ciliumRule
			Egress           []ciliumRule
		}
	}
	if err := yaml.UnmarshalStrict([]byte(render(t, p, firewall.Cilium)[0].Content), &cnp); err != nil {
		t.Fatal(err)
	}
	names, dns, echo := 0, 0, 0
	for _, r := range append(cnp.Spec.Ingress, cnp.Spec.Egress...) {
		if len(r.FromEndpoints)+len(r.FromCIDR)+len(r.ToEndpoints)+len(r.ToCIDR)+len(r.ToFQDNs) == 0 {
			t.Errorf("a rule is open to everybody: %+v", r)
		}
		if len(r.ToPorts)+len(r.ICMPs) == 0 {
			t.Errorf("a rule is for every port: %+v", r)
		}
		names += len(r.ToFQDNs)
		echo += len(r.ICMPs)
		for _, tp := range r.ToPorts {
			if tp.Rules != nil {
				dns++
			}
		}
	}
	if names == 0 || dns != 1 || echo != 2 {
		t.Errorf("%d names, %d DNS rules, %d echo rules", names, dns, echo)
	}
}

// ciliumRule is what the renderer uses of an ingress or egress rule of cilium.io/v2.
type ciliumRule struct {
	FromEndpoints, ToEndpoints []struct{ MatchLabels map[string]string }
	FromCIDR, ToCIDR           []netip.Prefix
	ToFQDNs                    []struct{ MatchName string }
	ToPorts                    []struct {
		Ports []struct {
			Port     string
			EndPort  int
			Protocol string
		}
		Rules *struct {
			DNS []struct{ MatchPattern string }
		}
	}
	ICMPs []struct {
		Fields []struct {
			Family string
			Type   int
		}
	}
}

func TestDocumentsAreWellFormed(t *testing.T) {
	p := compile(t, netcontract.ProfilePortcullis, named, firewall.Options{})
	rows, err := csv.NewReader(strings.NewReader(render(t, p, firewall.CSV)[0].Content)).ReadAll()
	if err != nil || len(rows) != len(p.Flows)+1 {
		t.Errorf("the table has %d lines for %d flows: %v", len(rows), len(p.Flows), err)
	}
	var back struct {
		Schema int
		Flows  []struct{ Row, Direction, Ports string }
	}
	if err := json.Unmarshal([]byte(render(t, p, firewall.JSON)[0].Content), &back); err != nil || back.Schema != 1 || len(back.Flows) != len(p.Flows) {
		t.Errorf("%+v: %v", back, err)
	}
	d := xml.NewDecoder(strings.NewReader(render(t, p, firewall.HTML)[0].Content))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzParseSites renders whatever is taken for a peer: what comes out has to be
// rules still.
func FuzzParseSites(f *testing.F) {
	for _, list := range named {
		for _, text := range list {
			f.Add(text)
		}
	}
	f.Add("a\nb=10.0.0.1")
	table, err := netcontract.Contract("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		where, err := firewall.ParseSites(map[firewall.Site][]string{firewall.Depot: {text}})
		if err != nil {
			return
		}
		p, err := firewall.Compile(table, where, firewall.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, peer := range where[firewall.Depot] {
			if strings.ContainsAny(peer.Host, " \n\"'\\;{}<>&") {
				t.Errorf("%q is taken for a host", peer.Host)
			}
		}
		files, err := firewall.Render(p, firewall.TerraformAWS)
		if err != nil {
			t.Fatal(err)
		}
		if _, diags := hclsyntax.ParseConfig([]byte(files[0].Content), "f", hcl.InitialPos); diags.HasErrors() {
			t.Errorf("%q makes no HCL: %v", text, diags)
		}
	})
}
