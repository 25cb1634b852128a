// Package netcontract owns the network contract: every port, direction and
// outside host of the appliance, as one typed table in two profiles. Listeners
// take their default ports from it, package egress refuses a call that no row
// declares, and the documentation, the firewall rules and the probes are made
// from it. It imports nothing of ours, so that everything may import it.
//
// It leaves opening ports, dialling and probing to others; it knows what is
// meant to happen, not what happens.
package netcontract
