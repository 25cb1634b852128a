package audit

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/netcontract"
)

// bench is a node in a lab, with what the contract wants of its firewall.
type bench struct {
	t    *testing.T
	lab  *lab.Lab
	node *lab.Host
	host Host
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, lab: lab.New(t, lab.Options{Nodes: 2})}
	b.node = b.lab.Host("node1")
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	b.host.Inbound = FromContract(table).Listen
	peers := prefixes(b.lab.Host("node2").Addrs())
	for row, port := range map[netcontract.RowID]int{netcontract.Control: 7777, netcontract.RateLimit: 9001} {
		b.host.Expected = append(b.host.Expected, Expected{Row: row, Protocol: "tcp", Port: port, Peers: peers}, Expected{Row: row, Out: true, Protocol: "tcp", Port: port, Peers: peers})
	}
	b.host.Expected = append(b.host.Expected, Expected{Row: netcontract.LB, Protocol: "tcp", Port: 443, Ours: true},
		Expected{Row: netcontract.UpdatePackages, Out: true, Protocol: "tcp", Port: 443, Peers: prefixes(b.lab.Host("depot").Addrs())})
	return b
}

func prefixes(addrs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

func (b *bench) look() *FirewallReport {
	b.t.Helper()
	var r *FirewallReport
	if err := b.node.Do(func() error { r = CheckFirewall(b.host, time.Now()); return nil }); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// want compares the findings, each as "KIND PROTOCOL PORTS", in order.
func (b *bench) want(findings ...string) *FirewallReport {
	b.t.Helper()
	r := b.look()
	var got []string
	for _, d := range r.Findings {
		got = append(got, d.Kind+" "+d.Protocol+" "+d.Ports)
	}
	if strings.Join(got, "; ") != strings.Join(findings, "; ") {
		b.t.Errorf("%s: found %q, want %q", r.Firewall, got, findings)
		for _, d := range r.Findings {
			b.t.Logf("%+v", d)
		}
	}
	return r
}

// sh runs a remedy in the node, as the operator would who reads it.
func (b *bench) sh(command string) {
	b.t.Helper()
	b.node.Run("sh", "-c", command)
}

// restore loads rules of iptables.
func (b *bench) restore(program, rules string) {
	b.t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			b.t.Fatalf("%s is missing", program)
		}
		b.t.Skipf("%s is missing: apt-get install iptables", program)
	}
	b.node.Run("sh", "-c", program+" <<'EOF'\n"+rules+"EOF")
}

const nftRules = `table inet filter {
	chain input { type filter hook input priority 0; policy drop;
		iifname "lo" accept
		ct state established,related accept
		tcp dport { 80, 443 } accept
		ip saddr 10.77.1.0/24 tcp dport { 7777, 9001 } accept
		ip6 saddr fd77:0:0:1::/64 tcp dport { 7777, 9001 } accept
	}
	chain output { type filter hook output priority 0; policy drop;
		oifname "lo" accept
		ct state established,related accept
		ip daddr { 10.77.1.0/24, 10.77.4.0/24 } accept
		ip6 daddr { fd77:0:0:1::/64, fd77:0:0:4::/64 } accept
	}
}`

func TestDriftOfNftables(t *testing.T) {
	b := newBench(t)
	if r := b.want(); r.Firewall != "none" || !strings.Contains(r.Note, "lets every port in") {
		t.Errorf("without a firewall: %+v", r)
	}
	b.node.Nft(nftRules)
	if r := b.want(); r.Note != "" || r.Firewall != "nftables" {
		t.Errorf("%+v", r)
	}

	// A port that no row declares, in one family or in both, alone and in a run.
	b.sh(`nft add rule inet filter input tcp dport 6379 accept comment '"cache"'`)
	r := b.want("open tcp 6379")
	if d := r.Findings[0]; d.Families != "IPv4 and IPv6" || !strings.Contains(d.Sentence, `"cache"`) || !strings.Contains(d.Remedy, "network.host_ports") {
		t.Errorf("%+v", d)
	}
	b.sh(`nft add rule inet filter input ip saddr 0.0.0.0/0 udp dport 5000-5010 accept`)
	r = b.want("open tcp 6379", "open udp 5000-5010")
	if r.Findings[1].Families != "IPv4" {
		t.Errorf("%+v", r.Findings[1])
	}
	b.host.Inbound = append(b.host.Inbound, Endpoint{Protocol: "tcp", Port: 6379})
	b.want("open udp 5000-5010")

	// A row's port that is open to more than its peers.
	b.sh(`nft add rule inet filter input tcp dport 7777 accept`)
	b.want("open udp 5000-5010", "wide tcp 7777")
}

