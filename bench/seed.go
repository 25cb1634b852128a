package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/tenant"
)

// seed adds users with a password to the store of a node that does not run. It
// says how long it took.
func seed(ctx context.Context, data string, users int) (took time.Duration, err error) {
	key, err := seal.LoadKey(filepath.Join(data, "master.key"))
	if err != nil {
		return 0, err
	}
	sealer, err := seal.New(key)
	if err != nil {
		return 0, err
	}
	st, err := store.Open(ctx, "sqlite:"+filepath.Join(data, "portcullis.db"), store.Options{Sealer: sealer})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	hasher, err := password.New(password.Config{})
	if err != nil {
		return 0, err
	}
	hash, err := hasher.Hash(ctx, userPassword)
	if err != nil {
		return 0, err
	}
	all, _, err := tenant.Find[tenant.Connection](ctx, st, "main", tenant.KindConnection, tenant.Query{})
	if err != nil {
		return 0, err
	}
	connection := all[0]
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(4)
	const batch = 500
	for from := 0; from < users; from += batch {
		g.Go(func() error {
			return st.Write(ctx, "main", func(tx tenant.Tx) error {
				for i := from; i < min(from+batch, users); i++ {
					u := &tenant.User{Email: fmt.Sprintf("user-%d@example.com", i), EmailVerified: true, Name: fmt.Sprintf("User %d", i), Nickname: fmt.Sprintf("user-%d", i)}
					if err := tenant.CreateUser(tx, connection, u, hash); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	err = g.Wait()
	return time.Since(began), err
}
