package addresses

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/portcullis-id/portcullis/problem"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// keyOf is always the same key for a number.
func keyOf(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func example() List {
	return List{Version: 7, IssuedAt: start, Expires: start.Add(30 * 24 * time.Hour), Hosts: []Host{{"depot.example.com", []Address{
		{Address: addr("203.0.113.9")}, {Address: addr("203.0.113.10"), ValidFrom: start.Add(7 * 24 * time.Hour)}, {Address: addr("203.0.113.8"), ValidUntil: start.Add(-time.Hour)},
	}}}}
}

func signed(t testing.TB, k ed25519.PrivateKey, l List) []byte {
	t.Helper()
	raw, err := Sign(k, l)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func TestSignAndOpen(t *testing.T) {
	k := keyOf(1)
	l, err := Open(public(k), signed(t, k, example()))
	if err != nil {
		t.Fatal(err)
	}
	now, later := l.at("depot.example.com", start)
	if len(now) != 1 || now[0] != addr("203.0.113.9") || len(later) != 1 || later[0].Address != addr("203.0.113.10") {
		t.Errorf("now %v, later %v", now, later)
	}
	if now, later = l.at("depot.example.com", start.Add(8*24*time.Hour)); len(now) != 2 || len(later) != 0 {
		t.Errorf("a week later: now %v, later %v", now, later)
	}
	if now, later = l.at("other.example.com", start); now != nil || later != nil {
		t.Errorf("of another host: %v, %v", now, later)
	}
}

// TestOpenRefuses what only looks like a list.
func TestOpenRefuses(t *testing.T) {
	k := keyOf(1)
	good := string(signed(t, k, example()))
	part := strings.Split(strings.TrimSpace(good), ".")
	sign := func(typ string, payload any) string {
		opts := &jose.SignerOptions{}
		if typ != "" {
			opts = opts.WithType(jose.ContentType(typ))
		}
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: k}, opts)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		o, err := s.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		text, err := o.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	change := func(f func(l *List)) string {
		l := example()
		f(&l)
		return sign(typ, l)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for name, c := range map[string]struct{ raw, code string }{
		"nothing":                  {"", "invalid_list"},
		"no JWS":                   {"hello", "invalid_list"},
		"another key":              {string(signed(t, keyOf(2), example())), "list_signature"},
		"another payload":          {part[0] + "." + b64([]byte(`{"version":9}`)) + "." + part[2], "list_signature"},
		"no algorithm":             {b64([]byte(`{"alg":"none","typ":"`+typ+`"}`)) + "." + part[1] + ".", "invalid_list"},
		"another algorithm":        {b64([]byte(`{"alg":"HS256","typ":"`+typ+`"}`)) + "." + part[1] + "." + part[2], "invalid_list"},
		"too large":                {strings.Repeat("a", MaxSize+1), "invalid_list"},
		"of another type":          {sign("JWT", example()), "invalid_list"},
		"of no type":               {sign("", example()), "invalid_list"},
		"not JSON":                 {sign(typ, "text"), "invalid_list"},
		"no version":               {change(func(l *List) { l.Version = 0 }), "invalid_list"},
		"expires before it begins": {change(func(l *List) { l.Expires = l.IssuedAt }), "invalid_list"},
		"good for ever":            {change(func(l *List) { l.Expires = l.IssuedAt.Add(MaxLife + time.Hour) }), "invalid_list"},
		"no host":                  {change(func(l *List) { l.Hosts = nil }), "invalid_list"},
		"a host twice":             {change(func(l *List) { l.Hosts = append(l.Hosts, l.Hosts[0]) }), "invalid_list"},
		"no name":                  {change(func(l *List) { l.Hosts[0].Host = "a b" }), "invalid_list"},
		"no address":               {change(func(l *List) { l.Hosts[0].Addresses = nil }), "invalid_list"},
		"an address twice":         {change(func(l *List) { l.Hosts[0].Addresses[1] = l.Hosts[0].Addresses[0] }), "invalid_list"},
		"loopback":                 {change(func(l *List) { l.Hosts[0].Addresses[0].Address = addr("127.0.0.1") }), "invalid_list"},
		"ends before it begins":    {change(func(l *List) { l.Hosts[0].Addresses[1].ValidUntil = start }), "invalid_list"},
	} {
		if l, err := Open(public(k), []byte(c.raw)); code(err) != c.code || l.Version != 0 {
			t.Errorf("%s: %q (%v), want %q", name, code(err), err, c.code)
		}
	}
	if l, err := Open(public(k), []byte(sign(typ, map[string]any{"version": 7, "issued_at": start, "expires": start.Add(time.Hour), "later_field": 1,
		"hosts": []any{map[string]any{"host": "a.example", "addresses": []any{map[string]any{"address": "10.0.0.1"}}}}}))); err != nil || l.Version != 7 {
		t.Errorf("a newer depot's list: %v", err)
	}
}

func TestTime(t *testing.T) {
	l := example()
	for at, want := range map[time.Time]string{
		start: "", start.Add(-leeway): "", start.Add(-leeway - time.Second): "list_from_the_future",
		l.Expires.Add(-time.Second): "", l.Expires: "list_expired", l.Expires.Add(time.Hour): "list_expired",
	} {
		if err := l.Valid(at); code(err) != want {
			t.Errorf("at %v: %v, want %q", at, err, want)
		}
	}
}

func TestReplay(t *testing.T) {
	older, other, newer := example(), example(), example()
	older.Version, newer.Version = 6, 8
	other.Hosts[0].Addresses = other.Hosts[0].Addresses[:1]
	for name, c := range map[string]struct {
		l    List
		want string
	}{"the same": {example(), ""}, "newer": {newer, ""}, "older": {older, "list_replayed"}, "another of the same version": {other, "list_replayed"}} {
		if err := c.l.Follows(example()); code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "depot.key")
	k, made, err := Key(file)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info, err)
	}
	again, made, err := Key(file)
	if err != nil || made || !k.Equal(again) {
		t.Errorf("read again: %v %v", made, err)
	}
	if err := os.Chmod(file, 0o644); err != nil { // #nosec G302 -- what is refused
		t.Fatal(err)
	}
	if _, _, err := Key(file); code(err) != "key_file" {
		t.Errorf("a key that others may read: %v", err)
	}
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Key(junk); code(err) != "key_file" {
		t.Errorf("junk: %v", err)
	}
	p, err := ParseKey(FormatKey(public(k)))
	if err != nil || !p.Equal(public(k)) {
		t.Errorf("%v", err)
	}
	for _, s := range []string{"", "ed25519:", "ed25519:abc", FormatKey(public(k))[8:], "rsa:" + FormatKey(public(k))[8:], FormatKey(public(k)) + "AA"} {
		if _, err := ParseKey(s); err == nil {
			t.Errorf("%q is taken for a key", s)
		}
	}
}

