// Package probe asks the network what it does with a connection: whether somebody
// answers, who refuses, and after which hop a packet is not heard of any more.
//
// It needs no privilege. The kernel hands the ICMP errors of a connection to the
// process that made it, through the socket's error queue (ip(7), IP_RECVERR): they
// carry the address that sent them, which is the one to talk to. Where nobody
// answers, the same connection is tried with small times to live, and the hops
// answer one after the other until the one behind which it is silent.
//
// Probes run many at a time on one epoll instance, so that a whole matrix takes
// about as long as its slowest row. Linux only.
package probe
