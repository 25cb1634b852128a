// Package hostfw reads what the firewall of this host does: which one is in use,
// which of its chains drop by default, and how many packets each of its dropping
// rules has counted. It changes nothing. Linux only; without the right to read,
// it says so.
package hostfw
