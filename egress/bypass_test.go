package egress_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// bypasses are the ways to connect, or to open a listener, without a row of the
// contract: of the standard library and of the drivers that are linked. Types
// count where a literal of them is made.
var bypasses = map[string][]string{
	"net": {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer",
		"Listen", "ListenPacket", "ListenTCP", "ListenUDP", "ListenIP", "ListenUnix", "ListenUnixgram", "ListenMulticastUDP", "ListenConfig", "FileConn", "FileListener", "FilePacketConn"},
	"net/http":          {"Get", "Head", "Post", "PostForm", "DefaultClient", "DefaultTransport", "Transport", "Client", "ProxyFromEnvironment", "ListenAndServe", "ListenAndServeTLS"},
	"net/http/httputil": {"NewSingleHostReverseProxy", "ReverseProxy"},
	"crypto/tls":        {"Dial", "DialWithDialer", "Dialer", "Listen"},
	"net/smtp":          {"Dial", "SendMail"},
	"net/rpc":           {"Dial", "DialHTTP", "DialHTTPPath"},
	"net/textproto":     {"Dial"},
	"syscall":           {"Connect", "Bind"},

	"golang.org/x/sys/unix":                                           {"Connect", "Bind"},
	"github.com/jackc/pgx/v5":                                         {"Connect", "ConnectConfig", "ConnectWithOptions"},
	"github.com/jackc/pgx/v5/pgxpool":                                 {"New", "NewWithConfig", "Connect"},
	"github.com/jackc/pgx/v5/pgconn":                                  {"Connect", "ConnectConfig"},
	"github.com/coreos/go-oidc/v3/oidc":                               {"NewProvider", "NewRemoteKeySet"},
	"github.com/prometheus-community/pro-bing":                        {"New", "NewPinger"},
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp": {"New"},
}

// literals are the types among them: mentioning one, as a parameter does, makes
// nothing. transported ones connect by the transport that they are given, and by
// http.DefaultTransport without one.
var (
	literals    = []string{"Transport", "Dialer", "ListenConfig", "Client", "ReverseProxy"}
	transported = []string{"Client", "ReverseProxy"}
)

// mayDial are the folders, files and functions (FILE:FUNCTION) that connect or
// listen by themselves, with the reason.
var mayDial = map[string]string{
	"egress":                           "it is the dialer",
	"store/postgres":                   "the row database: the driver connects to the operator's database alone",
	"client":                           "it runs at the operator's desk and calls the appliance",
	"bench":                            "it measures a node from outside, and is no part of one",
	"preflight":                        "it probes the rows themselves, between hosts that its operator names; no node does",
	"internal":                         "it is for tests: nothing of the binary imports it",
	"probe":                            "it is what preflight probes with",
	"cli":                              "it runs at the operator's desk and calls the appliance",
	"e2e":                              "tests that call the appliance from outside",
	"appliance/serve.go:listen":        "the one place that opens ports, each for a row, without Multipath TCP",
	"appliance/serve.go:listenLocal":   "the socket in the data folder: no port",
	"control/server.go:Join":           "the row control: it runs at the command line, before there is a node, and calls the addresses in the operator's token over pinned TLS",
	"control/peer.go:client":           "the row control: its DialContext is the dialer that appliance hands in",
	"ratelimit/peer.go:line":           "the row rate-limit: its DialContext is the dialer that appliance hands in",
	"enforce/enforce.go:prove":         "it binds a port that was given up, without listening, to see that the kernel refuses",
	"health/checks.go:ping":            "the row icmp: it sends an echo to nodes of the cluster, and connects nothing",
	"upstream/upstream.go:verify":      "the row social: the key set fetches with the dialer's client, out of its context",
	"telemetry/telemetry.go:NewTracer": "the row traces: the exporter gets a client of the dialer",
}

// exempt finds what in mayDial covers a path, with a function or without.
func exempt(path, function string) string {
	for p := range mayDial {
		if path == p || strings.HasPrefix(path, p+"/") || function != "" && path+":"+function == p {
			return p
		}
	}
	return ""
}

// bypass is a place where a file connects by itself.
type bypass struct{ text, function string }

// findBypasses lists them, with the text "line: package.Name".
func findBypasses(fset *token.FileSet, f *ast.File) []bypass {
	local := map[string]string{} // name in this file -> import path
	var found []bypass
	for _, imp := range f.Imports {
		path, err := strconv.Unquote(imp.Path.Value)
		if err != nil || bypasses[path] == nil {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		switch {
		case imp.Name != nil:
			name = imp.Name.Name
		case name == "v5":
			name = "pgx"
		case name == "pro-bing":
			name = "probing"
		}
		if name == "." {
			found = append(found, bypass{text: fmt.Sprintf("%d: a dot import of %s", fset.Position(imp.Pos()).Line, path)})
		}
		local[name] = path
	}
	types := func(e ast.Expr) bool { // whether the expression only mentions a type
		s, ok := e.(*ast.SelectorExpr)
		return ok && slices.Contains(literals, s.Sel.Name)
	}
	function := ""
	report := func(s *ast.SelectorExpr) {
		x, ok := s.X.(*ast.Ident)
		if !ok || x.Obj != nil { // a variable of that name is no package
			return
		}
		if path := local[x.Name]; slices.Contains(bypasses[path], s.Sel.Name) {
			found = append(found, bypass{fmt.Sprintf("%d: %s.%s", fset.Position(s.Pos()).Line, path, s.Sel.Name), function})
		}
	}
	visit := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			if types(n.Type) && !given(n) {
				report(n.Type.(*ast.SelectorExpr))
			}
		case *ast.ValueSpec: // var d net.Dialer
			if types(n.Type) {
				report(n.Type.(*ast.SelectorExpr))
			}
		case *ast.CallExpr: // new(net.Dialer)
			for _, a := range n.Args {
				if types(a) {
					report(a.(*ast.SelectorExpr))
				}
			}
		case *ast.SelectorExpr:
			if !types(n) {
				report(n)
			}
		}
		return true
	}
	for _, d := range f.Decls {
		function = ""
		if fn, ok := d.(*ast.FuncDecl); ok {
			function = fn.Name.Name
		}
		ast.Inspect(d, visit)
	}
	return found
}

