package tenant

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // #nosec G505 -- for thumbprints
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/signing"
)

// Algorithms are the JWS algorithms that a tenant can sign with (RFC 7518 section
// 3.1, RFC 8037 section 3.1). RS256 is the default.
var Algorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}

// SigningKey is one key pair of a tenant. Of each key type one key is current and
// signs; the next is published ahead, so that relying parties know it before it
// signs; previous ones still verify until they are revoked.
type SigningKey struct {
	KeyID        string     `json:"kid"` // RFC 7638 thumbprint
	Use          string     `json:"use"` // sig, or enc for the tenant's symmetric key
	Type         string     `json:"type"`
	PrivateKey   string     `json:"private_key"` // PKCS #8 in base64, sealed at rest
	Cert         string     `json:"cert,omitempty"`
	PKCS7        string     `json:"pkcs7,omitempty"`
	Fingerprint  string     `json:"fingerprint,omitempty"`
	Thumbprint   string     `json:"thumbprint,omitempty"`
	Current      bool       `json:"current"`
	Next         bool       `json:"next"`
	Previous     bool       `json:"previous"`
	Revoked      bool       `json:"revoked"`
	CreatedAt    time.Time  `json:"created_at"`
	CurrentSince *time.Time `json:"current_since,omitempty"`
	CurrentUntil *time.Time `json:"current_until,omitempty"`
	RevokedAt    *time.Time `json:"revoked_at,omitempty"`
}

// keyType is what an algorithm needs.
func keyType(alg string) (string, error) {
	switch alg {
	case "RS256", "PS256":
		return "RSA", nil
	case "ES256":
		return "EC", nil
	case "EdDSA":
		return "OKP", nil
	}
	return "", problem.New(problem.Invalid, "invalid_algorithm", "the signing algorithm %q is not known; allowed are: %s", alg, strings.Join(Algorithms, ", "))
}

// Signer signs for one key with one algorithm.
type Signer struct {
	Alg   string
	KeyID string
	key   crypto.Signer
}

// Sign returns the JWS signature of a signing input (RFC 7515 section 5.1).
func (s *Signer) Sign(input []byte) ([]byte, error) {
	switch s.Alg {
	case "EdDSA":
		return s.key.Sign(rand.Reader, input, crypto.Hash(0))
	case "ES256":
		sum := sha256.Sum256(input)
		r, v, err := ecdsa.Sign(rand.Reader, s.key.(*ecdsa.PrivateKey), sum[:])
		if err != nil {
			return nil, err
		}
		out := make([]byte, 64) // RFC 7518 section 3.4: R and S, 32 bytes each
		r.FillBytes(out[:32])
		v.FillBytes(out[32:])
		return out, nil
	case "PS256":
		sum := sha256.Sum256(input)
		return s.key.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	}
	sum := sha256.Sum256(input)
	return s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// keySet is the decoded keys of a tenant.
type keySet struct {
	signers map[string]*Signer // by algorithm: the current key
	public  jose.JSONWebKeySet
	secret  [][32]byte // symmetric keys, the current one first
}

// Keys makes, keeps and changes the keys of tenants.
type Keys struct {
	cache  *Cache
	engine signing.Engine
}

// NewKeys reads through c; e computes the signatures.
func NewKeys(c *Cache, e signing.Engine) *Keys { return &Keys{c, e} }

// NewKeySet is the first keys of a tenant, made before the transaction that stores
// them: making an RSA key takes a good part of a second.
type NewKeySet struct{ current, next *SigningKey }

// Prepare makes the first keys of a tenant.
func (k *Keys) Prepare() (*NewKeySet, error) { return newPair("RSA") }

// Ensure stores the first keys of a tenant inside a transaction, where it has
// none: RSA, current and next, and the symmetric key.
func (k *Keys) Ensure(tx Tx, keys *NewKeySet) error {
	have, _, err := Select[SigningKey](tx, KindSigningKey, Query{})
	if err != nil || len(have) > 0 {
		return err
	}
	if err := keys.add(tx); err != nil {
		return err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	id := "enc_" + RandomString(16)
	return Add(tx, KindSigningKey, id, &SigningKey{KeyID: id, Use: "enc", Type: "oct", Current: true, CreatedAt: tx.Now(),
		PrivateKey: base64.StdEncoding.EncodeToString(secret)})
}

func newPair(typ string) (*NewKeySet, error) {
	current, err := newKey(typ, time.Now())
	if err != nil {
		return nil, err
	}
	next, err := newKey(typ, time.Now())
	return &NewKeySet{current, next}, err
}

func (n *NewKeySet) add(tx Tx) error {
	now := tx.Now()
	current, next := *n.current, *n.next
	current.CreatedAt, next.CreatedAt = now, now
	current.Current, current.CurrentSince, next.Next = true, &now, true
	if err := Add(tx, KindSigningKey, current.KeyID, current); err != nil {
		return err
	}
	return Add(tx, KindSigningKey, next.KeyID, next)
}

func newKey(typ string, now time.Time) (*SigningKey, error) {
	var key crypto.Signer
	var err error
	switch typ {
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "EC":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "OKP":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a signing key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: key.Public()}
	thumb, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("name a signing key: %w", err)
	}
	kid := base64.RawURLEncoding.EncodeToString(thumb)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "Portcullis signing key " + kid[:8]},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(15, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certify a signing key: %w", err)
	}
	// Auth0 shows both hashes of the certificate: with colons, and without.
	sum := sha1.Sum(cert) // #nosec G401 -- x5t is a SHA-1 (RFC 7517 section 4.8)
	hexed := strings.ToUpper(hex.EncodeToString(sum[:]))
	var colons []string
	for i := 0; i < len(hexed); i += 2 {
		colons = append(colons, hexed[i:i+2])
	}
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	pkcs7, err := degeneratePKCS7(cert)
	if err != nil {
		return nil, fmt.Errorf("certify a signing key: %w", err)
	}
	return &SigningKey{KeyID: kid, Use: "sig", Type: typ, PrivateKey: base64.StdEncoding.EncodeToString(der), Cert: certPEM, PKCS7: pkcs7,
		Fingerprint: strings.Join(colons, ":"), Thumbprint: hexed, CreatedAt: now}, nil
}

