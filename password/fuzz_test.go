package password

import (
	"strings"
	"testing"
)

// FuzzHash: a hash in any form that is accepted costs what the package allows,
// whatever its parameters say, and is one that a password could match.
func FuzzHash(f *testing.F) {
	for _, s := range []string{
		"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "$argon2i$v=19$m=262144,t=16,p=16$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "$argon2id$v=19$m=8,t=1,p=1,m=9999999$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
		"$argon2id$v=19$m=8,t=1,p=257$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "$argon2id$v=19$m=4294967304,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
		"$2b$04$nOUIs5kJ7naTuTFkBy1veuK0kSxUFXfuaOKdOKf9xYT0KKIGSJwFa", "$2b$15$nOUIs5kJ7naTuTFkBy1veuK0kSxUFXfuaOKdOKf9xYT0KKIGSJwFa", "$2b$04$" + strings.Repeat("!", 53), "$2y$04$nOUIs5kJ7naTuTFkBy1veuK0kSxUFXfuaOKdOKf9xYT0KKIGSJwFaMORE",
		"$scrypt$ln=1,r=1,p=1$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg", "$scrypt$ln=18,r=8,p=16$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg", "$scrypt$ln=20,r=2,p=16$$MDEyMzQ1Njc4OWFiY2RlZg",
		"$pbkdf2-sha256$i=1000,l=32$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg", "$pbkdf2-sha1$i=5000000,l=128$c2FsdA$" + strings.Repeat("MDEy", 42), "$pbkdf2-md5$i=1$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg", "$pbkdf2-sha256$i=-1$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg",
		"$digest$md5$b$c2FsdA$1B2M2Y8AsgTpgAmY7PhCfg", "$digest$hmac-hmac-md5$u$$1B2M2Y8AsgTpgAmY7PhCfg", "$digest$hmac-sha1$bu$c2FsdA$2jmj7l5rSw0yVb/vlWAYkK/YBwk", "$$", "",
	} {
		f.Add(s, "secret")
	}
	f.Fuzz(func(t *testing.T, hash, plain string) {
		v, err := parse(hash)
		if err != nil {
			return
		}
		cheap := false
		switch h := v.(type) {
		case *argon2Hash:
			if h.memory > 256<<10 || uint64(h.memory)*uint64(h.time) > 4<<20 || h.time < 1 || h.threads < 1 || len(h.key) < 16 || len(h.key) > 128 {
				t.Fatalf("%q: %+v", hash, h.argon2Params)
			}
			if again, err := parse(h.encode(h.salt, h.key)); err != nil || again.(*argon2Hash).argon2Params != h.argon2Params {
				t.Fatalf("%q became %+v, %v", hash, again, err)
			}
			cheap = uint64(h.memory)*uint64(h.time) < 1<<10
		case *scryptHash:
			if 128*h.n*h.r > 256<<20 || 128*h.n*h.r*h.p > 512<<20 || len(h.key) < 16 || len(h.key) > 128 {
				t.Fatalf("%q: n=%d r=%d p=%d", hash, h.n, h.r, h.p)
			}
			cheap = h.n*h.r*h.p < 1<<10
		case *pbkdf2Hash:
			size := h.digest().Size()
			if h.iterations < 1 || h.iterations*((len(h.key)+size-1)/size) > 5_000_000 || size < 20 {
				t.Fatalf("%q: %d iterations for %d bytes of a digest of %d", hash, h.iterations, len(h.key), size)
			}
			cheap = h.iterations < 1000
		case bcryptHash:
			if len(h) != 60 || strings.Trim(string(h[7:]), "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" || h[4:6] > "15" {
				t.Fatalf("%q could match nothing, or costs too much", hash)
			}
			cheap = h[4:6] < "05"
		case *digestHash:
			again, err := parse(h.encode())
			if err != nil || again.(*digestHash).encode() != h.encode() {
				t.Fatalf("%q became %+v, %v", hash, again, err)
			}
			cheap = true
		default:
			t.Fatalf("%q is a %T, whose cost nobody bounds", hash, v)
		}
		if cheap && v.verify([]byte(plain)) != v.verify([]byte(plain)) {
			t.Fatalf("%q answers one way and another", hash)
		}
	})
}
