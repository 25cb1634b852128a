package portcullis_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/portcullis-id/portcullis"

// layers says how high a room stands: imports point down. Rooms of one layer may
// import each other only where sideways allows it.
var layers = map[string]int{
	"cmd/portcullis": 5,
	"cli":            4,
	"appliance":      3,
	"mgmt":           2, "login": 2, "dashboard": 2, "client": 2,
	"store": 2, "store/sqlite": 2, "store/postgres": 2, "store/storetest": 2, "store/docsql": 2, "store/seal": 2,
	"tenant": 1, "once": 1, "oauth": 1, "authn": 1, "upstream": 1, "password": 1, "mail": 1, "health": 1,
	"problem": 0, "netcontract": 0, "telemetry": 0, "web": 0, "egress": 0, "config": 0, "search": 0, "signing": 0,
	"overload": 0, "files": 0, "probe": 0, "sockets": 0, "hostfw": 0,
	"preflight": 1, "audit": 1, "enforce": 1, "addresses": 1, "firewall": 1,
	"control": 1, "ratelimit": 1, "searchindex": 1, "deploy": 1,
}

// sideways lists who may import whom within a layer.
var sideways = map[string][]string{
	"web":      {"problem"},
	"egress":   {"problem", "netcontract"},
	"search":   {"problem"},
	"overload": {"problem"},
	"once":     {"tenant"},
	"control":  {"tenant", "once"},

	"searchindex": {"tenant"},

	"oauth":     {"tenant", "once"},
	"enforce":   {"audit"},
	"authn":     {"tenant", "once", "password", "mail"},
	"upstream":  {"tenant", "once", "authn"},
	"password":  {"tenant"},
	"mail":      {"tenant"},
	"dashboard": {"login"},
	"store":     {"store/sqlite", "store/postgres", "store/docsql", "store/seal"},

	"store/sqlite":    {"store/docsql", "store/seal"},
	"store/postgres":  {"store/docsql", "store/seal"},
	"store/docsql":    {"store/seal"},
	"store/storetest": {"store", "store/seal"},
}

// forbidden are imports that layers alone would allow, with the reason.
var forbidden = []struct{ from, to, why string }{
	{"mgmt", "store", "a handler that reaches SQL would step over the tenant boundary"},
	{"login", "store", "a page that reaches SQL would step over the tenant boundary"},
	{"dashboard", "store", "a page that reaches SQL would step over the tenant boundary"},
	{"oauth", "login", "oauth knows pages only through its own interface"},
	{"oauth", "authn", "oauth asks for users through its own interface, which appliance fills"},
	{"netcontract", "problem", "docs, preflight, firewall output and listeners read the same table: it imports nothing of ours"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
	Doc        string
}

func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles,Doc", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	all := map[string]goPackage{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")] = p
	}
	return all
}

// room is the listed package that a package belongs to: itself or a parent.
func room(pkg string) (string, bool) {
	for p := pkg; p != "."; p = parent(p) {
		if _, ok := layers[p]; ok {
			return p, true
		}
	}
	return "", false
}

func parent(p string) string {
	if i := strings.LastIndex(p, "/"); i >= 0 {
		return p[:i]
	}
	return "."
}

func TestImportsPointDown(t *testing.T) {
	all := packages(t)
	for name := range layers {
		if _, ok := all[name]; !ok {
			t.Errorf("the layers list %s, which is gone: take it out", name)
		}
	}
	for pkg, p := range all {
		from, ok := room(pkg)
		if !ok {
			if len(p.GoFiles) > 0 && !strings.HasPrefix(pkg, "internal/") && !strings.HasPrefix(pkg, "e2e/") && pkg != "bench" && pkg != "" {
				t.Errorf("%s belongs to no layer: list it in layers", pkg)
			}
			continue
		}
		for _, path := range p.Imports {
			to, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			if target, ok := room(to); ok {
				to = target
			} else {
				continue // internal/…
			}
			if to == from || slices.Contains(sideways[from], to) {
				continue
			}
			if layers[to] >= layers[from] {
				t.Errorf("%s (layer %d) imports %s (layer %d): imports point down", pkg, layers[from], to, layers[to])
			}
		}
		for _, f := range forbidden {
			if from == f.from && slices.ContainsFunc(p.Imports, func(i string) bool {
				return i == module+"/"+f.to || strings.HasPrefix(i, module+"/"+f.to+"/")
			}) {
				t.Errorf("%s imports %s: %s", pkg, f.to, f.why)
			}
		}
	}
}

func TestEveryRoomHasADoc(t *testing.T) {
	for pkg, p := range packages(t) {
		if _, ok := layers[pkg]; !ok || len(p.GoFiles) == 0 {
			continue
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment: say what it owns and what it leaves to others", pkg)
		}
		if !strings.HasPrefix(pkg, "cmd/") && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has no doc.go", pkg)
		}
	}
}
