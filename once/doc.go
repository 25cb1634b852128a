// Package once keeps values that work exactly one time: authorization codes,
// tickets, consumed login transactions, jti of client assertions, OTP steps.
// All go through one mechanism, an atomic take in the store, separated by
// tenant and type, so that a value of one type never serves as another.
//
// It keeps only hashes of the values handed out: who reads the database cannot
// redeem what is in it.
package once
