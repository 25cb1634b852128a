package sqlite

import (
	"errors"
	"fmt"
	"os"

	"github.com/portcullis-id/portcullis/files"
	"github.com/portcullis-id/portcullis/problem"
)

// lockFile holds FILE.lock while the database is open, so that two nodes never
// write the same file. The kernel lets go when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, holder, err := files.Lock(path + ".lock")
	if errors.Is(err, files.ErrHeld) {
		return nil, problem.New(problem.Unavailable, "database_locked",
			"the database %s is in use by another node (%s); stop that one, or name another folder with --data", path, holder)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	host, _ := os.Hostname() // only for the sentence above
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	return f, nil
}
