package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// NewLogger writes to w: level debug, info, warn or error; format json or text.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: allowed are debug, info, warn, error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "json":
		return slog.New(utc{slog.NewJSONHandler(w, opts)}), nil
	case "text":
		return slog.New(utc{slog.NewTextHandler(w, opts)}), nil
	}
	return nil, fmt.Errorf("log format %q: allowed are json, text", format)
}

// utc writes times in UTC, whatever the host's zone.
type utc struct{ slog.Handler }

func (h utc) Handle(ctx context.Context, r slog.Record) error {
	r.Time = r.Time.UTC()
	return h.Handler.Handle(ctx, r)
}

func (h utc) WithAttrs(attrs []slog.Attr) slog.Handler { return utc{h.Handler.WithAttrs(attrs)} }

func (h utc) WithGroup(name string) slog.Handler { return utc{h.Handler.WithGroup(name)} }

// maxLogBuffer bounds the log lines that wait for their reader, in bytes.
const maxLogBuffer = 4 << 20

// logGather is how long lines are collected before they are written.
const logGather = 5 * time.Millisecond

// LogBuffer stands between a logger and a slow writer. Lines that come
// within a few milliseconds go out in one write. A reader that has stopped reading
// holds up nobody: when the buffer is full, lines are dropped and counted.
type LogBuffer struct {
	w    io.Writer
	done chan struct{}

	mu      sync.Mutex
	wake    *sync.Cond
	buf     []byte
	dropped uint64
	closed  bool
}

// NewLogBuffer writes to w from a goroutine of its own, until Close.
func NewLogBuffer(w io.Writer) *LogBuffer {
	b := &LogBuffer{w: w, done: make(chan struct{})}
	b.wake = sync.NewCond(&b.mu)
	go b.run()
	return b
}

// Write takes one line. It does not wait and does not fail.
func (b *LogBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.w.Write(line) // what is said after the end has nobody else to write it
	}
	if len(b.buf)+len(line) > maxLogBuffer {
		b.dropped++
		return len(line), nil
	}
	b.buf = append(b.buf, line...)
	b.wake.Signal()
	return len(line), nil
}

// Dropped is how many lines were lost because nobody read the log.
func (b *LogBuffer) Dropped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

func (b *LogBuffer) run() {
	defer close(b.done)
	var out []byte
	for {
		b.mu.Lock()
		for len(b.buf) == 0 && !b.closed {
			b.wake.Wait()
		}
		if len(b.buf) == 0 {
			b.mu.Unlock()
			return
		}
		if !b.closed {
			b.mu.Unlock()
			time.Sleep(logGather)
			b.mu.Lock()
		}
		out, b.buf = b.buf, out[:0]
		b.mu.Unlock()
		_, _ = b.w.Write(out) // a log that cannot be written has no other place to say so
	}
}

// Close writes what waits.
func (b *LogBuffer) Close() error {
	b.mu.Lock()
	b.closed = true
	b.wake.Signal()
	b.mu.Unlock()
	<-b.done
	return nil
}
