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

// bypasses are the ways of the standard library to connect without this room.
// Types count where a literal of them is made.
var bypasses = map[string][]string{
	"net":           {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer"},
	"net/http":      {"Get", "Head", "Post", "PostForm", "DefaultClient", "DefaultTransport", "Transport", "ProxyFromEnvironment"},
	"crypto/tls":    {"Dial", "DialWithDialer", "Dialer"},
	"net/smtp":      {"Dial", "SendMail"},
	"net/rpc":       {"Dial", "DialHTTP", "DialHTTPPath"},
	"net/textproto": {"Dial"},
}

// mayDial are the folders and files that connect by themselves, with the reason.
var mayDial = map[string]string{
	"egress":         "it is the dialer",
	"store/postgres": "the row database: the driver connects to the operator's database alone",
	"control":        "its transports connect through what it is handed, to the cluster's own nodes on row control",
	"client":         "it runs at the operator's desk and calls the appliance",
	"bench":          "it measures a node from outside, and is no part of one",
	"internal/lab":   "it is for tests",
	"preflight":      "it probes the rows themselves, between hosts that its operator names; no node does",
	"probe":          "it is what preflight probes with",
	"cli":            "it runs at the operator's desk and calls the appliance",
	"e2e":            "tests that call the appliance from outside",
}

func allowed(path string) bool {
	for p := range mayDial {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

// findBypasses lists where a file connects by itself, as "line: package.Name".
func findBypasses(fset *token.FileSet, f *ast.File) []string {
	local := map[string]string{} // name in this file -> import path
	var found []string
	for _, imp := range f.Imports {
		path, err := strconv.Unquote(imp.Path.Value)
		if err != nil || bypasses[path] == nil {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		if imp.Name != nil {
			name = imp.Name.Name
		}
		if name == "." {
			found = append(found, fmt.Sprintf("%d: a dot import of %s", fset.Position(imp.Pos()).Line, path))
		}
		local[name] = path
	}
	types := func(e ast.Expr) bool { // whether the expression only mentions a type
		s, ok := e.(*ast.SelectorExpr)
		return ok && (s.Sel.Name == "Transport" || s.Sel.Name == "Dialer")
	}
	report := func(s *ast.SelectorExpr) {
		x, ok := s.X.(*ast.Ident)
		if !ok || x.Obj != nil { // a variable of that name is no package
			return
		}
		if path := local[x.Name]; slices.Contains(bypasses[path], s.Sel.Name) {
			found = append(found, fmt.Sprintf("%d: %s.%s", fset.Position(s.Pos()).Line, path, s.Sel.Name))
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			if types(n.Type) {
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
	})
	return found
}

func TestNobodyDialsBeside(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for p, why := range mayDial {
		if why == "" {
			t.Errorf("%s may dial without a reason", p)
		}
	}
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
			if name := e.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || allowed(rel)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") || allowed(rel) {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return fmt.Errorf("parse %s: %w", rel, err)
		}
		files++
		for _, b := range findBypasses(fset, f) {
			t.Errorf("%s:%s: outgoing connections go through egress, so that a row declares them and the guard sees them", rel, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no file was looked at")
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
		{"listening is not dialling", "package p\nimport \"net\"\nvar l, _ = net.Listen(\"tcp\", \":0\")", nil},
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
			if got := findBypasses(fset, f); !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
