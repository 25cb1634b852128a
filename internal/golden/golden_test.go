package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// fake records a failure instead of failing the test that tests.
type fake struct {
	testing.TB
	errors int
}

func (f *fake) Helper()               {}
func (f *fake) Errorf(string, ...any) { f.errors++ }

func TestEqual(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "page.golden")
	write(t, path, []byte("a\nb\n"))
	if b, err := os.ReadFile(path); err != nil || string(b) != "a\nb\n" {
		t.Fatalf("wrote %q, %v", b, err)
	}
	for _, c := range []struct {
		name, got string
		want      int
	}{
		{"the same", "a\nb\n", 0},
		{"one character more", "a\nb\n ", 1},
		{"other line endings", "a\r\nb\r\n", 1},
		{"empty", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{TB: t}
			Equal(f, path, []byte(c.got))
			if f.errors != c.want {
				t.Errorf("%d errors, want %d", f.errors, c.want)
			}
		})
	}
}
