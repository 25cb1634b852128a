package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/config"
)

// source is embedded in commands that read the configuration.
type source struct {
	Config string            `type:"path" placeholder:"FILE" help:"Configuration file. Also PORTCULLIS_CONFIG."`
	Dev    bool              `help:"A node for development: loopback, local certificates, mailbox; no file, no root."`
	Data   string            `placeholder:"DIR" help:"Folder of everything that the node keeps."`
	Set    map[string]string `placeholder:"KEY=VALUE" mapsep:"none" help:"Any setting, such as --set listen.https=9443. May be repeated."`

	joining bool // what a cluster hands out is not there yet
}

// load reads all sources. Flags win over the environment, which wins over the
// file.
func (s *source) load(env []string) (appliance.Config, error) {
	cfg := appliance.Default()
	if s.Dev {
		cfg = appliance.DefaultDev()
	}
	cfg.Joining = s.joining
	file := s.Config
	if file == "" {
		file = lookup(env, "PORTCULLIS_CONFIG")
	}
	if file == "" && !s.Dev {
		for _, f := range []string{"portcullis.yaml", "/etc/portcullis/portcullis.yaml"} {
			if _, err := os.Stat(f); err == nil {
				file = f
				break
			}
		}
	}
	flags := map[string]string{}
	for k, v := range s.Set {
		flags[k] = v
	}
	if s.Data != "" {
		flags["data"] = s.Data
	}
	return cfg, config.Load(&cfg, config.Sources{File: file, Env: env, Flags: flags})
}

func lookup(env []string, name string) string {
	for _, kv := range env {
		if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
			return kv[len(name)+1:]
		}
	}
	return ""
}

// exitRestart is how a node ends that its supervisor is to start again (EX_TEMPFAIL
// of sysexits).
const exitRestart = 75

type startCmd struct {
	source
	again []string // the command line that starts the node again; nil means this one
}

func (startCmd) Help() string {
	return `Prints one line "ready https://…" when the node answers. Ctrl-C or SIGTERM stops it cleanly: for
listen.drain seconds it says that it is not ready and still serves, so that load balancers leave it out; a
second one ends that wait.

Examples:
  portcullis start --dev
  portcullis start --dev --data /tmp/node1 --set listen.https=9443
  portcullis start --config /etc/portcullis/portcullis.yaml`
}

func (c *startCmd) Run(ctx context.Context, std IO) error {
	cfg, err := c.load(std.Env)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	node, err := appliance.New(cfg, appliance.Options{Version: std.Version, Log: std.Err, Env: std.Env, Program: program})
	if err != nil {
		return err
	}
	defer func() { _ = node.Close() }()
	node.OnReady = func(r appliance.Ready) {
		for _, line := range r.Lines() {
			fmt.Fprintln(std.Out, line)
		}
	}
	ended := make(chan struct{})
	go hurry(ctx, node, ended)
	err = node.Run(ctx)
	close(ended)
	if errors.Is(err, appliance.ErrRestart) {
		// The same process, so that a supervisor sees no end; the program may be a newer one.
		_ = node.Close() // Run has closed it
		if node.Held() {
			return exitError{errors.New("the node is to start again, and the kernel's rules of network.enforce would stay with it: its supervisor has to start it (exit code 75)"), exitRestart}
		}
		args := os.Args
		if c.again != nil {
			args = append(os.Args[:1:1], c.again...)
		}
		return fmt.Errorf("start again: %w", syscall.Exec(program, args, os.Environ())) // #nosec G204 G702 -- this program's own file and arguments
	}
	return err
}

// hurry waits for a second signal.
func hurry(ctx context.Context, node *appliance.Node, ended <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-ended:
		return
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	select {
	case <-again:
		node.Hurry()
	case <-ended:
	}
}
