// Package sqlite keeps documents in a SQLite file: one connection writes and
// commits what waits together, a few read beside it. It is the engine of a
// single node.
package sqlite
