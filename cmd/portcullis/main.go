// Landlock's network rules, which network.enforce uses, do not see Multipath TCP.
//go:debug multipathtcp=0

// Command portcullis is the whole appliance: node and command line in one binary.
package main

import (
	"os"

	"github.com/portcullis-id/portcullis/cli"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ(), Version: version}))
}
