//go:build linux

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/internal/lab"
)

func TestRun(t *testing.T) {
	lab.Require(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Ctrl-C, as early as can be
	var out bytes.Buffer
	if err := run(ctx, []string{"-nodes", "2", "-services", "db,mail", "-4"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node2 ", "db ", "mail ", "router ", "10.77.1.2", "ip netns exec pclab-"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "fd77") {
		t.Errorf("IPv6 in a lab without:\n%s", &out)
	}
}
