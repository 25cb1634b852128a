package tenant

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"time"
)

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// RandomString returns n letters and digits, each with 5.95 bits of entropy.
func RandomString(n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, 2*n)
	for {
		rand.Read(buf) // never fails: crypto/rand ends the program instead
		for _, b := range buf {
			// 248 is the largest multiple of 62 that fits: no letter is likelier.
			if b < 248 {
				if out = append(out, alphanumeric[b%62]); len(out) == n {
					return string(out)
				}
			}
		}
	}
}

// NewID makes an identifier such as "con_4rVx…": a prefix and 16 random letters.
func NewID(prefix string) string { return prefix + "_" + RandomString(16) }

// NewClientID makes the public identifier of an application.
func NewClientID() string { return RandomString(32) }

// NewSecret makes a secret of 64 characters (384 bits) in the base64url alphabet.
func NewSecret() string {
	b := make([]byte, 48)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// NewObjectID makes 24 hexadecimal digits that sort by time: seconds since the
// epoch, then 64 random bits.
func NewObjectID(now time.Time) string {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:4], uint32(now.Unix())) // #nosec G115 -- seconds as ids of this form have them, until 2106
	rand.Read(b[4:])
	return hex.EncodeToString(b[:])
}

// RandomHex returns n hexadecimal digits.
func RandomHex(n int) string {
	b := make([]byte, (n+1)/2)
	rand.Read(b)
	return hex.EncodeToString(b)[:n]
}
