package oauth

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/signing"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func provider(t testing.TB) *Provider {
	t.Helper()
	cache := tenant.NewCache(storetest.New(t), 0)
	keys := tenant.NewKeys(cache, signing.Native)
	first, err := keys.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	err = cache.Write(t.Context(), "acme", func(tx tenant.Tx) error {
		if err := tenant.Add(tx, tenant.KindSettings, tenant.SettingsID, map[string]any{}); err != nil {
			return err
		}
		return keys.Ensure(tx, first)
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := tenant.NewDirectory(tenant.Hosts{Domain: "id.test", Port: 443}, cache)
	return New(Deps{Docs: cache, Directory: dir, Keys: keys, Logger: slog.New(slog.DiscardHandler)})
}

// FuzzAccessToken: nothing but what this server signed is believed.
func FuzzAccessToken(f *testing.F) {
	p := provider(f)
	good, err := p.MintManagementToken(f.Context(), "acme", "x", []string{"read:users"}, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	audience := p.dir.ManagementAudience("acme")
	if _, err := p.VerifyAccessToken(f.Context(), "acme", good, audience); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{good, "", "a.b.c", "e30.e30.", strings.Repeat("x", 100), good[:len(good)-2]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		_, err := p.VerifyAccessToken(t.Context(), "acme", token, audience)
		if err == nil && token != good {
			t.Errorf("%q was believed", token)
		}
		if err != nil && !problem.Is(err, problem.Unauthorized) {
			t.Errorf("%q: %v", token, err)
		}
	})
}

// FuzzSealed: nothing but what this server sealed for the purpose opens.
func FuzzSealed(f *testing.F) {
	p := provider(f)
	sealed, err := p.seal(f.Context(), "acme", "transaction", &Transaction{ID: "1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		var tx Transaction
		if p.open(t.Context(), "acme", "transaction", s, &tx) == nil && s != sealed {
			t.Errorf("%q was opened", s)
		}
		if p.open(t.Context(), "acme", "something else", s, &tx) == nil {
			t.Errorf("%q was opened for another purpose", s)
		}
	})
}
