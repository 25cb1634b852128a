package tenant_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func TestAWriteEndsWhatWasCachedOfItsKind(t *testing.T) {
	c := tenant.NewCache(storetest.New(t), 0)
	dir := tenant.NewDirectory(tenant.Hosts{Domain: "example.com"}, c)
	ctx := t.Context()
	put := func(tn, doc string) {
		t.Helper()
		if err := c.Write(ctx, tn, func(tx tenant.Tx) error {
			return tenant.Set(tx, tenant.KindClient, "c1", map[string]string{"client_id": "c1", "name": doc})
		}); err != nil {
			t.Fatal(err)
		}
	}
	name := func(tn string) string {
		t.Helper()
		cl, err := dir.Client(ctx, tn, "c1")
		if err != nil {
			t.Fatal(err)
		}
		return cl.Name
	}
	put("a", "one")
	put("b", "other")
	if name("a") != "one" || name("b") != "other" {
		t.Error("tenants see each other's clients")
	}
	first, err := dir.Client(ctx, "a", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := dir.Client(ctx, "a", "c1"); again != first {
		t.Error("the second read was not served from the cache")
	}
	put("a", "two")
	if name("a") != "two" {
		t.Error("a write did not end the cached client")
	}
	other, _ := dir.Client(ctx, "b", "c1")
	put("a", "three")
	if again, _ := dir.Client(ctx, "b", "c1"); again != other {
		t.Error("a write of one tenant dropped another's entry")
	}
	c.Invalidate("b", tenant.KindClient) // as another node would
	if again, _ := dir.Client(ctx, "b", "c1"); again == other {
		t.Error("an invalidation from outside did nothing")
	}
}

func TestALoadThatAWriteOvertookIsNotKept(t *testing.T) {
	c := tenant.NewCache(storetest.New(t), 0)
	load := func(value string, meanwhile func()) string {
		got, err := tenant.Cached(c, "a", tenant.KindClient, "k", func() (string, error) { meanwhile(); return value, nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	load("stale", func() { c.Invalidate("a", tenant.KindClient) })
	if got := load("fresh", func() {}); got != "fresh" {
		t.Errorf("got %s", got)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	c := tenant.NewCache(storetest.New(t), 10)
	loads := 0
	for range 2 {
		for i := range 100 {
			if _, err := tenant.Cached(c, "a", tenant.KindClient, string(rune('0'+i)), func() (int, error) { loads++; return i, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if loads != 200 {
		t.Errorf("%d loads of 200: more than 10 entries were kept", loads)
	}
	if _, err := tenant.Cached(c, "a", tenant.KindClient, "e", func() (int, error) { return 0, errors.New("x") }); err == nil {
		t.Error("an error was swallowed")
	}
	if v, err := tenant.Cached(c, "a", tenant.KindClient, "e", func() (int, error) { return 7, nil }); err != nil || v != 7 {
		t.Error("an error was kept")
	}
}

// flaky fails writes while broken is set.
type flaky struct {
	tenant.Docs
	mu     sync.Mutex
	broken bool
}

func (f *flaky) set(b bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = b
}

func (f *flaky) Write(ctx context.Context, tn string, fn func(tx tenant.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		return problem.New(problem.Unavailable, "", "the store is away")
	}
	return f.Docs.Write(ctx, tn, fn)
}

func TestLogEventsAreWrittenAtACleanStop(t *testing.T) {
	d := &flaky{Docs: storetest.New(t), broken: true}
	w := tenant.NewLogWriter(d, slog.New(slog.NewTextHandler(t.Output(), nil)), time.Now)
	for range 1200 {
		w.Append("a", tenant.LogEvent{Type: tenant.LogLogin})
		w.Append("b", tenant.LogEvent{Type: tenant.LogFailedLogin})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	d.set(false)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, tn := range []string{"a", "b"} {
		page, err := d.Find(t.Context(), tn, tenant.KindLog, tenant.Query{Total: true, Limit: 1})
		if err != nil || page.Total != 1200 {
			t.Errorf("tenant %s has %d events, want 1200: %v", tn, page.Total, err)
		}
	}
	events, _, err := tenant.Find[tenant.LogEvent](t.Context(), d, "a", tenant.KindLog, tenant.Query{Limit: 2})
	if err != nil || len(events[0].ID) != 56 || events[0].ID >= events[1].ID {
		t.Errorf("ids are %q, %q: want 56 digits that sort", events[0].ID, events[1].ID)
	}
	if w.Dropped() != 0 {
		t.Errorf("%d were dropped", w.Dropped())
	}
}

func TestASharedCacheTellsAndIsTold(t *testing.T) {
	docs := storetest.New(t)
	var told []tenant.Invalidation
	c := tenant.NewCache(docs, 0)
	c.Share(func(v tenant.Invalidation) { told = append(told, v) })
	value := "old"
	get := func() string {
		t.Helper()
		got, err := tenant.Cached(c, "a", tenant.KindClient, "k", func() (string, error) { return value, nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	// Nobody has said yet that nothing was missed: it keeps out of the way.
	get()
	value = "new"
	if got := get(); got != "new" {
		t.Errorf("an unchecked cache gave out %q", got)
	}
	c.Checked(time.Now())
	get()
	value = "newer"
	if got := get(); got != "new" {
		t.Errorf("a checked cache loads each time: %q", got)
	}
	c.InvalidateAll()
	if got := get(); got != "newer" {
		t.Errorf("everything was dropped, and it gave out %q", got)
	}
	c.Checked(time.Now().Add(-time.Hour))
	value = "newest"
	if got := get(); got != "newest" {
		t.Errorf("a cache that was cut off for an hour gave out %q", got)
	}

	if err := c.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindClient, "c", []byte(`{}`)) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), "a", func(tx tenant.Tx) error { return tx.Insert(tenant.KindSession, "s", []byte(`{}`)) }); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || told[0].Tenant != "a" || !slices.Equal(told[0].Kinds, []tenant.Kind{tenant.KindClient}) {
		t.Fatalf("told %+v, want one of a client: sessions are not cached", told)
	}
	left, err := docs.Get(t.Context(), "a", tenant.KindChange, told[0].ID)
	if err != nil || !strings.Contains(string(left.Doc), `"clients"`) {
		t.Errorf("in the store: %s %v", left.Doc, err)
	}
	// A write that fails tells nobody of a change that is not there.
	err = c.Write(t.Context(), "a", func(tx tenant.Tx) error {
		_ = tx.Insert(tenant.KindClient, "d", []byte(`{}`))
		return errors.New("no")
	})
	if err == nil || len(told) != 1 {
		t.Errorf("%v, told %d times", err, len(told))
	}
}

// watched tells when documents are read.
type watched struct {
	tenant.Docs
	reads func()
}

func (w watched) Get(ctx context.Context, tn string, k tenant.Kind, id string) (tenant.Record, error) {
	w.reads()
	return w.Docs.Get(ctx, tn, k, id)
}

func (w watched) Find(ctx context.Context, tn string, k tenant.Kind, q tenant.Query) (tenant.Page, error) {
	w.reads()
	return w.Docs.Find(ctx, tn, k, q)
}

// TestOthersWorkWhileARequestWaitsForTheClustersStore: a slot is for work, and the
// store of a shared cache is far away.
func TestOthersWorkWhileARequestWaitsForTheClustersStore(t *testing.T) {
	for _, shared := range []bool{false, true} {
		gate := overload.New(overload.Config{Slots: 1})
		free := 0
		c := tenant.NewCache(watched{storetest.New(t), func() {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if _, leave, err := gate.Enter(ctx, overload.Admin); err == nil {
				free++
				leave()
			}
		}}, 0)
		if shared {
			c.Share(func(tenant.Invalidation) {})
		}
		ctx, leave, err := gate.Enter(t.Context(), overload.Admin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(ctx, "a", tenant.KindClient, "x"); !problem.Is(err, problem.NotFound) {
			t.Fatal(err)
		}
		if _, err := c.Find(ctx, "a", tenant.KindClient, tenant.Query{}); err != nil {
			t.Fatal(err)
		}
		leave()
		if want := map[bool]int{true: 2}[shared]; free != want {
			t.Errorf("shared %t: the slot was free in %d of 2 reads, want %d", shared, free, want)
		}
	}
}
