package ratelimit_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/internal/golden"
	"github.com/portcullis-id/portcullis/ratelimit"
)

// TestTablesOfTheDocumentAreGenerated keeps the tables of docs/rate-limiting.md true.
func TestTablesOfTheDocumentAreGenerated(t *testing.T) {
	const file = "../docs/rate-limiting.md"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	limit := func(b ratelimit.Bucket) string {
		l, err := b.Spec.Limit()
		if err != nil {
			t.Fatal(err)
		}
		return l.String()
	}
	rules, err := ratelimit.NewRules(ratelimit.Defaults(ratelimit.DefaultTier), nil)
	if err != nil {
		t.Fatal(err)
	}
	buckets := &strings.Builder{}
	buckets.WriteString("| bucket | key | limit | counts | without the owner |\n|---|---|---|---|---|\n")
	for _, b := range ratelimit.Defaults(ratelimit.DefaultTier) {
		b, _ = rules.Bucket(b.Name)
		fmt.Fprintf(buckets, "| `%s` | %s | %s | %s | %s |\n", b.Name, strings.ReplaceAll(b.Key, "|", `\|`), limit(b), b.Doc, b.OnFailure)
	}
	tiers := &strings.Builder{}
	tiers.WriteString("| tier | `authentication-api` | `management-api` |\n|---|---|---|\n")
	for _, tier := range ratelimit.Tiers() {
		of := map[string]string{}
		for _, b := range ratelimit.Defaults(tier) {
			of[b.Name] = limit(b)
		}
		fmt.Fprintf(tiers, "| %s | %s | %s |\n", tier, of[ratelimit.AuthenticationAPI], of[ratelimit.ManagementAPI])
	}
	text := string(raw)
	for name, table := range map[string]string{"buckets": buckets.String(), "tiers": tiers.String()} {
		from, to := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
		a, b := strings.Index(text, from), strings.Index(text, to)
		if a < 0 || b < a {
			t.Fatalf("%s has no place for the %s", file, name)
		}
		text = text[:a+len(from)] + table + text[b:]
	}
	golden.Equal(t, file, []byte(text))
}
