package control

import (
	"context"
	"maps"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Settings are what every node of the cluster works with, beside its own
// configuration. They are pushed by their version: a node reads them with its next
// heartbeat, applies them, and says so with the one after.
type Settings struct {
	Version int64             `json:"version"`
	Values  map[string]string `json:"values"`
	// Sequential lets one node after the other apply a version, in the order of their
	// ids, each when those before it have.
	Sequential bool      `json:"sequential,omitempty"`
	ChangedAt  time.Time `json:"changed_at"`
}

// Settings are the cluster's settings; version 0 means that none were made.
func (s *Service) Settings(ctx context.Context) (*Settings, error) {
	v, err := tenant.Get[Settings](ctx, s.Docs, tenant.Authority, tenant.KindCluster, settingsID)
	if problem.Is(err, problem.NotFound) {
		return &Settings{Values: map[string]string{}}, nil
	}
	return v, err
}

// SetSettings changes settings; an empty value takes one back. It returns the new
// version. check judges the values as every node will.
func (s *Service) SetSettings(ctx context.Context, values map[string]string, sequential bool, check func(map[string]string) error) (int64, error) {
	var version int64
	err := s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		v, err := tenant.Load[Settings](tx, tenant.KindCluster, settingsID)
		if problem.Is(err, problem.NotFound) {
			v = &Settings{}
		} else if err != nil {
			return err
		}
		next := map[string]string{}
		maps.Copy(next, v.Values)
		for k, value := range values {
			next[k] = value
			if value == "" {
				delete(next, k)
			}
		}
		if err := check(next); err != nil {
			return err
		}
		v.Version++
		v.Values, v.Sequential, v.ChangedAt = next, sequential, tx.Now()
		version = v.Version
		return tenant.Set(tx, tenant.KindCluster, settingsID, v)
	})
	return version, err
}

// applySettings applies a version that is new and whose turn it is on this node.
func (s *Service) applySettings(ctx context.Context) error {
	v, err := s.Settings(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	done := v.Version <= s.applied
	wait := false
	for _, m := range s.members {
		if v.Sequential && m.State != Removed && m.ID < s.id.ID && m.Settings < v.Version && sightOf(time.Since(s.beats[m.ID].at)) != Down {
			wait = true
		}
	}
	s.mu.Unlock()
	if done || wait {
		return nil
	}
	if err := s.Apply(v.Values); err != nil {
		return err
	}
	s.mu.Lock()
	s.applied = v.Version
	s.mu.Unlock()
	s.Logger.InfoContext(ctx, "the cluster's settings are in effect", "version", v.Version)
	return nil
}
