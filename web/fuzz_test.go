package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// FuzzClientAddress: the client's address is the connection's, or a hop that only
// trusted proxies stand behind; in one canonical form.
func FuzzClientAddress(f *testing.F) {
	for _, s := range [][2]string{{"10.0.0.1:1", "198.51.100.7"}, {"10.0.0.1:1", "6.6.6.6, 198.51.100.7, 10.0.0.2"}, {"192.0.2.1:1", "6.6.6.6"}, {"[fd00::1%eth0]:1", "fe80::1%x"},
		{"10.0.0.1:1", "::ffff:10.0.0.2,::ffff:6.6.6.6"}, {"10.0.0.1:1", "198.51.100.7:443"}, {"10.0.0.1:1", ",,"}, {"@", "1.1.1.1"}, {"[::ffff:10.0.0.1]:1", "[2001:db8::1]"}, {"10.0.0.1:1", "1.2.3.4,\t10.0.0.9 "}} {
		f.Add(s[0], s[1], "")
		f.Add(s[0], "6.6.6.6", s[1])
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f.Fuzz(func(t *testing.T, remote, first, second string) {
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {first, second}}}
		got := clientAddr(r, trusted)
		host, _, err := net.SplitHostPort(remote)
		if err != nil {
			host = remote
		}
		peer, err := netip.ParseAddr(host)
		if err != nil {
			if got.IsValid() {
				t.Fatalf("%q is the address %s", remote, got)
			}
			return
		}
		peer = peer.Unmap().WithZone("")
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%q, %q, %q: %s is not canonical", remote, first, second, got)
		}
		if got == peer {
			return
		}
		if !contains(trusted, peer) {
			t.Fatalf("%s was taken on the word of %s", got, peer)
		}
		// From the end: trusted hops, and then the client.
		hops := strings.Split(first+","+second, ",")
		for i := len(hops) - 1; i >= 0; i-- {
			text := strings.Trim(hops[i], " \t\r\n\v\f\u0085\u00a0")
			hop, err := netip.ParseAddr(text)
			if err != nil {
				withPort, err := netip.ParseAddrPort(text)
				if err != nil {
					break
				}
				hop = withPort.Addr()
			}
			hop = hop.Unmap().WithZone("")
			if hop == got {
				return
			}
			if !contains(trusted, hop) {
				break
			}
		}
		t.Fatalf("%q, %q, %q: nobody who is trusted named %s", remote, first, second, got)
	})
}
