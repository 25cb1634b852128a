package hostfw_test

import (
	"context"
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
}
