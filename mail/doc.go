// Package mail owns what the appliance sends by mail: the texts, the outbox that
// is written in the same transaction as what caused a message, delivery with
// retries, and the mailbox that captures mail on a development node.
//
// It knows addresses and links, not users. Links come from the caller, who makes
// them of configured host names alone.
package mail
