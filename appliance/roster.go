package appliance

import (
	"context"
	"errors"
	"maps"
	"sync"
)

// roster knows which of the rooms that work in the background are at work: the
// answer of the health check "services".
type roster struct {
	mu    sync.Mutex
	rooms map[string]error
}

var errEnded = errors.New("it has ended")

// watch notes that a room begins now, and how it ends.
func (r *roster) watch(name string, run func() error) func() error {
	r.set(name, nil)
	return func() error {
		err := run()
		if err == nil {
			r.set(name, errEnded)
		} else {
			r.set(name, err)
		}
		return err
	}
}

func (r *roster) set(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rooms == nil {
		r.rooms = map[string]error{}
	}
	r.rooms[name] = err
}

func (r *roster) status(context.Context) map[string]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.rooms)
}
