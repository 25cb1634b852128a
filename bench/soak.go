package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

const (
	soakLogins = 100_000
	soakTime   = 10 * time.Minute
	soakWarm   = 10_000 // logins until caches and pools have their size
)

// census is what a leak would let grow.
type census struct {
	Goroutines, Descriptors int
	Memory                  float64 // MiB
}

var goroutinesLine = regexp.MustCompile(`goroutine profile: total (\d+)`)

func (n *node) census(ctx context.Context) (c census, err error) {
	// Clients have gone; what was theirs goes in a moment.
	time.Sleep(5 * time.Second)
	raw, err := n.local.Profile(ctx, "goroutine?debug=1")
	if err != nil {
		return c, err
	}
	m := goroutinesLine.FindSubmatch(raw)
	if m == nil {
		return c, errors.New("the profile has no count of goroutines")
	}
	if c.Goroutines, err = strconv.Atoi(string(m[1])); err != nil {
		return c, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid))
	if err != nil {
		return c, err
	}
	c.Descriptors = len(files)
	c.Memory, err = n.rss()
	return c, err
}

// soak logs 100,000 users in and fails when goroutines, descriptors or memory
// have grown. Hashes are as small as they may be: they are not what leaks.
func (b *bench) soak(ctx context.Context, dir string) (err error) {
	data := filepath.Join(dir, "soak")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	settings := append([]string{"passwords.memory_kib=8192", "passwords.time=1", "passwords.workers=2"}, b.settings...)
	n, err := start(ctx, b.binary, data, settings...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	// A signature of the default costs as much as a login without it.
	if err := n.api("PATCH", "/tenants/settings", map[string]any{"signing_alg": "ES256"}, nil); err != nil {
		return err
	}
	s, err := setUp(n, 64)
	if err != nil {
		return err
	}
	began := time.Now()
	logins := 0
	drive := func(most int) error {
		r := load{address: n.http, conns: 16, time: max(time.Second, soakTime-time.Since(began)), most: most, worker: s.login()}.run(ctx)
		logins += r.Count
		if r.Failed > 0 {
			return fmt.Errorf("%d of %d logins failed, the first: %w", r.Failed, most, r.err)
		}
		return nil
	}
	if err := drive(soakWarm); err != nil {
		return err
	}
	before, err := n.census(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "after %d logins: %+v\n", logins, before)
	for logins < soakLogins && time.Since(began) < soakTime && ctx.Err() == nil {
		if err := drive(min(soakWarm, soakLogins-logins)); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d logins in %s\n", logins, time.Since(began).Round(time.Second))
	}
	after, err := n.census(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("logins %d in %s\ngoroutines %d -> %d\ndescriptors %d -> %d\nmemory %.0f -> %.0f MiB\n", logins, time.Since(began).Round(time.Second),
		before.Goroutines, after.Goroutines, before.Descriptors, after.Descriptors, before.Memory, after.Memory)
	// Pools breathe; a leak of one in a thousand logins is far beyond these bounds.
	if after.Goroutines > before.Goroutines+20 || after.Descriptors > before.Descriptors+20 || after.Memory > before.Memory*1.5+20 {
		return errors.New("something leaks")
	}
	return nil
}
