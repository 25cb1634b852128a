package config_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/config"
)

type mailer struct {
	Host     string        `yaml:"host"`
	Password config.Secret `yaml:"password"`
	Wait     time.Duration `yaml:"wait"`
	Ports    []string      `yaml:"ports"`
	Strict   bool          `yaml:"strict"`
	Tries    int           `yaml:"tries"`
}

type whole struct {
	Domain string `yaml:"domain"`
	Mail   mailer `yaml:"mail"`
}

func TestChangedIsWhatLoadReads(t *testing.T) {
	base := whole{Domain: "localhost", Mail: mailer{Tries: 3}}
	src := base
	src.Mail = mailer{Host: "true", Password: "pa: \"ss\n", Wait: 90 * time.Second, Ports: []string{"25", "10.0.0.0/8"}, Strict: true, Tries: 3}

	changed := config.Changed(&src, &base)
	if got, want := slices.Sorted(maps.Keys(changed)), []string{"mail.host", "mail.password", "mail.ports", "mail.strict", "mail.wait"}; !slices.Equal(got, want) {
		t.Errorf("changed: got %v, want %v", got, want)
	}
	flags := base
	if err := config.Load(&flags, config.Sources{Flags: changed}); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := config.WriteChanged(&text, &src, &base); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	file := base
	if err := config.Load(&file, config.Sources{File: path}); err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	for source, got := range map[string]whole{"flags": flags, "file": file} {
		if config.Changed(&got, &src)["mail.host"] != "" || len(config.Changed(&got, &src)) != 0 {
			t.Errorf("%s: got %+v, want %+v", source, got, src)
		}
	}
	if got := config.SecretKeys(&src); !slices.Equal(got, []string{"mail.password"}) {
		t.Errorf("secrets: got %v", got)
	}
}