// TestBlockedRowsAndTheirRemedies takes rules away and applies what is proposed, in
// the language of each firewall.
func TestBlockedRowsAndTheirRemedies(t *testing.T) {
	iptables := "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\n" +
		"-A INPUT -p tcp -m tcp --dport 9001 -j ACCEPT\n-A OUTPUT -p tcp -m tcp --dport 7777 -j ACCEPT\n-A OUTPUT -p tcp -m tcp --dport 9001 -j ACCEPT\nCOMMIT\n"
	nft := func(b *bench) {
		b.node.Nft(strings.NewReplacer("{ 7777, 9001 }", "9001", ", 10.77.4.0/24", "", ", fd77:0:0:4::/64", "").Replace(nftRules))
	}
	for name, load := range map[string]func(b *bench){
		"nftables": nft,
		"nftables beside iptables": func(b *bench) {
			accepts := "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
			b.restore("iptables-nft-restore", accepts)
			b.restore("ip6tables-nft-restore", accepts)
			nft(b)
		},
		"iptables": func(b *bench) {
			b.restore("iptables-nft-restore", iptables)
			b.restore("ip6tables-nft-restore", iptables)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			load(b)
			want := []string{"blocked tcp 443", "blocked tcp 443", "blocked tcp 7777", "blocked tcp 7777"} // each for IPv4 and IPv6
			if name == "iptables" {
				want = append(want, "wide tcp 9001")
			}
			r := b.want(want...)
			for _, d := range r.Findings {
				if d.Kind == Blocked {
					if !strings.Contains(d.Sentence, "policy drop") || d.Peer == "" {
						t.Errorf("%+v", d)
					}
					b.sh(d.Remedy)
				}
			}
			for _, d := range b.look().Findings {
				if d.Kind == Blocked {
					t.Errorf("still blocked: %+v", d)
				}
			}
		})
	}
}

