package hostfw_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/internal/lab"
)

func load(t *testing.T, h *lab.Host) *hostfw.Ruleset {
	t.Helper()
	var s *hostfw.Ruleset
	if err := h.Do(func() (err error) { s, err = hostfw.Load(); return err }); err != nil {
		t.Fatal(err)
	}
	if s.Partial != "" {
		t.Fatalf("partial: %s", s.Partial)
	}
	return s
}

// restore loads rules of iptables in a host, by the program that is given.
func restore(t *testing.T, h *lab.Host, program, rules string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing", program)
		}
		t.Skipf("%s is missing: apt-get install iptables", program)
	}
	err := h.Do(func() error {
		cmd := exec.Command(program)
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// verdict is what the rules do with a packet, in a word.
func verdict(s *hostfw.Ruleset, p hostfw.Packet) string {
	r := s.Inbound(p)
	word := "maybe"
	if r.Open() {
		word = "open"
	} else if r.Closed() {
		word = "closed"
	}
	if r.Diverted {
		word += " at " + r.To.String()
	}
	return word
}

type packets map[string]string // "tcp FROM PORT" to the verdict

func check(t *testing.T, s *hostfw.Ruleset, to netip.Addr, want packets) {
	t.Helper()
	for text, verdictWanted := range want {
		var protocol, from string
		var port uint16
		if _, err := fmt.Sscanf(text, "%s %s %d", &protocol, &from, &port); err != nil {
			t.Fatal(err)
		}
		p := hostfw.Packet{Protocol: protocol, To: to, Port: port, In: "eth0"}
		if from != "anybody" {
			p.From = netip.MustParseAddr(from)
		}
		if got := verdict(s, p); got != verdictWanted {
			t.Errorf("%s: %s, want %s (by %s)", text, got, verdictWanted, s.Inbound(p).By)
		}
	}
}

func TestPacketsThroughNftables(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	node := l.Host("node1")
	check(t, load(t, node), node.Addr4(), packets{"tcp 198.51.100.1 5432": "open"})

	node.Nft(`table inet filter {
		set peers { type ipv4_addr; flags interval; elements = { 10.77.1.0/24, 10.77.2.1-10.77.2.9 } }
		set pairs { type ipv4_addr . inet_service; elements = { 10.77.3.1 . 9110 } }
		map ports { type inet_service : verdict; elements = { 22 : jump admins, 6000-6010 : accept } ; flags interval; }
		chain input { type filter hook input priority 0; policy drop;
			iifname "lo" accept
			ct state established,related accept
			ct state invalid drop
			meta l4proto tcp tcp dport { 80, 443 } accept comment "web"
			ip saddr @peers tcp dport 7777 accept
			ip saddr . tcp dport @pairs accept
			udp dport 53 limit rate 10/second accept
			tcp dport 8000-8010 ip saddr != 10.77.1.9 accept
			meta mark 7 tcp dport 8100 accept
			meta skuid 0 tcp dport 8200 accept
			tcp dport vmap @ports
			tcp dport 9999 goto late
			tcp dport 9998 reject
		}
		chain admins { ip saddr 10.77.3.0/24 accept; return; }
		chain late { ip saddr 10.77.1.2 accept; }
	}
	table inet more { chain early { type filter hook input priority -5; tcp dport 443 ip saddr 203.0.113.7 drop comment "blocked"; }; }`)
	s := load(t, node)
	check(t, s, node.Addr4(), packets{
		"tcp 198.51.100.1 443":  "open",
		"tcp 203.0.113.7 443":   "closed",
		"udp 198.51.100.1 443":  "closed",
		"tcp 10.77.1.5 7777":    "open",
		"tcp 10.77.2.9 7777":    "open",
		"tcp 10.77.2.10 7777":   "closed",
		"tcp anybody 7777":      "maybe",
		"tcp anybody 443":       "maybe", // one address is dropped
		"tcp anybody 80":        "open",
		"tcp 10.77.3.1 9110":    "open",
		"tcp 10.77.3.2 9110":    "closed",
		"udp 10.77.3.1 53":      "open",
		"tcp 10.77.3.1 8005":    "open",
		"tcp 10.77.1.9 8005":    "closed",
		"tcp 10.77.3.1 8011":    "closed",
		"tcp 10.77.3.1 8100":    "closed",
		"tcp 10.77.3.1 8200":    "maybe",
		"tcp 10.77.3.1 22":      "open",
		"tcp 10.77.4.1 22":      "closed",
		"tcp 10.77.4.1 6005":    "open",
		"tcp 10.77.4.1 6011":    "closed",
		"tcp 10.77.1.2 9999":    "open",
		"tcp 10.77.1.3 9999":    "closed",
		"tcp 10.77.1.3 9998":    "closed",
		"tcp 198.51.100.1 5432": "closed",
	})
	check(t, s, node.Addr6(), packets{"tcp 2001:db8::1 80": "open", "tcp 2001:db8::1 7777": "closed"})
	if r := s.Inbound(hostfw.Packet{Protocol: "tcp", From: netip.MustParseAddr("203.0.113.7"), To: node.Addr4(), Port: 443, In: "eth0"}); !strings.Contains(r.By, `"blocked"`) {
		t.Errorf("by %q", r.By)
	}
	if e := s.Entries(); len(e) != 2 || e[0].In != "eth0" || e[0].To != node.Addr4() || e[1].To != node.Addr6() {
		t.Errorf("entries: %+v", e)
	}
}

// docker is what Docker writes for `docker run -p 5432:5432` and -p 127.0.0.1:6379:6379,
// beside a firewall of the operator's that drops by default.
const docker = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 5432 -j DNAT --to-destination 172.17.0.2:5432
-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 6379 -j DNAT --to-destination 172.17.0.3:6379
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m multiport --dports 80,443,9300:9400 -j ACCEPT
-A INPUT -s 10.77.3.0/24 -p tcp -m tcp --dport 22 -m comment --comment "row maintenance" -j ACCEPT
-A INPUT -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 8443 -m limit --limit 5/min -j LOG --log-prefix "seen "
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 5432 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`

func withDocker(t *testing.T, h *lab.Host) {
	t.Helper()
	h.Run("ip", "link", "add", "docker0", "type", "bridge")
	h.Run("ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
	h.Run("ip", "link", "set", "docker0", "up")
}

func TestPacketsThroughIptables(t *testing.T) {
	for _, program := range []string{"iptables-nft-restore", "iptables-legacy-restore"} {
		t.Run(program, func(t *testing.T) {
			l := lab.New(t, lab.Options{Nodes: 1})
			node := l.Host("node1")
			withDocker(t, node)
			restore(t, node, program, docker)
			s := load(t, node)
			if s.Kind() != "iptables" || !s.Docker {
				t.Errorf("kind %s, docker %t", s.Kind(), s.Docker)
			}
			check(t, s, node.Addr4(), packets{
				"tcp 198.51.100.1 443":  "open",
				"tcp 198.51.100.1 9350": "open",
				"tcp 198.51.100.1 9401": "closed",
				"tcp 10.77.3.9 22":      "open",
				"tcp 198.51.100.1 22":   "closed",
				"udp 198.51.100.1 68":   "maybe",
				"tcp 198.51.100.1 8443": "closed",
				"tcp 198.51.100.1 6379": "closed",
				"tcp 198.51.100.1 5432": "open at 172.17.0.2:5432",
			})
			if e := s.Entries(); len(e) == 0 || e[0].In != "eth0" {
				t.Errorf("docker0 leads outside? %+v", e)
			}
			for _, p := range []uint16{80, 81, 443, 444, 9300, 9401, 5432, 5433, 22} {
				found := false
				for _, have := range s.Ports() {
					found = found || have == p
				}
				if !found {
					t.Errorf("port %d is not looked at: %v", p, s.Ports())
				}
			}
		})
	}
}

// TestPacketsMeetWhatTheKernelDoes compares the walk with real connections, over
// all ports that the rules tell apart.
func TestPacketsMeetWhatTheKernelDoes(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2, IPv4Only: true})
	node, peer := l.Host("node1"), l.Host("node2")
	rules := strings.ReplaceAll(docker, "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 5432 -j DNAT --to-destination 172.17.0.2:5432\n", "")
	// An answer takes no time, and silence does.
	rules = strings.Replace(rules, "-A FORWARD -j DOCKER-USER\n", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset\n-A FORWARD -j DOCKER-USER\n", 1)
	restore(t, node, "iptables-nft-restore", rules)
	node.Nft(`table inet more { chain input { type filter hook input priority 10; tcp dport { 9310-9320, 443 } reject with tcp reset; }; }`)
	s := load(t, node)
	open, closed := 0, 0
	for _, port := range s.Ports() {
		ln, err := node.Listen("tcp4", fmt.Sprintf("%s:%d", node.Addr4(), port))
		if err != nil {
			t.Fatal(err)
		}
		c, err := dial(t, peer, ln.Addr().String())
		ln.Close()
		if c != nil {
			c.Close()
		}
		got := verdict(s, hostfw.Packet{Protocol: "tcp", From: peer.Addr4(), To: node.Addr4(), Port: port, In: "eth0"})
		want := "open"
		if err != nil {
			want = "closed"
			closed++
		} else {
			open++
		}
		if got != want {
			t.Errorf("port %d is %s, and the walk says %s", port, want, got)
		}
	}
	if open == 0 || closed == 0 {
		t.Errorf("%d open, %d closed: nothing was compared", open, closed)
	}
}

// dial tries for as long as a lab needs that answers at once.
func dial(t *testing.T, from *lab.Host, address string) (interface{ Close() error }, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return from.Dial(ctx, "tcp4", address)
}