// set decodes the keys of a tenant once for each change.
func (k *Keys) set(ctx context.Context, tenant string) (*keySet, error) {
	return Cached(k.cache, tenant, KindSigningKey, "", func() (*keySet, error) {
		all, _, err := Find[SigningKey](ctx, k.cache, tenant, KindSigningKey, Query{Sort: []Order{{Column: "created_at", Desc: true}}})
		if err != nil {
			return nil, err
		}
		s := &keySet{signers: map[string]*Signer{}}
		for _, sk := range all {
			raw, err := base64.StdEncoding.DecodeString(sk.PrivateKey)
			if err != nil {
				return nil, fmt.Errorf("decode key %s: %w", sk.KeyID, err)
			}
			if sk.Use == "enc" {
				var key [32]byte
				copy(key[:], raw)
				if sk.Current {
					s.secret = append([][32]byte{key}, s.secret...)
				} else if !sk.Revoked {
					s.secret = append(s.secret, key)
				}
				continue
			}
			if sk.Revoked {
				continue
			}
			parsed, err := x509.ParsePKCS8PrivateKey(raw)
			if err != nil {
				return nil, fmt.Errorf("decode key %s: %w", sk.KeyID, err)
			}
			key := parsed.(crypto.Signer)
			algs := map[string][]string{"RSA": {"RS256", "PS256"}, "EC": {"ES256"}, "OKP": {"EdDSA"}}[sk.Type]
			jwk := jose.JSONWebKey{Key: key.Public(), KeyID: sk.KeyID, Use: "sig"}
			if len(algs) == 1 || sk.Type == "RSA" {
				jwk.Algorithm = algs[0] // RSA keys sign PS256 too; SDKs look for RS256
			}
			if block, _ := pem.Decode([]byte(sk.Cert)); block != nil {
				if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
					jwk.Certificates = []*x509.Certificate{cert}
				}
			}
			s.public.Keys = append(s.public.Keys, jwk)
			if sk.Current {
				if key, err = k.engine.Signer(key); err != nil {
					return nil, fmt.Errorf("use key %s: %w", sk.KeyID, err)
				}
				for _, alg := range algs {
					s.signers[alg] = &Signer{Alg: alg, KeyID: sk.KeyID, key: key}
				}
			}
		}
		return s, nil
	})
}

// Signer returns the signer of an algorithm's current key. A key of a type that
// the tenant has none of yet is made now.
func (k *Keys) Signer(ctx context.Context, tenant, alg string) (*Signer, error) {
	typ, err := keyType(alg)
	if err != nil {
		return nil, err
	}
	for range 2 {
		s, err := k.set(ctx, tenant)
		if err != nil {
			return nil, err
		}
		if signer := s.signers[alg]; signer != nil {
			return signer, nil
		}
		pair, err := newPair(typ)
		if err != nil {
			return nil, err
		}
		err = k.cache.Write(ctx, tenant, func(tx Tx) error {
			// Another request, or another node, may have been faster. Settings are touched
			// so that two who both saw nothing conflict on PostgreSQL, and one runs again.
			if _, err := Change(tx, KindSettings, SettingsID, func(*map[string]any) error { return nil }); err != nil {
				return err
			}
			have, _, err := Select[SigningKey](tx, KindSigningKey, Query{})
			if err != nil || slices.ContainsFunc(have, func(s *SigningKey) bool { return s.Type == typ && s.Current }) {
				return err
			}
			return pair.add(tx)
		})
		if err != nil {
			return nil, fmt.Errorf("make a key for %s: %w", alg, err)
		}
		// Who was faster may not have dropped the old set yet.
		k.cache.Invalidate(tenant, KindSigningKey)
	}
	return nil, fmt.Errorf("tenant %s has no key for %s", tenant, alg)
}

// Public returns what verifies the tenant's tokens: current, next and previous
// keys, without those that were revoked.
func (k *Keys) Public(ctx context.Context, tenant string) (jose.JSONWebKeySet, error) {
	s, err := k.set(ctx, tenant)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	return s.public, nil
}

