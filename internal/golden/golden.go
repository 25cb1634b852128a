// Package golden compares what a test produced with a file that is kept beside
// it. `go test ./room -update` rewrites the files instead; the change is then
// read in the commit.
package golden

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The flag is registered here and nowhere else, so that every test binary that
// has golden files knows it exactly once.
var update = flag.Bool("update", false, "rewrite golden files instead of comparing with them")

// Equal fails the test, with a diff, when got is not the content of the file at
// path. Line endings count. With -update it writes the file, making its folder
// if need be.
func Equal(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		write(t, path, got)
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read golden file: %v (run the test with -update to write it)", err)
	}
	if d := diff(want, got); d != "" {
		t.Errorf("%s differs (-file +got); run the test with -update if the change is meant:\n%s", path, d)
	}
}

func diff(want, got []byte) string {
	if bytes.Equal(want, got) {
		return ""
	}
	return cmp.Diff(string(want), string(got))
}

func write(t testing.TB, path string, got []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- a folder of the source tree, in tests alone
		t.Fatalf("make folder of golden file: %v", err)
	}
	if err := os.WriteFile(path, got, 0o644); err != nil { // #nosec G306 -- a file of the source tree, in tests alone
		t.Fatalf("write golden file: %v", err)
	}
}
