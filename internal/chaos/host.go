//go:build linux

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
)

// Fill takes all the room of the node's data folder; free gives it back.
func (n *Node) Fill() (free func()) {
	n.c.t.Helper()
	if n.c.options.Tmpfs == 0 {
		n.c.t.Fatal("the node's data folder is on the machine's own disk, which nobody wants full")
	}
	return lab.Fill(n.c.t, n.Data)
}

// Quota bounds the processor time of a process, in processors, until the test
// ends. undo takes the bound away.
func Quota(t testing.TB, pid int, processors float64) (undo func()) {
	t.Helper()
	const period = 100_000
	quota := strconv.Itoa(int(processors * period))
	name := fmt.Sprintf("portcullis-chaos-%d-%d", os.Getpid(), pid)
	dir, file, text, none := filepath.Join("/sys/fs/cgroup", name), "cpu.max", quota+" "+strconv.Itoa(period), "max"
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); err == nil { // version 1
		dir, file, text, none = filepath.Join("/sys/fs/cgroup/cpu", name), "cpu.cfs_quota_us", quota, "-1"
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		t.Skipf("chaos: control groups cannot be made here: %v", err)
	}
	t.Cleanup(func() {
		// The kernel lets go of it a moment after the last process has ended.
		for range 50 {
			if err := os.Remove(dir); err == nil || os.IsNotExist(err) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Errorf("bound the processor time of a process: %v", err)
		}
	}
	write(file, text)
	write("cgroup.procs", strconv.Itoa(pid))
	return func() { write(file, none) }
}

// CPU is the processor time that all nodes' processes have taken.
func (c *Cluster) CPU() (sum time.Duration) {
	for _, n := range c.Nodes {
		sum += n.CPU()
	}
	return sum
}

// CPU is the processor time that the node's process has taken.
func (n *Node) CPU() time.Duration {
	n.c.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.Pid()))
	if err != nil {
		n.c.t.Fatal(err)
	}
	// proc(5): after the name in parentheses, fields 14 and 15 in hundredths of a second.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
