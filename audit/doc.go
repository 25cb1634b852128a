// Package audit compares the sockets that a process has with those that the
// network contract declares: a listener or a connection of no row is a mistake of
// the program, or somebody else's work.
package audit
