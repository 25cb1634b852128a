package ratelimit

import (
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

// Access says who may ask on row rate-limit.
type Access struct {
	// Node returns the id of the node that asks, by its certificate, or an error of kind
	// Unauthorized or Forbidden. With nil nobody is a node.
	Node func(r *http.Request) (id string, err error)
	// Token lets callers of Envoy's protocol in that have no certificate of the cluster:
	// they send it as a bearer token. Empty means that nobody comes in so.
	Token string
}

// Handler serves row rate-limit: the other nodes, and Envoy's rate limit protocol.
func (s *Service) Handler(a Access) http.Handler {
	render := func(w http.ResponseWriter, _ *http.Request, e *problem.Error) {
		_ = web.JSON(w, e.HTTPStatus(), map[string]string{"code": e.Code, "message": e.Message}) // who asked is gone
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+itemsPath, web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		from, err := a.node(r)
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAnswer))
		if err != nil {
			return err
		}
		items, err := decodeItems(raw)
		if err != nil {
			return problem.Wrap(problem.Invalid, "invalid_items", err, "The items cannot be read: %s", err)
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, err = w.Write(encodeVerdicts(s.handle(r.Context(), from, items)))
		return err
	}, render))
	mux.Handle("GET /v1/keys", web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		if _, err := a.node(r); err != nil {
			return err
		}
		keys, err := s.keys(r.URL.Query().Get("bucket"), r.URL.Query().Get("prefix"))
		if err != nil {
			return err
		}
		return web.JSON(w, http.StatusOK, keys)
	}, render))
	envoy := s.envoyServer(a)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			envoy.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

var _ http.Handler = (*grpc.Server)(nil)

func (a Access) node(r *http.Request) (string, error) {
	if a.Node == nil {
		return "", problem.New(problem.Forbidden, "no_cluster", "This node is not one of a cluster: it has no other nodes to answer.")
	}
	return a.Node(r)
}

// caller reports whether a request with Envoy's protocol is let in.
func (a Access) caller(r *http.Request, authorization []string) bool {
	if a.Token != "" && len(authorization) == 1 {
		if token, ok := strings.CutPrefix(authorization[0], "Bearer "); ok && subtle.ConstantTimeCompare([]byte(token), []byte(a.Token)) == 1 {
			return true
		}
	}
	if a.Node == nil || r == nil {
		return false
	}
	_, err := a.Node(r)
	return err == nil
}

// KeyState is one key that is not full, on the node that counts it.
type KeyState struct {
	Key       string `json:"key"`
	Limit     int64  `json:"limit"`
	Remaining int64  `json:"remaining"`
	// FullIn is in milliseconds; -1 where the bucket never fills by itself.
	FullIn int64  `json:"full_in_ms"`
	Node   string `json:"node,omitempty"`
}

// maxListed bounds how many keys one node lists.
const maxListed = 100

// keys lists what this node counts of a type, the emptiest buckets first.
func (s *Service) keys(bucket, prefix string) ([]KeyState, error) {
	k := s.cfg.Rules().types[bucket]
	if k == nil {
		return nil, problem.New(problem.NotFound, "no_such_bucket", "there is no bucket %q; `portcullis ratelimit ls` lists them", bucket)
	}
	now := s.mono()
	out := []KeyState{}
	for _, e := range s.table(bucket).list(prefix, now, maxListed) {
		l := k.limitOf(e.key, s.cfg.Now)
		if l.Unlimited {
			continue
		}
		c := e.fit(l, now)
		if c.full(now) == 0 {
			continue
		}
		full := c.full(now).Milliseconds()
		out = append(out, KeyState{Key: e.key, Limit: l.Size, Remaining: c.remaining(l, now), FullIn: max(-1, full), Node: s.self})
	}
	return out, nil
}

func decodeKeys(r io.Reader) ([]KeyState, error) {
	var out []KeyState
	return out, json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(&out)
}
