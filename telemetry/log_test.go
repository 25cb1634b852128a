package telemetry_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/telemetry"
)

func TestLogTimesAreUTC(t *testing.T) {
	zone := time.Local
	time.Local = time.FixedZone("east", 5*3600)
	defer func() { time.Local = zone }()
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		log.With("surface", "https").WithGroup("g").Info("hello", "n", 1)
		if !strings.Contains(out.String(), "Z") || strings.Contains(out.String(), "+05:00") {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

func TestLogBufferKeepsEveryLineInOrder(t *testing.T) {
	var out bytes.Buffer
	b := telemetry.NewLogBuffer(&out)
	var want strings.Builder
	for i := range 5000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if _, err := b.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Error("lines are missing or out of order")
	}
	if _, err := b.Write([]byte("after the end\n")); err != nil || !strings.HasSuffix(out.String(), "after the end\n") {
		t.Errorf("what is said after the end is lost: %v", err)
	}
}

// stuck is a reader of the log that has stopped reading.
type stuck struct {
	mu      sync.Mutex
	written int
}

func (s *stuck) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += len(p)
	return len(p), nil
}

func TestLogBufferOfAStuckReaderIsBounded(t *testing.T) {
	out := &stuck{}
	out.mu.Lock()
	b := telemetry.NewLogBuffer(out)
	line := bytes.Repeat([]byte("x"), 1024)
	const lines = 20_000
	for range lines { // five times what fits; a writer that waited would never come back
		if _, err := b.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	dropped := int(b.Dropped())
	out.mu.Unlock()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if dropped == 0 || out.written != (lines-dropped)*len(line) {
		t.Errorf("%d lines were dropped, %d bytes written", dropped, out.written)
	}
}
