package login

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/language"

	"github.com/portcullis-id/portcullis/tenant"
)

// FuzzLanguage: whatever languages a browser, a request and a tenant name, the
// page is in one that there are texts in, and in one of the tenant's if it has any
// of those; the choice is quick, and the same the next time.
func FuzzLanguage(f *testing.F) {
	for _, s := range []string{"de", "de-CH, fr;q=0.9", "*", "en;q=0", "zh-Hant-TW", "i-klingon", "x-private", "und", "de;q=x", strings.Repeat("a-", 120), strings.Repeat("de,", 80), "\x00", "fr_FR", "de-u-co-phonebk", "tlh"} {
		f.Add(s, "", "")
		f.Add("", s, "fr es")
		f.Add(s, s, s)
	}
	v, err := newView()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, locales, accept, enabled string) {
		settings := &tenant.Settings{EnabledLocales: strings.Fields(enabled)}
		wanted := strings.Fields(locales)
		if len(wanted) > 10 { // as authorize bounds them
			wanted = wanted[:10]
		}
		wanted = append(wanted, accept)
		start := time.Now()
		got := v.language(wanted, settings)
		if d := time.Since(start); d > time.Second {
			t.Fatalf("%q, %q, %q took %v", locales, accept, enabled, d)
		}
		if !slices.Contains(languages, got) {
			t.Fatalf("%q, %q, %q: there are no texts in %s", locales, accept, enabled, got)
		}
		if again := v.language(wanted, settings); again != got {
			t.Fatalf("%q, %q, %q: %s and then %s", locales, accept, enabled, got, again)
		}
		var open []language.Tag
		for _, l := range settings.EnabledLocales {
			if tag, err := language.Parse(l); err == nil {
				if _, i, c := v.match.Match(tag); c >= language.High {
					open = append(open, languages[i])
				}
			}
		}
		if len(open) > 0 && !slices.Contains(open, got) {
			t.Fatalf("%q, %q: %s is not one of the tenant's %v", locales, accept, got, open)
		}
		if v.language(nil, nil) != languages[0] {
			t.Fatal("nobody's wish is not the first language")
		}
	})
}
