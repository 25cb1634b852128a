package mgmt

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// FuzzQuery: whatever a query string says of pages and fields, the answer is a
// bounded query or an error of the caller's.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"page=1&per_page=5", "from=x&take=3", "per_page=1e9", "fields=a,b.c&include_fields=false", "page=-1", "include_totals=x", "sort=email:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		p, err := readPaging(q, 50, 100)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("got %v", err)
			}
		} else if p.perPage < 0 || p.perPage > 100 || p.take < 1 || p.take > 100 || p.page < 0 {
			t.Errorf("out of bounds: %+v", p)
		}
		cut, err := fieldsOf(q)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("got %v", err)
			}
			return
		}
		cut(doc{"a": 1, "b": doc{"c": doc{"d": 2}}, "e": []any{}})
	})
}

// FuzzBody: whatever a body holds, the rules of every resource judge it without
// falling over.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"name":"x"}`, `{"name":null,"options":{"password_options":7}}`, `{"jwt_configuration":{"alg":[]}}`, `{"scopes":[{"value":1}]}`,
		`{"refresh_token":"x","callbacks":[1],"client_metadata":{"a":{}}}`, `{"options":{"attributes":{"email":{"signup":[]}},"authentication_methods":[]}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for _, judge := range []func(d doc) error{
			func(d doc) error {
				if err := clientFields.check(d); err != nil {
					return err
				}
				if err := judgeClient(d); err != nil {
					return err
				}
				completeClient(d)
				return nil
			},
			func(d doc) error {
				if err := resourceServerFields.check(d); err != nil {
					return err
				}
				return judgeResourceServer(d)
			},
			func(d doc) error {
				if err := connectionFields.check(d); err != nil {
					return err
				}
				o, ok := d["options"].(doc)
				if !ok {
					o = doc{}
				}
				d["strategy"] = "auth0"
				completeConnection(d, o)
				return judgeDatabase(o)
			},
			func(d doc) error { _, err := newCredential("c", d); return err },
			func(d doc) error { _, err := importedHash(d); return err },
		} {
			v, err := decode([]byte(raw))
			if err != nil {
				return
			}
			d, ok := v.(doc)
			if !ok || bounded(v, 0) != nil {
				return
			}
			if err := judge(d); err != nil && !problem.Is(err, problem.Invalid) {
				t.Errorf("%s: %v", raw, err)
			}
			if _, err := json.Marshal(d); err != nil {
				t.Errorf("%s: %v", raw, err)
			}
		}
	})
}

// FuzzUsersFile: each user of a file is refused with the reason, or becomes a
// user whose address is one plain address in lower case and whose hash can be
// checked; it can be stored, and says the same when it is read again.
func FuzzUsersFile(f *testing.F) {
	for _, s := range []string{`[{"email":"Ann@Example.com","user_metadata":{"a":1},"password_hash":"$2b$10$nOUIs5kJ7naTuTFkBy1veuK0kSxUFXfuaOKdOKf9xYT0KKIGSJwFa"}]`, "\xef\xbb\xbf[]", `[{}]`, `[1,null,[]]`, `{"email":"a@b"}`,
		`[{"email":"a@b.test","name":"\u0000"}]`, `[{"email":"\u212Aim@b.test"}]`, `[{"email":"\u0130@b.test"}]`, `[{"email":"a@b.test\r\nBcc: c@d.test"}]`, `[{"email":"a@b.test","user_id":"auth0|auth0|1"}]`, `[{"email":"a@b.test","user_metadata":null,"app_metadata":{"x":null}}]`,
		`[{"email":"a@b.test","custom_password_hash":{"algorithm":"md5","hash":{"value":"00","encoding":"hex"}}}]`, `[{"email":"a@b.test","phone_number":"+1202555013\u0663"}]`, `[{"email":"a@b.test","username":"a b"}]`, `[{"email":"a@b.test"}]x`} {
		f.Add(s)
	}
	conn := &tenant.Connection{ID: "con_1", Name: "Users", Strategy: tenant.StrategyDatabase}
	f.Fuzz(func(t *testing.T, raw string) {
		users, err := readUsers([]byte(raw))
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatal(err)
			}
			return
		}
		for _, v := range users {
			d, ok := v.(doc)
			if !ok {
				continue
			}
			u, hash, err := readUser(d, conn)
			if err != nil {
				if !problem.Is(err, problem.Invalid) {
					t.Fatalf("%s: %v", raw, err)
				}
				continue
			}
			given := text(d, "email")
			folded := strings.IndexFunc(given, func(r rune) bool { return r > unicode.MaxASCII && unicode.ToLower(r) <= unicode.MaxASCII })
			if u.Email != strings.ToLower(given) || folded >= 0 || authn.CheckEmail(u.Email) != nil {
				t.Fatalf("the address %q became %q", given, u.Email)
			}
			if hash != "" && !strings.HasPrefix(hash, "$") {
				t.Fatalf("the hash is %q", hash)
			}
			stored, err := json.Marshal(u)
			if err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			if !utf8.Valid(stored) || bytes.Contains(bytes.ReplaceAll(stored, []byte(`\\`), nil), []byte(`\u0000`)) || len(u.UserMetadata) > maxMetadata || len(u.AppMetadata) > maxMetadata {
				t.Fatalf("%s cannot be stored", stored)
			}
			var again tenant.User
			if err := json.Unmarshal(stored, &again); err != nil || again.Email != u.Email || again.Name != u.Name {
				t.Fatalf("%s became %+v, %v", stored, again, err)
			}
		}
	})
}

// FuzzCredential: a key that a client registers is one public key, strong enough,
// that its algorithm takes; nothing else of the text is kept.
func FuzzCredential(f *testing.F) {
	block := func(kind string, key any) string {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			f.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	weak := &rsa.PublicKey{N: new(big.Int).Rsh(strong.N, 1024), E: 65537}
	weak.N.SetBit(weak.N, 0, 1)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good := block("PUBLIC KEY", strong.Public())
	for _, alg := range []string{"", "RS256", "PS256", "ES256", "none"} {
		for _, s := range []string{good, block("PUBLIC KEY", weak), block("PUBLIC KEY", p256.Public()), block("PUBLIC KEY", p521.Public()), block("PUBLIC KEY", edwards), "text\n" + good + "more", good + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
			strings.Replace(good, "-----\n", "-----\nA: b\n\n", 1), block("PRIVATE KEY", strong.Public()), block("CERTIFICATE", strong.Public()), "\x00"} {
			f.Add("public_key", alg, s)
		}
		f.Add("x509_cert", alg, good)
		f.Add("cert_subject_dn", alg, good)
	}
	f.Fuzz(func(t *testing.T, kind, alg, text string) {
		d := doc{"credential_type": kind, "pem": text}
		if alg != "" {
			d["alg"] = alg
		}
		got, err := newCredential("c", d)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if kind != "public_key" {
			return
		}
		kept := got["public_key"].(string)
		block, rest := pem.Decode([]byte(kept))
		if block == nil || len(rest) != 0 || len(block.Headers) != 0 || !strings.HasPrefix(kept, "-----BEGIN ") || strings.Contains(kept, "PRIVATE") {
			t.Fatalf("kept is %q", kept)
		}
		var key any
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			key = cert.PublicKey
		case "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		default:
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch k := key.(type) {
		case *rsa.PublicKey:
			if k.N.BitLen() < 2048 || got["alg"] == "ES256" {
				t.Fatalf("%d bits with %v", k.N.BitLen(), got["alg"])
			}
		case *ecdsa.PublicKey:
			if k.Curve != elliptic.P256() || got["alg"] != "ES256" {
				t.Fatalf("%s with %v", k.Params().Name, got["alg"])
			}
		default:
			t.Fatalf("%T with %v", key, got["alg"])
		}
	})
}
