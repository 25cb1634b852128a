// Package client speaks to an appliance as any other program would: over its own
// APIs. On the node's own host it goes through the socket in the data folder,
// whose file mode says who may.
package client
