package main_test

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/enforce"
	"github.com/portcullis-id/portcullis/internal/ports"
	"github.com/portcullis-id/portcullis/store/storetest"
)

// TestAHeldNodeEndsForItsSupervisor: the kernel's rules would stay with a node that
// starts itself again.
func TestAHeldNodeEndsForItsSupervisor(t *testing.T) {
	if enforce.ABI() < enforce.MinABI {
		t.Skipf("%v", enforce.ErrKernel)
	}
	dsn := storetest.PostgresDSN(t)
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "node1")
	port := func() string {
		p, err := ports.Free()
		if err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(p)
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), exe, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	run("cluster", "init", "--data", data, "--address", "127.0.0.1:"+port(), "--name", "node1", "--domain", "portcullis.test", "--database", dsn, "--set", "tls.local=true",
		"--set", "listen.address=127.0.0.1", "--set", "listen.https="+port(), "--set", "listen.http=0", "--set", "listen.health="+port(), "--set", "network.enforce=on")
	cmd := exec.CommandContext(t.Context(), exe, "start", "--config", filepath.Join(data, "portcullis.yaml"))
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "ready ") {
	}
	run("cluster", "reboot", "node1", "--data", data)
	ended := make(chan error, 1)
	go func() {
		for lines.Scan() { // until it closes its output
		}
		ended <- cmd.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill() // so that the test ends
		t.Fatalf("the node did not end: %s", log.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != 75 || !strings.Contains(log.String(), "its supervisor has to start it") {
		t.Errorf("exit code %d: %s", code, log.String())
	}
	if !strings.Contains(log.String(), "the network contract is enforced") {
		t.Errorf("it was not held: %s", log.String())
	}
}
