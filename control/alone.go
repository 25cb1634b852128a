package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/portcullis-id/portcullis/files"
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
// has ended without a word. It is locked while a node is at work.
const homeFile = "node-id"

// Alone is a node's claim to a database in which no cluster is. Two such nodes would
// answer from caches of which the other knows nothing: a secret that was changed at
// one would go on working at the other.
type Alone struct {
	Docs     tenant.Docs
	Logger   *slog.Logger
	Data     string // the data folder
	Database string // for people, as is Host
	Host     string
	// Site is the node's own of two. Which of them works with a database is decided
	// elsewhere: a claim of another site is void.
	Site string

	lock *os.File
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

// Claim makes the claim, which Release gives up. Where a process has ended without
// doing so, this takes six seconds, and none in the same data folder. The error is
// problem.Unavailable: "database_in_use" when another node is there, "data_in_use" when
// a process works with the data folder.
func (a *Alone) Claim(ctx context.Context) error { return a.claim(ctx, waitFor) }

func (a *Alone) claim(ctx context.Context, wait time.Duration) (err error) {
	if a.lock, a.home, err = lockHome(a.Data); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			a.lock.Close()
			a.lock = nil
		}
	}()
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

// Keep shows that the node is there until ctx ends. It ends the node when another one
// has taken the database, or there is a cluster in it.
func (a *Alone) Keep(ctx context.Context, stop func(reason error)) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	repeat(ctx, a.Logger, aloneEvery, "showing in the database that this node is there", func(ctx context.Context) error {
		lost, err := a.renew(ctx)
		if lost != nil {
			stop(lost)
			end()
		}
		return err
	})
	return nil
}

// renew shows that the node is there. lost is the reason why it may not work with the
// database any more.
func (a *Alone) renew(ctx context.Context) (lost, err error) {
	err = a.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		_, err := tx.Get(tenant.KindCluster, authorityID)
		if err == nil {
			lost = NotAMember(a.Database, a.Data)
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

// Release gives the claim up, so that nobody waits for it, and lets go of the data
// folder. Without a claim it does nothing.
func (a *Alone) Release() {
	if a.lock == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := a.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
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
	if err != nil {
		a.Logger.Warn("this node's claim to the database stays; the next start with another data folder takes six seconds", "error", err)
	}
	a.lock.Close()
	a.lock = nil
}

// lockHome reads the id of a data folder, which gets one where it has none, and keeps
// other nodes from the folder.
func lockHome(data string) (f *os.File, id string, err error) {
	f, id, err = files.Lock(filepath.Join(data, homeFile))
	if errors.Is(err, files.ErrHeld) {
		return nil, "", problem.New(problem.Unavailable, "data_in_use", "a node works with the data folder %s already: stop it, or name another folder with --data", data)
	}
	if err != nil {
		return nil, "", fmt.Errorf("lock the data folder: %w", err)
	}
	if id != "" {
		return f, id, nil
	}
	id = tenant.RandomString(16)
	if _, err := f.WriteAt([]byte(id+"\n"), 0); err != nil {
		f.Close()
		return nil, "", fmt.Errorf("keep the id of the data folder: %w", err)
	}
	return f, id, nil
}
