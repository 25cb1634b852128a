package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/problem"
)

// lockFile holds FILE.lock while the database is open, so that two nodes never
// write the same file. The kernel lets go when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 200))
		f.Close()
		return nil, problem.New(problem.Unavailable, "database_locked",
			"the database %s is in use by another node (%s); stop that one, or name another folder with --data", path, strings.TrimSpace(string(holder)))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	host, _ := os.Hostname() // only for the sentence above
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	return f, nil
}
