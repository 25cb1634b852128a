// Package egress owns outgoing connections. Everything that the node calls
// outside is dialled here, for a row of the network contract; a test of this
// room finds code that dials by itself.
//
// Threat model: tenant administrators, identity providers' metadata and stored
// settings name hosts that the node then calls, and whoever names a host may try
// to reach what only the node can reach (server-side request forgery). So
// addresses are judged after names are resolved and on the very address that is
// dialled, for each redirect anew: a name that changes its address between check
// and use gains nothing. The operator's settings are trusted, tenants' are not.
// What a permitted host answers is bounded in size and time and otherwise left
// to the caller.
package egress
