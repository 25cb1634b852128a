package password

import (
	"crypto/hmac"
	"crypto/md5"  // #nosec G501 -- to check hashes of other systems, which the first login replaces
	"crypto/sha1" // #nosec G505 -- the same
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/pbkdf2"
	"golang.org/x/crypto/scrypt"

	"github.com/portcullis-id/portcullis/problem"
)

// Bounds of the cost of a hash that came from elsewhere: none takes more than
// about two seconds or 256 MiB.
const (
	maxMemoryKiB  = 256 << 10
	maxPasses     = 32
	maxIterations = 5_000_000 // of PBKDF2, for all blocks of the hash together
	maxScrypt     = 512 << 20 // bytes that scrypt goes through: 128 * N * r * p
	maxBcryptCost = 15
	maxHashLength = 2048
)

// verifier is a hash that was read.
type verifier interface{ verify(plain []byte) bool }

// parse reads a hash in any form that the package knows.
func parse(s string) (verifier, error) {
	switch {
	case len(s) > maxHashLength:
		return nil, fmt.Errorf("the hash is longer than %d characters", maxHashLength)
	case strings.HasPrefix(s, "$argon2"):
		return parseArgon2(s)
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, "$scrypt$"):
		return parseScrypt(s)
	case strings.HasPrefix(s, "$pbkdf2-"):
		return parsePBKDF2(s)
	case strings.HasPrefix(s, "$digest$"):
		return parseDigest(s)
	}
	return nil, fmt.Errorf("the form of the hash is not known")
}

// b64 reads PHC's base64, with or without padding, in either alphabet.
func b64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/", ".", "+").Replace(strings.TrimRight(s, "="))
	return base64.RawStdEncoding.DecodeString(s)
}

func params(s string) map[string]int {
	out := map[string]int{}
	for _, kv := range strings.Split(s, ",") {
		k, v, _ := strings.Cut(kv, "=")
		if n, err := strconv.Atoi(v); err == nil {
			out[k] = n
		}
	}
	return out
}

type argon2Params struct {
	variant      string
	memory, time uint32
	threads      uint8
}

