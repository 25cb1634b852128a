// Package preflight proves the network contract on real hosts, before anything is
// installed on them and after.
//
// Every host runs it with the same one-time token. Each opens responders on the
// ports that the contract lets it listen on, which answer nobody but holders of
// the token, and each probes every other host on every row that the contract
// gives the pair. What comes out is a verdict for each row and ordered pair: not
// only that a connection fails but who is to blame for it, by what evidence, and
// with which rule it would work.
//
// Hosts tell each other what they found over any of the ports that work, so that
// one report has the whole matrix, and the other side's view of each failure: who
// listens there, and whether its own firewall dropped the packet.
package preflight
