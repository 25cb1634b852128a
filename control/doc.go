// Package control is the control plane of a cluster, row control of the network
// contract: who its nodes are (Member), the certificate authority that they trust
// (Authority), one-time tokens to join, the leader, and what the caches of other
// nodes have to forget. Nodes speak to each other over mutual TLS; what has to
// survive is in the database, so that any node can die at any time.
//
// The times, all of them bounds and none a setting: a node writes its heartbeat
// into the database each second, and asks each other node each second. Three
// seconds of silence make a node suspect, ten make it down. The leader renews its
// lease each second and gives it up after four without success; another node
// takes it when it has seen no renewal for six by its own clock, so that no two
// lead at a time, whatever the clocks say. Invalidations are pushed as they are
// made; a node looks into the database each second for those that did not arrive,
// does not trust its caches when it could not look for five, and forgets
// everything after it was cut off for longer than they are kept. A node whose clock
// is ten seconds away from most others' takes no requests.
//
// Threat model: whoever has a node's key and certificate is that node until its
// certificate is revoked or it is removed; whoever reads the database has the authority's key only with the master
// key; a token to join is a secret for one use within its time, and its holder gets
// the cluster's secrets.
package control
