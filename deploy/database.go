package deploy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/netcontract"
)

// Database is the reference of a database with failover: on each node PostgreSQL
// under Patroni, and etcd, which decides who the primary is.
type Database struct {
	Cluster
	Port int // of PostgreSQL; 0 means the contract's (row database)
	// Ports of etcd and Patroni between the nodes. 0 means ports out of the range of
	// the row search-transport, which is open between nodes already (ADR 24).
	EtcdClient, EtcdPeer, Patroni int
	Bin                           string // folder of PostgreSQL's programs; empty means Debian's 15
}

// The ports of etcd and Patroni within 9300-9400, of which the search engine takes
// the first; each has the digits of its usual port, 2379, 2380 and 8008.
const (
	defaultEtcdClient = 9379
	defaultEtcdPeer   = 9380
	defaultPatroni    = 9308
)

// The places on a host.
const (
	etcdDefaults   = "/etc/default/etcd"
	etcdFolder     = "/etc/portcullis/etcd"
	etcdData       = "/var/lib/etcd/portcullis"
	patroniFile    = "/etc/patroni/config.yml"
	patroniFolder  = "/etc/portcullis/database"
	patroniDropIn  = "/etc/systemd/system/patroni.service.d/portcullis.conf"
	postgresData   = "/var/lib/postgresql/portcullis"
	postgresSocket = "/var/run/postgresql"
	postgresBin    = "/usr/lib/postgresql/15/bin"
	configFolder   = "/etc/portcullis"
	nodeData       = "/var/lib/portcullis"
	serviceFile    = "/etc/systemd/system/portcullis.service"
	sysctlFile     = "/etc/sysctl.d/60-portcullis.conf"
)

func (d Database) withDefaults() Database {
	if d.Port == 0 {
		d.Port = contract().Port(netcontract.Database, 27017)
	}
	if d.EtcdClient == 0 {
		d.EtcdClient = defaultEtcdClient
	}
	if d.EtcdPeer == 0 {
		d.EtcdPeer = defaultEtcdPeer
	}
	if d.Patroni == 0 {
		d.Patroni = defaultPatroni
	}
	if d.Bin == "" {
		d.Bin = postgresBin
	}
	return d
}

// check names what is wrong with a database.
func (d Database) check(f *faults) {
	f.cluster(d.Cluster, 1)
	if n := len(d.Nodes); n != 3 && n != 5 && n != 7 {
		f.add("nodes", "got %d; allowed for a database are 3, 5 or 7: a majority decides who the primary is", n)
	}
	ports := map[int]string{}
	for _, p := range []struct {
		field string
		n     int
	}{{"database-port", d.Port}, {"etcd-client-port", d.EtcdClient}, {"etcd-peer-port", d.EtcdPeer}, {"patroni-port", d.Patroni}} {
		f.port(p.field, p.n)
		if other, taken := ports[p.n]; taken {
			f.add(p.field, "got %d, which %s has", p.n, other)
		}
		ports[p.n] = p.field
	}
	f.path("postgresql-bin", d.Bin)
}

// host is a node as its templates see it.
type host struct {
	Database
	Node
	at func(p string) string
}

// At is where a file lives on the host.
func (h host) At(p string) string { return h.at(p) }

// The places that templates name.
func (host) places() map[string]string {
	return map[string]string{"EtcdDefaults": etcdDefaults, "EtcdFolder": etcdFolder, "EtcdData": etcdData, "PatroniFile": patroniFile, "PatroniFolder": patroniFolder,
		"PatroniDropIn": patroniDropIn, "PostgresData": postgresData, "PostgresSocket": postgresSocket, "ConfigFolder": configFolder, "NodeData": nodeData,
		"ServiceFile": serviceFile, "SysctlFile": sysctlFile}
}

// Place is where something with a name lives on the host.
func (h host) Place(name string) (string, error) {
	p, ok := h.places()[name]
	if !ok {
		return "", fmt.Errorf("there is no place %q", name)
	}
	return h.at(p), nil
}

// EtcdURLs are the addresses of all members of etcd, as Patroni names them.
func (d Database) EtcdURLs() string {
	all := make([]string, len(d.Nodes))
	for i, n := range d.Nodes {
		all[i] = fmt.Sprintf("%s:%d", n.Host(), d.EtcdClient)
	}
	return strings.Join(all, ", ")
}