func (p argon2Params) encode(salt, key []byte) string {
	return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=%d$%s$%s", p.variant, argon2.Version, p.memory, p.time, p.threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

type argon2Hash struct {
	argon2Params
	salt, key []byte
}

func parseArgon2(s string) (verifier, error) {
	f := strings.Split(s, "$")
	if len(f) != 6 || f[1] != "argon2id" && f[1] != "argon2i" {
		return nil, fmt.Errorf("argon2 wants $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if f[2] != "v=19" {
		return nil, fmt.Errorf("argon2 wants version 19, got %s", f[2])
	}
	p := params(f[3])
	if p["m"] < 8 || p["m"] > maxMemoryKiB || p["t"] < 1 || p["t"] > maxPasses || p["p"] < 1 || p["p"] > 16 || p["m"]*p["t"] > 4<<20 {
		return nil, fmt.Errorf("argon2 parameters %s are out of bounds: allowed are m up to %d, t up to %d, p up to 16, and m times t up to %d", f[3], maxMemoryKiB, maxPasses, 4<<20)
	}
	h := &argon2Hash{argon2Params: argon2Params{f[1], uint32(p["m"]), uint32(p["t"]), uint8(p["p"])}} // #nosec G115 -- in bounds, which were checked above
	var err error
	if h.salt, err = b64(f[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 256 {
		return nil, fmt.Errorf("argon2 wants a salt of 8 to 256 bytes in base64")
	}
	if h.key, err = b64(f[5]); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return nil, fmt.Errorf("argon2 wants a hash of 16 to 128 bytes in base64")
	}
	return h, nil
}

func (h *argon2Hash) verify(plain []byte) bool {
	f := argon2.IDKey
	if h.variant == "argon2i" {
		f = argon2.Key
	}
	return subtle.ConstantTimeCompare(f(plain, h.salt, h.time, h.memory, h.threads, uint32(len(h.key))), h.key) == 1 // #nosec G115 -- of 16 to 128 bytes
}

type bcryptHash string

func parseBcrypt(s string) (verifier, error) {
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if len(s) != 60 || strings.Trim(s[7:], alphabet) != "" {
		return nil, fmt.Errorf("bcrypt wants 60 characters: $2b$, the cost, $, and a salt and a hash in its own base64")
	}
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil {
		return nil, fmt.Errorf("bcrypt: %w", err)
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("bcrypt cost %d is out of bounds: allowed is up to %d", cost, maxBcryptCost)
	}
	return bcryptHash(s), nil
}

// verify looks at the first 72 bytes, as every bcrypt that made such a hash did.
func (h bcryptHash) verify(plain []byte) bool {
	if len(plain) > 72 {
		plain = plain[:72]
	}
	return bcrypt.CompareHashAndPassword([]byte(h), plain) == nil
}

type scryptHash struct {
	n, r, p   int
	salt, key []byte
}

func parseScrypt(s string) (verifier, error) {
	f := strings.Split(s, "$")
	if len(f) != 5 {
		return nil, fmt.Errorf("scrypt wants $scrypt$ln=…,r=…,p=…$salt$hash")
	}
	p := params(f[2])
	if p["ln"] < 1 || p["ln"] > 20 || p["r"] < 1 || p["r"] > 32 || p["p"] < 1 || p["p"] > 16 || 128*p["r"]<<p["ln"] > maxMemoryKiB<<10 || p["p"]*128*p["r"]<<p["ln"] > maxScrypt {
		return nil, fmt.Errorf("scrypt parameters %s are out of bounds: allowed are ln up to 20, r up to 32, p up to 16, 256 MiB of memory, and p times the memory up to 512 MiB", f[2])
	}
	h := &scryptHash{n: 1 << p["ln"], r: p["r"], p: p["p"]}
	var err error
	if h.salt, err = b64(f[3]); err != nil {
		return nil, fmt.Errorf("scrypt wants a salt in base64")
	}
	if h.key, err = b64(f[4]); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return nil, fmt.Errorf("scrypt wants a hash of 16 to 128 bytes in base64")
	}
	return h, nil
}

func (h *scryptHash) verify(plain []byte) bool {
	key, err := scrypt.Key(plain, h.salt, h.n, h.r, h.p, len(h.key))
	return err == nil && subtle.ConstantTimeCompare(key, h.key) == 1
}

var digests = map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

type pbkdf2Hash struct {
	digest     func() hash.Hash
	iterations int
	salt, key  []byte
}

func parsePBKDF2(s string) (verifier, error) {
	f := strings.Split(s, "$")
	if len(f) != 5 {
		return nil, fmt.Errorf("pbkdf2 wants $pbkdf2-sha256$i=…,l=…$salt$hash")
	}
	digest := digests[strings.TrimPrefix(f[1], "pbkdf2-")]
	if digest == nil || f[1] == "pbkdf2-md5" {
		return nil, fmt.Errorf("pbkdf2 wants sha1, sha256 or sha512, got %s", f[1])
	}
	p := params(f[2])
	if p["i"] < 1 || p["i"] > maxIterations {
		return nil, fmt.Errorf("pbkdf2 iterations %d are out of bounds: allowed are 1 to %d", p["i"], maxIterations)
	}
	h := &pbkdf2Hash{digest: digest, iterations: p["i"]}
	var err error
	if h.salt, err = b64(f[3]); err != nil {
		return nil, fmt.Errorf("pbkdf2 wants a salt in base64")
	}
	if h.key, err = b64(f[4]); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return nil, fmt.Errorf("pbkdf2 wants a hash of 16 to 128 bytes in base64")
	}
	// Each block of the hash takes all iterations anew (RFC 8018 section 5.2).
	size := digest().Size()
	if blocks := (len(h.key) + size - 1) / size; h.iterations*blocks > maxIterations {
		return nil, fmt.Errorf("pbkdf2 iterations %d for a hash of %d bytes are out of bounds: allowed are %d for all blocks together", h.iterations, len(h.key), maxIterations)
	}
	return h, nil
}

func (h *pbkdf2Hash) verify(plain []byte) bool {
	return subtle.ConstantTimeCompare(pbkdf2.Key(plain, h.salt, h.iterations, len(h.key), h.digest), h.key) == 1
}

// digestHash is a plain or keyed digest of another system: fast, and therefore
// made anew at the first login.
type digestHash struct {
	algorithm string // md5, sha1, sha256, sha512, or hmac-…
	before    bool   // salt before the password
	utf16     bool   // the password as UTF-16LE
	salt, key []byte // for HMAC the salt is the key
}

func parseDigest(s string) (verifier, error) {
	f := strings.Split(s, "$")
	if len(f) != 6 {
		return nil, fmt.Errorf("digest wants $digest$algorithm$flags$salt$hash")
	}
	h := &digestHash{algorithm: f[2], before: strings.Contains(f[3], "b"), utf16: strings.Contains(f[3], "u")}
	d := digests[strings.TrimPrefix(h.algorithm, "hmac-")]
	if d == nil {
		return nil, fmt.Errorf("digest %s is not known", f[2])
	}
	var err error
	if h.salt, err = b64(f[4]); err != nil {
		return nil, fmt.Errorf("digest wants a salt in base64")
	}
	if h.key, err = b64(f[5]); err != nil || len(h.key) != d().Size() {
		return nil, fmt.Errorf("digest %s wants a hash of %d bytes", f[2], d().Size())
	}
	return h, nil
}

func (h *digestHash) encode() string {
	flags := ""
	if h.before {
		flags += "b"
	}
	if h.utf16 {
		flags += "u"
	}
	enc := base64.RawStdEncoding.EncodeToString
	return "$digest$" + h.algorithm + "$" + flags + "$" + enc(h.salt) + "$" + enc(h.key)
}

func (h *digestHash) verify(plain []byte) bool {
	if h.utf16 {
		var out []byte
		for _, u := range utf16.Encode([]rune(string(plain))) {
			out = append(out, byte(u), byte(u>>8)) // #nosec G115 -- the two halves are what is wanted
		}
		plain = out
	}
	name, keyed := strings.CutPrefix(h.algorithm, "hmac-")
	var d hash.Hash
	if keyed {
		d = hmac.New(digests[name], h.salt)
		d.Write(plain)
	} else {
		d = digests[name]()
		if h.before {
			d.Write(h.salt)
		}
		d.Write(plain)
		if !h.before {
			d.Write(h.salt)
		}
	}
	return subtle.ConstantTimeCompare(d.Sum(nil), h.key) == 1
}

type encoded struct {
	Value    string `json:"value"`
	Encoding string `json:"encoding"`
	Position string `json:"position"` // of a salt: prefix or suffix
	Digest   string `json:"digest"`
	Key      *struct {
		Value    string `json:"value"`
		Encoding string `json:"encoding"`
	} `json:"key"`
}

func (e encoded) bytes(def string) ([]byte, error) { return decode(e.Value, e.Encoding, def) }

func decode(value, encoding, def string) ([]byte, error) {
	if encoding == "" {
		encoding = def
	}
	switch encoding {
	case "hex":
		return hex.DecodeString(value)
	case "base64":
		return b64(value)
	case "utf8":
		return []byte(value), nil
	}
	return nil, fmt.Errorf("the encoding %q is not known; allowed are base64, hex, utf8", encoding)
}

// Import reads a custom_password_hash of a users import (Auth0's form: algorithm,
// hash, salt, password encoding) and returns the hash as Verify reads it. It fails
// with problem.Invalid and names what was wrong.
func Import(custom json.RawMessage) (string, error) {
	var c struct {
		Algorithm string   `json:"algorithm"`
		Hash      encoded  `json:"hash"`
		Salt      *encoded `json:"salt"`
		Password  struct {
			Encoding string `json:"encoding"`
		} `json:"password"`
	}
	fail := func(format string, args ...any) (string, error) {
		return "", problem.New(problem.Invalid, "invalid_custom_password_hash", "custom_password_hash: "+format, args...)
	}
	if err := json.Unmarshal(custom, &c); err != nil {
		return fail("wants an object with algorithm and hash")
	}
	out := ""
	switch c.Algorithm {
	case "argon2", "bcrypt", "scrypt", "pbkdf2":
		out = c.Hash.Value
		if c.Algorithm == "pbkdf2" {
			// Auth0 takes the PHC form with the digest's name as it is.
			out = strings.Replace(out, "$pbkdf2-sha-", "$pbkdf2-sha", 1)
		}
		prefix := map[string]string{"argon2": "$argon2", "bcrypt": "$2", "scrypt": "$scrypt$", "pbkdf2": "$pbkdf2-"}[c.Algorithm]
		if !strings.HasPrefix(out, prefix) {
			return fail("hash.value wants the form %s… for %s", prefix, c.Algorithm)
		}
	case "md5", "sha1", "sha256", "sha512", "hmac":
		d := &digestHash{algorithm: c.Algorithm}
		var err error
		if d.key, err = c.Hash.bytes("hex"); err != nil {
			return fail("hash.value: %v", err)
		}
		switch c.Password.Encoding {
		case "", "utf8", "ascii", "latin1":
		case "utf16le", "ucs2":
			d.utf16 = true
		default:
			return fail("password.encoding %q is not known; allowed are ascii, utf8, utf16le, ucs2, latin1", c.Password.Encoding)
		}
		if c.Algorithm == "hmac" {
			if digests[c.Hash.Digest] == nil || c.Hash.Key == nil {
				return fail("hmac wants hash.digest (md5, sha1, sha256, sha512) and hash.key")
			}
			d.algorithm = "hmac-" + c.Hash.Digest
			if d.salt, err = decode(c.Hash.Key.Value, c.Hash.Key.Encoding, "utf8"); err != nil {
				return fail("hash.key: %v", err)
			}
		} else if c.Salt != nil {
			if d.salt, err = c.Salt.bytes("utf8"); err != nil {
				return fail("salt.value: %v", err)
			}
			switch c.Salt.Position {
			case "", "prefix":
				d.before = true
			case "suffix":
			default:
				return fail("salt.position %q is not known; allowed are prefix, suffix", c.Salt.Position)
			}
		}
		out = d.encode()
	case "ldap":
		return importLDAP(c.Hash.Value)
	default:
		return fail("the algorithm %q is not known; allowed are argon2, bcrypt, hmac, ldap, md5, pbkdf2, scrypt, sha1, sha256, sha512", c.Algorithm)
	}
	if _, err := parse(out); err != nil {
		return fail("%v", err)
	}
	return out, nil
}

// importLDAP reads {SSHA}base64 and its kin (RFC 2307 section 5.3): the digest,
// then the salt.
func importLDAP(value string) (string, error) {
	schemes := map[string]string{"{MD5}": "md5", "{SMD5}": "md5", "{SHA}": "sha1", "{SSHA}": "sha1", "{SHA256}": "sha256", "{SSHA256}": "sha256", "{SHA512}": "sha512", "{SSHA512}": "sha512"}
	i := strings.IndexByte(value, '}')
	algorithm := ""
	if i > 0 {
		algorithm = schemes[strings.ToUpper(value[:i+1])]
	}
	if algorithm == "" {
		return "", problem.New(problem.Invalid, "invalid_custom_password_hash", "custom_password_hash: ldap wants {MD5}, {SMD5}, {SHA}, {SSHA}, {SSHA256} or {SSHA512} and base64")
	}
	raw, err := base64.StdEncoding.DecodeString(value[i+1:])
	size := digests[algorithm]().Size()
	if err != nil || len(raw) < size || len(raw) > size+64 {
		return "", problem.New(problem.Invalid, "invalid_custom_password_hash", "custom_password_hash: ldap wants base64 of a %s digest and its salt", algorithm)
	}
	return (&digestHash{algorithm: algorithm, salt: raw[size:], key: raw[:size]}).encode(), nil
}
