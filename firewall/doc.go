// Package firewall writes the network contract as rules: for the hosts' own
// firewalls, for clouds, for Kubernetes and for the people who run them. It owns
// what a node's traffic may be once the peers are known (Policy), and the formats.
// The rows come from netcontract; what a host's firewall does at present is read
// by hostfw.
//
// A rendering is text that people review: it depends on its input alone, so that
// two runs can be compared, and each rule names the row that it is for.
package firewall
