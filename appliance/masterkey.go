package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/seal"
)

// masterKeyVariable holds the master key itself, in base64.
const masterKeyVariable = "PORTCULLIS_MASTER_KEY"

// sealer loads the master key, and makes one where neither a key nor a database
// exists yet.
func (c *Config) sealer(env []string) (*seal.Sealer, error) {
	if text, ok := fromEnv(env, masterKeyVariable); ok {
		key, err := seal.DecodeKey(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", masterKeyVariable, err)
		}
		return seal.New(key)
	}
	path := c.masterKeyFile()
	key, err := seal.LoadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if file, ok := strings.CutPrefix(c.dsn(), "sqlite:"); ok {
			if _, statErr := os.Stat(file); statErr == nil {
				return nil, problem.Wrap(problem.Unavailable, "master_key_missing", err,
					"the database %s is there, but its master key %s is not; bring the key back from a backup", file, path)
			}
		}
		key, err = seal.CreateKey(path)
	}
	if err != nil {
		return nil, err
	}
	// A rotation that was broken off left the next key beside this one: until it has
	// ended, secrets are sealed with either.
	next, err := seal.LoadKey(path + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return seal.New(key)
	}
	if err != nil {
		return nil, err
	}
	return seal.New(key, next)
}

func fromEnv(env []string, name string) (string, bool) {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// existingSealer is sealer for work on data that is there: it makes no key.
func (c *Config) existingSealer(env []string) (*seal.Sealer, error) {
	if _, ok := fromEnv(env, masterKeyVariable); !ok {
		if _, err := os.Stat(c.masterKeyFile()); err != nil {
			return nil, problem.Wrap(problem.NotFound, "master_key_missing", err,
				"there is no master key %s; name its folder with --data, the file with --set master_key_file=FILE, or set %s", c.masterKeyFile(), masterKeyVariable)
		}
	}
	return c.sealer(env)
}

// CopyStore copies one database to another, sealed with the configured master key;
// see store.Copy.
func CopyStore(ctx context.Context, cfg Config, env []string, from, to string, progress func(store.CopyProgress)) (store.Copied, error) {
	sealer, err := cfg.existingSealer(env)
	if err != nil {
		return store.Copied{}, err
	}
	return store.Copy(ctx, from, to, store.Options{Sealer: sealer}, progress)
}

const nextSuffix, oldSuffix = ".next", ".old"

// Rotation is the outcome of RotateMaster.
type Rotation struct {
	Sealed     int    `json:"sealed"` // secrets that were sealed again
	KeyFile    string `json:"key_file"`
	OldKeyFile string `json:"old_key_file"`
}

// RotateMaster makes a new master key and seals everything with it, while no node
// runs. At each moment the files FILE and FILE.next together open the database.
func RotateMaster(ctx context.Context, cfg Config, env []string, progress func(done int)) (Rotation, error) {
	if _, ok := fromEnv(env, masterKeyVariable); ok {
		return Rotation{}, problem.New(problem.Invalid, "key_in_environment",
			"the master key comes from %s; only a key in a file can be rotated in place: unset the variable and set master_key_file", masterKeyVariable)
	}
	path := cfg.masterKeyFile()
	old, err := seal.LoadKey(path)
	if err != nil {
		return Rotation{}, err
	}
	next, err := seal.LoadKey(path + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		next, err = seal.CreateKey(path + nextSuffix)
	}
	if err != nil {
		return Rotation{}, err
	}
	before, err := seal.New(old, next)
	if err != nil {
		return Rotation{}, err
	}
	after, err := seal.New(next, old)
	if err != nil {
		return Rotation{}, err
	}
	db, err := store.Open(ctx, cfg.dsn(), store.Options{Sealer: before})
	if problem.From(err).Code == "wrong_master_key" {
		// Everything was sealed, only the files were not renamed.
		db, err = store.Open(ctx, cfg.dsn(), store.Options{Sealer: after})
	}
	if err != nil {
		return Rotation{}, err
	}
	defer func() { _ = db.Close() }() // every write was acknowledged
	n, err := db.RotateMaster(ctx, after, progress)
	if err != nil {
		return Rotation{}, fmt.Errorf("%w; both keys are kept, run the command again to go on", err)
	}
	// A hard link first, so that no moment is without the old key.
	if err := os.Remove(path + oldSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Rotation{}, fmt.Errorf("replace %s: %w", filepath.Base(path+oldSuffix), err)
	}
	if err := os.Link(path, path+oldSuffix); err != nil {
		return Rotation{}, fmt.Errorf("keep the old key: %w", err)
	}
	if err := os.Rename(path+nextSuffix, path); err != nil {
		return Rotation{}, fmt.Errorf("put the new key in place: %w", err)
	}
	return Rotation{Sealed: n, KeyFile: path, OldKeyFile: path + oldSuffix}, nil
}
