package hostfw_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/internal/lab"
)

func read(t *testing.T, h *lab.Host) *hostfw.Firewall {
	t.Helper()
	var f *hostfw.Firewall
	if err := h.Do(func() (err error) { f, err = hostfw.Read(); return err }); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRead(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 2})
	node := l.Host("node1")
	if f := read(t, node); f.Kind != "none" || len(f.Drops) != 0 {
		t.Errorf("a host without a firewall: %+v", f)
	}
	node.Nft(`table inet filter {
		chain input { type filter hook input priority 0; policy drop;
			ct state established,related accept
			tcp dport 7000-8000 jump apps
			icmp type echo-request accept
		}
		chain apps {
			tcp dport 7777 counter drop comment "closed to everybody"
			tcp dport 7778 counter reject
		}
		chain elsewhere { tcp dport 1 drop; }
	}`)
	before := read(t, node)
	if before.Kind != "nftables" {
		t.Errorf("kind %s", before.Kind)
	}
	if d, ok := before.Policy("input"); !ok || d.Where != "inet filter input" {
		t.Errorf("policy: %+v", d)
	}
	if _, ok := before.Policy("output"); ok {
		t.Error("the output chain has a policy of nobody's")
	}
	all := ""
	for _, d := range before.Drops {
		all += d.Where + ";"
		if d.Hook != "input" {
			t.Errorf("%s is reached from %q", d.Where, d.Hook)
		}
	}
	if !strings.Contains(all, `"closed to everybody"`) || strings.Contains(all, "elsewhere") || len(before.Drops) != 3 {
		t.Errorf("drops: %s", all)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := l.Host("node2").Dial(ctx, "tcp", node.Addr4().String()+":7777"); err == nil {
		c.Close()
		t.Error("the rule lets a connection through")
	}
	counted := read(t, node).Since(before)
	if len(counted) != 1 || !strings.Contains(counted[0].Where, "closed to everybody") || counted[0].Packets == 0 {
		t.Errorf("counted: %+v", counted)
	}
	if s := read(t, node).Since(nil); s != nil {
		t.Errorf("since never: %+v", s)
	}
}

func TestKinds(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	for want, rules := range map[string]string{
		"iptables":  "table ip filter { chain INPUT { type filter hook input priority 0; policy accept; }; }",
		"firewalld": "table inet firewalld { chain filter_INPUT { type filter hook input priority 10; policy accept; }; }",
		"ufw":       "table ip filter { chain INPUT { type filter hook input priority 0; policy drop; jump ufw-user-input; }; chain ufw-user-input { counter accept; }; }",
	} {
		undo := l.Host("node1").Nft(rules)
		if f := read(t, l.Host("node1")); f.Kind != want {
			t.Errorf("%s is taken for %s", want, f.Kind)
		}
		undo()
	}
	node := l.Host("node1")
	for _, rules := range []string{
		"table ip filter { chain INPUT { type filter hook input priority 0; policy drop; }; }",
		"table ip6 filter { chain INPUT { type filter hook input priority 0; policy drop; jump ufw6-user-input; }; chain ufw6-user-input { tcp dport 1 counter drop; }; }",
		"table inet mine { chain input { type filter hook input priority 0; policy accept; tcp dport 1 counter drop; }; }",
	} {
		node.Nft(rules)
	}
	f := read(t, node)
	var kinds []string
	for _, d := range f.Drops {
		kinds = append(kinds, hostfw.ChainOf(d.Where)+": "+d.Kind)
	}
	if want := []string{"inet mine input: nftables", "ip filter INPUT: iptables", "ip6 filter INPUT: ufw", "ip6 filter ufw6-user-input: ufw"}; f.Kind != "ufw" || !slices.Equal(kinds, want) {
		t.Errorf("a host with three: %s, %q; want ufw, %q", f.Kind, kinds, want)
	}
}

func TestWhatARuleIsFor(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	node := l.Host("node1")
	node.Nft(`table inet filter { chain input { type filter hook input priority 0; policy accept;
		tcp dport 7777 drop comment "one"
		udp dport 53-60 counter reject comment "range"
		meta l4proto ipv6-icmp drop comment "echo"
		ip saddr 10.0.0.1 drop comment "all"
	}; }`)
	if _, err := exec.LookPath("iptables"); err == nil {
		node.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9001", "-m", "comment", "--comment", "xt", "-j", "REJECT")
	}
	for _, d := range read(t, node).Drops {
		for _, tt := range []struct {
			rule            string
			names, concerns []string
		}{
			{"one", []string{"tcp 7777"}, []string{"tcp 7777"}}, {"range", []string{"udp 53", "udp 60"}, []string{"udp 53", "udp 60"}},
			{"echo", nil, []string{"icmp 0"}}, {"all", nil, []string{"tcp 7777", "tcp 9001", "udp 53", "udp 60", "udp 61", "icmp 0"}}, {"INPUT", []string{"tcp 9001"}, []string{"tcp 9001"}},
		} {
			if !strings.Contains(d.Where, tt.rule) {
				continue
			}
			var names, concerns []string
			for _, packet := range []struct {
				protocol string
				port     int
			}{{"tcp", 7777}, {"tcp", 9001}, {"udp", 53}, {"udp", 60}, {"udp", 61}, {"icmp", 0}} {
				text := fmt.Sprint(packet.protocol, " ", packet.port)
				if d.Names(packet.protocol, packet.port) {
					names = append(names, text)
				}
				if d.Concerns(packet.protocol, packet.port) {
					concerns = append(concerns, text)
				}
			}
			if !slices.Equal(names, tt.names) || !slices.Equal(concerns, tt.concerns) {
				t.Errorf("%s names %q and concerns %q; want %q and %q", d.Where, names, concerns, tt.names, tt.concerns)
			}
		}
	}
}
