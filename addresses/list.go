package addresses

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/portcullis-id/portcullis/problem"
)

// Path is where a depot serves its list, over HTTPS.
const Path = "/.well-known/portcullis-addresses"

// Bounds of a list.
const (
	MaxSize      = 64 << 10 // bytes of a signed list
	maxHosts     = 64
	maxAddresses = 64 // of a host
	// MaxLife is the longest time between issued_at and expires.
	MaxLife = 400 * 24 * time.Hour
	// leeway is how much the clocks of depot and node may be apart.
	leeway = 5 * time.Minute
)

// List is what a depot says of its addresses.
type List struct {
	// Version grows with each list; a node never goes back to a smaller one.
	Version  int64     `json:"version"`
	IssuedAt time.Time `json:"issued_at"`
	Expires  time.Time `json:"expires"`
	Hosts    []Host    `json:"hosts"`
}

// Host is one name with its addresses, of now and of later.
type Host struct {
	Host      string    `json:"host"`
	Addresses []Address `json:"addresses"`
}

// Address is in use from ValidFrom on, the zero Time for always, until ValidUntil,
// the zero Time for ever.
type Address struct {
	Address    netip.Addr `json:"address"`
	ValidFrom  time.Time  `json:"valid_from,omitzero"`
	ValidUntil time.Time  `json:"valid_until,omitzero"`
}

// typ keeps other things that the same key may sign from being taken for a list
// (RFC 8725 section 3.11).
const typ = "portcullis-addresses+jws"

var hostForm = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

func bad(code, format string, args ...any) error {
	return problem.New(problem.Invalid, code, format, args...)
}

// check holds a list to its form.
func (l List) check() error {
	switch {
	case l.Version < 1:
		return bad("invalid_list", "version is %d; allowed are numbers from 1 on", l.Version)
	case l.IssuedAt.IsZero() || l.Expires.IsZero() || !l.Expires.After(l.IssuedAt):
		return bad("invalid_list", "expires has to be after issued_at")
	case l.Expires.Sub(l.IssuedAt) > MaxLife:
		return bad("invalid_list", "the list is good for %v; allowed are %v", l.Expires.Sub(l.IssuedAt), MaxLife)
	case len(l.Hosts) < 1 || len(l.Hosts) > maxHosts:
		return bad("invalid_list", "hosts: there are %d; allowed are 1 to %d", len(l.Hosts), maxHosts)
	}
	names := map[string]bool{}
	for i, h := range l.Hosts {
		if len(h.Host) > 253 || !hostForm.MatchString(h.Host) {
			return bad("invalid_list", "hosts[%d].host is no name of a host in lower case", i)
		}
		if names[h.Host] {
			return bad("invalid_list", "hosts[%d].host: %s stands twice; allowed is once", i, h.Host)
		}
		names[h.Host] = true
		if len(h.Addresses) < 1 || len(h.Addresses) > maxAddresses {
			return bad("invalid_list", "hosts[%d].addresses: there are %d; allowed are 1 to %d", i, len(h.Addresses), maxAddresses)
		}
		seen := map[netip.Addr]bool{}
		for j, a := range h.Addresses {
			at := a.Address
			if !at.IsValid() || at.Is4In6() || at.Zone() != "" || at.IsUnspecified() || at.IsMulticast() || at.IsLoopback() {
				return bad("invalid_list", "hosts[%d].addresses[%d].address is no unicast address", i, j)
			}
			if seen[at] {
				return bad("invalid_list", "hosts[%d].addresses[%d]: %s stands twice; allowed is once", i, j, at)
			}
			seen[at] = true
			if !a.ValidUntil.IsZero() && !a.ValidUntil.After(a.ValidFrom) {
				return bad("invalid_list", "hosts[%d].addresses[%d]: valid_until has to be after valid_from", i, j)
			}
		}
	}
	return nil
}

// Sign makes the list that a depot serves: a compact JWS (RFC 7515) with EdDSA.
func Sign(key ed25519.PrivateKey, l List) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("sign the list: the key is not Ed25519")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, (&jose.SignerOptions{}).WithType(typ).WithHeader("kid", keyID(public)))
	if err != nil {
		return nil, fmt.Errorf("sign the list: %w", err)
	}
	raw, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("sign the list: %w", err)
	}
	jws, err := signer.Sign(raw)
	if err != nil {
		return nil, fmt.Errorf("sign the list: %w", err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return nil, fmt.Errorf("sign the list: %w", err)
	}
	if len(text) >= MaxSize {
		return nil, bad("invalid_list", "the list has %d bytes; allowed are %d", len(text), MaxSize)
	}
	return []byte(text + "\n"), nil
}

