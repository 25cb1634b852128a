package chaos

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed clock
var clockFiles embed.FS

// Build compiles the program into a folder. With a clock, its wall clock can be
// moved while it runs (see Node.SetClock): the standard library's time.Now is
// compiled with an offset, and all else is what is shipped. A host's own clock
// cannot differ between namespaces, and libfaketime does not reach a program
// without libc.
func Build(dir string, clock bool) (string, error) {
	module, err := output("go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "portcullis")
	args := []string{"build", "-trimpath", "-o", binary}
	if clock {
		overlay, err := clockOverlay(dir, module)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, "./cmd/portcullis")...)
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return binary, nil
}

// clockOverlay writes what `go build -overlay` wants.
func clockOverlay(dir, module string) (string, error) {
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	source := filepath.Join(goroot, "src", "time", "time.go")
	raw, err := os.ReadFile(source) // #nosec G304 -- the toolchain's own
	if err != nil {
		return "", err
	}
	const reads = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(raw), reads) != 1 {
		return "", errors.New("time.Now of this toolchain is written in another way: mend clockOverlay")
	}
	files := map[string]string{source: strings.Replace(string(raw), reads, reads+"\tsec += chaosOffset.Load()\n", 1)}
	for name, target := range map[string]string{"time.go.txt": filepath.Join(goroot, "src", "time", "chaos.go"), "clock.go.txt": filepath.Join(module, "cmd", "portcullis", "chaos_clock.go")} {
		raw, err := clockFiles.ReadFile("clock/" + name)
		if err != nil {
			return "", err
		}
		files[target] = string(raw)
	}
	replace := map[string]string{}
	for target, text := range files {
		file := filepath.Join(dir, fmt.Sprintf("overlay-%d-%s", len(replace), filepath.Base(target)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[target] = file
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output() // #nosec G204 -- the Go command
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
