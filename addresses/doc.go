// Package addresses watches where the outside hosts of the network contract are:
// what their names lead to now, what they are published with, and what the host's
// firewall lets through. A depot publishes its own addresses ahead of a change, in
// a list that it signs.
//
// Threat model: a firewall is opened by what is reported here, so a list counts
// only with the signature of the key that the operator has pinned, before it
// expires, and never when a newer one was seen (an old list would bring back
// addresses that somebody else may have by now). Name servers are believed as far
// as they are believed for every call; what they say opens nothing by itself.
package addresses
