package deploy

import (
	"embed"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/portcullis-id/portcullis/files"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Node is a host of the cluster.
type Node struct {
	Name    string // its host name: letters, digits and hyphens
	Address netip.Addr
}

// Host is the node's address as it stands before a port.
func (n Node) Host() string {
	if n.Address.Is6() {
		return "[" + n.Address.String() + "]"
	}
	return n.Address.String()
}

// File is one file of a rendering. Its name is a path below the folder that
// somebody writes it to, with slashes.
type File = files.File

// Cluster is what all renderings share.
type Cluster struct {
	Domain string // parent of all tenants' host names
	Nodes  []Node
	// Root stands before every path that a host's files live at: for a trial of
	// several hosts on one machine. {node} in it is the host's name. Empty means the
	// real places.
	Root string
}

// path is where something lives on a host.
func (c Cluster) path(node, p string) string {
	return strings.ReplaceAll(c.Root, "{node}", node) + p
}

// Bounds of what is rendered.
const maxNodes = 200

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
	domainForm = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
	pathForm   = regexp.MustCompile(`^(?:/[A-Za-z0-9._@{}-]+)+$`)
)

// ParseNodes reads nodes in the form NAME=ADDRESS. All faults are reported at
// once.
func ParseNodes(named []string) ([]Node, error) {
	var out []Node
	var f faults
	if len(named) > maxNodes {
		f.add("nodes", "%d are named; allowed are up to %d", len(named), maxNodes)
		return nil, f.err()
	}
	for _, text := range named {
		name, addr, ok := strings.Cut(text, "=")
		a, err := netip.ParseAddr(addr)
		switch {
		case !ok || err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast():
			f.add("nodes", "%q: allowed is NAME=ADDRESS, such as node1=10.0.0.11", clip(text))
		case !nameForm.MatchString(name):
			f.add("nodes", "%q: a name has letters a-z, digits and hyphens, up to 63", clip(text))
		case slices.ContainsFunc(out, func(n Node) bool { return n.Name == name || n.Address == a.Unmap() }):
			f.add("nodes", "%q: the name or the address stands twice", clip(text))
		default:
			out = append(out, Node{Name: name, Address: a.Unmap()})
		}
	}
	return out, f.err()
}

// faults gathers what is wrong with an input.
type faults []string

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, field+": "+fmt.Sprintf(format, args...))
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return problem.New(problem.Invalid, "invalid_deployment", "%s", strings.Join(f, "\n"))
}

func (f *faults) port(field string, n int) {
	if n < 1 || n > 65535 {
		f.add(field, "got %d; allowed is a port from 1 to 65535", n)
	}
}

func (f *faults) path(field, p string) {
	if len(p) > 200 || !pathForm.MatchString(p) {
		f.add(field, "got %q; allowed is an absolute path of letters, digits and . _ @ -", clip(p))
	}
}

func (f *faults) cluster(c Cluster, least int) {
	if !domainForm.MatchString(c.Domain) || len(c.Domain) > 200 {
		f.add("domain", "got %q; allowed is a host name in lower case such as id.example.com", clip(c.Domain))
	}
	if len(c.Nodes) < least || len(c.Nodes) > maxNodes {
		f.add("nodes", "got %d; allowed are %d to %d", len(c.Nodes), least, maxNodes)
	}
	if c.Root != "" {
		f.path("root", c.Root)
	}
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

//go:embed templates
var templates embed.FS

var parsed = template.Must(template.New("").Option("missingkey=error").Funcs(template.FuncMap{
	"join": strings.Join,
}).ParseFS(templates, "templates/*"))

// render fills a template in.
func render(name string, data any) (string, error) {
	var b strings.Builder
	if err := parsed.ExecuteTemplate(&b, name, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return b.String(), nil
}

// contract is the table that ports come from.
func contract() netcontract.Table {
	t, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		panic(err) // the profile is part of the program
	}
	return t
}

// tidy sorts files by their names, so that a rendering has one order.
func tidy(files []File) []File {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files
}
