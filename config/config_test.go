package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portcullis-id/portcullis/config"
)

type section struct {
	Port    int           `yaml:"port" doc:"a port"`
	Timeout time.Duration `yaml:"timeout"`
}

func (s *section) Validate(report func(key, reason string)) {
	if s.Port > 65535 {
		report("port", "allowed are 1 to 65535")
	}
}

type sample struct {
	Name   string        `yaml:"name"`
	On     bool          `yaml:"on"`
	Hosts  []string      `yaml:"hosts"`
	Listen section       `yaml:"listen"`
	Secret config.Secret `yaml:"secret"`
}

func load(t *testing.T, yaml string, env []string, flags map[string]string) (sample, error) {
	t.Helper()
	src := config.Sources{Env: env, Flags: flags}
	if yaml != "" {
		src.File = filepath.Join(t.TempDir(), "p.yaml")
		if err := os.WriteFile(src.File, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := sample{Name: "default", Listen: section{Port: 443}}
	err := config.Load(&s, src)
	return s, err
}

func TestLaterSourcesWin(t *testing.T) {
	got, err := load(t, "name: file\nhosts: [a, b]\nlisten:\n  port: 1\n  timeout: 5s\n",
		[]string{"PORTCULLIS_LISTEN_PORT=2", "PORTCULLIS_NAME=env", "HOME=/x", "PORTCULLIS_MASTER_KEY=k"}, map[string]string{"listen.port": "3"})
	if err != nil {
		t.Fatal(err)
	}
	want := sample{Name: "env", Hosts: []string{"a", "b"}, Listen: section{Port: 3, Timeout: 5 * time.Second}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFaultsNameLineKeyAndWhatIsAllowed(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"unknown key", "nmae: x\n", ":1: nmae: unknown key (did you mean name?); allowed are: name, on, hosts, listen, secret"},
		{"unknown nested key", "listen:\n  prot: 1\n", ":2: listen.prot: unknown key (did you mean port?); allowed are: port, timeout"},
		{"wrong type", "listen:\n  port: many\n", `:2: listen.port: wants a whole number, got "many"`},
		{"quoted number", "listen:\n  port: \"1\"\n", `:2: listen.port: wants a whole number, got the text "1"; leave the quotes out`},
		{"list for scalar", "name: [a]\n", ":1: name: wants a text, got a list"},
		{"scalar for list", "hosts: a\n", `:1: hosts: wants a list, got "a"`},
		{"scalar for section", "listen: 1\n", `:1: listen: wants keys and values, got "1"; allowed are: port, timeout`},
		{"boolean for text", "name: yes\nname2: 1\n", "allowed are"},
		{"bad duration", "listen:\n  timeout: 5\n", `:2: listen.timeout: wants a duration such as 500ms, 30s or 2h, got "5"`},
		{"bad boolean", "on: maybe\n", `:1: on: wants true or false, got "maybe"`},
		{"key twice", "name: a\nname: b\n", "p.yaml"},
		{"bad value", "listen:\n  port: 70000\n", ":2: listen.port: allowed are 1 to 65535"},
		{"not YAML", "a: [\n", "not YAML"},
		{"alias", "name: &x a\nhosts: [*x]\n", ":2: hosts[0]: aliases are not allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.yaml, nil, nil)
			var faults config.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("got %v, want faults", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, "x: 1\nlisten:\n  port: 99999\n", []string{"PORTCULLIS_ON=perhaps", "PORTCULLIS_NOPE=1"}, map[string]string{"listen.timeout": "soon"})
	var faults config.Faults
	if !errors.As(err, &faults) || len(faults) != 5 {
		t.Fatalf("got %d faults, want 5: %v", len(faults), err)
	}
	for _, want := range []string{"p.yaml:1: x", "p.yaml:3: listen.port", "environment PORTCULLIS_ON: on", "environment PORTCULLIS_NOPE: no such setting", "flag --listen.timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestSecretsNeverShow(t *testing.T) {
	s := sample{Secret: "hunter2hunter2"}
	var b bytes.Buffer
	if err := config.YAML(&b, &s); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(config.Show(&s))
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{b.String(), string(j)} {
		if strings.Contains(out, "hunter2") || !strings.Contains(out, "redacted") {
			t.Errorf("the secret shows, or its key is missing: %s", out)
		}
	}
}

func TestShownConfigurationLoadsAgain(t *testing.T) {
	in := sample{Name: "x", On: true, Hosts: []string{"a", "b"}, Listen: section{Port: 8443, Timeout: time.Minute}}
	var b bytes.Buffer
	if err := config.YAML(&b, &in); err != nil {
		t.Fatal(err)
	}
	got, err := load(t, b.String(), nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if d := cmp.Diff(in, got); d != "" {
		t.Error(d)
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{"name: a", "listen: {port: 1}", "a: &x [*x]", "? [a]: b", "- 1", "name: !!binary aGk=", "\xff", "listen:\n\tport: 1"} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, yaml string) {
		file := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Skip()
		}
		var s sample
		if err := config.Load(&s, config.Sources{File: file}); err == nil {
			return
		} else if faults := (config.Faults{}); errors.As(err, &faults) {
			for _, f := range faults {
				if f.Source == "" || f.Reason == "" {
					t.Errorf("a fault without place or reason: %+v", f)
				}
			}
		}
	})
}
