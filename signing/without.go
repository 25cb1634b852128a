//go:build !(openssl && cgo)

package signing

import "errors"

// HasOpenSSL reports whether the program was built with OpenSSL.
const HasOpenSSL = false

func newOpenSSL() (Engine, error) {
	return nil, errors.New("signing engine openssl: this program was built without OpenSSL; build it with `make build-openssl`, or leave the setting at go")
}
