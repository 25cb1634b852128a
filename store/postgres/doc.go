// Package postgres keeps documents in PostgreSQL 15 or later. It is the engine of
// a cluster, and keeps to SQL that CockroachDB and YugabyteDB have too.
package postgres
