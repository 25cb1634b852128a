// Package health owns the answers to "does this node work, and if not, why":
// the status paths of the appliance's health service, the detail beside them,
// liveness, readiness, and the self-test of load balancers. Checks of the host
// are here; what a check of another room asks is handed in.
//
// Threat model: whoever reaches the listener may ask without a key, and whoever
// has the key may ask often. Without the key nothing is told but readiness;
// checks run at most once a second each, one at a time, and within a time limit,
// so that asking costs the node nothing.
package health
