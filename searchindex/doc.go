// Package searchindex keeps an index of users and log events in OpenSearch or
// Elasticsearch, and answers search queries from it.
//
// Docs stands in front of the store: queries go to the search engine, documents
// always come from the store. Indexer brings what was written into the index, from
// a queue that the store fills in the transaction of each write; of several nodes
// one works on a group of tenants at a time, by a lease. Both take conditions from
// package search, so that the same query finds the same documents as in the store.
//
// The index holds no documents, only what is needed to find and sort them; it can
// always be made again from the store. It leaves parsing and the meaning of queries
// to package search, and the queue's rows to the store.
package searchindex
