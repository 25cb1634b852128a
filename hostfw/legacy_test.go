package hostfw

import (
	"net/netip"
	"testing"
)

// FuzzLegacy reads what no iptables would print: it neither breaks nor runs for ever,
// and every packet gets an answer.
func FuzzLegacy(f *testing.F) {
	f.Add("*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j a\n-A a -s 10.0.0.0/8 -m comment --comment \"a \\\"b\\\"\" -j ACCEPT\nCOMMIT\n")
	f.Add("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 1:2 -j DNAT --to-destination [fd00::1]:5\nCOMMIT\n*filter\n:INPUT ACCEPT\n-A INPUT ! -i eth+ -g INPUT\n-A INPUT -j INPUT\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := &Ruleset{kept: tables{}, chains: map[string]*chain{}, hosts: []iface{{name: "eth0", addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}}}
		s.addLegacy("legacy", text)
		s.Ports()
		for _, p := range []Packet{{Protocol: "tcp", From: netip.MustParseAddr("192.0.2.1"), To: netip.MustParseAddr("10.0.0.1"), Port: 22, In: "eth0"}, {Protocol: "udp", To: netip.MustParseAddr("10.0.0.1"), Port: 53}} {
			for _, r := range []Result{s.Inbound(p), s.Outbound(p)} {
				if !r.Accepts && !r.Drops {
					t.Errorf("no answer for %+v", p)
				}
			}
		}
	})
}
