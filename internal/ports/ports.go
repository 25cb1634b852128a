// Package ports finds free ports for tests that have to name them before they are
// opened, such as in a node's configuration.
package ports

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// The range that is searched lies below the one that the system gives to outgoing
// connections and to listeners on port 0: nothing takes a port of it by chance
// between the look and the use.
const (
	lowest  = 10240
	highest = 32767
)

// Free returns a port of the loopback that nobody listens on at this moment.
func Free() (int, error) {
	for range 100 {
		p := lowest + rand.IntN(highest-lowest+1) // #nosec G404 -- so that tests at the same time look elsewhere
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			continue
		}
		return p, l.Close()
	}
	return 0, errors.New("no port is free in 100 tries")
}
