// Package enforce lets the kernel hold this process to the network contract: what
// no row declares cannot be bound or connected any more, whoever's code asks for
// it, for the rest of the process's life and in every process that it starts.
//
// Threat model: a mistake of the program, or code that came in by one, tries to
// open a listener or to call home. Landlock's network rules speak of TCP ports
// alone: not of hosts, which package egress judges, not of UDP, and not of
// Multipath TCP, which the program therefore never uses. Linux 6.7 or newer.
package enforce
