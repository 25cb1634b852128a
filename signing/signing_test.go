package signing_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"strings"
	"sync"
	"testing"

	"github.com/portcullis-id/portcullis/signing"
)

// engines are those that this program was built with.
func engines(t *testing.T) []signing.Engine {
	t.Helper()
	names := []string{signing.Go}
	if signing.HasOpenSSL {
		names = append(names, signing.OpenSSL)
	}
	var all []signing.Engine
	for _, name := range names {
		e, err := signing.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(e.Name())
		all = append(all, e)
	}
	return all
}

func TestSignaturesVerify(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("signing input"))
	for _, e := range engines(t) {
		s, err := e.Signer(key)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					sig, err := s.Sign(rand.Reader, sum[:], crypto.SHA256)
					if err != nil || rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], sig) != nil {
						t.Errorf("%s: RS256: %v", e.Name(), err)
						return
					}
					pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
					sig, err = s.Sign(rand.Reader, sum[:], pss)
					if err != nil || rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, sum[:], sig, pss) != nil {
						t.Errorf("%s: PS256: %v", e.Name(), err)
						return
					}
				}
			})
		}
		wg.Wait()
		if _, err := s.Sign(rand.Reader, sum[:7], crypto.SHA256); err == nil {
			t.Errorf("%s signs a digest that is none", e.Name())
		}
		if _, err := s.Sign(rand.Reader, sum[:], crypto.SHA512); err == nil {
			t.Errorf("%s signs a digest of another length", e.Name())
		}
		if !key.PublicKey.Equal(s.Public()) {
			t.Errorf("%s: the public key differs", e.Name())
		}
	}
}

func TestOtherKeysStayWithGo(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range engines(t) {
		if s, err := e.Signer(key); err != nil || s != crypto.Signer(key) {
			t.Errorf("%s: %v %v", e.Name(), s, err)
		}
	}
}

func TestNamed(t *testing.T) {
	if _, err := signing.Named("gnutls"); err == nil || !strings.Contains(err.Error(), "allowed are go, openssl") {
		t.Error(err)
	}
	if _, err := signing.Named(signing.OpenSSL); (err == nil) != signing.HasOpenSSL {
		t.Error(err)
	} else if err != nil && !strings.Contains(err.Error(), "make build-openssl") {
		t.Error(err)
	}
}