// FuzzOpen gives a depot's answers of every kind to the node: nothing that the key
// has not signed is ever a list, and what is one can be signed again.
func FuzzOpen(f *testing.F) {
	k := keyOf(1)
	f.Add(signed(f, k, example()), []byte(`{"version":1}`))
	f.Add([]byte("a.b.c"), []byte(`{"version":3,"issued_at":"2026-11-01T12:00:00Z","expires":"2026-11-02T12:00:00Z","hosts":[{"host":"a","addresses":[{"address":"10.0.0.1"}]}]}`))
	f.Fuzz(func(t *testing.T, raw, payload []byte) {
		if _, err := Open(public(keyOf(2)), raw); err == nil {
			t.Error("a list that the key has not signed counts")
		}
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: k}, (&jose.SignerOptions{}).WithType(typ))
		if err != nil {
			t.Fatal(err)
		}
		o, err := s.Sign(payload)
		if err != nil {
			return
		}
		text, err := o.CompactSerialize()
		if err != nil {
			return
		}
		l, err := Open(public(k), []byte(text))
		if err != nil {
			return
		}
		if _, err := Sign(k, l); err != nil {
			t.Errorf("what was read cannot be signed: %v", err)
		}
		_ = l.Valid(start)
		_, _ = l.at("a", start)
	})
}
