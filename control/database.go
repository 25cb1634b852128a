package control

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/web"
)

// databaseTime bounds the question to another node, and its look at the database.
// Who asks wants to tell a load balancer, which waits for 750 ms.
const databaseTime = 250 * time.Millisecond

// backFor is how long another node has had the database again before this one, which
// looks for it five times a second, counts as cut off.
const backFor = time.Second

// elsewhere is what the other nodes said last of the database. Strangers may make a
// node ask (/testall): one question at a time, and its answer counts as long as it
// took at most.
type elsewhere struct {
	mu    sync.Mutex
	asked time.Time
	most  time.Duration // for how long one has had the database; 0: none has
}

// reach says for how long a node has had the database without an outage; 0: it has
// not.
type reach struct {
	Milliseconds int64 `json:"for_ms"`
}

// DatabaseElsewhere reports whether another node that takes requests reaches the
// database at this moment, which this one has not reached for a time: it has had it
// all the while, or for a second. A node that does not answer within 250 ms counts as
// one that does not.
func (s *Service) DatabaseElsewhere(ctx context.Context, away time.Duration) bool {
	s.elsewhere.mu.Lock()
	defer s.elsewhere.mu.Unlock()
	if time.Since(s.elsewhere.asked) >= databaseTime {
		s.elsewhere.most = s.askDatabase(context.WithoutCancel(ctx))
		s.elsewhere.asked = time.Now()
	}
	return s.elsewhere.most > 0 && s.elsewhere.most >= min(away, backFor)
}

// askDatabase asks all others, and returns the longest time for which one has had the
// database.
func (s *Service) askDatabase(ctx context.Context) (most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	s.mu.Lock()
	var others []*peer
	for _, m := range s.members {
		if p := s.peers[m.ID]; p != nil && m.State == Active {
			others = append(others, p)
		}
	}
	s.mu.Unlock()
	reached := make(chan time.Duration, len(others))
	for _, p := range others {
		go func() {
			var r reach
			_ = call(ctx, p.http, http.MethodGet, p.address, "/v1/database", nil, &r) // no answer is none that helps
			reached <- time.Duration(r.Milliseconds) * time.Millisecond
		}()
	}
	for range others {
		if most = max(most, <-reached); most >= backFor {
			break
		}
	}
	return most
}

// serveDatabase tells another node whether this one reaches the database.
func (s *Service) serveDatabase(w http.ResponseWriter, r *http.Request, _ *Member) error {
	ctx, cancel := context.WithTimeout(r.Context(), databaseTime)
	defer cancel()
	there, err := s.Database(ctx)
	if err != nil {
		return web.JSON(w, http.StatusOK, reach{})
	}
	return web.JSON(w, http.StatusOK, reach{max(1, there.Milliseconds())})
}
