package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/portcullis-id/portcullis/deploy"
)

type clusterRenderCmd struct {
	Nodes     []string `sep:"," placeholder:"NAME=ADDRESS" help:"The nodes, with commas between; three for a database."`
	Domain    string   `placeholder:"DOMAIN" help:"Parent of all tenants' host names, as in the nodes' configuration."`
	LB        string   `name:"lb" placeholder:"KIND" help:"A load balancer: haproxy, nginx, envoy, or aws for Terraform."`
	Database  bool     `help:"PostgreSQL with Patroni and etcd on the nodes."`
	Systemd   bool     `help:"The nodes' own unit and configuration."`
	Dir       string   `type:"path" placeholder:"DIR" help:"Write the files there; without it they are printed."`
	Output    string   `short:"o" enum:"text,json" default:"text" help:"Form of the output: text, or json for one document with all files."`
	Mode      string   `default:"passthrough" help:"What the balancer does with TLS: passthrough (TCP with the PROXY protocol) or terminated."`
	Plain     bool     `help:"With --mode terminated: plain HTTP between balancer and nodes, and not TLS."`
	Balancers []string `sep:"," placeholder:"ADDRESS" help:"Addresses or networks that the balancers' connections come from; the nodes believe nobody else."`

	Certificate string `placeholder:"FILE" help:"With --mode terminated, on the balancer: certificate, chain and key in one PEM file. /etc/ssl/private/portcullis.pem by default."`
	CA          string `name:"ca" placeholder:"FILE" help:"With --mode terminated, on the balancer: who signed the nodes' certificates. Debian's list by default."`
	Listen      string `placeholder:"ADDRESS" help:"IP address that the balancer listens on; all by default."`
	PublicHTTPS int    `name:"public-https" placeholder:"PORT" help:"The balancer's HTTPS port; 443 by default."`
	PublicHTTP  int    `name:"public-http" placeholder:"PORT" help:"The balancer's HTTP port; 80 by default."`
	HTTPS       int    `name:"https" placeholder:"PORT" help:"listen.https of the nodes; the contract's by default."`
	HTTP        int    `name:"http" placeholder:"PORT" help:"listen.http of the nodes; the contract's by default."`
	Terminated  int    `placeholder:"PORT" help:"listen.terminated of the nodes; the contract's 4443 by default."`
	Drain       int    `placeholder:"SECONDS" help:"listen.drain of the nodes; by default what the balancer needs to notice."`

	DatabasePort   int    `name:"database-port" placeholder:"PORT" help:"Port of PostgreSQL; the contract's 27017 by default."`
	EtcdClientPort int    `name:"etcd-client-port" placeholder:"PORT" help:"Port of etcd; 9379 by default, in the open range 9300-9400."`
	EtcdPeerPort   int    `name:"etcd-peer-port" placeholder:"PORT" help:"Port between members of etcd; 9380 by default."`
	PatroniPort    int    `name:"patroni-port" placeholder:"PORT" help:"Port of Patroni; 9308 by default."`
	PostgreSQLBin  string `name:"postgresql-bin" placeholder:"DIR" help:"Folder of PostgreSQL's programs; Debian's /usr/lib/postgresql/15/bin by default."`
	Program        string `placeholder:"FILE" help:"The portcullis binary on the nodes; /usr/local/bin/portcullis by default."`
	Root           string `placeholder:"DIR" help:"Folder before every path in the files, for several hosts on one machine; {node} in it is the host's name."`
}

func (clusterRenderCmd) Help() string {
	return `Writes text for review; nothing is started or changed. The same input gives the same text, and no secret is in
it: prepare.sh makes certificates and passwords afterwards. docs/load-balancers.md and docs/deployment.md
say how the files are used, and what was tested.

Examples:
  portcullis cluster render --lb haproxy --domain id.example.com --nodes node1=10.0.0.11,node2=10.0.0.12,node3=10.0.0.13
  portcullis cluster render --lb nginx --mode terminated --domain id.example.com --nodes node1=10.0.0.11,node2=10.0.0.12 \
    --balancers 10.0.0.5 --dir out
  portcullis cluster render --database --systemd --lb haproxy --balancers 10.0.0.5 --domain id.example.com \
    --nodes node1=10.0.0.11,node2=10.0.0.12,node3=10.0.0.13 --dir out`
}

func (c *clusterRenderCmd) Run(std IO) error {
	if c.LB == "" && !c.Database && !c.Systemd {
		return usageError("nothing was asked for: allowed are --lb haproxy|nginx|envoy|aws, --database and --systemd, together or alone")
	}
	files, err := c.render()
	if err != nil {
		return usageError(err.Error())
	}
	if c.Output == "json" {
		type file struct {
			Name       string `json:"name"`
			Executable bool   `json:"executable"`
			Content    string `json:"content"`
		}
		list := make([]file, len(files))
		for i, f := range files {
			list[i] = file{f.Name, f.Executable, f.Content}
		}
		return output{Output: "json"}.print(std.Out, map[string]any{"files": list}, nil)
	}
	if c.Dir != "" {
		// What prepare.sh writes there is for nobody else.
		if err := os.MkdirAll(filepath.Clean(c.Dir), 0o700); err != nil {
			return fmt.Errorf("make the folder: %w", err)
		}
	}
	return writeFiles(std.Out, c.Dir, files)
}

func (c *clusterRenderCmd) render() ([]deploy.File, error) {
	nodes, err := deploy.ParseNodes(c.Nodes)
	if err != nil {
		return nil, err
	}
	addresses, err := deploy.ParseAddresses(c.Balancers)
	if err != nil {
		return nil, err
	}
	cluster := deploy.Cluster{Domain: c.Domain, Nodes: nodes, Root: c.Root}
	var files []deploy.File
	var balancer *deploy.Balancer
	if c.LB != "" {
		kind, err := deploy.ParseKind(c.LB)
		if err != nil {
			return nil, err
		}
		mode, err := deploy.ParseMode(c.Mode)
		if err != nil {
			return nil, err
		}
		balancer = &deploy.Balancer{Cluster: cluster, Kind: kind, Mode: mode, Addresses: addresses, Listen: c.Listen, PublicHTTPS: c.PublicHTTPS, PublicHTTP: c.PublicHTTP,
			HTTPS: c.HTTPS, HTTP: c.HTTP, TerminatedPort: c.Terminated, Plain: c.Plain, Certificate: c.Certificate, CA: c.CA, Drain: c.Drain}
		if files, err = deploy.RenderBalancer(*balancer); err != nil {
			return nil, err
		}
	}
	var database *deploy.Database
	if c.Database {
		database = &deploy.Database{Cluster: cluster, Port: c.DatabasePort, EtcdClient: c.EtcdClientPort, EtcdPeer: c.EtcdPeerPort, Patroni: c.PatroniPort, Bin: c.PostgreSQLBin}
	}
	var service *deploy.Service
	if c.Systemd {
		service = &deploy.Service{Cluster: cluster, Program: c.Program, Balancer: balancer}
	}
	hosts, err := deploy.RenderHosts(database, service)
	return slices.Concat(files, hosts), err
}
