// Package docsql is what the SQL engines share: the statements of every kind,
// queries, search, sealing and migrations. An engine adds a dialect, connections
// and its way to write.
package docsql
