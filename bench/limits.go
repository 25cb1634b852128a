package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

// limit measures what a load is compared with. A machine that is shared changes
// from minute to minute: the limit is taken right before and right after the load.
type limit func() float64

// perSecond runs work on a number of goroutines for a time.
func perSecond(workers int, d time.Duration, work func()) float64 {
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for time.Since(start) < d {
				work()
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds()
}

// signs makes limits of the Go library's signatures a second on all processors.
func signs(d time.Duration) (map[string]limit, error) {
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	es, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	input := make([]byte, 600) // a token's header and payload
	rand.Read(input)
	out := map[string]limit{}
	for alg, key := range map[string]crypto.Signer{"RS256": rs, "ES256": es, "EdDSA": ed} {
		digest, hash := sha256.Sum256(input), crypto.SHA256
		message := digest[:]
		if alg == "EdDSA" {
			message, hash = input, 0
		}
		if _, err := key.Sign(rand.Reader, message, hash); err != nil {
			return nil, err
		}
		// What worked once works again; the loop has nothing to do with errors.
		out[alg] = func() float64 {
			return perSecond(runtime.GOMAXPROCS(0), d, func() { _, _ = key.Sign(rand.Reader, message, hash) })
		}
	}
	return out, nil
}

// The node's own defaults, as in package password.
const (
	hashMemory = 19456
	hashTime   = 2
)

// hashes measures argon2id a second on as many goroutines as the node's pool has.
func hashes(d time.Duration) float64 {
	salt := make([]byte, 16)
	return perSecond(max(1, runtime.GOMAXPROCS(0)-1), d, func() { argon2.IDKey([]byte("Correct-horse-7"), salt, hashTime, hashMemory, 1, 32) })
}

// syncs measures writes of a page with fsync a second, one after the other, in a
// folder: what one commit costs at least.
func syncs(dir string, d time.Duration) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer func() {
		_ = f.Close() // what is in it counts for nothing
		_ = os.Remove(f.Name())
	}()
	page := make([]byte, 4096)
	rate := perSecond(1, d, func() {
		if _, e := f.Write(page); e != nil {
			err = e
		}
		if e := f.Sync(); e != nil {
			err = e
		}
	})
	return rate, err
}
