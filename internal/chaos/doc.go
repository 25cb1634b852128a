// Package chaos shows what the cluster promises while its parts fail. It builds a
// cluster in the lab (the real binary on every node behind the contract's own
// firewall, PostgreSQL with synchronous replicas on row database, HAProxy in
// front), runs a load of logins, refreshes, revocations and management writes
// through the balancer, and puts one fault after the other into it.
//
// Every operation is recorded with the times of its call and its return
// (History). What the checker then proves (Check): nothing that was acknowledged
// is lost, nothing was done twice, nothing revoked was accepted after its bound;
// for refresh tokens, codes and documents by linearizability, where an operation
// without an answer may have happened or not, at any later time. And it says how
// long which operations failed.
//
// For tests alone: `make chaos` runs the whole, `go test ./internal/chaos` a part.
package chaos
