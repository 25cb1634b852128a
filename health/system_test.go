package health_test

import (
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/health"
)

func TestSystemChecks(t *testing.T) {
	file := func(s string) func(string) ([]byte, error) {
		return func(string) ([]byte, error) { return []byte(s), nil }
	}
	missing := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	mounts := "/dev/sda1 / ext4 rw,relatime 0 0\n" +
		"/dev/sdb1 /my\\040data xfs rw 0 0\n" +
		"/dev/sdb1 /bind xfs rw 0 0\n" +
		"/dev/loop0 /snap/x squashfs ro,nodev 0 0\n" +
		"tmpfs /run tmpfs rw 0 0\n" +
		"/dev/sdc1 /hidden ext4 rw 0 0\n" +
		"broken\n"
	disk := func(used map[string]uint64, folders ...string) health.Check {
		return health.Disk(health.System{ReadFile: file(mounts), Statfs: func(path string) (health.Usage, error) {
			u, ok := used[path]
			if !ok {
				return health.Usage{}, errors.New("read the space of " + path + ": denied")
			}
			return health.Usage{Used: u, Available: 1000 - u}, nil
		}}, folders...)
	}
	cpu := func(load string) health.Check { return health.CPU(health.System{ReadFile: file(load), CPUs: 4}) }
	memory := func(s string) health.Check { return health.Memory(health.System{ReadFile: file(s)}) }

	for _, c := range []struct {
		name  string
		check health.Check
		ok    bool
		value float64
		says  string
	}{
		{"cpu idle", cpu("0.40 1 1 1/1 1"), true, 0.1, "4 processors"},
		{"cpu at the threshold", cpu("8.00 1 1 1/1 1"), true, 2, "2.00"},
		{"cpu above the threshold", cpu("8.40 1 1 1/1 1"), false, 2.1, "2.10"},
		{"cpu unreadable", health.CPU(health.System{ReadFile: missing}), false, 0, "cannot be read"},
		{"cpu nonsense", cpu("many"), false, 0, "not a number"},

		{"memory free", memory("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n"), true, 50, "50.0 %"},
		{"memory just above the threshold", memory("MemTotal: 1000 kB\nMemAvailable: 101 kB\n"), true, 10.1, "10.1 %"},
		{"memory at the threshold", memory("MemTotal: 1000 kB\nMemAvailable: 100 kB\n"), false, 10, "10.0 %"},
		{"memory without total", memory("MemAvailable: 100 kB\n"), false, 0, "MemTotal"},
		{"memory nonsense", memory("MemTotal: x kB\n"), false, 0, `"x"`},
		{"memory unreadable", health.Memory(health.System{ReadFile: missing}), false, 0, "cannot be read"},

		{"disks fine", disk(map[string]uint64{"/": 100, "/my data": 900}), true, 90, "/my data"},
		{"one disk above the threshold", disk(map[string]uint64{"/": 100, "/my data": 901}), false, 90.1, "/my data"},
		{"images do not count", disk(map[string]uint64{"/": 100, "/my data": 10, "/snap/x": 1000, "/run": 1000}), true, 10, "/"},
		{"a volume that may not be looked at", disk(map[string]uint64{"/": 100}), true, 10, "/"},
		{"the data folder counts, wherever it is", disk(map[string]uint64{"/": 100, "/run/data": 950}, "/run/data"), false, 95, "/run/data"},
		{"the data folder has to be readable", disk(map[string]uint64{"/": 100}, "/gone"), false, 0, "/gone"},
		{"no disk at all", disk(nil), false, 0, "no volume"},
		{"disks unreadable", health.Disk(health.System{ReadFile: missing}), false, 0, "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.check.Run(t.Context())
			if r.OK != c.ok || r.Value != c.value || !strings.Contains(r.Message, c.says) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The readers of the host itself: whatever they find, they find something.
func TestThisHost(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the host's figures are read from /proc, which only Linux has")
	}
	for _, c := range []health.Check{health.CPU(health.System{}), health.Memory(health.System{}), health.Disk(health.System{}, t.TempDir())} {
		if r := c.Run(t.Context()); r.Unit == "" || r.Value < 0 || r.Threshold == 0 {
			t.Errorf("%s: %+v", c.Name, r)
		}
	}
}
