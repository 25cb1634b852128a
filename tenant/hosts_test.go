package tenant_test

import (
	"net"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/tenant"
)

func TestHostLeadsToTenant(t *testing.T) {
	h := tenant.Hosts{Domain: "id.example.com", Port: 8443, Default: "main"}
	tests := []struct {
		name, host, want string
		ok               bool
	}{
		{"first label is the tenant", "acme.id.example.com", "acme", true},
		{"port is ignored", "acme.id.example.com:443", "acme", true},
		{"case is ignored", "ACME.ID.Example.COM", "acme", true},
		{"trailing dot is ignored", "acme.id.example.com.", "acme", true},
		{"bare domain is the default tenant", "id.example.com:8443", "main", true},
		{"IPv4 is the default tenant", "127.0.0.1:8443", "main", true},
		{"IPv6 is the default tenant", "[::1]:8443", "main", true},
		{"two labels lead nowhere", "a.b.id.example.com", "", false},
		{"another domain leads nowhere", "acme.example.com", "", false},
		{"a suffix without a dot leads nowhere", "evilid.example.com", "", false},
		{"empty", "", "", false},
		{"dot alone", ".id.example.com", "", false},
		{"user information", "acme@id.example.com", "", false},
		{"too long", strings.Repeat("a", 300) + ".id.example.com", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := h.Name(tt.host)
			if got != tt.want || ok != tt.ok {
				t.Errorf("Name(%q) = %q, %v; want %q, %v", tt.host, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestURLsAreConfiguration(t *testing.T) {
	tests := []struct {
		name   string
		hosts  tenant.Hosts
		tenant string
		want   string
	}{
		{"own label", tenant.Hosts{Domain: "id.example.com", Port: 443}, "acme", "https://acme.id.example.com/"},
		{"other port", tenant.Hosts{Domain: "id.example.com", Port: 8443}, "acme", "https://acme.id.example.com:8443/"},
		{"default tenant has the bare domain", tenant.Hosts{Domain: "localhost", Port: 8443, Default: "dev"}, "dev", "https://localhost:8443/"},
		{"others keep theirs", tenant.Hosts{Domain: "localhost", Port: 8443, Default: "dev"}, "acme", "https://acme.localhost:8443/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.hosts.URL(tt.tenant); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if got := tt.hosts.ManagementAudience(tt.tenant); got != tt.want+"api/v2/" {
				t.Errorf("got %s", got)
			}
		})
	}
}

// FuzzHostName: a host leads to a tenant by exactly one label before the domain,
// whatever its case, or to the default tenant; never by letters that only look
// or fold like it.
func FuzzHostName(f *testing.F) {
	for _, s := range []string{"acme.id.example.com", "ACME.id.example.com:8443", "[::1]:1", "id.example.com", "id.example.com.", "..", "a:b:c", "xn--a.id.example.com", "\u212aey.id.example.com",
		"acme.\u0130d.example.com", "a_b.id.example.com", "a b.id.example.com", "acme%2f.id.example.com", "[acme.id.example.com]", "]acme.id.example.com[", "127.1", "0x7f.1", strings.Repeat("a", 64) + ".id.example.com"} {
		f.Add(s)
	}
	h := tenant.Hosts{Domain: "id.example.com", Default: "main"}
	f.Fuzz(func(t *testing.T, host string) {
		name, ok := h.Name(host)
		if !ok {
			if name != "" {
				t.Fatalf("%q: a name without a tenant: %q", host, name)
			}
			return
		}
		bare := host
		if before, _, err := net.SplitHostPort(host); err == nil {
			bare = before
		}
		bare = strings.TrimSuffix(bare, ".")
		if name == "main" && (asciiLower(bare) == h.Domain || net.ParseIP(strings.Trim(bare, "[]")) != nil) {
			return
		}
		if asciiLower(bare) != name+"."+h.Domain || len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Fatalf("%q leads to %q", host, name)
		}
		if again, ok := h.Name(h.Host(name)); !ok || again != name {
			t.Fatalf("%q leads to %q, whose host %q leads to %q", host, name, h.Host(name), again)
		}
	})
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func TestNames(t *testing.T) {
	tests := []struct {
		name, in string
		ok       bool
	}{
		{"plain", "acme", true}, {"digits and hyphen", "acme-2", true}, {"three characters", "abc", true},
		{"63 characters", strings.Repeat("a", 63), true},
		{"two characters", "ab", false}, {"64 characters", strings.Repeat("a", 64), false}, {"underscore", "a_b", false},
		{"upper case", "Acme", false}, {"hyphen first", "-acme", false}, {"hyphen last", "acme-", false}, {"dot", "a.b", false},
		{"punycode", "xn--abc", false}, {"empty", "", false}, {"not ASCII", "akmé", false},
		{"reserved: login", "login", false}, {"reserved: manage", "manage", false}, {"reserved: webtask", "webtask", false}, {"reserved: config", "config", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tenant.CheckName(tt.in); (err == nil) != tt.ok {
				t.Errorf("CheckName(%q) = %v", tt.in, err)
			}
		})
	}
	if err := tenant.CheckRootName("config"); err != nil {
		t.Errorf("the root tenant may have a reserved name: %v", err)
	}
}
