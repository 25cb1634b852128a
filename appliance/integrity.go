package appliance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
)

// Verify looks for damage in the whole database of a configuration.
func Verify(ctx context.Context, cfg Config) error { return store.Verify(ctx, cfg.dsn()) }

// verify looks through a database file once after the start, for damage that the
// start did not look for. It does so in another process with the lowest priority:
// the search takes a processor for as long as it runs. A node on a damaged file
// goes on with what can be read, and says so: it may be all that is left.
func (n *Node) verify(ctx context.Context) error {
	if path, ok := strings.CutPrefix(n.cfg.dsn(), "sqlite:"); ok && n.opts.Program != "" {
		found, err := verifyApart(ctx, n.opts.Program, path)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			n.logger.WarnContext(ctx, "the database was not looked through", "error", err)
		case found != "":
			damage := problem.New(problem.Unavailable, "database_corrupt", "%s", found)
			n.store.SetDamaged(damage)
			n.logger.ErrorContext(ctx, "the database is damaged", "error", damage)
		}
	}
	<-ctx.Done()
	return nil
}

// verifyApart runs `portcullis store verify`. Damage comes back as its sentence.
func verifyApart(ctx context.Context, program, path string) (damage string, err error) {
	cmd := exec.CommandContext(ctx, program, "store", "verify", path) // #nosec G204 -- this program's own file, with the configured database
	cmd.Args[0] = "portcullis"
	cmd.Env = []string{} // it needs no secret
	var out strings.Builder
	cmd.Stderr = &out
	// A node that is killed does not leave it behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	// It is no fault when the priority stays: the answer is the same.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, 19)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &exit) && exit.ExitCode() == ExitDamaged:
		return strings.TrimPrefix(strings.TrimSpace(out.String()), "portcullis: "), nil
	}
	return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(out.String()))
}

// ExitDamaged is how `portcullis store verify` ends when it finds damage.
const ExitDamaged = 3
