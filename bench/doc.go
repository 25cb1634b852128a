// Command bench measures a node against its physical limits: what the signatures,
// the password hashes and the disk of this machine allow by themselves, in the
// same run. It starts a node of its own on loopback and drives it with its own
// load generator, bounded in time and connections.
//
// Figures of different runs or machines do not compare; the ratios do.
package main
