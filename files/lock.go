package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process has the lock.
var ErrHeld = errors.New("another process holds the file")

// maxText bounds what is read of a lock's file, in bytes.
const maxText = 200

// Lock opens a file, new and empty where there is none, and keeps it from other calls
// of Lock, of this process too, until it is closed. The kernel lets go when the
// process ends, however it ends. text is what the file says, up to 200 bytes, beside
// ErrHeld too.
func Lock(path string) (f *os.File, text string, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // #nosec G304 -- the caller's own
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			f = nil
		}
	}()
	locked := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if locked != nil && !errors.Is(locked, unix.EWOULDBLOCK) {
		return f, "", fmt.Errorf("lock %s: %w", path, locked)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxText))
	text = strings.TrimSpace(string(raw))
	if locked != nil {
		return f, text, ErrHeld
	}
	if err != nil {
		return f, "", fmt.Errorf("read %s: %w", path, err)
	}
	return f, text, nil
}
