package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// How a node that is in no cluster shows that it is there. Another waits for three of
// its renewals before it takes it for dead.
const (
	aloneEvery = 2 * time.Second
	aloneLook  = 500 * time.Millisecond
)

// homeFile has the id of a data folder, which a node knows its own claim by after it
// has ended without a word.
const homeFile = "node-id"

// Alone is a node's claim to a database in which no cluster is. Two such nodes would
// answer from caches of which the other knows nothing: a secret that was changed at
// one would go on working at the other.
type Alone struct {
	Docs   tenant.Docs
	Logger *slog.Logger
	Data   string // the data folder
	Host   string // for people
	// Site is the node's own of two. Which of them works with a database is decided
	// elsewhere: a claim of another site is void.
	Site string

	home string // the data folder's id
	run  string // this process
}

// aloneDoc is the claim as the store keeps it.
type aloneDoc struct {
	Home     string `json:"home"`
	Run      string `json:"run"`
	Host     string `json:"host"`
	Site     string `json:"site,omitempty"`
	Renewals int64  `json:"renewals"`
}

// Claim makes the claim. Where a process has ended without giving its own up, this
// takes six seconds, and none in the same data folder. The error is
// problem.Unavailable, "database_in_use", when another node is there.
func (a *Alone) Claim(ctx context.Context) error { return a.claim(ctx, waitFor) }

func (a *Alone) claim(ctx context.Context, wait time.Duration) error {
	var err error
	if a.home, err = homeOf(a.Data); err != nil {
		return err
	}
	a.run = tenant.RandomString(16)
	var seen aloneDoc
	since := time.Now()
	for {
		began := time.Now()
		var there aloneDoc
		mine := false
		err := a.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
			doc, err := tenant.Load[aloneDoc](tx, tenant.KindCluster, aloneID)
			if problem.Is(err, problem.NotFound) {
				doc = &aloneDoc{Home: a.home}
			} else if err != nil {
				return err
			}
			there = *doc
			mine = there.Home == a.home || there.Site != a.Site || there == seen && began.Sub(since) >= wait
			if !mine {
				return nil
			}
			return tenant.Set(tx, tenant.KindCluster, aloneID, &aloneDoc{Home: a.home, Run: a.run, Host: a.Host, Site: a.Site})
		})
		if err != nil || mine {
			return err
		}
		switch {
		case seen == aloneDoc{}:
			seen, since = there, time.Now()
			a.Logger.WarnContext(ctx, "another node has worked with this database and did not say that it ends; looking whether it is still there", "host", there.Host, "longest", wait.String())
		case there != seen:
			return inUse(there.Host)
		case time.Since(began) > time.Second: // the database was away, for the other as well
			since = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(aloneLook):
		}
	}
}

func inUse(host string) error {
	return problem.New(problem.Unavailable, "database_in_use", "a node on %s works with this database, and is in no cluster: two such nodes would not notice what the other changes. Stop it first; for several nodes make a cluster with `portcullis cluster init`, and let the others join it", host)
}

// Keep shows that the node is there until ctx ends, and then gives the claim up. It
// ends the node when another one has taken the database, or there is a cluster in it.
func (a *Alone) Keep(ctx context.Context, stop func(reason error)) error {
	tick := time.NewTicker(aloneEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := a.release(last); err != nil {
				a.Logger.WarnContext(ctx, "this node's claim to the database stays; its next start on another host takes six seconds", "error", err)
			}
			return nil
		case <-tick.C:
		}
		lost, err := a.renew(ctx)
		if lost != nil {
			stop(lost)
			return nil
		}
		if err != nil && ctx.Err() == nil && !failing {
			a.Logger.WarnContext(ctx, "this node could not show in the database that it is there", "error", err)
		}
		failing = err != nil
	}
}

// renew shows that the node is there. lost is the reason why it may not work with the
// database any more.
func (a *Alone) renew(ctx context.Context) (lost, err error) {
	err = a.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		_, err := tx.Get(tenant.KindCluster, authorityID)
		if err == nil {
			lost = problem.New(problem.Unavailable, "not_a_member", "the database belongs to a cluster since a moment ago, of which this node is none: make a token on one of its nodes with `portcullis cluster token`, and join with `portcullis join TOKEN`")
			return nil
		}
		if !problem.Is(err, problem.NotFound) {
			return err
		}
		doc, err := tenant.Load[aloneDoc](tx, tenant.KindCluster, aloneID)
		if problem.Is(err, problem.NotFound) {
			doc, err = &aloneDoc{}, nil // somebody has put another state of the database in place
		}
		if err != nil {
			return err
		}
		if doc.Run != a.run && doc.Run != "" {
			lost = inUse(doc.Host)
			return nil
		}
		*doc = aloneDoc{Home: a.home, Run: a.run, Host: a.Host, Site: a.Site, Renewals: doc.Renewals + 1}
		return tenant.Set(tx, tenant.KindCluster, aloneID, doc)
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
}

// release gives the claim up, so that nobody waits for it.
func (a *Alone) release(ctx context.Context) error {
	return a.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		doc, err := tenant.Load[aloneDoc](tx, tenant.KindCluster, aloneID)
		if problem.Is(err, problem.NotFound) || err == nil && doc.Run != a.run {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = tx.Delete(tenant.KindCluster, aloneID)
		return err
	})
}

// homeOf reads the id of a data folder, which gets one where it has none.
func homeOf(data string) (string, error) {
	path := filepath.Join(data, homeFile)
	raw, err := os.ReadFile(path) // #nosec G304 -- in the node's own folder
	if id := strings.TrimSpace(string(raw)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the id of the data folder: %w", err)
	}
	id := tenant.RandomString(16)
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the id of the data folder: %w", err)
	}
	return id, nil
}
