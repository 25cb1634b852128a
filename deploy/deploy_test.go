package deploy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/portcullis-id/portcullis/deploy"
	"github.com/portcullis-id/portcullis/internal/golden"
)

func nodes(t testing.TB, named ...string) []deploy.Node {
	t.Helper()
	if len(named) == 0 {
		named = []string{"node1=10.0.0.11", "node2=10.0.0.12", "node3=10.0.0.13"}
	}
	n, err := deploy.ParseNodes(named)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func cluster(t testing.TB) deploy.Cluster {
	return deploy.Cluster{Domain: "id.example.com", Nodes: nodes(t)}
}

func balancer(t testing.TB, kind deploy.Kind, mode deploy.Mode) deploy.Balancer {
	return deploy.Balancer{Cluster: cluster(t), Kind: kind, Mode: mode, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32"), netip.MustParsePrefix("10.0.1.0/28")}}
}

// need skips a test that wants a program of Debian's, and fails it in CI, where
// scripts/test has installed it.
func need(t testing.TB, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: install %s", program, pkg)
	}
	t.Skipf("SKIPPED: %s is missing: install %s", program, pkg)
}

func each(t *testing.T, test func(t *testing.T, b deploy.Balancer, name string)) {
	for _, kind := range deploy.Kinds() {
		for _, mode := range []deploy.Mode{deploy.PassThrough, deploy.Terminated} {
			for _, plain := range []bool{false, true} {
				if plain && mode == deploy.PassThrough {
					continue
				}
				name := string(kind) + "-" + string(mode)
				b := balancer(t, kind, mode)
				if b.Plain = plain; plain {
					name += "-plain"
				}
				t.Run(name, func(t *testing.T) { test(t, b, name) })
			}
		}
	}
}

func render(t testing.TB, b deploy.Balancer) deploy.File {
	t.Helper()
	files, err := deploy.RenderBalancer(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Fatalf("%d files", len(files))
	}
	return files[0]
}

// hosts renders everything that hosts get.
func hosts(t testing.TB) []deploy.File {
	t.Helper()
	b := balancer(t, deploy.HAProxy, deploy.PassThrough)
	files, err := deploy.RenderHosts(&deploy.Database{Cluster: cluster(t)}, &deploy.Service{Cluster: cluster(t), Balancer: &b})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestGolden(t *testing.T) {
	each(t, func(t *testing.T, b deploy.Balancer, name string) {
		f := render(t, b)
		golden.Equal(t, filepath.Join("testdata", "golden", name, filepath.Base(f.Name)), []byte(f.Content))
	})
	t.Run("hosts", func(t *testing.T) {
		for _, f := range hosts(t) {
			golden.Equal(t, filepath.Join("testdata", "golden", "hosts", filepath.FromSlash(f.Name)), []byte(f.Content))
		}
	})
}

// TestTextIsTidy: no template leaves gaps, tabs or the marks of what was not filled in.
func TestTextIsTidy(t *testing.T) {
	check := func(t *testing.T, f deploy.File) {
		for i, line := range strings.Split(strings.TrimSuffix(f.Content, "\n"), "\n") {
			if strings.TrimRight(line, " \t") != line {
				t.Errorf("%s:%d ends in blanks", f.Name, i+1)
			}
			if strings.Contains(line, "{{") || strings.Contains(line, "<no value>") || strings.Contains(line, "%!") {
				t.Errorf("%s:%d: %s", f.Name, i+1, line)
			}
		}
		if strings.Contains(f.Content, "\n\n\n") || strings.HasPrefix(f.Content, "\n") || !strings.HasSuffix(f.Content, "\n") {
			t.Errorf("%s has gaps", f.Name)
		}
	}
	each(t, func(t *testing.T, b deploy.Balancer, _ string) { check(t, render(t, b)) })
	for _, f := range hosts(t) {
		check(t, f)
	}
}

// write puts files into a folder of the test.
func write(t testing.TB, dir string, files ...deploy.File) {
	t.Helper()
	for _, f := range files {
		if _, err := f.Write(dir, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// short is a folder whose name leaves room for a Unix socket's.
func short(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// certificate writes a certificate that signs itself, with its key, in one file.
func certificate(t testing.TB, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "id.example.com"}, DNSNames: []string{"id.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := pem.Encode(&b, block); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBalancersAcceptTheirConfigurations asks the real programs.
func TestBalancersAcceptTheirConfigurations(t *testing.T) {
	each(t, func(t *testing.T, b deploy.Balancer, _ string) {
		dir := short(t)
		b.Root, b.Certificate, b.CA = dir, filepath.Join(dir, "lb.pem"), filepath.Join(dir, "lb.pem")
		certificate(t, b.Certificate)
		for _, d := range []string{"run/haproxy", "var/log/nginx"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		f := render(t, b)
		write(t, dir, f)
		path := filepath.Join(dir, f.Name)
		var cmd *exec.Cmd
		switch b.Kind {
		case deploy.HAProxy:
			need(t, "haproxy", "haproxy")
			cmd = exec.Command("haproxy", "-c", "-f", path)
		case deploy.Nginx:
			need(t, "nginx", "nginx and libnginx-mod-stream")
			cmd = exec.Command("nginx", "-t", "-c", path)
		case deploy.Envoy:
			checkEnvoy(t, f.Content)
			return
		case deploy.AWS:
			checkTerraform(t, f.Content)
			return
		}
		if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("[WARNING]")) || bytes.Contains(out, []byte("[warn]")) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func checkTerraform(t *testing.T, text string) {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(text), "aws.tf", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if formatted := hclwrite.Format([]byte(text)); string(formatted) != text {
		t.Errorf("terraform fmt would change it")
	}
	// Every reference leads to something that is there.
	known := map[string]bool{"each": true}
	var variables []hcl.Traversal
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		switch b.Type {
		case "variable":
			known["var."+b.Labels[0]] = true
		case "locals":
			for name := range b.Body.Attributes {
				known["local."+name] = true
			}
		case "resource":
			known[b.Labels[0]+"."+b.Labels[1]] = true
		}
		_ = hclsyntax.VisitAll(b.Body, func(n hclsyntax.Node) hcl.Diagnostics {
			if e, ok := n.(*hclsyntax.ScopeTraversalExpr); ok {
				variables = append(variables, e.Traversal)
			}
			return nil
		})
	}
	for _, v := range variables {
		if known[v.RootName()] || v.RootName() == "string" {
			continue
		}
		if len(v) < 2 {
			t.Errorf("%s is nothing", v.RootName())
			continue
		}
		if name := v.RootName() + "." + v[1].(hcl.TraverseAttr).Name; !known[name] {
			t.Errorf("%s is not there", name)
		}
	}
}

func TestScriptsAreShell(t *testing.T) {
	for _, f := range hosts(t) {
		if !f.Executable {
			continue
		}
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(f.Content)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", f.Name, err, out)
		}
	}
}

// TestUnitIsGood asks systemd itself, and its opinion of the exposure.
func TestUnitIsGood(t *testing.T) {
	need(t, "systemd-analyze", "systemd")
	dir := t.TempDir()
	program := filepath.Join(dir, "portcullis")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := deploy.RenderHosts(nil, &deploy.Service{Cluster: cluster(t), Program: program})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, files...)
	unit := filepath.Join(dir, "node1", "portcullis.service")
	for _, args := range [][]string{{"verify", "--man=no", unit}, {"security", "--offline=true", "--threshold=25", unit}} {
		if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

func TestBadInput(t *testing.T) {
	with := func(change func(b *deploy.Balancer)) error {
		b := balancer(t, deploy.HAProxy, deploy.Terminated)
		change(&b)
		_, err := deploy.RenderBalancer(b)
		return err
	}
	base := func(change func(d *deploy.Database)) error {
		d := deploy.Database{Cluster: cluster(t)}
		change(&d)
		_, err := deploy.RenderHosts(&d, nil)
		return err
	}
	parse := func(list ...string) error { _, err := deploy.ParseNodes(list); return err }
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"a domain", with(func(b *deploy.Balancer) { b.Domain = "id.example.com\n    server evil" }), "domain: got"},
		{"no nodes", with(func(b *deploy.Balancer) { b.Nodes = nil }), "nodes: got 0; allowed are 1 to 200"},
		{"a kind", with(func(b *deploy.Balancer) { b.Kind = "f5" }), `lb: got "f5"`},
		{"a mode", with(func(b *deploy.Balancer) { b.Mode = "magic" }), "allowed are passthrough, terminated"},
		{"a port", with(func(b *deploy.Balancer) { b.HTTPS = 70000 }), "https: got 70000; allowed is a port from 1 to 65535"},
		{"a path with a line of its own", with(func(b *deploy.Balancer) { b.Certificate = "/x.pem\nfrontend evil" }), "certificate: got"},
		{"a path with blanks", with(func(b *deploy.Balancer) { b.CA = "/a b" }), "ca: got"},
		{"an address to listen on", with(func(b *deploy.Balancer) { b.Listen = "everywhere" }), "listen: got"},
		{"plain pass-through", with(func(b *deploy.Balancer) { b.Mode, b.Plain = deploy.PassThrough, true }), "plain: is for --mode terminated"},
		{"IPv6 at AWS", with(func(b *deploy.Balancer) { b.Kind, b.Nodes = deploy.AWS, nodes(t, "n=fd00::1") }), "allowed for aws are IPv4"},
		{"two databases", base(func(d *deploy.Database) { d.Nodes = d.Nodes[:2] }), "allowed for a database are 3, 5 or 7"},
		{"one port twice", base(func(d *deploy.Database) { d.Patroni = 27017 }), "patroni-port: got 27017, which database-port has"},
		{"a root", base(func(d *deploy.Database) { d.Root = "relative" }), "root: got"},
		{"a node without an address", parse("node1"), "allowed is NAME=ADDRESS"},
		{"a node's name", parse("No_de=10.0.0.1"), "a name has letters"},
		{"a node twice", parse("a=10.0.0.1", "b=10.0.0.1"), "stands twice"},
		{"all faults", parse("a=1", "b=2"), "\nnodes: \"b=2\""},
		{"many nodes", parse(make([]string, 201)...), "201 are named; allowed are up to 200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", tt.err, tt.want)
			}
		})
	}
	b := balancer(t, deploy.HAProxy, deploy.PassThrough)
	b.Addresses = nil
	if _, err := deploy.RenderHosts(nil, &deploy.Service{Cluster: cluster(t), Balancer: &b}); err == nil || !strings.Contains(err.Error(), "balancers: nobody is named") {
		t.Errorf("a node that believes nobody: %v", err)
	}
}
