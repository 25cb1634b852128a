package appliance

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// heapFloor is the heap, in bytes, that the node may fill before garbage is
// collected. A node's live heap is a few MiB, and Go's own rule, twice the live
// heap, would collect it some fifty times a second under load: a fifth of the
// node's work (docs/performance.md).
const heapFloor = 64 << 20

// keepHeapFloor tunes the collector after each collection: to heapFloor, or to
// Go's own rule once the live heap is larger than half of it. It leaves everything
// alone where the operator has set GOGC.
func keepHeapFloor() {
	if os.Getenv("GOGC") != "" {
		return
	}
	set := 0
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var tune func(*cycle)
	tune = func(*cycle) {
		metrics.Read(sample)
		live := max(int(sample[0].Value.Uint64()), 1<<20)
		percent := max(100, (heapFloor-live)*100/live)
		if percent < set*9/10 || percent > set*11/10 { // setting it stops the world for a moment
			debug.SetGCPercent(percent)
			set = percent
		}
		runtime.SetFinalizer(&cycle{}, tune) // runs after the next collection
	}
	tune(nil)
}

// tuneHeap runs keepHeapFloor once, however many nodes a process has.
var tuneHeap sync.Once

// cycle is garbage whose end tells of a collection. It holds a pointer: tiny
// objects without one share their memory, and their finalizers may wait for ever.
type cycle struct{ _ *byte }
