package cli

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/preflight"
)

// maxEarlierFile bounds the file of --rerun, in bytes.
const maxEarlierFile = 32 << 20

// earlier reads --rerun: a token, a report, the file of one of them, or the folder
// of a change request.
func earlier(text string) (*preflight.Earlier, error) {
	if text == "" || strings.HasPrefix(text, "pr1-") {
		return preflight.ParseEarlier(text)
	}
	file := text
	info, err := os.Stat(file)
	if err == nil && info.IsDir() {
		file = filepath.Join(file, rerunFile)
		info, err = os.Stat(file)
	}
	if err != nil {
		return nil, usageError(fmt.Sprintf("--rerun: %v", err))
	}
	if info.Size() > maxEarlierFile {
		return nil, usageError(fmt.Sprintf("--rerun: %s has %d bytes; allowed are %d", file, info.Size(), maxEarlierFile))
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError(fmt.Sprintf("--rerun: %v", err))
	}
	return preflight.ParseEarlier(string(raw))
}

// The files of a change request.
const (
	requestFile = "change-request.csv"
	rulesFile   = "rules.txt"
	rerunFile   = "rerun.txt"
)

// writeChangeRequest writes what has to be allowed, for whoever runs the firewalls:
// the table, the rules one by one and as files, the whole firewalls of the nodes
// that fail, and the token that shows later what became of it.
func writeChangeRequest(dir string, report *preflight.Report, table netcontract.Table) error {
	files, err := changeRequest(report, table)
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := f.Write(dir, 0o600); err != nil {
			return fmt.Errorf("write the change request: %w", err)
		}
	}
	return nil
}

func changeRequest(report *preflight.Report, table netcontract.Table) ([]firewall.File, error) {
	csv, err := report.ChangeRequest()
	if err != nil {
		return nil, err
	}
	rerun, err := report.Earlier().Token()
	if err != nil {
		return nil, err
	}
	var rules []string
	commands := map[string][]string{}
	kinds := map[string]bool{}
	onTheWay := false
	for _, f := range report.Failures() {
		if f.Remedy != "" && !slices.Contains(rules, f.Remedy) {
			rules = append(rules, f.Remedy)
		}
		if f.Fix == nil {
			continue
		}
		for _, c := range f.Fix.Commands {
			if !slices.Contains(commands[f.Fix.At], c) {
				commands[f.Fix.At] = append(commands[f.Fix.At], c)
			}
		}
		kinds[f.Fix.Firewall] = true
		onTheWay = onTheWay || f.Fix.Action == preflight.FixAllow && len(f.Fix.Commands) == 0
	}
	files := []firewall.File{{Name: requestFile, Content: string(csv)}, {Name: rulesFile, Content: strings.Join(rules, "\n") + "\n"}, {Name: rerunFile, Content: rerun + "\n"}}
	var hosts []string
	for h := range commands {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	for _, h := range hosts {
		files = append(files, firewall.File{Name: "rules/" + fileName(h) + ".sh", Executable: true,
			Content: "#!/bin/sh\n# For root on " + h + ": what lets the failing rows of the network contract through.\nset -eu\n" + strings.Join(commands[h], "\n") + "\n"})
	}
	whole, err := wholeFirewalls(report, table, kinds, onTheWay)
	return append(files, whole...), err
}

var unsafeInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func fileName(host string) string { return unsafeInNames.ReplaceAllString(host, "_") }

// wholeFirewalls renders the contract for the hosts of the run: in the languages of
// the firewalls that have to change, and for clouds where a firewall on the way has
// to.
func wholeFirewalls(report *preflight.Report, table netcontract.Table, kinds map[string]bool, onTheWay bool) ([]firewall.File, error) {
	policy, err := firewall.Compile(table, sitesOf(report, table), firewall.Options{})
	if err != nil || len(policy.Flows) == 0 {
		return nil, err
	}
	formats := []firewall.Format{}
	for _, f := range []firewall.Format{firewall.NFTables, firewall.IPTables, firewall.Firewalld, firewall.UFW} {
		if kinds[string(f)] {
			formats = append(formats, f)
		}
	}
	if onTheWay {
		formats = append(formats, firewall.CSV, firewall.TerraformAWS, firewall.TerraformGCP, firewall.TerraformAzure)
	}
	var out []firewall.File
	for _, format := range formats {
		files, err := firewall.Render(policy, format)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			f.Name = fmt.Sprintf("complete/%s/%s", format, f.Name)
			out = append(out, f)
		}
	}
	return out, nil
}

// sitesOf are the peers that a run knows.
func sitesOf(report *preflight.Report, table netcontract.Table) firewall.Sites {
	sites := firewall.Sites{}
	add := func(site firewall.Site, host string, addresses []netip.Addr) {
		p := firewall.Peer{Host: host}
		for _, a := range addresses {
			p.Prefixes = append(p.Prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
		if i := slices.IndexFunc(sites[site], func(o firewall.Peer) bool { return o.Host == host && slices.Equal(o.Prefixes, p.Prefixes) }); i < 0 {
			sites[site] = append(sites[site], p)
		}
	}
	bySite := map[preflight.Role]firewall.Site{preflight.Node: firewall.Nodes, preflight.LoadBalancer: firewall.LoadBalancers, preflight.CLI: firewall.CLI,
		preflight.Monitoring: firewall.Monitoring, preflight.JumpHost: firewall.JumpHosts, preflight.Depot: firewall.Depot, preflight.DNSServer: firewall.DNS}
	for _, h := range report.Hosts {
		if site, ok := bySite[h.Role]; ok {
			add(site, "", h.Addresses)
		}
	}
	for _, o := range report.Outside {
		addresses := o.Addresses
		for _, n := range report.Names {
			if n.Host == o.Name && len(n.Addresses) > 0 && n.From == report.Host {
				addresses = n.Addresses
			}
		}
		for _, id := range o.Rows {
			if row, ok := table.Row(id); ok && len(addresses) > 0 {
				site, _, _ := firewall.PeersOf(row, sites)
				add(site, o.Name, addresses)
			}
		}
	}
	return sites
}
