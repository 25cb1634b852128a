// Package deploy writes what stands around a cluster's nodes: load balancers
// (HAProxy, nginx, Envoy, AWS), the reference of a database with failover
// (PostgreSQL, Patroni, etcd), and the nodes' own systemd unit and configuration.
// The templates are files below templates/, with comments for who runs the result.
// What a node expects of its balancer is appliance's; firewalls are firewall's.
//
// A rendering is text that people review and keep in version control: it depends
// on its input alone, and has no secret in it. What is put into the text was
// checked before: a name or a path cannot bring a line of its own.
package deploy
