package searchindex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// retryAfter is what callers are told while the search engine is away.
const retryAfter = 10 * time.Second

// engine speaks the REST API that OpenSearch and Elasticsearch share.
type engine struct {
	urls     []string
	client   *http.Client
	user     string
	password string
	first    atomic.Int64 // the URL that answered last
}

// refusal is an answer of the engine that is no success.
type refusal struct {
	status int
	kind   string // such as index_not_found_exception
	reason string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the search engine answered %d: %s: %s", r.status, r.kind, r.reason)
}

// noIndex reports whether an index or alias is not there.
func noIndex(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == http.StatusNotFound
}

// tooDeep reports whether the engine has refused a query because it nests too deeply.
func tooDeep(err error, body dsl) bool {
	var r *refusal
	whole, _ := body["query"].(dsl)
	return errors.As(err, &r) && r.status == http.StatusBadRequest && levels(whole) > maxLevels
}

func unavailable(err error) error {
	p := problem.Wrap(problem.Unavailable, "search_unavailable", err, "Search is not available at this moment; try again later")
	p.RetryAfter = retryAfter
	return p
}

// do sends one request, to the next URL where one does not answer. Every request
// here may be sent twice. Errors are a *refusal, or problem.Unavailable.
func (e *engine) do(ctx context.Context, method, path string, body []byte, into any) error {
	start := e.first.Load()
	var last error
	for i := range int64(len(e.urls)) {
		at := (start + i) % int64(len(e.urls))
		err := e.send(ctx, method, e.urls[at]+path, body, into)
		if err == nil || !problem.Is(err, problem.Unavailable) {
			e.first.Store(at)
			return err
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	return last
}

func (e *engine) send(ctx context.Context, method, url string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
		if strings.Contains(url, "/_bulk") {
			req.Header.Set("Content-Type", "application/x-ndjson")
		}
	}
	if e.user != "" {
		req.SetBasicAuth(e.user, e.password)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return unavailable(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return unavailable(fmt.Errorf("read the search engine's answer: %w", err))
	}
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return unavailable(fmt.Errorf("the search engine refuses this node (%d): look at search.username and search.password, and at the user's rights", s))
	case s == http.StatusTooManyRequests, s >= 500:
		return unavailable(refused(s, raw))
	case s >= 300:
		return refused(s, raw)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return unavailable(fmt.Errorf("the search engine's answer cannot be read: %w", err))
	}
	return nil
}

func refused(status int, raw []byte) *refusal {
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	var detail struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	}
	r := &refusal{status: status, kind: http.StatusText(status)}
	if json.Unmarshal(raw, &body) == nil && json.Unmarshal(body.Error, &detail) == nil {
		r.kind, r.reason = detail.Type, detail.Reason
	}
	return r
}
