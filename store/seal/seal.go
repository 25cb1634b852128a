package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
)

// KeySize is the size of a master key in bytes.
const KeySize = 32

const mark = "sealed:"

// Sealer seals with one key and opens with that and former ones.
type Sealer struct {
	id   string
	keys map[string]cipher.AEAD
}

// New makes a Sealer of the master key, in bytes of KeySize, and former ones.
func New(key []byte, former ...[]byte) (*Sealer, error) {
	s := &Sealer{keys: map[string]cipher.AEAD{}}
	for i, k := range append([][]byte{key}, former...) {
		if len(k) != KeySize {
			return nil, problem.New(problem.Invalid, "invalid_master_key", "the master key has %d bytes; it wants %d", len(k), KeySize)
		}
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		id := keyID(k)
		s.keys[id] = aead
		if i == 0 {
			s.id = id
		}
	}
	return s, nil
}

// keyID names a key without giving it away.
func keyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("portcullis master key id\x00"), key...))
	return hex.EncodeToString(sum[:8])
}

// KeyID names the key that the Sealer seals with.
func (s *Sealer) KeyID() string { return s.id }

// Seal encrypts a text for one place, which aad names.
func (s *Sealer) Seal(plain, aad string) (string, error) {
	aead := s.keys[s.id]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	return mark + s.id + ":" + base64.RawStdEncoding.EncodeToString(aead.Seal(nonce, nonce, []byte(plain), []byte(aad))), nil
}

// Open decrypts what Seal made for the same place.
func (s *Sealer) Open(sealed, aad string) (string, error) {
	id, body, ok := strings.Cut(strings.TrimPrefix(sealed, mark), ":")
	if !ok || !strings.HasPrefix(sealed, mark) {
		return "", errors.New("the secret is not sealed")
	}
	aead, ok := s.keys[id]
	if !ok {
		return "", problem.New(problem.Unavailable, "unknown_master_key", "a secret was sealed with the master key %s, but the key here is %s; start with the key that the data was written with", id, s.id)
	}
	raw, err := base64.RawStdEncoding.DecodeString(body)
	if err != nil || len(raw) < aead.NonceSize() {
		return "", errors.New("the sealed secret is damaged")
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], []byte(aad))
	if err != nil {
		return "", errors.New("the sealed secret is damaged or belongs to another place")
	}
	return string(plain), nil
}

// Current reports whether a sealed text was sealed with the key in use.
func (s *Sealer) Current(sealed string) bool { return strings.HasPrefix(sealed, mark+s.id+":") }

// DecodeKey reads a key as the environment and the key file hold it: base64.
func DecodeKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != KeySize {
		return nil, problem.New(problem.Invalid, "invalid_master_key", "the master key wants %d bytes in base64, as `openssl rand -base64 %d` makes them", KeySize, KeySize)
	}
	return key, nil
}

// LoadKey reads a key file, which nobody but its owner may read.
func LoadKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the master key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, problem.New(problem.Forbidden, "master_key_open", "the master key %s has mode %04o, so that others can read it; allowed is 0600: run `chmod 600 %s`", path, mode, path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the master key: %w", err)
	}
	key, err := DecodeKey(string(raw))
	if err != nil {
		return nil, fmt.Errorf("read the master key %s: %w", path, err)
	}
	return key, nil
}

// CreateKey makes a key and writes it to a file that must not exist yet.
func CreateKey(path string) ([]byte, error) {
	key := make([]byte, KeySize)
	rand.Read(key)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, problem.New(problem.Conflict, "master_key_exists", "the file %s exists already", path)
	}
	if err != nil {
		return nil, fmt.Errorf("write the master key: %w", err)
	}
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("write the master key: %w", err)
	}
	return key, syncDir(filepath.Dir(path))
}

// syncDir makes a new name durable: a key that a crash takes away would take all
// secrets along.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
