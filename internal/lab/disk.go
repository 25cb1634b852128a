//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Disk puts a disk of some MiB, in memory, at a folder that is there. It goes with
// the test.
func Disk(t testing.TB, dir string, mib int) {
	t.Helper()
	if err := syscall.Mount("lab", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", mib)); err != nil {
		t.Fatalf("mount a tmpfs at %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// Fill takes all the room of the disk at a folder; free gives it back.
func Fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name) // #nosec G304 -- a file of the test's own
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := 1 << 20; block > 0; block /= 16 { // the last ones fill what is left
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
	}
	return func() { _ = os.Remove(name) }
}
