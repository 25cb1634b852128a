package control

import (
	"regexp"
	"time"
)

// State is what a member is meant to do.
type State string

// The states.
const (
	Active   State = "active"
	Draining State = "draining" // it finishes what it has, and tells the load balancer
)

var (
	idForm   = regexp.MustCompile(`^node_[A-Za-z0-9]{16}$`)
	nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)
)

// Member is a node of the cluster as the database has it.
type Member struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Version string `json:"version"` // of the program
	State   State  `json:"state"`
	// Beat counts heartbeats: others see by their own clocks that it goes on.
	Beat     int64     `json:"beat"`
	SeenAt   time.Time `json:"seen_at"` // by the node's own clock
	JoinedAt time.Time `json:"joined_at"`
	// Certificates are the serial numbers, in hexadecimal, that are believed: that of
	// the certificate in use, and the one before or after it during a renewal.
	Certificates []string `json:"certificates"`
	// Settings is the version of the cluster's settings that the node works with.
	Settings int64 `json:"settings"`
	// Restarts counts how often somebody asked the node to start again. It does so when
	// the number grows.
	Restarts int64 `json:"restarts,omitempty"`
	// Ports are those of the node's other listeners between nodes, by row.
	Ports map[string]int `json:"ports,omitempty"`
}

// Sight is how a node sees another.
type Sight string

// The sights.
const (
	Unknown Sight = "unknown" // not heard of yet, and not asked for three seconds yet
	Up      Sight = "up"
	Suspect Sight = "suspect" // silent for three seconds
	Down    Sight = "down"    // silent for ten
)

const (
	beatEvery    = time.Second
	suspectAfter = 3 * time.Second
	downAfter    = 10 * time.Second
)

func sightOf(silence time.Duration) Sight {
	switch {
	case silence >= downAfter:
		return Down
	case silence >= suspectAfter:
		return Suspect
	}
	return Up
}

// networkSight is how a node is seen that has been asked since a time, and has last
// answered at another; zero where it has not.
func networkSight(now, since, answered time.Time) Sight {
	if !answered.IsZero() {
		return sightOf(now.Sub(answered))
	}
	if s := sightOf(now.Sub(since)); s != Up {
		return s
	}
	return Unknown
}

// View is a member with what one node knows of it.
type View struct {
	Member
	Leader bool `json:"leader"`
	Self   bool `json:"self"`
	// Database is whether its heartbeats arrive in the database, Network whether it
	// answers this node on row control.
	Database Sight `json:"database"`
	Network  Sight `json:"network"`
	// Skew is how far its clock is from this node's, in milliseconds, with the bound of
	// the error; nil when it has not answered.
	Skew *Skew `json:"skew,omitempty"`
}

// Skew is a difference of clocks, in milliseconds.
type Skew struct {
	Offset float64 `json:"offset_ms"`
	Bound  float64 `json:"bound_ms"`
}
