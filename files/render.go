package files

import (
	"io/fs"
	"os"
	"path/filepath"
)

// File is a rendered file.
type File struct {
	Name       string // slashes stand between folders
	Content    string
	Executable bool
}

// Write writes the file below a folder, over the one that is there, and returns its
// path. Who may read the file may run it too, if it is to be run, and may look into
// the folders that it needs.
func (f File) Write(dir string, mode fs.FileMode) (path string, err error) {
	path = filepath.Join(dir, filepath.FromSlash(f.Name))
	run := mode | mode&0o444>>2
	if err := os.MkdirAll(filepath.Dir(path), run); err != nil {
		return "", err
	}
	if f.Executable {
		mode = run
	}
	return path, os.WriteFile(path, []byte(f.Content), mode)
}
