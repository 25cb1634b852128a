// Package hostfw reads what the firewall of this host does: which one is in use,
// which of its chains drop by default, how many packets each of its dropping rules
// has counted, and what becomes of a packet: Load reads all rules, of nftables and
// of both kinds of iptables, and walks a packet through them as the kernel would.
// What a packet alone does not tell (a mark, a set of other programs, the time) is
// answered with "it depends". It changes nothing. Linux only; without the right to
// read, it says so.
package hostfw