// TestRenderedRulesAreNoDrift loads what network render writes.
func TestRenderedRulesAreNoDrift(t *testing.T) {
	b := newBench(t)
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	named := map[firewall.Site][]string{firewall.LoadBalancers: {"0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"}}
	for site, host := range map[firewall.Site]string{firewall.Nodes: "node2", firewall.Depot: "depot", firewall.DNS: "dns"} {
		for _, a := range b.lab.Host(host).Addrs() {
			named[site] = append(named[site], a.String())
		}
	}
	sites, err := firewall.ParseSites(named)
	if err != nil {
		t.Fatal(err)
	}
	p, err := firewall.Compile(table, sites, firewall.Options{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := firewall.Render(p, firewall.NFTables)
	if err != nil {
		t.Fatal(err)
	}
	undo := b.node.Nft(files[0].Content)
	b.want()
	undo()
	if files, err = firewall.Render(p, firewall.IPTables); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		program := "iptables-nft-restore"
		if strings.Contains(f.Name, "6") {
			program = "ip6tables-nft-restore"
		}
		b.restore(program, f.Content)
	}
	b.want()
}

// docker is what Docker writes for containers of which one publishes a port, beside
// a firewall of the operator's own that drops by default.
func docker(published string) string {
	return `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport ` + published + ` -j DNAT --to-destination 172.17.0.2:5432
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT
-A INPUT -s 10.77.1.0/24 -p tcp -m multiport --dports 7777,9001 -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 5432 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
`
}

func TestDockerGoesAroundTheFirewall(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := newBench(t)
			b.host.Expected = slicesIPv4(b.host.Expected)
			b.sh("ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up")
			b.sh("ip -6 addr flush dev eth0")
			restore := "iptables-" + variant + "-restore"
			b.restore(restore, docker("15432"))
			r := b.want("published tcp 15432")
			d := r.Findings[0]
			for _, want := range []string{"says that tcp port 15432 is closed, and strangers get in", "172.17.0.2:5432", "no row of the contract declares it", "DOCKER"} {
				if !strings.Contains(d.Sentence, want) {
					t.Errorf("%q is missing: %s", want, d.Sentence)
				}
			}
			_, rule, ok := strings.Cut(d.Remedy, "or ")
			if !ok || !strings.Contains(rule, "DOCKER-USER -i eth0") {
				t.Fatalf("remedy: %s", d.Remedy)
			}
			b.sh(strings.Replace(rule, "iptables", "iptables-"+variant, 1))
			b.want()

			// A row's port in a container: fine for its peers, and not for strangers.
			b.restore(restore, docker("27017"))
			b.want()
			b.host.Expected = append(b.host.Expected, Expected{Row: netcontract.Database, Protocol: "tcp", Port: 27017, Peers: prefixes([]netip.Addr{b.lab.Host("node2").Addr4()})})
			r = b.want("published tcp 27017")
			if !strings.Contains(r.Findings[0].Sentence, "row database is for its peers alone") {
				t.Error(r.Findings[0].Sentence)
			}

			// A container that takes what this node listens for.
			b.host.Expected = b.host.Expected[:len(b.host.Expected)-1]
			b.restore(restore, docker("443"))
			r = b.want("diverted tcp 443")
			if !strings.Contains(r.Findings[0].Sentence, "Traffic for tcp port 443 of row lb does not reach this node") {
				t.Error(r.Findings[0].Sentence)
			}
		})
	}
}

func slicesIPv4(list []Expected) []Expected {
	var out []Expected
	for _, e := range list {
		var peers []netip.Prefix
		for _, p := range e.Peers {
			if p.Addr().Is4() {
				peers = append(peers, p)
			}
		}
		e.Peers = peers
		out = append(out, e)
	}
	return out
}

// TestWithoutTheRight looks from a thread that has given CAP_NET_ADMIN up.
func TestWithoutTheRight(t *testing.T) {
	done := make(chan *FirewallReport)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err == nil {
			data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			if err := unix.Capset(&hdr, &data[0]); err != nil {
				t.Error(err)
			}
		}
		done <- CheckFirewall(Host{}, time.Now())
	}()
	r := <-done
	if !strings.Contains(r.Note, "wants CAP_NET_ADMIN") || len(r.Findings) != 0 || r.Firewall != "" {
		t.Errorf("%+v", r)
	}
}

func TestFirewallWatchTellsOnce(t *testing.T) {
	told, notes := make(chan Drift, 10), make(chan string, 10)
	w := NewFirewallWatch(func() Host { return Host{} }, time.Millisecond, func(_ context.Context, d Drift) { told <- d }, func(_ context.Context, n string) { notes <- n })
	looks := make(chan struct{})
	w.look = func(Host, time.Time) *FirewallReport {
		looks <- struct{}{}
		return &FirewallReport{Note: "half", Findings: []Drift{{Sentence: "one."}, {Sentence: "two."}}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	for range 5 {
		<-looks
	}
	if w.Findings() != 2 || w.Problem() != "one. two." || w.Note() != "half" {
		t.Errorf("%d %q %q", w.Findings(), w.Problem(), w.Note())
	}
	cancel()
	for ended := false; !ended; {
		select {
		case <-looks:
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			ended = true
		}
	}
	if len(told) != 2 || len(notes) != 1 {
		t.Errorf("told %d times, %d notes", len(told), len(notes))
	}
}
