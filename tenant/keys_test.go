package tenant_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/signing"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func newKeys(t *testing.T) (*tenant.Keys, *tenant.Cache) {
	t.Helper()
	c := tenant.NewCache(storetest.New(t), 0)
	k := tenant.NewKeys(c, signing.Native)
	prepared, err := k.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	err = c.Write(t.Context(), "a", func(tx tenant.Tx) error {
		if err := tenant.Add(tx, tenant.KindSettings, tenant.SettingsID, map[string]any{}); err != nil {
			return err
		}
		return k.Ensure(tx, prepared)
	})
	if err != nil {
		t.Fatal(err)
	}
	return k, c
}

func sign(t *testing.T, k *tenant.Keys, alg string) string {
	t.Helper()
	s, err := k.Signer(t.Context(), "a", alg)
	if err != nil {
		t.Fatal(err)
	}
	header := `{"alg":"` + alg + `","kid":"` + s.KeyID + `"}`
	input := b64(header) + "." + b64("payload")
	sig, err := s.Sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(string(sig))
}

func verifies(t *testing.T, k *tenant.Keys, jws string) bool {
	t.Helper()
	set, err := k.Public(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jose.ParseSigned(jws, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	keys := set.Key(parsed.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		return false
	}
	_, err = parsed.Verify(keys[0].Key)
	return err == nil
}

func TestEveryAlgorithmSignsWhatAnotherLibraryVerifies(t *testing.T) {
	k, _ := newKeys(t)
	for _, alg := range tenant.Algorithms {
		t.Run(alg, func(t *testing.T) {
			if !verifies(t, k, sign(t, k, alg)) {
				t.Error("the signature does not verify")
			}
		})
	}
	for _, alg := range []string{"none", "HS256", "", "RS1"} {
		if _, err := k.Signer(t.Context(), "a", alg); !problem.Is(err, problem.Invalid) {
			t.Errorf("%q: got %v", alg, err)
		}
	}
}

func TestRotationKeepsFormerSignaturesUntilTheyAreRevoked(t *testing.T) {
	k, _ := newKeys(t)
	before := sign(t, k, "RS256")
	first, err := k.Signer(t.Context(), "a", "RS256")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Revoke(t.Context(), "a", first.KeyID); problem.From(err).Code != "cannot_revoke_key" {
		t.Errorf("the current key was revoked: %v", err)
	}
	all, err := k.List(t.Context(), "a")
	if err != nil || len(all) != 2 {
		t.Fatalf("%d keys, %v", len(all), err)
	}
	var next string
	for _, s := range all {
		if s.Next {
			next = s.KeyID
		}
		if s.PrivateKey != "" {
			t.Error("the list gives private keys out")
		}
		block, _ := pem.Decode([]byte(s.Cert))
		if cert, err := x509.ParseCertificate(block.Bytes); err != nil || len(s.Thumbprint) != 40 || strings.ReplaceAll(s.Fingerprint, ":", "") != s.Thumbprint {
			t.Errorf("certificate %v, %v; fingerprint %s, thumbprint %s", cert, err, s.Fingerprint, s.Thumbprint)
		}
	}
	current, err := k.Rotate(t.Context(), "a")
	if err != nil || current.KeyID != next {
		t.Fatalf("current is %+v, %v; want the one that was announced", current, err)
	}
	if s, _ := k.Signer(t.Context(), "a", "RS256"); s.KeyID != next {
		t.Error("the old key still signs")
	}
	if !verifies(t, k, before) {
		t.Error("what was signed before the rotation is not valid any more")
	}
	if _, err := k.Revoke(t.Context(), "a", first.KeyID); err != nil {
		t.Fatal(err)
	}
	if verifies(t, k, before) {
		t.Error("a revoked key still verifies")
	}
	if _, err := k.Get(t.Context(), "a", "nope"); !problem.Is(err, problem.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentFirstUseMakesOneKey(t *testing.T) {
	k, _ := newKeys(t)
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			if s, err := k.Signer(t.Context(), "a", "ES256"); err != nil {
				t.Error(err)
			} else {
				ids[i] = s.KeyID
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two current keys: %v", ids)
		}
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
