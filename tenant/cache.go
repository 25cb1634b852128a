package tenant

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/portcullis-id/portcullis/overload"
)

// Cache stands between the rooms and the store. Reads of documents and all
// writes pass through; what a hot path derives from configuration (a client, an
// API, a key set) is kept by Cached until a write touches one of its kinds.
//
// Owner: the appliance, one per node. Bound: a number of entries, the least
// recently used go first. Invalidation: a Write through this Cache drops the
// touched kinds of its tenant before it returns; writes of other nodes arrive
// through Invalidate.
type Cache struct {
	Docs
	entries *lru.Cache[cacheKey, cacheEntry]

	mu   sync.RWMutex
	gens map[genKey]uint64
}

type genKey struct {
	tenant string
	kind   Kind
}

type cacheKey struct {
	genKey
	key string
}

type cacheEntry struct {
	gen   uint64
	value any
}

// NewCache keeps at most size entries; 0 means 50,000.
func NewCache(docs Docs, size int) *Cache {
	if size <= 0 {
		size = 50_000
	}
	entries, _ := lru.New[cacheKey, cacheEntry](size) // fails only for a size below 1
	return &Cache{Docs: docs, entries: entries, gens: map[genKey]uint64{}}
}

// Invalidate drops what was derived from these kinds of a tenant's documents.
func (c *Cache) Invalidate(tenant string, kinds ...Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range kinds {
		c.gens[genKey{tenant, k}]++
	}
}

func (c *Cache) gen(g genKey) uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.gens[g]
}

// Cached returns the value that load derives from documents of kind k, and loads
// it only when a write came between. The key tells apart what is derived from
// one kind. Values are shared: callers must not change them. Errors are not kept.
func Cached[T any](c *Cache, tenant string, k Kind, key string, load func() (T, error)) (T, error) {
	ck := cacheKey{genKey{tenant, k}, key}
	// The generation is read before the documents: a write that lands in between
	// leaves an entry that is already out of date, never one that looks fresh.
	gen := c.gen(ck.genKey)
	if e, ok := c.entries.Get(ck); ok && e.gen == gen {
		return e.value.(T), nil
	}
	v, err := load()
	if err != nil {
		return v, err
	}
	c.entries.Add(ck, cacheEntry{gen, v})
	return v, nil
}

// Write passes fn on and drops the kinds that it touched.
func (c *Cache) Write(ctx context.Context, tenant string, fn func(tx Tx) error) error {
	defer overload.Pause(ctx)() // it waits for the disk
	touched := map[Kind]bool{}
	err := c.Docs.Write(ctx, tenant, func(tx Tx) error { return fn(&touchTx{tx, touched}) })
	// Dropped after a failure too: a commit whose answer was lost may have happened.
	for k := range touched {
		c.Invalidate(tenant, k)
	}
	return err
}

type touchTx struct {
	Tx
	touched map[Kind]bool
}

func (t *touchTx) Insert(k Kind, id string, doc []byte) error {
	t.touched[k] = true
	return t.Tx.Insert(k, id, doc)
}

func (t *touchTx) Replace(k Kind, rec Record) error {
	t.touched[k] = true
	return t.Tx.Replace(k, rec)
}

func (t *touchTx) Delete(k Kind, id string) (bool, error) {
	t.touched[k] = true
	return t.Tx.Delete(k, id)
}

func (t *touchTx) DeleteWhere(k Kind, where []Cond) (int, error) {
	t.touched[k] = true
	return t.Tx.DeleteWhere(k, where)
}
