// Package password hashes passwords on a bounded pool, verifies those that came
// from other systems, and judges new ones. It stores nothing and knows no user.
//
// Threat model: a flood of logins must not starve the node, so hashes beyond the
// pool wait in a short queue and then fail fast; an imported hash must not choose
// its own cost without bounds; a database of hashes must be dear to try.
package password
