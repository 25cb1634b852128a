package health

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
)

// User is the name that goes with the key.
const User = "api_keys_health"

// statusWarning is what the status paths say when a check fails. It has no
// registered meaning; the appliance always answered so.
const statusWarning = 520

// Handler is everything that the health listener answers: the status paths,
// details, /livez, /readyz, and metrics with the key at /metrics (nil for none).
func (s *Service) Handler(metrics http.Handler) http.Handler {
	mux := s.statusMux()
	mux.HandleFunc("/livez", s.livez)
	mux.HandleFunc("/readyz", s.readyz)
	if metrics != nil {
		mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
			if s.permit(w, r) {
				metrics.ServeHTTP(w, r)
			}
		})
	}
	return mux
}

// StatusHandler answers the status and detail paths alone. The main listener has
// it below /health, with http.StripPrefix("/health", …).
func (s *Service) StatusHandler() http.Handler { return s.statusMux() }

func (s *Service) statusMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/status/", s.status)
	mux.HandleFunc("/detail", s.detail)
	mux.HandleFunc("/detail/", s.detail)
	return mux
}

// permit lets GET and HEAD with the key pass, and answers all else, without a
// body.
func (s *Service) permit(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Cache-Control", "no-store")
	user, password, ok := r.BasicAuth()
	key := *s.key.Load()
	// Digests have one length, so that the time tells nothing of the key's.
	u, wantU := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(User))
	p, wantP := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(key))
	same := subtle.ConstantTimeCompare(u[:], wantU[:]) & subtle.ConstantTimeCompare(p[:], wantP[:])
	if !ok || key == "" || same != 1 {
		w.Header().Set("WWW-Authenticate", `Basic realm="health", charset="UTF-8"`)
		w.WriteHeader(http.StatusUnauthorized)
		return false
	}
	return readOnly(w, r)
}

func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return false
	}
	return true
}

// within counts a request that has the key: strangers cannot use up what the
// monitoring has.
func (s *Service) within(w http.ResponseWriter) bool {
	if s.limit.take(s.now()) {
		return true
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
	return false
}

func (s *Service) status(w http.ResponseWriter, r *http.Request) {
	if !s.permit(w, r) || !s.within(w) {
		return
	}
	rep, ok := s.Check(r.Context(), strings.TrimPrefix(r.URL.Path, "/status/"))
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case rep.OK:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(statusWarning)
	}
}

func (s *Service) detail(w http.ResponseWriter, r *http.Request) {
	if !s.permit(w, r) || !s.within(w) {
		return
	}
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/detail"), "/")
	if name != "" {
		rep, ok := s.Check(r.Context(), name)
		if !ok {
			writeJSON(w, http.StatusNotFound, map[string]any{"error": "no such check", "allowed": s.names()})
			return
		}
		writeJSON(w, http.StatusOK, rep)
		return
	}
	all := s.All(r.Context())
	ok := true
	for _, rep := range all {
		ok = ok && rep.OK
	}
	writeJSON(w, http.StatusOK, struct {
		OK     bool     `json:"ok"`
		Checks []Report `json:"checks"`
	}{ok, all})
}

func (s *Service) names() []string {
	out := make([]string, len(s.checks))
	for i, r := range s.checks {
		out[i] = r.check.Name
	}
	return out
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nothing is left to say
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// livez says that the process answers, and nothing more: a restart would mend
// nothing that a check can find.
func (s *Service) livez(w http.ResponseWriter, r *http.Request) {
	if readOnly(w, r) {
		writeText(w, http.StatusOK, "OK")
	}
}

func (s *Service) readyz(w http.ResponseWriter, r *http.Request) {
	if readOnly(w, r) {
		s.writeReady(w, r, http.StatusServiceUnavailable)
	}
}

// TestAllHandler is GET /testall of the main listener, for load balancers: 200
// and OK, 503 and the names of what fails, one a line, or 404 while the node
// drains. A balancer that tells them apart may end what runs on a node that is not
// well, and leave to its end what runs on one that is well and leaves. It asks for
// no key.
func (s *Service) TestAllHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if readOnly(w, r) {
			s.writeReady(w, r, http.StatusNotFound)
		}
	})
}

// writeReady names failing checks and no more, as anybody may ask. A node that
// drains answers with a status of its own.
func (s *Service) writeReady(w http.ResponseWriter, r *http.Request, drains int) {
	if s.cfg.Draining != nil && s.cfg.Draining() {
		writeText(w, drains, "draining")
		return
	}
	bad := s.Ready(r.Context())
	if len(bad) == 0 {
		writeText(w, http.StatusOK, "OK")
		return
	}
	names := make([]string, len(bad))
	for i, rep := range bad {
		names[i] = rep.Name
	}
	writeText(w, http.StatusServiceUnavailable, strings.Join(names, "\n"))
}
