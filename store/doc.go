// Package store opens the durable store: documents over SQL, on SQLite or
// PostgreSQL. It owns migrations, sealing, purging and the change of the master
// key. What is in the documents is the rooms' business; they see tenant.Docs and
// never import this package.
package store
