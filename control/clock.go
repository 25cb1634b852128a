package control

import (
	"math"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// maxSkew is how far a node's clock may be from those of most others. Tokens carry
// times that other nodes, and applications, compare with their own.
const maxSkew = 10 * time.Second

// ClockFault says that this node's clock is wrong: more than half of the cluster's
// nodes, and with them most of those that answer, have it on the same side, beyond
// what the measurement may err. It is nil where that cannot be told, as with two
// nodes.
func (s *Service) ClockFault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := 1 // this node
	ahead, behind := 0, 0
	most := 0.0
	for id, skew := range s.skews {
		if now.Sub(s.answers[id].at) >= suspectAfter {
			continue
		}
		all++
		switch limit := ms(maxSkew); {
		case -skew.Offset-skew.Bound > limit:
			ahead++
		case skew.Offset-skew.Bound > limit:
			behind++
		default:
			continue
		}
		most = max(most, math.Abs(skew.Offset))
	}
	apart, word := ahead, "ahead of"
	if behind > ahead {
		apart, word = behind, "behind"
	}
	if apart*2 <= all {
		return nil
	}
	return problem.New(problem.Unavailable, "clock_apart", "this node's clock is %.1f s %s those of %d of the cluster's %d nodes that answer; allowed are %v: set it right (chrony, systemd-timesyncd)",
		most/1000, word, apart, all, maxSkew)
}
