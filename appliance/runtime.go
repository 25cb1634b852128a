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
const heapFloor = 48 << 20

// memoryFloor is what Go may hold of memory, in bytes, before it gives back to the
// system what it does not use: hashes come and go with 19 MiB each, and Go keeps
// the room of all that it ever had at a time.
const memoryFloor = 88 << 20

// keepHeapFloor tunes the collector after each collection: to heapFloor and
// memoryFloor, or to Go's own rule and three times the live heap once that is
// larger. It leaves alone what the operator has set with GOGC or GOMEMLIMIT.
func keepHeapFloor() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	set, limit := 0, 0
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var tune func(*cycle)
	tune = func(*cycle) {
		metrics.Read(sample)
		// Go takes 4 MiB where less lives, and before the first collection.
		live := max(int(min(sample[0].Value.Uint64(), 1<<62)), 4<<20)
		percent := max(100, (heapFloor-live)*100/live)
		if percent < set*9/10 || percent > set*11/10 { // setting it stops the world for a moment
			debug.SetGCPercent(percent)
			set = percent
		}
		if memory := max(memoryFloor, 3*live); memory != limit {
			debug.SetMemoryLimit(int64(memory))
			limit = memory
		}
		runtime.SetFinalizer(&cycle{}, tune) // runs after the next collection
	}
	tune(nil)
}

// processors is how many of the machine's processors the process may use.
var processors = runtime.GOMAXPROCS(0)

// tuneRuntime fits Go's runtime to a server under load, once for a process.
var tuneRuntime = sync.OnceFunc(func() {
	// A signature keeps a scheduler busy for a millisecond, and Go looks for readable
	// connections only between two goroutines: with one scheduler for each processor,
	// a node under full load lets every request wait at each of its steps. With twice
	// as many, the kernel shares the processors out, and a request that needs little
	// is answered in a few milliseconds (docs/performance.md).
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * processors)
	}
	keepHeapFloor()
})

// cycle is garbage whose end tells of a collection. It holds a pointer: tiny
// objects without one share their memory, and their finalizers may wait for ever.
type cycle struct{ _ *byte }
