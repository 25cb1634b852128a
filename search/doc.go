// Package search owns the query language of users and logs: the Lucene query
// strings that Auth0's q parameter takes. It parses a string to a tree, bounded
// in size and depth, and leaves running the tree to the engines: SQL on a single
// node, the search engine's DSL in a cluster.
package search