func keyID(public ed25519.PublicKey) string {
	return base64.RawURLEncoding.EncodeToString(public)[:11]
}

// Open reads a list that the key has signed, whatever the time is. The error is
// problem.Invalid, and no part of a list that is not signed is in it.
func Open(key ed25519.PublicKey, raw []byte) (List, error) {
	var l List
	if len(raw) > MaxSize {
		return l, bad("invalid_list", "the list has more than %d bytes", MaxSize)
	}
	jws, err := jose.ParseSignedCompact(strings.TrimSpace(string(raw)), []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return l, bad("invalid_list", "it is no signed list of addresses (a compact JWS with EdDSA)")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return l, bad("list_signature", "the list is not signed with the key of network.depot_key")
	}
	if t, _ := jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string); t != typ {
		return l, bad("invalid_list", "the signed text is no list of addresses: its typ is not %s", typ)
	}
	// A newer depot may say more than this program knows.
	if err := json.Unmarshal(payload, &l); err != nil {
		return List{}, bad("invalid_list", "the signed list cannot be read: %v", err)
	}
	if err := l.check(); err != nil {
		return List{}, err
	}
	return l, nil
}

// Valid judges a list's time. The error is problem.Invalid.
func (l List) Valid(now time.Time) error {
	switch {
	case l.IssuedAt.After(now.Add(leeway)):
		return bad("list_from_the_future", "the list was issued at %s, and it is %s: one of the clocks is wrong", stamp(l.IssuedAt), stamp(now))
	case !l.Expires.After(now):
		return bad("list_expired", "the list expired at %s", stamp(l.Expires))
	}
	return nil
}

// Follows judges a list against the newest that was seen, for a replay. The error
// is problem.Invalid.
func (l List) Follows(last List) error {
	if l.Version < last.Version {
		return bad("list_replayed", "the list has version %d, and version %d was seen before: it is an old one", l.Version, last.Version)
	}
	if l.Version == last.Version {
		a, errA := json.Marshal(l)
		b, errB := json.Marshal(last)
		if errA != nil || errB != nil || string(a) != string(b) {
			return bad("list_replayed", "two lists have version %d and differ", l.Version)
		}
	}
	return nil
}

// at are a host's addresses now, and those of later.
func (l List) at(host string, now time.Time) (current []netip.Addr, later []Address) {
	for _, h := range l.Hosts {
		if h.Host != host {
			continue
		}
		for _, a := range h.Addresses {
			switch {
			case a.ValidFrom.After(now):
				later = append(later, a)
			case a.ValidUntil.IsZero() || a.ValidUntil.After(now):
				current = append(current, a.Address)
			}
		}
	}
	return current, later
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

const keyPrefix = "ed25519:"

// FormatKey is a public key as network.depot_key has it.
func FormatKey(k ed25519.PublicKey) string {
	return keyPrefix + base64.RawURLEncoding.EncodeToString(k)
}

// ParseKey reads what FormatKey wrote.
func ParseKey(s string) (ed25519.PublicKey, error) {
	text, ok := strings.CutPrefix(s, keyPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if !ok || err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("wants ed25519: and %d characters of base64url, as `portcullis depot addresses sign` prints it", base64.RawURLEncoding.EncodedLen(ed25519.PublicKeySize))
	}
	return raw, nil
}

const pemType = "PRIVATE KEY"

// Key reads a depot's private key (PKCS #8, PEM), or makes one with mode 0600 where
// there is no file. A file that others may read is refused.
func Key(file string) (key ed25519.PrivateKey, made bool, err error) {
	raw, err := os.ReadFile(file) // #nosec G304 -- the operator names it
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, false, fmt.Errorf("make a key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, false, fmt.Errorf("make a key: %w", err)
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // #nosec G304 -- as above
		if err != nil {
			return nil, false, fmt.Errorf("write the key: %w", err)
		}
		err = pem.Encode(f, &pem.Block{Type: pemType, Bytes: der})
		return key, true, errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the key: %w", err)
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, false, bad("key_file", "%s may be read by others: chmod 600 %s", file, file)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != pemType {
		return nil, false, bad("key_file", "%s holds no private key in PEM", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, false, bad("key_file", "%s holds no Ed25519 key (PKCS #8)", file)
	}
	return key, false, nil
}

// Get fetches a list from the depot at a base URL, such as https://depot.example.com.
func Get(ctx context.Context, client *http.Client, base string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+Path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // everything of use has been read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the depot answers %d", resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, MaxSize+1))
}
