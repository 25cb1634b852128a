package control

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Settings are what every node of the cluster works with, above its own
// configuration. A node sees a new version with its next heartbeat, drains, starts
// again with it, and says so with its first heartbeat after.
type Settings struct {
	Version int64             `json:"version"`
	Values  map[string]string `json:"values"`
	// Secret holds the values that are secrets, as a JSON object; the store seals it.
	Secret string `json:"secret,omitempty"`
	// Sequential lets one node after the other apply a version, in the order of their
	// ids, each when those before it have. A node that does not come back with it stops
	// the others from trying.
	Sequential bool      `json:"sequential,omitempty"`
	ChangedAt  time.Time `json:"changed_at"`
}

// LoadSettings reads the cluster's settings; version 0 means that none were made.
func LoadSettings(ctx context.Context, docs tenant.Docs) (*Settings, error) {
	v, err := tenant.Get[Settings](ctx, docs, tenant.Authority, tenant.KindCluster, settingsID)
	if problem.Is(err, problem.NotFound) {
		return &Settings{Values: map[string]string{}}, nil
	}
	return v, err
}

// All are the values, secrets among them.
func (v *Settings) All() (map[string]string, error) {
	all := maps.Clone(v.Values)
	if v.Secret != "" {
		if err := json.Unmarshal([]byte(v.Secret), &all); err != nil {
			return nil, fmt.Errorf("read the cluster's settings: %w", err)
		}
	}
	return all, nil
}

// keep takes over values, those of the secret keys apart.
func (v *Settings) keep(all map[string]string, secret []string) error {
	v.Values, v.Secret = map[string]string{}, ""
	hidden := map[string]string{}
	for k, value := range all {
		if slices.Contains(secret, k) {
			hidden[k] = value
		} else {
			v.Values[k] = value
		}
	}
	if len(hidden) == 0 {
		return nil
	}
	raw, err := json.Marshal(hidden)
	v.Secret = string(raw)
	return err
}

// SetSettings changes settings; an empty value takes one back. It returns the new
// version. secret lists the keys of secrets; check judges the values as every node will.
func (s *Service) SetSettings(ctx context.Context, values map[string]string, secret []string, sequential bool, check func(map[string]string) error) (int64, error) {
	var version int64
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		v, err := tenant.Load[Settings](tx, tenant.KindCluster, settingsID)
		if problem.Is(err, problem.NotFound) {
			v = &Settings{Values: map[string]string{}}
		} else if err != nil {
			return err
		}
		next, err := v.All()
		if err != nil {
			return err
		}
		for k, value := range values {
			next[k] = value
			if value == "" {
				delete(next, k)
			}
		}
		if err := check(next); err != nil {
			return err
		}
		if err := v.keep(next, secret); err != nil {
			return err
		}
		v.Version++
		v.Sequential, v.ChangedAt = sequential, tx.Now()
		version = v.Version
		return tenant.Set(tx, tenant.KindCluster, settingsID, v)
	})
	return version, err
}

// followSettings starts this node again when there are newer settings and it is its
// turn.
func (s *Service) followSettings(ctx context.Context) error {
	v, err := LoadSettings(ctx, s.Docs)
	if err != nil || v.Version <= s.Deps.Settings {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.Sequential && slices.ContainsFunc(s.members, func(m Member) bool { return m.ID < s.id.ID && s.holdsUp(m, v) }) {
		return nil
	}
	s.Stop(ErrRestart)
	return nil
}

// holdsUp reports whether a node that is to apply a version before this one has not
// yet. One that was down before the version was made holds up nobody; one that has
// gone down since does: the version may be why. The caller holds s.mu.
func (s *Service) holdsUp(m Member, v *Settings) bool {
	if m.Settings >= v.Version {
		return false
	}
	return sightOf(time.Since(s.beats[m.ID].at)) != Down || m.SeenAt.After(v.ChangedAt.Add(-downAfter))
}
