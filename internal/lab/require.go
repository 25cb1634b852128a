//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Require skips the test where a lab cannot be, with one line that says why.
func Require(t testing.TB) {
	t.Helper()
	if err := possible(); err != nil {
		t.Skip("lab: " + err.Error())
	}
}

// possible tries, once for each process, what a lab is made of.
var possible = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for _, p := range []struct{ command, debian string }{{"ip", "iproute2"}, {"nft", "nftables"}} {
		if _, err := exec.LookPath(p.command); err != nil {
			return fmt.Errorf("%s is missing; install the package %s", p.command, p.debian)
		}
	}
	start, ok := startTime(os.Getpid())
	if !ok {
		return errors.New("/proc is missing")
	}
	ns := fmt.Sprintf("%s%d-%s-0-try", prefix, os.Getpid(), strconv.FormatUint(start, 36))
	if _, err := command("", "ip", "netns", "add", ns); err != nil {
		return fmt.Errorf("the kernel refuses network namespaces: %s", oneLine(err))
	}
	_, err := command("add table inet try\n", "ip", "netns", "exec", ns, "nft", "-f", "-")
	if gone := remove([]string{ns}); gone != nil {
		return fmt.Errorf("a network namespace stays: %s", oneLine(gone))
	}
	if err != nil {
		return fmt.Errorf("the kernel refuses nftables in a network namespace: %s", oneLine(err))
	}
	return nil
})

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }
