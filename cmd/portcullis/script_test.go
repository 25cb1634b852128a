package main_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidwall/gjson"

	"github.com/portcullis-id/portcullis/cli"
	"github.com/portcullis-id/portcullis/internal/ports"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"portcullis": func() {
			os.Exit(cli.Main(os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ(), Version: "v0.0.0-test"}))
		},
	})
}

// TestScripts runs the binary as an operator would.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:             "testdata/script",
		ContinueOnError: true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"HTTPS", "HTTP", "HEALTH", "RATELIMIT", "RATELIMIT2", "CONTROL", "HTTPS2", "CONTROL2"} {
				port, err := ports.Free()
				if err != nil {
					return err
				}
				env.Setenv(name+"_PORT", strconv.Itoa(port))
			}
			if os.Getenv(postgresVariable) != "" {
				env.Setenv("POSTGRES_DSN", storetest.PostgresDSN(env.T().(testing.TB)))
			}
			env.Setenv("OPENSEARCH", os.Getenv(opensearchVariable))
			env.Setenv("SEARCH_PREFIX", "t"+strings.ToLower(tenant.RandomString(12)))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "postgres":
				return os.Getenv(postgresVariable) != "", nil
			case "opensearch":
				return os.Getenv(opensearchVariable) != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node":     startNode,
			"stopnode": stopNode,
			"field":    field,
		},
	})
}

// postgresVariable names the server in which scripts have a database of their own,
// POSTGRES_DSN.
const postgresVariable = "PORTCULLIS_TEST_POSTGRES"

// opensearchVariable names the search engine in which scripts have indices of their
// own, SEARCH_PREFIX-*.
const opensearchVariable = "PORTCULLIS_TEST_OPENSEARCH"

// field is the command "field PATH FILE NAME": it puts a value of a JSON file, by
// its gjson path, into a variable.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field PATH FILE NAME")
	}
	v := gjson.Get(ts.ReadFile(args[1]), args[0])
	if !v.Exists() {
		ts.Fatalf("field: %s has no %s", args[1], args[0])
	}
	ts.Setenv(args[2], v.String())
}

// running are the nodes of the scripts, by their folders.
var running sync.Map

// stopNode is the command "stopnode": it stops the script's node cleanly.
func stopNode(ts *testscript.TestScript, neg bool, args []string) {
	stop, ok := running.LoadAndDelete(ts.Getenv("WORK"))
	if neg || len(args) > 0 || !ok {
		ts.Fatalf("stopnode: takes no arguments and wants a node")
	}
	stop.(func())()
}

// startNode is the command "node ARGS…": it runs `portcullis start ARGS…` in the
// background and goes on when the line "ready" is there. What the node printed
// is in node.out; the script's end stops it.
func startNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("node: cannot be negated")
	}
	exe, err := exec.LookPath("portcullis")
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, exe, append([]string{"start"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("WORK"))
	logFile, err := os.Create(filepath.Join(cmd.Dir, "node.log"))
	ts.Check(err)
	cmd.Stderr = logFile
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	stop := sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // ended by our own signal
		logFile.Close()
	})
	running.Store(ts.Getenv("WORK"), stop)
	ts.Defer(stop)
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var printed strings.Builder
	deadline := time.After(time.Minute)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				raw, _ := os.ReadFile(logFile.Name())
				ts.Fatalf("the node ended before it was ready:\n%s%s", printed.String(), raw)
			}
			fmt.Fprintln(&printed, line)
			if strings.HasPrefix(line, "ready https://") {
				ts.Check(os.WriteFile(filepath.Join(cmd.Dir, "node.out"), []byte(printed.String()), 0o600))
				go func() {
					for range lines { // keep the pipe empty
					}
				}()
				return
			}
		case <-deadline:
			ts.Fatalf("the node was not ready within a minute:\n%s", printed.String())
		}
	}
}
