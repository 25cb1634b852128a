//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/internal/lab"
)

// searchPort is that of row search-http.
const searchPort = "9200"

// Search is the cluster's search engine: a real one, on the host of a node.
type Search struct {
	t       testing.TB
	host    *lab.Host
	program string
	dir     string
	client  *http.Client
	process *lab.Process
}

// RequireSearch skips the test where no search engine can be started.
func RequireSearch(t testing.TB) {
	t.Helper()
	if searchProgram() == "" {
		t.Skip("PORTCULLIS_TEST_OPENSEARCH_START is not set: `scripts/with-opensearch go test ./...` sets it")
	}
}

func searchProgram() string { return os.Getenv("PORTCULLIS_TEST_OPENSEARCH_START") }

func newSearch(t testing.TB, dir string, host *lab.Host) *Search {
	t.Helper()
	RequireSearch(t)
	s := &Search{t: t, host: host, program: searchProgram(), dir: filepath.Join(dir, "search")}
	s.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return host.Dial(ctx, "tcp4", address)
	}}}
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// URL is where the engine answers.
func (s *Search) URL() string {
	return "http://" + net.JoinHostPort(s.host.Addr4().String(), searchPort)
}

// Start starts the engine and waits until it answers.
func (s *Search) Start() {
	s.t.Helper()
	var err error
	if s.process, err = lab.Start(s.host.Command(context.Background(), s.program, s.dir, searchPort, s.host.Addr4().String()), s.dir+".log"); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(200 * time.Millisecond) {
		resp, err := s.client.Get(s.URL() + "/_cluster/health?wait_for_status=yellow&timeout=1s")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the search engine does not answer:\n%s", tail(s.dir+".log", 3000))
		}
	}
}

// Kill is kill -9.
func (s *Search) Kill() { s.process.Kill() }

// Pause stops the engine where it is; resume lets it go on.
func (s *Search) Pause() (resume func()) {
	s.t.Helper()
	resume, err := s.process.Pause()
	if err != nil {
		s.t.Fatal(err)
	}
	return resume
}

// searches asks what no index of the database answers: whether the search engine is
// there shows.
func (l *Load) searches(ctx context.Context) {
	began := l.Now()
	a, err := l.api(ctx, "GET", "/users?search_engine=v3&q="+url.QueryEscape("user_metadata.n:[1 TO *]"), nil, nil)
	var e struct {
		Code string `json:"errorCode"`
	}
	_ = json.Unmarshal(a.body, &e) // what is no error has no code
	l.finish(Op{Kind: Searched}, began, a, err == nil, a.status == http.StatusServiceUnavailable && e.Code == "search_unavailable")
}

// Found waits until a query finds all users whose making was acknowledged, and
// returns for how long.
func (l *Load) Found(c *Cluster) time.Duration {
	c.t.Helper()
	began := time.Now()
	made := map[string]bool{}
	for _, op := range l.Ops() {
		if op.Kind == Create && op.Outcome == OK {
			made[op.Key] = true
		}
	}
	c.Eventually("every user that was made is found", func() error {
		missing := len(made)
		for page := 0; ; page++ {
			var found []struct{ Email string }
			path := fmt.Sprintf("/users?search_engine=v3&per_page=100&page=%d&q=%s", page, url.QueryEscape("email:"+l.round+"-*"))
			if _, err := l.api(c.t.Context(), "GET", path, nil, &found); err != nil {
				return err
			}
			for _, u := range found {
				if made[u.Email] {
					missing--
				}
			}
			if len(found) < 100 {
				break
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are not found", missing, len(made))
		}
		return nil
	})
	return time.Since(began)
}

// Rebuild builds the search index anew, as an operator does, and returns when
// searches go to the new one.
func (s *Search) Rebuild(c *Cluster) {
	s.t.Helper()
	c.Nodes[0].must("search", "rebuild", "--data", c.Nodes[0].Data)
}

// Live waits until searches go to the index.
func (s *Search) Live(c *Cluster) {
	s.t.Helper()
	c.Eventually("the search index is complete", func() error {
		st, err := client.NewLocal(c.Nodes[0].Data).Search(s.t.Context())
		if err != nil {
			return err
		}
		for _, g := range st.Groups {
			if !g.Live {
				return fmt.Errorf("group %d is not", g.Group)
			}
		}
		return nil
	})
}
