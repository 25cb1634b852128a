// Package signing chooses who computes signatures: Go's own cryptography, which is
// the default, or the host's OpenSSL 3, which signs RS256 two to three times as
// fast on processors that Go has no code of its own for.
//
// OpenSSL is linked by the build tag "openssl" (make build-openssl); the default
// program is static and has no C in it. Keys are the same, signatures of one
// verify with the other, and the node says at its start which one signs.
package signing
