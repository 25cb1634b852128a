// Package ratelimit decides how often something may happen: token buckets that all
// nodes of a cluster share.
//
// The arithmetic is a pure function (gcra.go), the memory of one node is a bounded,
// sharded table (table.go), and a Service makes the tables of all nodes one
// (service.go): each key has one owner, found by rendezvous hashing over the nodes
// that are up; the others ask it in batches on row rate-limit. docs/adr/0020 says
// what happens while owners change or do not answer. The same port answers Envoy's
// rate limit protocol (envoy.go).
//
// What a request over HTTP counts against, and what who is over a limit is told, is
// left to appliance.
package ratelimit
