// Package storetest is the contract of the store: Run defines how an engine
// behaves, concurrency included. New gives other rooms' tests a store of their
// own.
package storetest
