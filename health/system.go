package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Where a host stops being fine.
const (
	// MaxLoad is the 1-minute load for each processor above which the cpu check
	// fails: for a minute, each had two tasks that wanted it (ADR 4).
	MaxLoad = 2.0
	// MinMemory is the available memory, in percent of all, that has to be exceeded.
	MinMemory = 10.0
	// MaxDisk is the used space of a volume, in percent, that must not be exceeded.
	MaxDisk = 90.0
)

// Usage is the space of a volume, in bytes. Available leaves out what the system
// keeps for root.
type Usage struct{ Used, Available uint64 }

// System reads the host. The zero value reads this one.
type System struct {
	ReadFile func(path string) ([]byte, error) // of /proc
	Statfs   func(path string) (Usage, error)
	CPUs     int // processors that this process may use
}

func (s System) readFile(path string) ([]byte, error) {
	if s.ReadFile != nil {
		return s.ReadFile(path)
	}
	return os.ReadFile(path)
}

func (s System) statfs(path string) (Usage, error) {
	if s.Statfs != nil {
		return s.Statfs(path)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return Usage{}, fmt.Errorf("read the space of %s: %w", path, err)
	}
	size := uint64(st.Bsize) // #nosec G115 -- a block's size is not negative; the type differs between systems
	return Usage{Used: (st.Blocks - st.Bfree) * size, Available: uint64(st.Bavail) * size}, nil
}

// CPU fails when the 1-minute load for each processor is above MaxLoad.
func CPU(sys System) Check {
	cpus := sys.CPUs
	if cpus <= 0 {
		cpus = runtime.NumCPU()
	}
	return Check{Name: NameCPU, Run: func(context.Context) Result {
		b, err := sys.readFile("/proc/loadavg")
		if err != nil {
			return Result{Message: "the load cannot be read: " + err.Error()}
		}
		first, _, _ := strings.Cut(string(b), " ")
		load, err := strconv.ParseFloat(first, 64)
		if err != nil {
			return Result{Message: "the load in /proc/loadavg is not a number"}
		}
		per := load / float64(cpus)
		return Result{
			OK: per <= MaxLoad, Value: round(per), Threshold: MaxLoad, Unit: "load per processor",
			Message: fmt.Sprintf("1-minute load is %.2f for each of %d processors; fine up to %.2f", per, cpus, MaxLoad),
		}
	}}
}

// Memory fails unless more than MinMemory percent are available.
func Memory(sys System) Check {
	return Check{Name: NameMemory, Run: func(context.Context) Result {
		b, err := sys.readFile("/proc/meminfo")
		if err != nil {
			return Result{Message: "memory cannot be read: " + err.Error()}
		}
		total, available, err := parseMeminfo(string(b))
		if err != nil {
			return Result{Message: "memory cannot be read: " + err.Error()}
		}
		percent := 100 * available / total
		return Result{
			OK: percent > MinMemory, Value: round(percent), Threshold: MinMemory, Unit: "% available",
			Message: fmt.Sprintf("%.1f %% of memory is available; fine above %.0f %%", percent, MinMemory),
		}
	}}
}

func parseMeminfo(s string) (total, available float64, err error) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		var dst *float64
		switch f[0] {
		case "MemTotal:":
			dst = &total
		case "MemAvailable:":
			dst = &available
		default:
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 63)
		if err != nil {
			return 0, 0, fmt.Errorf("%s %q in /proc/meminfo is not a number", strings.TrimSuffix(f[0], ":"), f[1])
		}
		*dst = float64(n)
	}
	if total <= 0 {
		return 0, 0, errors.New("MemTotal is not in /proc/meminfo")
	}
	return total, available, nil
}

// Disk fails when a volume is more than MaxDisk percent full: each writable
// volume of a disk that is mounted, and those of the folders, wherever they are.
func Disk(sys System, folders ...string) Check {
	return Check{Name: NameDisk, Run: func(ctx context.Context) Result {
		b, err := sys.readFile("/proc/self/mounts")
		if err != nil {
			return Result{Message: "volumes cannot be read: " + err.Error()}
		}
		paths := slices.Concat(folders, volumes(string(b)))
		worst, worstPath := -1.0, ""
		for i, path := range paths {
			if err := ctx.Err(); err != nil {
				return Result{Message: "the volumes did not answer in time"}
			}
			u, err := sys.statfs(path)
			if err != nil {
				if i >= len(folders) {
					continue // mounted where this process may not look, or gone meanwhile
				}
				return Result{Message: err.Error()}
			}
			if u.Used+u.Available == 0 {
				continue
			}
			if p := 100 * float64(u.Used) / float64(u.Used+u.Available); p > worst {
				worst, worstPath = p, path
			}
		}
		if worst < 0 {
			return Result{Message: "no volume could be read"}
		}
		return Result{
			OK: worst <= MaxDisk, Value: round(worst), Threshold: MaxDisk, Unit: "% used",
			Message: fmt.Sprintf("the fullest volume, at %s, is %.1f %% used; fine up to %.0f %%", worstPath, worst, MaxDisk),
		}
	}}
}

// volumes lists where writable volumes of disks are mounted, each disk once.
// Images that are mounted read-only are always full and no sign of trouble.
func volumes(mounts string) []string {
	var paths []string
	seen := map[string]bool{}
	sc := bufio.NewScanner(strings.NewReader(mounts))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 4 || seen[f[0]] {
			continue
		}
		disk := strings.HasPrefix(f[0], "/dev/") || f[2] == "zfs" || f[2] == "overlay" && f[1] == "/"
		if !disk || slices.Contains(strings.Split(f[3], ","), "ro") {
			continue
		}
		seen[f[0]] = true
		paths = append(paths, mountEscape.Replace(f[1]))
	}
	return paths
}

// mountEscape undoes the octal escapes of /proc/self/mounts.
var mountEscape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func round(f float64) float64 { return float64(int64(f*100+0.5)) / 100 }
