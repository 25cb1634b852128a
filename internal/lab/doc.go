// Package lab builds a small network for tests: nodes, a load balancer, an
// outside host and the hosts around them, each in a network namespace of its own
// and joined by a router that every packet crosses, from node to node too. Faults
// are put into the router or into a host's own firewall, in the words of the
// field: drop, reject, loss, delay, a path with a small MTU, a name server that
// lies. Every fault returns a function that takes it away again.
//
//	lab.Require(t)
//	l := lab.New(t, lab.Options{Nodes: 3})
//	undo := l.Drop("node1", "node2", "tcp", 7777)
//	defer undo()
//	_, err := l.Host("node1").Dial(ctx, "tcp4", "node2:7777") // times out
//
// It needs Linux, root, and the Debian packages iproute2 and nftables; Require
// skips a test elsewhere. Clocks cannot differ between namespaces: a test that
// needs a skewed clock hands one to the code under test.
//
// For tests alone. `make lab` brings a lab up for work by hand.
package lab
