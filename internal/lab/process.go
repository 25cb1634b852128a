//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a program that runs on a host. How it ends is in its log. A nil Process
// has never run.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// Start starts a command of Host.Command. What it prints and has no reader is added to
// a log file.
func Start(cmd *exec.Cmd, logFile string) (*Process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // #nosec G304 -- the lab's own
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Pid is its number: `ip netns exec` becomes the program.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended is closed when it has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Running reports whether it is there.
func (p *Process) Running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Kill is kill -9; it returns when the process has ended.
func (p *Process) Kill() {
	if p.Running() {
		_ = p.cmd.Process.Kill() // it may have ended meanwhile
		<-p.ended
	}
}

// Stop asks it to end, as a supervisor does, and waits until it has.
func (p *Process) Stop(patience time.Duration) error {
	if !p.Running() {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended meanwhile
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s does not end within %s of being asked to", p.cmd.Path, patience)
	}
}

// Pause stops it where it is; resume lets it go on.
func (p *Process) Pause() (resume func(), err error) {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }, nil // it may have ended
}
