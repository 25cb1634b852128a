package tenant

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
// through Invalidate, and while it is not certain that all of them have, a shared
// cache keeps out of the way.
type Cache struct {
	Docs
	entries *lru.Cache[cacheKey, cacheEntry]

	// announce tells the other nodes of a cluster; nil on a single node.
	announce func(Invalidation)

	mu   sync.RWMutex
	gens map[genKey]uint64
	all  uint64 // how often everything was dropped

	checked atomic.Int64 // nanoseconds of began when Checked last spoke
}

// began is what moments are counted from: the clock of the wall may jump.
var began = time.Now()

// trustFor is how long a shared cache is believed after it was last known to have
// missed nothing. Beyond that everything is loaded each time.
const trustFor = 5 * time.Second

// Invalidation is a write of kinds that caches derive from.
type Invalidation struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Kinds  []Kind `json:"kinds"`
}

// change is what stays of an Invalidation in the store, for nodes that were not told.
type change struct {
	Kinds     []Kind    `json:"kinds"`
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// changeLife is how long a node may be away and still find what it missed, in the
// store. One that was away for longer forgets everything.
const changeLife = 10 * time.Minute

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

// Share makes the cache one of several over the same store. From then on a write
// of a kind that is cached leaves an Invalidation in the store, in the same transaction,
// and is announced after its commit. It has to be called before the first write.
func (c *Cache) Share(announce func(Invalidation)) {
	c.announce = announce
	c.checked.Store(int64(time.Since(began) - trustFor)) // nobody has looked yet
}

// Checked tells a shared cache that it has heard of every write before a moment.
func (c *Cache) Checked(at time.Time) { c.checked.Store(int64(at.Sub(began))) }

// trusted reports whether entries may be used.
func (c *Cache) trusted() bool {
	return c.announce == nil || time.Since(began)-time.Duration(c.checked.Load()) < trustFor
}

// InvalidateAll drops everything.
func (c *Cache) InvalidateAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
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
	return c.gens[g] + c.all<<40
}

// Cached returns the value that load derives from documents of kind k, and loads
// it only when a write came between. The key tells apart what is derived from
// one kind. Values are shared: callers must not change them. Errors are not kept.
func Cached[T any](c *Cache, tenant string, k Kind, key string, load func() (T, error)) (T, error) {
	if !slices.Contains(cached, k) || !c.trusted() {
		return load() // nobody would tell when it has changed
	}
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

// Get passes on. The store of a shared cache is on another host: others work while
// a request waits for it.
func (c *Cache) Get(ctx context.Context, tenant string, k Kind, id string) (Record, error) {
	if c.announce != nil {
		defer overload.Pause(ctx)()
	}
	return c.Docs.Get(ctx, tenant, k, id)
}

// Find passes on, as Get does.
func (c *Cache) Find(ctx context.Context, tenant string, k Kind, q Query) (Page, error) {
	if c.announce != nil {
		defer overload.Pause(ctx)()
	}
	return c.Docs.Find(ctx, tenant, k, q)
}

// Write passes fn on and drops the kinds that it touched.
func (c *Cache) Write(ctx context.Context, tenant string, fn func(tx Tx) error) error {
	defer overload.Pause(ctx)() // it waits for the disk
	touched := map[Kind]bool{}
	told := Invalidation{Tenant: tenant}
	err := c.Docs.Write(ctx, tenant, func(tx Tx) error {
		if err := fn(&touchTx{tx, touched}); err != nil {
			return err
		}
		told.Kinds = nil
		for _, k := range cached {
			if touched[k] {
				told.Kinds = append(told.Kinds, k)
			}
		}
		if c.announce == nil || len(told.Kinds) == 0 {
			return nil
		}
		told.ID = RandomString(16)
		return Add(tx, KindChange, told.ID, &change{Kinds: told.Kinds, At: tx.Now(), ExpiresAt: tx.Now().Add(changeLife)})
	})
	// Dropped after a failure too: a commit whose answer was lost may have happened.
	for k := range touched {
		c.Invalidate(tenant, k)
	}
	if c.announce != nil && len(told.Kinds) > 0 {
		c.announce(told)
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

func (t *touchTx) InsertMissing(k Kind, docs []NewDoc) error {
	t.touched[k] = true
	return t.Tx.InsertMissing(k, docs)
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