// given reports whether a literal of a type that is transported has its transport.
func given(lit *ast.CompositeLit) bool {
	if !slices.Contains(transported, lit.Type.(*ast.SelectorExpr).Sel.Name) {
		return false
	}
	return slices.ContainsFunc(lit.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		key, ok := kv.Key.(*ast.Ident)
		return ok && key.Name == "Transport"
	})
}

func TestNobodyDialsBeside(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	files := 0
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if e.IsDir() {
			if name := e.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return fmt.Errorf("parse %s: %w", rel, err)
		}
		files++
		for _, b := range findBypasses(fset, f) {
			if by := exempt(rel, b.function); by != "" {
				used[by] = true
				continue
			}
			t.Errorf("%s:%s: outgoing connections go through egress, and listeners through appliance, so that a row declares them and the guard sees them", rel, b.text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no file was looked at")
	}
	for p, why := range mayDial {
		if why == "" {
			t.Errorf("%s may dial without a reason", p)
		}
		if !used[p] && p != "e2e" { // its programs are not Go's alone
			t.Errorf("%s need not dial any more: take it out of mayDial", p)
		}
	}
}

func TestFindBypasses(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      []string
	}{
		{"a dial", "package p\nimport \"net\"\nvar c, _ = net.Dial(\"tcp\", \"x:1\")", []string{"3: net.Dial"}},
		{"under another name", "package p\nimport n \"net\"\nvar c, _ = n.DialTimeout(\"tcp\", \"x:1\", 0)", []string{"3: net.DialTimeout"}},
		{"without a name", "package p\nimport . \"net\"\n", []string{"2: a dot import of net"}},
		{"as a value", "package p\nimport \"net/http\"\nvar c = http.DefaultClient", []string{"3: net/http.DefaultClient"}},
		{"a shorthand", "package p\nimport \"net/http\"\nfunc f() { http.Get(\"x\") }", []string{"3: net/http.Get"}},
		{"a transport of one's own", "package p\nimport \"net/http\"\nvar c = &http.Transport{}", []string{"3: net/http.Transport"}},
		{"a dialer as a variable", "package p\nimport \"net\"\nvar d net.Dialer", []string{"3: net.Dialer"}},
		{"a new dialer", "package p\nimport \"crypto/tls\"\nvar d = new(tls.Dialer)", []string{"3: crypto/tls.Dialer"}},
		{"a listener", "package p\nimport \"net\"\nvar l, _ = net.Listen(\"tcp\", \":0\")", []string{"3: net.Listen"}},
		{"a listener's configuration", "package p\nimport \"net\"\nfunc f() { var lc net.ListenConfig; _ = lc }", []string{"3: net.ListenConfig"}},
		{"a client without a transport", "package p\nimport \"net/http\"\nvar c = &http.Client{Timeout: 1}", []string{"3: net/http.Client"}},
		{"a client with one", "package p\nimport \"net/http\"\nfunc f(t http.RoundTripper) { _ = &http.Client{Transport: t} }", nil},
		{"a client as a variable", "package p\nimport \"net/http\"\nvar c http.Client", []string{"3: net/http.Client"}},
		{"a proxy without a transport", "package p\nimport \"net/http/httputil\"\nvar c = httputil.ReverseProxy{}", []string{"3: net/http/httputil.ReverseProxy"}},
		{"a database driver", "package p\nimport \"github.com/jackc/pgx/v5\"\nvar c, _ = pgx.Connect(nil, \"\")", []string{"3: github.com/jackc/pgx/v5.Connect"}},
		{"a database pool", "package p\nimport \"github.com/jackc/pgx/v5/pgxpool\"\nvar c, _ = pgxpool.New(nil, \"\")", []string{"3: github.com/jackc/pgx/v5/pgxpool.New"}},
		{"TLS by itself", "package p\nimport \"crypto/tls\"\nvar c, _ = tls.Dial(\"tcp\", \"x:1\", nil)", []string{"3: crypto/tls.Dial"}},
		{"the system call", "package p\nimport \"golang.org/x/sys/unix\"\nvar _ = unix.Connect(0, nil)", []string{"3: golang.org/x/sys/unix.Connect"}},
		{"a parameter's type makes nothing", "package p\nimport \"net/http\"\nfunc f(t *http.Transport) {}", nil},
		{"another package of that name", "package p\nimport \"example.test/net\"\nvar c = net.Dial()", nil},
		{"a variable of that name", "package p\nimport \"net\"\nvar _ = net.IPv4len\nfunc f(net interface{ Dial() }) { net.Dial() }", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, "p.go", c.src, 0)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range findBypasses(fset, f) {
				got = append(got, b.text)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
