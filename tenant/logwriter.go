package tenant

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// maxPending bounds the events that wait while the store does not take them: 64
// MiB at about 640 bytes each.
const maxPending = 100_000

// maxBatch is how many events go into one write.
const maxBatch = 500

// gather is how long events are collected before they are written. Each commit
// waits for the disk: without it, a node under load would make one for each few
// events.
const gather = 50 * time.Millisecond

// LogWriter writes events of all tenants in batches: what comes while one batch
// is being written makes up the next. When the store is away for so long that
// maxPending is reached, further events are dropped and counted.
type LogWriter struct {
	docs Docs
	log  *slog.Logger
	now  func() time.Time
	wake chan struct{}

	mu      sync.Mutex
	pending []pendingEvent
	taken   int // events that a flush has in hand
	dropped uint64
	seq     uint32
}

type pendingEvent struct {
	tenant string
	event  LogEvent
}

var _ Log = (*LogWriter)(nil)

// NewLogWriter makes a writer; Run does its work.
func NewLogWriter(docs Docs, log *slog.Logger, now func() time.Time) *LogWriter {
	return &LogWriter{docs: docs, log: log, now: now, wake: make(chan struct{}, 1)}
}

// Append takes an event. It never blocks.
func (w *LogWriter) Append(tenant string, e LogEvent) {
	if e.Date.IsZero() {
		e.Date = w.now()
	}
	e.Date = e.Date.UTC().Truncate(time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending)+w.taken >= maxPending {
		w.dropped++
		return
	}
	w.seq++
	if e.ID == "" {
		e.ID = logID(e.Date, w.seq)
	}
	w.pending = append(w.pending, pendingEvent{tenant, e})
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Dropped is how many events were lost because the store was away too long.
func (w *LogWriter) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// logID makes 56 digits that sort by time, then by order of arrival: a fixed
// mark, milliseconds, a sequence number and random digits that keep nodes apart.
func logID(at time.Time, seq uint32) string {
	var b [16]byte
	rand.Read(b[:])
	random := fmt.Sprintf("%020d%020d", binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
	return "900" + at.Format("20060102150405") + fmt.Sprintf("%03d", at.Nanosecond()/1e6) +
		fmt.Sprintf("%010d", seq) + random[:26]
}

// Run writes until ctx ends and nothing waits any more.
func (w *LogWriter) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			// The rest is written without ctx, which is over, but not for ever.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			for w.waiting() > 0 {
				if err := w.flush(last); err != nil {
					return fmt.Errorf("write the last log events: %w", err)
				}
			}
			return nil
		case <-w.wake:
		}
		select {
		case <-ctx.Done():
			continue
		case <-time.After(gather):
		}
		if err := w.flush(ctx); err != nil && ctx.Err() == nil {
			w.log.ErrorContext(ctx, "log events wait for the store", "error", err, "waiting", w.waiting())
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			w.poke()
		}
	}
}

func (w *LogWriter) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending) + w.taken
}

func (w *LogWriter) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// flush writes what waits, maxBatch events at a time. What could not be written
// goes back to the front.
func (w *LogWriter) flush(ctx context.Context) error {
	w.mu.Lock()
	taken := w.pending
	w.pending = nil
	w.taken = len(taken)
	w.mu.Unlock()

	var failed error
	var back []pendingEvent
	for len(taken) > 0 {
		n := min(len(taken), maxBatch)
		rest, err := w.write(ctx, taken[:n])
		back = append(back, rest...)
		if err != nil {
			failed = err
			back = append(back, taken[n:]...)
			break
		}
		taken = taken[n:]
		w.mu.Lock()
		w.taken = len(taken)
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = 0
	if len(back) > 0 {
		w.pending = append(back, w.pending...)
	}
	if len(w.pending) > 0 {
		w.poke()
	}
	return failed
}

// write writes a batch, one commit for each tenant in it, and returns the events
// that could not be written.
func (w *LogWriter) write(ctx context.Context, batch []pendingEvent) (back []pendingEvent, failed error) {
	byTenant := map[string][]LogEvent{}
	for _, p := range batch {
		byTenant[p.tenant] = append(byTenant[p.tenant], p.event)
	}
	for t, events := range byTenant {
		docs := make([]NewDoc, len(events))
		var err error
		for i, e := range events {
			docs[i].ID = e.ID
			if docs[i].Doc, err = json.Marshal(e); err != nil {
				break
			}
		}
		if err == nil {
			// An event is there already when an earlier commit's answer was lost.
			err = w.docs.Write(ctx, t, func(tx Tx) error { return tx.InsertMissing(KindLog, docs) })
		}
		if err != nil {
			failed = err
			for _, e := range events {
				back = append(back, pendingEvent{t, e})
			}
		}
	}
	return back, failed
}
