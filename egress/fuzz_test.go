package egress

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/idna"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// FuzzURL: a URL that may be saved is https without user information, its host is
// no address inside in any way of writing one, and what net/http makes of the host
// is the host that was judged.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://idp.example.com/x", "https://127.0.0.1", "https://127.1/", "https://0x7f.0.0.1", "https://2130706433", "https://017700000001/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[fe80::1%25eth0]/",
		"https://localhost./", "https://LOCALHOST", "https://a.localhost", "https://169.254.169.254", "https://metadata.google.internal", "https://①②⑦.⓪.⓪.①/", "https://ⓛocalhost/", "https://１２７.0.0.1/", "https://127。0。0。1/",
		"https://example.com:0/", "https://example.com:99999/", "https://user@example.com/", "https://example.com@127.0.0.1/", "https:example.com", "https://ex%41mple.com/", "https://a_b.corp.example/", "https://[64:ff9b::7f00:1]", "https://[2002:7f00:1::]/",
		"http://example.com", "//example.com", "https://example.com\\@127.0.0.1/", "https://xn--/", "https://8.8.8.8", "https://1.2.3.4.", "https://1.2.3.0x4", "https://example.com.127.0.0.1"} {
		f.Add(s)
	}
	d, err := New(Config{}, netcontract.Table{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if err := d.CheckURL(raw); err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatal(err)
			}
			return
		}
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Host == "" {
			t.Fatalf("%q was accepted: %v", raw, err)
		}
		judged, err := d.checkURL(u, hostSet{})
		if err != nil || judged.port < 1 || judged.port > 65535 {
			t.Fatalf("%q: %+v, %v", raw, judged, err)
		}
		if judged.addr.IsValid() {
			if special(judged.addr) != "" {
				t.Fatalf("%q leads to %s", raw, judged.addr)
			}
		} else if a, ok := loose(judged.host); ok || inward(judged.host) {
			t.Fatalf("%q leads to %s, %s", raw, judged.host, a)
		} else if strings.Trim(judged.host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || len(judged.host) > 253 {
			t.Fatalf("%q has the host %q", raw, judged.host)
		}
		// As net/http writes it for the dialer.
		host := u.Hostname()
		if ascii, err := idna.Lookup.ToASCII(host); err == nil {
			host = ascii
		}
		again, err := parseTarget(host, judged.port)
		if err != nil || again != judged {
			t.Fatalf("%q was judged as %+v, and is called as %+v, %v", raw, judged, again, err)
		}
		if _, err := http.NewRequest(http.MethodGet, raw, nil); err != nil {
			t.Fatalf("%q was accepted and cannot be called: %v", raw, err)
		}
	})
}

// loose reads an address as inet_aton does: one to four parts, each decimal, octal
// or hexadecimal, the last of which fills what is left.
func loose(s string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(s, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var v uint64
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 0, 32)
		if err != nil || strings.ContainsAny(p, "_oOb") {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			v = v<<(8*(4-i)) | n
		} else {
			v = v<<8 | n&0xff
		}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

// FuzzAllowedHosts: what a setting of allowed hosts opens is what it says, and
// nothing that only contains it.
func FuzzAllowedHosts(f *testing.F) {
	for _, s := range [][2]string{{"idp.corp.example", "idp.corp.example"}, {"*.corp.example", "a.b.corp.example"}, {"*.corp.example", "corp.example"}, {"corp.example", "evilcorp.example"}, {"10.0.0.0/8", "10.1.2.3"},
		{"10.0.0.1", "::ffff:10.0.0.1"}, {"[fd00::1]", "fd00::1"}, {"*.", "x"}, {"*", "x"}, {"*.*.example", "a.b.example"}, {"Bücher.example", "xn--bcher-kva.example"}, {"0.0.0.0/0", "169.254.169.254"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, setting, host string) {
		set, err := parseHosts([]string{setting})
		if err != nil {
			return
		}
		tgt, err := parseTarget(host, 443)
		if err != nil || !set.has(tgt) {
			return
		}
		if tgt.host == "" {
			p, err := netip.ParsePrefix(strings.TrimSpace(setting))
			if err != nil {
				a, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(setting), "[]"))
				if err != nil {
					t.Fatalf("%q opens the address %s", setting, tgt.addr)
				}
				a = a.Unmap().WithZone("")
				p = netip.PrefixFrom(a, a.BitLen())
			}
			if !p.Contains(tgt.addr) {
				t.Fatalf("%q opens the address %s", setting, tgt.addr)
			}
			return
		}
		name, below := strings.CutPrefix(strings.TrimSpace(setting), "*.")
		want, err := hostName(name)
		if err != nil || !below && tgt.host != want || below && (!strings.HasSuffix(tgt.host, "."+want) || len(tgt.host) < len(want)+2) {
			t.Fatalf("%q opens the host %q", setting, tgt.host)
		}
	})
}
