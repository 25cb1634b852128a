// Package audit compares what a running node and its host do with the network
// contract: the sockets of the process, of which each has to have its row, and the
// host's live firewall, which has to let the rows through and nothing else. A
// difference is a mistake of the program, or somebody else's work.
package audit
