package main_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/addresses"
	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/internal/lab"
)

// serveDepot serves a list over HTTPS at the contract's port on the lab's host, and
// returns the file of the authority to trust.
func serveDepot(t *testing.T, l *lab.Lab, list *atomic.Pointer[[]byte]) (roots string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "depot.lab"}, DNSNames: []string{"depot.lab"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	roots = filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := l.Host("depot").Listen("tcp", "[::]:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == addresses.Path {
				_, _ = w.Write(*list.Load())
			}
		})}
	go func() { _ = server.ServeTLS(ln, "", "") }() // it ends with the lab
	return roots
}

// live runs network addresses --live on the node's host.
func (n *labNode) live() (a client.Addresses, exit int) {
	n.t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := n.host.Command(n.t.Context(), exe, "network", "addresses", "--live", "--data", n.data, "-o", "json")
	out, err := cmd.Output()
	if e := json.Unmarshal(out, &a); e != nil {
		n.t.Fatalf("%v: %v: %s", e, err, out)
	}
	return a, cmd.ProcessState.ExitCode()
}

// kinds are the findings of a host, each as "KIND ADDRESS".
func kinds(a client.Addresses, host string) string {
	var out []string
	for _, h := range a.Hosts {
		for _, f := range h.Findings {
			if h.Host == host {
				text := f.Kind
				if f.Address.IsValid() {
					text += " " + f.Address.String()
				}
				out = append(out, text)
			}
		}
	}
	return strings.Join(out, "; ")
}

// TestADepotMoves goes through a move of the depot, from the announcement to the day
// after, with a firewall that knows addresses, and a kernel that holds the node.
func TestADepotMoves(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1, IPv4Only: true, Services: []string{"depot2"}})
	l.DNS()
	here, there := l.Host("depot").Addr4(), l.Host("depot2").Addr4()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	version := int64(0)
	var list atomic.Pointer[[]byte]
	publish := func(key ed25519.PrivateKey, addrs ...addresses.Address) {
		version++
		raw, err := addresses.Sign(key, addresses.List{Version: version, IssuedAt: time.Now().Add(-time.Minute), Expires: time.Now().Add(time.Hour), Hosts: []addresses.Host{{Host: "depot.lab", Addresses: addrs}}})
		if err != nil {
			t.Fatal(err)
		}
		list.Store(&raw)
	}
	publish(key, addresses.Address{Address: here})
	roots := serveDepot(t, l, &list)
	node := l.Host("node1")
	node.Nft(`table inet filter {
		chain input { type filter hook input priority 0; policy accept; }
		chain output { type filter hook output priority 0; policy drop;
			oifname "lo" accept
			ct state established,related accept
			udp dport 53 accept
			ip daddr ` + here.String() + ` tcp dport 443 accept
		}
	}`)
	n := startIn(t, l, "node1", nil, []string{"SSL_CERT_FILE=" + roots}, "--set", "network.sites.depot=depot.lab="+here.String(), "--set", "network.enforce=on",
		"--set", "network.depot_key="+addresses.FormatKey(key.Public().(ed25519.PublicKey)))
	a, exit := n.live()
	if got := kinds(a, "depot.lab"); got != "" || exit != 0 || a.List != 1 || a.Node == "" {
		t.Fatalf("before: %q, exit %d, list %d: %+v\n%s", got, exit, a.List, a, n.log)
	}

	// A week ahead: the rule to add is said, and is right.
	publish(key, addresses.Address{Address: here}, addresses.Address{Address: there, ValidFrom: time.Now().Add(7 * 24 * time.Hour)})
	a, exit = n.live()
	if got := kinds(a, "depot.lab"); got != "ahead "+there.String() || exit != 1 {
		t.Fatalf("announced: %q, exit %d", got, exit)
	}
	for _, h := range a.Hosts {
		for _, f := range h.Findings {
			node.Run("sh", "-c", f.Rule)
		}
	}
	if a, exit = n.live(); kinds(a, "depot.lab") != "" || exit != 0 {
		t.Fatalf("after the rule: %q", kinds(a, "depot.lab"))
	}

	// The day has come.
	publish(key, addresses.Address{Address: there})
	l.DNS().Set("depot.lab", here, there)
	if a, _ = n.live(); kinds(a, "depot.lab") != "moved "+here.String() || a.List != 3 {
		t.Errorf("moving: %q, list %d", kinds(a, "depot.lab"), a.List)
	}

	// Somebody else's list, and an old one, change nothing.
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	publish(other, addresses.Address{Address: netip.MustParseAddr("198.51.100.66")})
	if a, _ = n.live(); !strings.HasPrefix(kinds(a, "depot.lab"), "list; ") || a.List != 3 {
		t.Errorf("somebody else's: %q, list %d", kinds(a, "depot.lab"), a.List)
	}
	version = 0
	publish(key, addresses.Address{Address: here})
	if a, _ = n.live(); !strings.HasPrefix(kinds(a, "depot.lab"), "list; ") || a.List != 3 {
		t.Errorf("an old one: %q, list %d", kinds(a, "depot.lab"), a.List)
	}
	if m := n.get("/metrics"); !strings.Contains(m, `portcullis_network_address_findings{kind="list"} 1`) {
		t.Error("no metric")
	}
	if d := n.get("/detail/network"); !strings.Contains(d, "does not count") {
		t.Errorf("detail: %s", d)
	}
	if r, _ := n.audit(); !r.Enforcement.Holds && r.Enforcement.ABI >= 4 || len(r.Findings) != 0 || len(r.Enforcement.Refused) != 0 {
		t.Errorf("audit: %+v", r)
	}
}
