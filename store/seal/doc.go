// Package seal encrypts the secrets inside documents with a master key that is
// not in the database, and reads and makes that key.
//
// Threat model: who has the database, or a backup of it, reads no secret and
// cannot move one to another document: tenant, kind, id and place are bound to
// the ciphertext.
package seal
