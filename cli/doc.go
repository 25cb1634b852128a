// Package cli is what an operator types: one file a command. Commands speak to a
// running node through client; only start, config, keys and network work without
// one.
package cli