// Secrets returns the tenant's symmetric keys, the current one first. They seal
// what comes back to the appliance itself.
func (k *Keys) Secrets(ctx context.Context, tenant string) ([][32]byte, error) {
	s, err := k.set(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if len(s.secret) == 0 {
		return nil, fmt.Errorf("tenant %s has no symmetric key", tenant)
	}
	return s.secret, nil
}

// List returns the signing keys, the newest first. The private parts are left
// out.
func (k *Keys) List(ctx context.Context, tenant string) ([]*SigningKey, error) {
	all, _, err := Find[SigningKey](ctx, k.cache, tenant, KindSigningKey, Query{
		Where: []Cond{{Column: "use", Value: "sig"}}, Sort: []Order{{Column: "created_at", Desc: true}}})
	for _, s := range all {
		s.PrivateKey = ""
	}
	return all, err
}

// Get returns one signing key without its private part, or problem.NotFound.
func (k *Keys) Get(ctx context.Context, tenant, kid string) (*SigningKey, error) {
	s, err := Get[SigningKey](ctx, k.cache, tenant, KindSigningKey, kid)
	if problem.Is(err, problem.NotFound) || err == nil && s.Use != "sig" {
		return nil, problem.New(problem.NotFound, "inexistent_signing_key", "The signing key does not exist").About(kid)
	}
	if err != nil {
		return nil, err
	}
	s.PrivateKey = ""
	return s, nil
}

// Rotate lets the next key of each type sign from now on, publishes a new next
// one, and returns the RSA key that became current. What the former key signed
// stays valid until that is revoked.
func (k *Keys) Rotate(ctx context.Context, tenant string) (*SigningKey, error) {
	var current *SigningKey
	fresh := map[string]*SigningKey{}
	have, err := k.List(ctx, tenant)
	if err != nil {
		return nil, err
	}
	for _, s := range have {
		if s.Next && fresh[s.Type] == nil {
			if fresh[s.Type], err = newKey(s.Type, time.Now()); err != nil {
				return nil, err
			}
		}
	}
	err = k.cache.Write(ctx, tenant, func(tx Tx) error {
		now := tx.Now()
		all, _, err := Select[SigningKey](tx, KindSigningKey, Query{Where: []Cond{{Column: "use", Value: "sig"}}})
		if err != nil {
			return err
		}
		types := map[string]bool{}
		for _, s := range all {
			if !s.Current && !s.Next || fresh[s.Type] == nil {
				continue // a type that came into use at this moment rotates the next time
			}
			changed, err := Change(tx, KindSigningKey, s.KeyID, func(s *SigningKey) error {
				if s.Current {
					s.Current, s.Previous, s.CurrentUntil = false, true, &now
				} else {
					s.Next, s.Current, s.CurrentSince = false, true, &now
				}
				return nil
			})
			if err != nil {
				return err
			}
			types[s.Type] = true
			if changed.Current && changed.Type == "RSA" {
				current = changed
			}
		}
		for typ := range types {
			next := *fresh[typ]
			next.CreatedAt, next.Next = now, true
			if err := Add(tx, KindSigningKey, next.KeyID, next); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("rotate signing keys: %w", err)
	}
	current.PrivateKey = ""
	return current, nil
}

// Revoke takes a previous key out of use: what it signed is not valid any more.
// The current and the next key cannot be revoked; rotate first.
func (k *Keys) Revoke(ctx context.Context, tenant, kid string) (*SigningKey, error) {
	if _, err := k.Get(ctx, tenant, kid); err != nil {
		return nil, err
	}
	var revoked *SigningKey
	err := k.cache.Write(ctx, tenant, func(tx Tx) (err error) {
		revoked, err = Change(tx, KindSigningKey, kid, func(s *SigningKey) error {
			if s.Current || s.Next {
				return problem.New(problem.Invalid, "cannot_revoke_key", "Only previous signing keys can be revoked; rotate the keys first")
			}
			now := tx.Now()
			if !s.Revoked {
				s.Revoked, s.Previous, s.RevokedAt = true, false, &now
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	revoked.PrivateKey = ""
	return revoked, nil
}

// degeneratePKCS7 wraps a certificate as a PKCS #7 SignedData without signers (RFC
// 2315 section 9.1), the form in which Auth0 hands out certificates.
func degeneratePKCS7(cert []byte) (string, error) {
	tlv := func(tag byte, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		var length []byte
		switch n := len(body); {
		case n < 0x80:
			length = []byte{byte(n)}
		case n < 0x100:
			length = []byte{0x81, byte(n)}
		default:
			length = []byte{0x82, byte(n >> 8), byte(n)} // #nosec G115 -- the two halves of a DER length
		}
		return append(append([]byte{tag}, length...), body...)
	}
	if len(cert) > 0xf000 {
		return "", fmt.Errorf("the certificate is too long")
	}
	signedData := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}
	data := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01}
	der := tlv(0x30, signedData, tlv(0xa0, tlv(0x30, []byte{0x02, 0x01, 0x01}, tlv(0x31), tlv(0x30, data), tlv(0xa0, cert), tlv(0x31))))
	return string(pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: der})), nil
}
