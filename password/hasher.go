package password

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/problem"
)

// MaxLength bounds a password, in bytes: long enough for any phrase, short enough
// that it costs nothing to look at.
const MaxLength = 256

// Config of a Hasher. The zero value works.
type Config struct {
	MemoryKiB int // of one argon2id hash; 0 means 19,456 (OWASP's recommendation)
	Time      int // passes; 0 means 2
	Workers   int // hashes at the same time; 0 means one less than the processors, at least one
	Queue     int // hashes that may wait; 0 means 64 for each worker
}

// Hasher hashes and verifies, a bounded number at a time.
type Hasher struct {
	cfg     Config
	slots   chan struct{}
	waiting chan struct{}
	decoy   string
}

// New makes a Hasher. It fails when the configuration is out of bounds.
func New(cfg Config) (*Hasher, error) {
	if cfg.MemoryKiB == 0 {
		cfg.MemoryKiB = 19456
	}
	if cfg.Time == 0 {
		cfg.Time = 2
	}
	if cfg.Workers == 0 {
		cfg.Workers = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if cfg.Queue == 0 {
		cfg.Queue = 64 * cfg.Workers
	}
	if cfg.MemoryKiB < 8192 || cfg.MemoryKiB > 1<<20 || cfg.Time < 1 || cfg.Time > 16 || cfg.Workers < 0 || cfg.Queue < 0 {
		return nil, problem.New(problem.Invalid, "invalid_password_config", "argon2id wants 8192 to 1048576 KiB of memory and 1 to 16 passes")
	}
	h := &Hasher{cfg: cfg, slots: make(chan struct{}, cfg.Workers), waiting: make(chan struct{}, cfg.Workers+cfg.Queue)}
	// No password fits it: its key is no hash of anything.
	var random [48]byte
	rand.Read(random[:])
	h.decoy = h.params().encode(random[:16], random[16:])
	return h, nil
}

// busy is how long a client that found the queue full should stay away.
const busy = 2 * time.Second

// run takes a place in the pool, does the work and gives the place back.
func (h *Hasher) run(ctx context.Context, work func()) error {
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		e := problem.New(problem.Unavailable, "too_many_logins", "Too many people are logging in at this moment; try again in a few seconds")
		e.RetryAfter = busy
		return e
	}
	// The pool has its own bound; the request is not at work beside it.
	defer overload.Pause(ctx)()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	work()
	return nil
}

// Waiting is how many hashes run or wait.
func (h *Hasher) Waiting() int { return len(h.waiting) }

// Hash returns the hash of a password, in the PHC string format. It fails with
// problem.Unavailable when too many wait, and with problem.Invalid when the
// password is longer than MaxLength.
func (h *Hasher) Hash(ctx context.Context, plain string) (string, error) {
	if len(plain) > MaxLength {
		return "", tooLong()
	}
	var out string
	err := h.run(ctx, func() { out = h.argon2id(plain) })
	return out, err
}

func tooLong() error {
	return problem.New(problem.Invalid, "invalid_password", "The password is longer than the %d bytes that are allowed", MaxLength)
}

func (h *Hasher) params() argon2Params {
	return argon2Params{variant: "argon2id", memory: uint32(h.cfg.MemoryKiB), time: uint32(h.cfg.Time), threads: 1} // #nosec G115 -- New holds both to bounds
}

func (h *Hasher) argon2id(plain string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	p := h.params()
	key := argon2.IDKey([]byte(plain), salt, p.time, p.memory, p.threads, 32)
	return p.encode(salt, key)
}

// Verify reports whether a password fits a hash, and whether the hash should be
// made anew because it is of another form or of other parameters than today's. A
// hash that cannot be read is an error; a password that is too long does not fit.
func (h *Hasher) Verify(ctx context.Context, hash, plain string) (ok, rehash bool, err error) {
	v, err := parse(hash)
	if err != nil {
		return false, false, fmt.Errorf("read a password hash: %w", err)
	}
	if len(plain) > MaxLength {
		return false, false, nil
	}
	if err := h.run(ctx, func() { ok = v.verify([]byte(plain)) }); err != nil {
		return false, false, err
	}
	current, is := v.(*argon2Hash)
	rehash = !is || current.variant != "argon2id" || current.memory != uint32(h.cfg.MemoryKiB) || current.time != uint32(h.cfg.Time) // #nosec G115 -- New holds both to bounds
	return ok, ok && rehash, nil
}

// Pretend takes as long as Verify, for a user that does not exist: the time of
// an answer must not tell who does.
func (h *Hasher) Pretend(ctx context.Context, plain string) error {
	_, _, err := h.Verify(ctx, h.decoy, plain)
	return err
}
