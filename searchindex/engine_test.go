package searchindex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// engineVersion is what scripts/with-opensearch starts.
var engineVersion = regexp.MustCompile(`^(opensearch 2|elasticsearch 7)\.`)

// own is a search engine of the test's own, which it may kill.
type own struct {
	t            *testing.T
	program, dir string
	url, port    string
	cmd          *exec.Cmd
}

func startOwn(t *testing.T) *own {
	t.Helper()
	o := &own{t: t, program: os.Getenv("PORTCULLIS_TEST_OPENSEARCH_START"), dir: t.TempDir()}
	if o.program == "" {
		t.Skip("PORTCULLIS_TEST_OPENSEARCH_START is not set: `scripts/with-opensearch go test ./...` sets it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, o.port, _ = net.SplitHostPort(l.Addr().String())
	o.url = "http://127.0.0.1:" + o.port
	l.Close()
	t.Cleanup(o.kill)
	o.start()
	return o
}

func (o *own) start() {
	o.t.Helper()
	o.cmd = exec.Command(o.program, o.dir, o.port) // #nosec G204 -- a test's own program
	var out bytes.Buffer
	o.cmd.Stdout, o.cmd.Stderr = &out, &out
	if err := o.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	for range 600 {
		resp, err := http.Get(o.url + "/_cluster/health?wait_for_status=yellow&timeout=1s") // #nosec G107 -- a test's own server
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	o.t.Fatalf("the search engine did not start:\n%s", out.String())
}

func (o *own) kill() {
	if o.cmd != nil {
		_ = o.cmd.Process.Signal(syscall.SIGKILL)
		_ = o.cmd.Wait() // killed
		o.cmd = nil
	}
}

func user(i, rev int) []byte {
	return fmt.Appendf(nil, `{"email":"user%d@example.com","name":"User %d","user_metadata":{"rev":%d,"tag":"r%d"}}`, i, i, rev, rev)
}

func put(t testing.TB, d tenant.Docs, tn string, i, rev int) {
	t.Helper()
	id := fmt.Sprintf("auth0|%04d", i)
	err := d.Write(t.Context(), tn, func(tx tenant.Tx) error {
		rec, err := tx.Get(tenant.KindUser, id)
		if problem.Is(err, problem.NotFound) {
			return tx.Insert(tenant.KindUser, id, user(i, rev))
		}
		if err != nil {
			return err
		}
		rec.Doc = user(i, rev)
		return tx.Replace(tenant.KindUser, rec)
	})
	if err != nil {
		t.Error(err)
	}
}

func remove(t testing.TB, d tenant.Docs, tn string, i int) {
	t.Helper()
	err := d.Write(t.Context(), tn, func(tx tenant.Tx) error {
		_, err := tx.Delete(tenant.KindUser, fmt.Sprintf("auth0|%04d", i))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func query1(t testing.TB, d tenant.Docs, tn, q string) tenant.Page {
	t.Helper()
	parsed, err := search.Parse(q)
	if err != nil {
		t.Fatal(err)
	}
	page, err := d.Find(t.Context(), tn, tenant.KindUser, tenant.Query{Search: parsed, Total: true})
	if err != nil {
		t.Errorf("%s: %v", q, err)
	}
	return page
}

// same holds the index against the store: each revision finds the same users.
func same(t testing.TB, d *Docs, db *store.Store, revisions int, tenants ...string) {
	t.Helper()
	before := d.fallbacks.Load()
	for _, tn := range tenants {
		for rev := range revisions {
			for _, q := range []string{fmt.Sprintf("user_metadata.tag:r%d", rev), fmt.Sprintf("user_metadata.rev:[%d TO *]", rev)} {
				want, got := query1(t, db, tn, q), query1(t, d, tn, q)
				if !slices.Equal(recordIDs(want), recordIDs(got)) || want.Total != got.Total {
					t.Errorf("%s, %s: the index finds %d users, the store %d", tn, q, got.Total, want.Total)
				}
			}
		}
	}
	if d.fallbacks.Load() != before {
		t.Error("the store has answered in the place of the index")
	}
}

// The engine is killed while the index is filled, and again while it is built.
// Nothing that was written is lost.
func TestAKilledEngineLosesNothing(t *testing.T) {
	engine := startOwn(t)
	db := storetest.New(t)
	cfg := Default()
	cfg.URLs, cfg.Groups = []string{engine.url}, 2
	d, x := open(t, cfg, db)
	register(t, db, "a", "b", "c")
	settle(t, x)

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	down := func() {
		for x.Down() == "" {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	for i := range 300 {
		put(t, d, []string{"a", "b", "c"}[i%3], i, i%4)
		if i == 150 {
			engine.kill()
		}
	}
	down()
	for i := range 50 {
		remove(t, d, []string{"a", "b", "c"}[i%3], i)
		put(t, d, []string{"a", "b", "c"}[i%3], i+100, 5)
	}
	engine.start()
	if _, err := x.Rebuild(ctx); err != nil {
		t.Fatal(err)
	}
	for x.states1(t)[0].Build == nil && x.states1(t)[1].Build == nil {
		time.Sleep(time.Millisecond)
	}
	engine.kill()
	put(t, d, "a", 1000, 5)
	down()
	engine.start()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, g := range x.groups { // the waits after a failure
		g.again = time.Time{}
	}
	d.until.Store(0)
	settle(t, x)
	same(t, d, db, 6, "a", "b", "c")
}

// states1 reads the groups' states as an operator would see them.
func (x *Indexer) states1(t testing.TB) map[int]groupState {
	t.Helper()
	s, err := x.states(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Two nodes share a store. An index is built while users are written; searches go
// on, and nothing is missing before, during or after.
func TestRebuildUnderWrites(t *testing.T) {
	stores(t, func(t *testing.T, db *store.Store) {
		cfg := settings(t, engineURL(t))
		d, x := open(t, cfg, db)
		_, y := open(t, cfg, db)
		register(t, db, "a", "b", "c")
		for i := range 60 {
			put(t, d, []string{"a", "b", "c"}[i%3], i, 9)
		}
		settle(t, x)
		before := x.states1(t)

		ctx, stop := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for _, x := range []*Indexer{x, y} {
			work.Go(func() {
				if err := x.Run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		if _, err := y.Rebuild(ctx); err != nil {
			t.Fatal(err)
		}
		var writers sync.WaitGroup
		for w := range 3 {
			writers.Go(func() {
				for i := range 30 {
					put(t, d, []string{"a", "b", "c"}[w], 1000+100*w+i, i%5)
					put(t, d, []string{"a", "b", "c"}[w], 1000+100*w+i/2, i%7)
					if i%4 == 0 {
						remove(t, d, []string{"a", "b", "c"}[w], 1000+100*w+i/3)
					}
				}
			})
		}
		built := func() bool {
			s := x.states1(t)
			return s[0].Generation > before[0].Generation && s[1].Generation > before[1].Generation
		}
		for !built() {
			for _, tn := range []string{"a", "b", "c"} {
				if got := query1(t, d, tn, "user_metadata.tag:r9"); got.Total != 20 {
					t.Fatalf("%s: %d users are found while the index is built, want 20", tn, got.Total)
				}
			}
		}
		writers.Wait()
		stop()
		work.Wait()
		settle(t, x)
		same(t, d, db, 10, "a", "b", "c")
		// The indices before stay for queries on their way, and then go.
		for _, g := range x.groups {
			if _, err := x.change(t.Context(), g.number, func(_ tenant.Tx, s *groupState) error { old := s.BuiltAt.Add(-keepOld); s.BuiltAt = &old; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		settle(t, x)
		for _, k := range tenant.Searchable() {
			if all, err := x.all(t.Context(), k, 0); err != nil || len(all) != 1 {
				t.Errorf("indices that are left: %v, %v", all, err)
			}
		}
	})
}

// A node that lost its lease without noticing can neither overwrite what the next
// one wrote nor take entries off the queue.
func TestALateNodeChangesNothing(t *testing.T) {
	db := storetest.New(t)
	cfg := settings(t, engineURL(t))
	d, late := open(t, cfg, db)
	_, next := open(t, cfg, db)
	register(t, db, "a")
	put(t, d, "a", 1, 0)
	settle(t, late)
	g := late.groups[cfg.group("a")]
	old := []item{{key: key{source{"a", tenant.KindUser}, "auth0|0001"}, doc: user(1, 0)}}

	put(t, d, "a", 1, 1)
	for _, g := range late.groups { // as time would
		if _, err := late.change(t.Context(), g.number, func(_ tenant.Tx, s *groupState) error { s.Until = time.Now().Add(-time.Second); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, next)
	if err := late.send(t.Context(), g, old, true, false); err != nil || !old[0].stale {
		t.Errorf("what the late node has sent: stale is %v, %v", old[0].stale, err)
	}
	put(t, d, "a", 2, 1)
	page, err := db.Find(t.Context(), tenant.Authority, tenant.KindSearchQueue, tenant.Query{})
	if err != nil || len(page.Records) == 0 {
		t.Fatal(page, err)
	}
	if _, err := late.drain(t.Context(), g, page.Records); !errors.Is(err, errLost) {
		t.Errorf("the late node works on: %v", err)
	}
	settle(t, next)
	same(t, d, db, 3, "a")
}

// The database was taken back to an earlier state: the index knows versions and
// users that it does not, and is built anew.
func TestAnIndexAheadOfTheDatabase(t *testing.T) {
	db := storetest.New(t)
	cfg := settings(t, engineURL(t))
	d, x := open(t, cfg, db)
	register(t, db, "a")
	put(t, d, "a", 1, 0)
	put(t, d, "a", 2, 0)
	settle(t, x)
	put(t, d, "a", 2, 1)
	settle(t, x)
	_, again := open(t, cfg, db)
	for _, g := range x.groups {
		if _, err := x.change(t.Context(), g.number, func(_ tenant.Tx, s *groupState) error { s.Epoch, s.Holder = 0, ""; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, "a", 2, 2)
	put(t, d, "a", 1, 2)
	settleAll(t, again)
	same(t, d, db, 3, "a")
}

// settleAll is settle for what takes several looks.
func settleAll(t *testing.T, x *Indexer) {
	t.Helper()
	for range 20 {
		if _, err := x.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, x)
}

// An index of which the database knows nothing, or that somebody deleted, is not
// searched; the store answers until there is one.
func TestAnIndexThatIsNotThere(t *testing.T) {
	db := storetest.New(t)
	cfg := settings(t, engineURL(t))
	d, x := open(t, cfg, db)
	register(t, db, "a")
	put(t, d, "a", 1, 0)
	if got := query1(t, d, "a", "user_metadata.tag:r0"); got.Total != 1 || d.fallbacks.Load() != 1 {
		t.Errorf("before the first index: %d users, %d answers of the store", got.Total, d.fallbacks.Load())
	}
	settle(t, x)
	same(t, d, db, 1, "a")

	if err := x.engine.do(t.Context(), http.MethodDelete, "/"+x.index(tenant.KindUser, cfg.group("a"), 1), nil, nil); err != nil {
		t.Fatal(err)
	}
	put(t, d, "a", 2, 0)
	if got := query1(t, d, "a", "user_metadata.tag:r0"); got.Total != 2 {
		t.Errorf("without the index: %d users", got.Total)
	}
	if _, err := x.Step(t.Context()); !noIndex(err) {
		t.Errorf("the lost index: %v", err)
	}
	for _, g := range x.groups {
		g.again = time.Time{}
	}
	settle(t, x)
	same(t, d, db, 1, "a")

	// A node without a search engine, later: nothing is filled any more.
	filled, err := Unused(t.Context(), db)
	if err != nil || !filled {
		t.Errorf("while the lease runs: filled is %v, %v", filled, err)
	}
	for _, g := range x.groups {
		if _, err := x.change(t.Context(), g.number, func(_ tenant.Tx, s *groupState) error { s.Until = time.Now().Add(-abandoned); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, "a", 3, 0)
	if filled, err = Unused(t.Context(), db); err != nil || filled {
		t.Errorf("after it: filled is %v, %v", filled, err)
	}
	if page, err := db.Find(t.Context(), tenant.Authority, tenant.KindSearchQueue, tenant.Query{Total: true}); err != nil || page.Total != 0 {
		t.Errorf("%d entries are left, %v", page.Total, err)
	}
	db.Index(false)
	put(t, db, "a", 4, 0)
	db.Index(true)
	_, back := open(t, cfg, db)
	settle(t, back)
	same(t, d, db, 1, "a")
}

func TestSettingsDiffer(t *testing.T) {
	db := storetest.New(t)
	cfg := settings(t, engineURL(t))
	_, x := open(t, cfg, db)
	settle(t, x)
	other := cfg
	other.Groups = 3
	_, y := open(t, other, db)
	if _, err := y.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "same on all nodes") {
		t.Errorf("got %v", err)
	}
}

// A document that the engine refuses holds up nobody, is counted, and is tried
// again; what is too much at a time comes later.
func TestPoison(t *testing.T) {
	backend := engineURL(t)
	var mu sync.Mutex
	refuse, busy := true, 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		bulk, at := strings.Contains(r.URL.Path, "_bulk"), -1
		if bulk && busy > 0 {
			busy--
			mu.Unlock()
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if bulk && refuse { // the document does not get through; the answer says why
			var kept []string
			lines := strings.Split(string(body), "\n")
			for i, n := 0, 0; i < len(lines)-1; i, n = i+2, n+1 { // there are no deletions here
				if strings.Contains(lines[i], "auth0|0666") {
					at = n
					continue
				}
				kept = append(kept, lines[i], lines[i+1])
			}
			body = []byte(strings.Join(kept, "\n") + "\n")
		}
		mu.Unlock()
		req, _ := http.NewRequestWithContext(r.Context(), r.Method, backend+r.URL.RequestURI(), bytes.NewReader(body))
		if kind := r.Header.Get("Content-Type"); kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		if at >= 0 {
			var answer struct {
				Items []json.RawMessage `json:"items"`
			}
			_ = json.Unmarshal(raw, &answer)
			answer.Items = slices.Insert(answer.Items, at, json.RawMessage(`{"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"on purpose"}}}`))
			raw, _ = json.Marshal(answer)
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(raw)
	}))
	defer proxy.Close()
	db := storetest.New(t)
	cfg := settings(t, backend)
	cfg.URLs = []string{proxy.URL}
	d, x := open(t, cfg, db)
	register(t, db, "a")
	settle(t, x)
	for i := range 5 {
		put(t, d, "a", 664+i, 0)
	}
	busy = 1
	if _, err := x.Step(t.Context()); !problem.Is(err, problem.Unavailable) {
		t.Errorf("too much at a time: %v", err)
	}
	for _, g := range x.groups {
		g.again = time.Time{}
	}
	if _, err := x.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := x.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query1(t, d, "a", "user_metadata.tag:r0"); got.Total != 4 {
		t.Errorf("%d users are found beside the one that is refused", got.Total)
	}
	st, err := x.Status(t.Context())
	if err != nil || st.Failed != 1 || st.Queued != 1 || st.Lag != 0 || !strings.Contains(st.Example, "auth0|0666") || !strings.Contains(st.Example, "on purpose") || !engineVersion.MatchString(st.Engine) {
		t.Errorf("%+v, %v", st, err)
	}
	if st.Documents["users"] != 4 || len(st.Groups) != 2 || !st.Groups[0].Live || st.Groups[0].Node != "test" {
		t.Errorf("%+v", st)
	}
	// It is not due before its time, and then it is tried again.
	if busy, err := x.Step(t.Context()); busy || err != nil {
		t.Errorf("busy is %v, %v", busy, err)
	}
	mu.Lock()
	refuse = false
	mu.Unlock()
	put(t, d, "a", 666, 1)
	page, err := db.Find(t.Context(), tenant.Authority, tenant.KindSearchQueue, tenant.Query{})
	if err != nil || len(page.Records) != 2 {
		t.Fatal(page, err)
	}
	err = db.Write(t.Context(), tenant.Authority, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindSearchQueue, page.Records[0].ID, func(e *tenant.Indexing) error { e.DueAt = time.Now().Add(-time.Second); return nil })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	settle(t, x)
	same(t, d, db, 2, "a")
}

// Without an answer of the engine the store answers what it has indexes for; the
// rest is told when to come again, and nobody waits for the engine twice.
func TestSearchIsDown(t *testing.T) {
	db := storetest.New(t)
	cfg := Default()
	asked := 0
	dead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked++; w.WriteHeader(http.StatusServiceUnavailable) }))
	defer dead.Close()
	cfg.URLs = []string{dead.URL}
	d, x := open(t, cfg, db)
	put(t, d, "a", 1, 0)
	put(t, d, "a", 2, 0)
	for q, want := range map[string]int{`email:"USER1@example.com"`: 1, `name:"User 2" AND user_metadata.rev:0`: 1, `user_id:"auth0|0001" OR email:user2@example.com`: 2} {
		if got := query1(t, d, "a", q); got.Total != want {
			t.Errorf("%s: %d users, want %d", q, got.Total, want)
		}
	}
	parsed, err := search.Parse("user_metadata.tag:r0")
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Search: parsed})
	if p := problem.From(err); p.Kind != problem.Unavailable || p.Code != "search_unavailable" || p.RetryAfter == 0 {
		t.Errorf("got %v", err)
	}
	if asked != 1 {
		t.Errorf("the engine was asked %d times within moments, want once", asked)
	}
	if _, err := d.Get(t.Context(), "a", tenant.KindUser, "auth0|0001"); err != nil {
		t.Errorf("a document by its id: %v", err)
	}
	if page, err := d.Find(t.Context(), "a", tenant.KindUser, tenant.Query{Total: true}); err != nil || page.Total != 2 {
		t.Errorf("a list without a query: %d, %v", page.Total, err)
	}
	if _, err := x.Step(t.Context()); !problem.Is(err, problem.Unavailable) {
		t.Errorf("a step: %v", err)
	}
	st, err := x.Status(t.Context())
	if err != nil || st.Queued != 2 || st.Down == "" || st.Engine != "" {
		t.Errorf("%+v, %v", st, err)
	}
}

// Where no search engine is configured, nothing is written for one.
func TestNoQueueWithoutAnEngine(t *testing.T) {
	db := storetest.New(t)
	put(t, db, "a", 1, 0)
	remove(t, db, "a", 1)
	page, err := db.Find(t.Context(), tenant.Authority, tenant.KindSearchQueue, tenant.Query{Total: true})
	if err != nil || page.Total != 0 {
		t.Errorf("%d entries, %v", page.Total, err)
	}
}

// An entry is there exactly when its write is.
func TestTheQueueIsWrittenWithTheDocument(t *testing.T) {
	stores(t, func(t *testing.T, db *store.Store) {
		db.Index(true)
		broken := errors.New("broken on purpose")
		err := db.Write(t.Context(), "a", func(tx tenant.Tx) error {
			if err := tx.Insert(tenant.KindUser, "u", user(1, 0)); err != nil {
				return err
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		queue := func() (out []string) {
			all, _, err := tenant.Find[tenant.Indexing](t.Context(), db, tenant.Authority, tenant.KindSearchQueue, tenant.Query{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				out = append(out, fmt.Sprint(e.Tenant, " ", e.Kind, " ", e.ID))
			}
			slices.Sort(out)
			return out
		}
		if q := queue(); q != nil {
			t.Errorf("half of a failed write is in the queue: %v", q)
		}
		err = db.Write(t.Context(), "a", func(tx tenant.Tx) error {
			if err := tx.Insert(tenant.KindUser, "u1", user(1, 0)); err != nil {
				return err
			}
			if err := tx.Insert(tenant.KindUser, "u2", user(2, 0)); err != nil {
				return err
			}
			if err := tx.Insert(tenant.KindLog, "l1", []byte(`{}`)); err != nil {
				return err
			}
			if err := tx.Insert(tenant.KindRole, "r1", []byte(`{}`)); err != nil {
				return err
			}
			if there, err := tx.Delete(tenant.KindUser, "nobody"); there || err != nil {
				return fmt.Errorf("deleted nobody: %v, %w", there, err)
			}
			n, err := tx.DeleteWhere(tenant.KindUser, []tenant.Cond{{Column: "email", Op: tenant.In, Value: []string{"user1@example.com", "user2@example.com"}}})
			if n != 2 {
				t.Errorf("%d users were deleted, want 2", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := queue(), []string{"a logs l1", "a users u1", "a users u1", "a users u2", "a users u2"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
