package files_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/portcullis-id/portcullis/files"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		file      files.File
		mode      fs.FileMode
		want, sub fs.FileMode
	}{
		{files.File{Name: "a", Content: "one"}, 0o640, 0o640, 0o700},
		{files.File{Name: "sub/b", Content: "two", Executable: true}, 0o640, 0o750, 0o750},
		{files.File{Name: "all/c", Executable: true}, 0o644, 0o755, 0o755},
		{files.File{Name: "mine/d"}, 0o600, 0o600, 0o700},
	} {
		path, err := tt.file.Write(dir, tt.mode)
		if err != nil || path != filepath.Join(dir, tt.file.Name) {
			t.Fatalf("%s: %s, %v", tt.file.Name, path, err)
		}
		raw, err := os.ReadFile(path)
		if err != nil || string(raw) != tt.file.Content {
			t.Errorf("%s says %q, %v", path, raw, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&^tt.want != 0 || info.Mode().Perm()&0o700 != tt.want&0o700 {
			t.Errorf("%s has %v, %v; want %v", path, info.Mode(), err, tt.want)
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm()&0o700 != 0o700 || filepath.Dir(path) != dir && info.Mode().Perm()&^tt.sub != 0 {
			t.Errorf("the folder of %s has %v, %v; want %v", path, info.Mode(), err, tt.sub)
		}
	}
	if _, err := (files.File{Name: "a/under a file"}).Write(dir, 0o640); err == nil {
		t.Error("a file was written below a file")
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, text, err := files.Lock(path)
	if err != nil || text != "" {
		t.Fatalf("a new file: %q, %v", text, err)
	}
	if _, err := f.WriteAt([]byte("who holds it\n"), 0); err != nil {
		t.Fatal(err)
	}
	if again, text, err := files.Lock(path); !errors.Is(err, files.ErrHeld) || text != "who holds it" || again != nil {
		t.Errorf("held: %q, %v", text, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, text, err = files.Lock(path)
	if err != nil || text != "who holds it" {
		t.Fatalf("after its end: %q, %v", text, err)
	}
	f.Close()
	if _, _, err := files.Lock(filepath.Join(path, "no folder")); err == nil {
		t.Error("a lock below a file")
	}
}
