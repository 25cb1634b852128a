package preflight

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/portcullis-id/portcullis/problem"
)

// Token is what the hosts of a swarm share. It is for one run.
type Token struct {
	seal []byte // of messages
	cert tls.Certificate
}

const (
	tokenPrefix = "pf1-"
	tokenBytes  = 20 // 160 bits
)

var tokenForm = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewToken makes the text of a token.
func NewToken() string {
	b := make([]byte, tokenBytes)
	rand.Read(b)
	return tokenPrefix + strings.ToLower(tokenForm.EncodeToString(b))
}

// ParseToken reads the text of a token.
func ParseToken(text string) (*Token, error) {
	raw, err := tokenForm.DecodeString(strings.ToUpper(strings.TrimPrefix(strings.TrimSpace(text), tokenPrefix)))
	if err != nil || len(raw) != tokenBytes || !strings.HasPrefix(strings.TrimSpace(text), tokenPrefix) {
		return nil, problem.New(problem.Invalid, "invalid_token", "token: that is no token of a preflight; `portcullis preflight token` makes one")
	}
	t := &Token{}
	if t.seal, err = hkdf.Key(sha256.New, raw, nil, "portcullis preflight messages", chacha20poly1305.KeySize); err != nil {
		return nil, err
	}
	seed, err := hkdf.Key(sha256.New, raw, nil, "portcullis preflight certificate", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	// Every host makes the same certificate: whoever shows another has not the token.
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "portcullis preflight"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	t.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return t, nil
}

// own reports whether a certificate is the swarm's.
func (t *Token) own(c *x509.Certificate) bool {
	key, ok := c.PublicKey.(ed25519.PublicKey)
	return ok && subtle.ConstantTimeCompare(key, t.cert.Leaf.PublicKey.(ed25519.PublicKey)) == 1
}

// Messages are one frame each way: magic, length, nonce, and JSON that is sealed
// with a key of the token. A stranger can neither read nor make one, and gets no
// answer.
const (
	magic      = "PCPF"
	headerSize = len(magic) + 4
	// maxMessage bounds a frame, in bytes: a matrix of 25 nodes has about a megabyte.
	maxMessage = 8 << 20
	// maxRequest bounds what a responder reads before it knows who asks.
	maxRequest = 64 << 10
)

// kinds of requests.
const (
	kindHello    = "hello"
	kindEvidence = "evidence"
	kindResults  = "results"
	// From watch to count the host counts the packets of some flows.
	kindWatch = "watch"
	kindCount = "count"
)

type request struct {
	Kind  string `json:"kind"`
	Nonce []byte `json:"nonce"`
	From  string `json:"from"`
	// Padding makes the message as large as the path has to carry.
	Padding string `json:"padding,omitempty"`
	// Pad asks for an answer that is larger by so many bytes.
	Pad int `json:"pad,omitempty"`
	// Flows are what is to be counted.
	Flows []Flow `json:"flows,omitempty"`
}

type reply struct {
	Nonce    []byte          `json:"nonce"` // of the request: the answer is to nothing else
	Name     string          `json:"name"`
	Seen     string          `json:"seen"` // address that the request came from
	At       time.Time       `json:"at"`   // by the clock of the host that answers
	Padding  string          `json:"padding,omitempty"`
	Evidence *Evidence       `json:"evidence,omitempty"`
	Results  json.RawMessage `json:"results,omitempty"`
	Watch    *Watch          `json:"watch,omitempty"`
}

var errStranger = errors.New("the message is not of this swarm")

// directions keep an answer from being played back as a request.
const (
	toResponder = "request"
	toProber    = "reply"
)

func (t *Token) encode(direction string, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(t.seal)
	if err != nil {
		return nil, err
	}
	size := aead.NonceSize() + len(plain) + aead.Overhead()
	if size > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is too long", size)
	}
	out := make([]byte, headerSize, headerSize+size)
	copy(out, magic)
	binary.BigEndian.PutUint32(out[len(magic):], uint32(size)) // #nosec G115 -- at most maxMessage
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	out = append(out, nonce...)
	return aead.Seal(out, nonce, plain, []byte(direction)), nil
}

// decode opens the sealed part of a frame.
func (t *Token) decode(direction string, sealed []byte, v any) error {
	aead, err := chacha20poly1305.NewX(t.seal)
	if err != nil {
		return err
	}
	if len(sealed) < aead.NonceSize() {
		return errStranger
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(direction))
	if err != nil {
		return errStranger
	}
	return json.Unmarshal(plain, v)
}

// read reads one frame of at most limit bytes.
func (t *Token) read(r io.Reader, direction string, limit int, v any) error {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return err
	}
	if string(header[:len(magic)]) != magic {
		return errStranger
	}
	size := int(binary.BigEndian.Uint32(header[len(magic):]))
	if size > limit {
		return errStranger
	}
	sealed := make([]byte, size)
	if _, err := io.ReadFull(r, sealed); err != nil {
		return err
	}
	return t.decode(direction, sealed, v)
}

// datagram opens a frame that came in one packet.
func (t *Token) datagram(packet []byte, direction string, v any) error {
	if len(packet) < headerSize || string(packet[:len(magic)]) != magic || int(binary.BigEndian.Uint32(packet[len(magic):])) != len(packet)-headerSize {
		return errStranger
	}
	return t.decode(direction, packet[headerSize:], v)
}
