// Package sockets lists the sockets of a host and of this process, from the
// kernel's own tables (sock_diag(7)). Linux only.
package sockets
