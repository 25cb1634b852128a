package tenant

import (
	"net"
	"strconv"
	"strings"
)

// Hosts maps host names to tenants and back. It is configuration, not input: no
// header but the Host of a request, looked up here, decides where a link or an
// issuer points.
type Hosts struct {
	// Domain is the parent of all tenants' hosts, such as "id.example.com".
	Domain string
	// Port is the public HTTPS port; it shows in URLs unless it is 443.
	Port int
	// Default is the tenant that answers on the bare domain and on IP addresses; none
	// when empty.
	Default string
}

// Name returns the name of the tenant that a Host header leads to. It does not
// say that there is such a tenant. A port in the header is ignored, as load
// balancers change it.
func (h Hosts) Name(host string) (string, bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if net.ParseIP(strings.TrimSuffix(strings.Trim(host, "[]"), ".")) != nil {
		return h.Default, h.Default != ""
	}
	host = lower(strings.TrimSuffix(host, "."))
	if host == h.Domain {
		return h.Default, h.Default != ""
	}
	name, ok := strings.CutSuffix(host, "."+h.Domain)
	if !ok || name == "" || len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", false
	}
	return name, true
}

// lower folds the letters of host names and no others: Unicode has letters whose
// lower case is one of ASCII, such as the Kelvin sign.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// Host is a tenant's canonical host, with the port where it is not 443.
func (h Hosts) Host(tenant string) string {
	host := h.Domain
	if tenant != h.Default {
		host = tenant + "." + h.Domain
	}
	if h.Port != 0 && h.Port != 443 {
		host += ":" + strconv.Itoa(h.Port)
	}
	return host
}

// URL is the tenant's base URL and issuer: it ends in a slash, as Auth0's does.
func (h Hosts) URL(tenant string) string { return "https://" + h.Host(tenant) + "/" }

// ManagementAudience is the identifier of the tenant's Management API.
func (h Hosts) ManagementAudience(tenant string) string { return h.URL(tenant) + "api/v2/" }
