//go:build linux

package lab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on an OS thread that has entered the network namespace and
// that ends with f, so that no other goroutine ever runs there. What f does on
// further goroutines happens outside.
func inNamespace(ns *os.File, f func() error) error {
	var (
		err      error
		panicked any
		returned bool
	)
	done := make(chan struct{})
	var enter func(finished chan<- struct{})
	enter = func(finished chan<- struct{}) {
		defer close(finished)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and /proc/self would speak of the
			// namespace for good. It is held here, so another thread serves.
			defer runtime.UnlockOSThread()
			other := make(chan struct{})
			go enter(other)
			<-other
			return
		}
		// Not unlocked: the thread ends with this goroutine.
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("lab: enter the namespace %s: %w", ns.Name(), err)
			returned = true
			return
		}
		defer func() { panicked = recover() }()
		err = f()
		returned = true
	}
	go enter(done)
	<-done
	switch {
	case panicked != nil:
		panic(panicked) // on the caller's goroutine, where clean-ups are
	case !returned:
		runtime.Goexit() // f called t.FailNow or t.SkipNow
	}
	return err
}
