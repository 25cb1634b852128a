package preflight

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/sockets"
)

// Evidence is what a host knows of its own side.
type Evidence struct {
	At        time.Time        `json:"at"`
	Listens   []Listener       `json:"listens,omitempty"`
	Firewall  *hostfw.Firewall `json:"firewall,omitempty"`
	Bound     []Bound          `json:"bound,omitempty"`
	Strangers int64            `json:"strangers,omitempty"` // messages and connections of others that were dropped
	Unknown   []string         `json:"unknown,omitempty"`   // what could not be found out, and why
	// HalfOpen are connections whose first packet came here and whose answer got no
	// answer.
	HalfOpen []HalfOpen `json:"half_open,omitempty"`
}

// HalfOpen is a connection that was asked for and never made.
type HalfOpen struct {
	From netip.Addr `json:"from"`
	Port int        `json:"port"`
}

// maxHalfOpen bounds what is told of them: a flood makes many.
const maxHalfOpen = 1024

// halfOpen reports whether packets of a host to a port arrive there.
func (e *Evidence) halfOpen(from []netip.Addr, port int) bool {
	return e != nil && slices.ContainsFunc(e.HalfOpen, func(h HalfOpen) bool { return h.Port == port && slices.Contains(from, h.From) })
}

// Listener is a port that somebody listens on.
type Listener struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	Port     int    `json:"port"`
	Program  string `json:"program,omitempty"`
}

// gatherer looks at this host, once for all who ask within a moment: many do at the
// same time, and who holds which socket takes a walk over all processes.
type gatherer struct {
	mu   sync.Mutex
	last *Evidence
}

const gatherEvery = 500 * time.Millisecond

func (g *gatherer) gather(context.Context) *Evidence {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil || time.Since(g.last.At) > gatherEvery {
		g.last = gather()
	}
	fresh := *g.last // the caller adds to it
	return &fresh
}

// gather looks at this host.
func gather() *Evidence {
	e := &Evidence{At: time.Now()}
	all, err := sockets.List()
	if err != nil {
		e.Unknown = append(e.Unknown, err.Error())
	}
	programs := sockets.Programs()
	for _, s := range all {
		if s.Listening {
			e.Listens = append(e.Listens, Listener{s.Protocol, s.Local.Addr().String(), int(s.Local.Port()), programs[s.Inode].Name})
		}
		if h := (HalfOpen{s.Remote.Addr(), int(s.Local.Port())}); s.HalfOpen && len(e.HalfOpen) < maxHalfOpen && !slices.Contains(e.HalfOpen, h) {
			e.HalfOpen = append(e.HalfOpen, h)
		}
	}
	if e.Firewall, err = hostfw.Read(); err != nil {
		e.Firewall = nil
		if errors.Is(err, hostfw.ErrNotAllowed) {
			err = errors.New("its firewall could not be read: preflight ran without CAP_NET_ADMIN there")
		}
		e.Unknown = append(e.Unknown, err.Error())
	}
	return e
}

// program is who listens on a port, "" for nobody.
func (e *Evidence) program(protocol string, port int) (string, bool) {
	if e == nil {
		return "", false
	}
	i := slices.IndexFunc(e.Listens, func(l Listener) bool { return l.Protocol == protocol && l.Port == port })
	if i < 0 {
		return "", false
	}
	return e.Listens[i].Program, true
}
