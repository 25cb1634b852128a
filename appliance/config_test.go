package appliance_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/internal/golden"
)

// TestConfigurationDocumentIsGenerated keeps docs/configuration.md true.
func TestConfigurationDocumentIsGenerated(t *testing.T) {
	cfg := appliance.Default()
	var b bytes.Buffer
	b.WriteString(`# Configuration

One YAML file, strictly read: an unknown key, a wrong type or a bad value is named with file, line, key and
what is allowed, all of them at once. Environment variables win over the file, and flags
(` + "`--set KEY=VALUE`" + `) over both. ` + "`portcullis config check`" + ` reads as the start does; ` + "`portcullis config show`" + `
prints the defaults as a file to begin with, and with ` + "`--effective`" + ` what a node would run with.

This page is generated from the program (` + "`make golden`" + `).

| key | default | environment | meaning |
|---|---|---|---|
`)
	for _, s := range config.Show(&cfg) {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", s.Key, shown(s.Value), config.EnvName(s.Key), s.Doc)
	}
	golden.Equal(t, "../docs/configuration.md", b.Bytes())
}

func shown(v any) string {
	s := fmt.Sprint(v)
	if s == "" || s == "[]" {
		return ""
	}
	return "`" + s + "`"
}
