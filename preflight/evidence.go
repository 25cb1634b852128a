package preflight

import (
	"context"
	"errors"
	"slices"
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
}

// Listener is a port that somebody listens on.
type Listener struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	Port     int    `json:"port"`
	Program  string `json:"program,omitempty"`
}

// gather looks at this host.
func gather(context.Context) *Evidence {
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
