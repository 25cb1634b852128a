package signing

import (
	"crypto"
	"fmt"
)

// The engines.
const (
	Go      = "go"
	OpenSSL = "openssl"
)

// Engine makes signers of private keys.
type Engine interface {
	// Name is the engine with its version, for the log.
	Name() string
	// Signer returns what signs for a key. Keys of a type that the engine gains
	// nothing for are returned as they are.
	Signer(key crypto.Signer) (crypto.Signer, error)
}

// Named returns the engine of a name: Go or OpenSSL. It fails for any other, and
// for OpenSSL in a program that was built without.
func Named(name string) (Engine, error) {
	switch name {
	case Go, "":
		return Native, nil
	case OpenSSL:
		return newOpenSSL()
	}
	return nil, fmt.Errorf("signing engine %q: allowed are %s, %s", name, Go, OpenSSL)
}

// Native is Go's own cryptography.
var Native Engine = native{}

type native struct{}

func (native) Name() string                                    { return "Go" }
func (native) Signer(key crypto.Signer) (crypto.Signer, error) { return key, nil }