// EtcdCluster are the members of etcd, as etcd names them.
func (d Database) EtcdCluster() string {
	all := make([]string, len(d.Nodes))
	for i, n := range d.Nodes {
		all[i] = fmt.Sprintf("%s=https://%s:%d", n.Name, n.Host(), d.EtcdPeer)
	}
	return strings.Join(all, ",")
}

// Prefix is the node's address as pg_hba.conf wants it.
func (n Node) Prefix() string { return netip.PrefixFrom(n.Address, n.Address.BitLen()).String() }

// DSN is the connection string of a cluster's nodes: all hosts, and whichever of
// them takes writes.
func (d Database) DSN(caFile string) string {
	d = d.withDefaults()
	hosts := make([]string, len(d.Nodes))
	for i, n := range d.Nodes {
		hosts[i] = fmt.Sprintf("%s:%d", n.Host(), d.Port)
	}
	return fmt.Sprintf("postgres://portcullis@%s/portcullis?target_session_attrs=read-write&connect_timeout=3&sslmode=verify-full&sslrootcert=%s", strings.Join(hosts, ","), caFile)
}

// Service is the nodes' own unit and configuration.
type Service struct {
	Cluster
	Program   string    // the binary; empty means /usr/local/bin/portcullis
	Balancer  *Balancer // nil leaves the settings for one out
	StopAfter int       // seconds that systemd waits for a stop; 0 means the drain and 30
}

const defaultProgram = "/usr/local/bin/portcullis"

// RenderHosts writes what each host of a cluster gets, in a folder of its name: of
// the database where d is not nil, and of the node itself where s is not nil; with
// install.sh, which puts it into its places, and prepare.sh, which makes
// certificates and passwords beforehand. The error names every field that is wrong.
func RenderHosts(d *Database, s *Service) ([]File, error) {
	var f faults
	var c Cluster
	var set Service
	if d != nil {
		with := d.withDefaults()
		d, c = &with, with.Cluster
		d.check(&f)
	}
	if s != nil {
		set, c = *s, s.Cluster
		if set.Program == "" {
			set.Program = defaultProgram
		}
		f.cluster(c, 1)
		f.path("program", set.Program)
		if set.StopAfter == 0 {
			set.StopAfter = 10 + 30
			if set.Balancer != nil {
				set.StopAfter = set.Balancer.withDefaults().Drain + 30
			}
		}
		if set.Balancer != nil {
			b := set.Balancer.withDefaults()
			set.Balancer = &b
			if len(b.Addresses) == 0 {
				f.add("balancers", "nobody is named; allowed are addresses and networks that the load balancers' connections come from: the nodes believe nobody else")
			}
		}
	}
	slices.Sort(f)
	f = slices.Compact(f)
	if err := f.err(); err != nil || d == nil && s == nil {
		return nil, err
	}
	data := hosts{Cluster: c, HasDatabase: d != nil, HasService: s != nil, Service: set}
	shared := Database{Cluster: c}
	if d != nil {
		shared = *d
	}
	var files []File
	add := func(name, template string, executable bool, v any) error {
		text, err := render(template, v)
		files = append(files, File{Name: name, Content: text, Executable: executable})
		return err
	}
	if err := add("prepare.sh", "prepare.sh.tmpl", true, data); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		h := hostData{hosts: data, host: host{Database: shared, Node: n, at: func(p string) string { return c.path(n.Name, p) }}}
		type file struct {
			name, template string
			executable     bool
		}
		list := []file{{"install.sh", "install.sh.tmpl", true}}
		if d != nil {
			list = append(list, file{"etcd.env", "etcd.env.tmpl", false}, file{"patroni.yml", "patroni.yml.tmpl", false},
				file{"patroni.conf", "patroni.conf.tmpl", false}, file{"post-init.sh", "post-init.sh.tmpl", true})
		}
		if s != nil {
			list = append(list, file{"portcullis.service", "portcullis.service.tmpl", false}, file{"portcullis.yaml", "portcullis.yaml.tmpl", false}, file{"sysctl.conf", "sysctl.conf.tmpl", false})
		}
		for _, l := range list {
			if err := add(n.Name+"/"+l.name, l.template, l.executable, h); err != nil {
				return nil, err
			}
		}
	}
	return tidy(files), nil
}

// hosts is what the templates of all hosts see.
type hosts struct {
	Cluster                 Cluster
	Service                 Service
	HasDatabase, HasService bool
}

// hostData is what the templates of one host see.
type hostData struct {
	hosts
	host
}
