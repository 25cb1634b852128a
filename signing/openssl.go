//go:build openssl && cgo

package signing

/*
#cgo LDFLAGS: -lcrypto
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static EVP_PKEY *portcullis_parse(const unsigned char *der, long size) {
	return d2i_AutoPrivateKey(NULL, &der, size);
}

// Returns the length of the signature, or -1.
static int portcullis_sign(EVP_PKEY *key, int pss, const unsigned char *digest, size_t digest_size, unsigned char *out, size_t out_size) {
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	int ok = ctx != NULL && EVP_PKEY_sign_init(ctx) > 0
		&& EVP_PKEY_CTX_set_rsa_padding(ctx, pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) > 0
		&& EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) > 0
		&& (!pss || EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) > 0)
		&& EVP_PKEY_sign(ctx, out, &out_size, digest, digest_size) > 0;
	EVP_PKEY_CTX_free(ctx);
	if (!ok) ERR_clear_error();
	return ok ? (int)out_size : -1;
}
*/
import "C"

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"
)

// HasOpenSSL reports whether the program was built with OpenSSL.
const HasOpenSSL = true

type openSSL struct{}

func newOpenSSL() (Engine, error) {
	if C.OPENSSL_version_major() < 3 {
		return nil, fmt.Errorf("signing engine openssl: the host has %s; wants OpenSSL 3", openSSL{}.Name())
	}
	return openSSL{}, nil
}

func (openSSL) Name() string { return C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION)) }

// Signer takes RSA keys. Go signs ES256 and EdDSA as fast by itself.
func (openSSL) Signer(key crypto.Signer) (crypto.Signer, error) {
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return key, nil
	}
	der := x509.MarshalPKCS1PrivateKey(private)
	defer clear(der)
	pkey := C.portcullis_parse((*C.uchar)(unsafe.Pointer(&der[0])), C.long(len(der)))
	if pkey == nil {
		C.ERR_clear_error()
		return nil, errors.New("OpenSSL does not read the key")
	}
	s := &rsaSigner{public: private.Public(), size: private.Size(), key: pkey}
	runtime.AddCleanup(s, func(p *C.EVP_PKEY) { C.EVP_PKEY_free(p) }, pkey)
	return s, nil
}

// rsaSigner is safe for concurrent use: each signature has a context of its own.
type rsaSigner struct {
	public crypto.PublicKey
	size   int
	key    *C.EVP_PKEY
}

func (s *rsaSigner) Public() crypto.PublicKey { return s.public }

// Sign signs a SHA-256 digest with PKCS #1 v1.5, or with PSS and a salt of the
// digest's length (RFC 7518 sections 3.3 and 3.5).
func (s *rsaSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, errors.New("sign with OpenSSL: wants a SHA-256 digest")
	}
	pss := C.int(0)
	if o, ok := opts.(*rsa.PSSOptions); ok {
		if o.SaltLength != rsa.PSSSaltLengthEqualsHash && o.SaltLength != sha256.Size {
			return nil, errors.New("sign with OpenSSL: wants a salt of the digest's length")
		}
		pss = 1
	}
	out := make([]byte, s.size)
	n := C.portcullis_sign(s.key, pss, (*C.uchar)(unsafe.Pointer(&digest[0])), C.size_t(len(digest)), (*C.uchar)(unsafe.Pointer(&out[0])), C.size_t(len(out)))
	runtime.KeepAlive(s)
	if n < 0 {
		return nil, errors.New("sign with OpenSSL: the signature failed")
	}
	return out[:n], nil
}
