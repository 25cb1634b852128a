//go:build linux

package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/internal/pglab"
)

// Database is the cluster's PostgreSQL: a primary and replicas, of which one has to
// have a commit before it is acknowledged. Failover does by hand what Patroni does.
type Database struct {
	t       testing.TB
	servers []*pglab.Server // the first is the primary
	dsn     string
}

func newDatabase(t testing.TB, c *Cluster) *Database {
	t.Helper()
	pglab.Require(t)
	hosts := c.Lab.Nodes()
	if c.options.External {
		hosts = []*lab.Host{c.Lab.Host("db1"), c.Lab.Host("db2"), c.Lab.Host("db3")}
	}
	n := c.options.Databases
	if n == 0 {
		n = 3
	}
	n = min(n, len(hosts))
	d := &Database{t: t, servers: []*pglab.Server{pglab.StartOn(t, hosts[0], c.options.DatabaseDisk)}}
	for _, h := range hosts[1:n] {
		d.servers = append(d.servers, d.Primary().Replica(h))
	}
	if n > 1 {
		d.Primary().Synchronous(d.servers[1:]...)
	}
	d.dsn = pglab.DSN(d.servers...) + "&target_session_attrs=read-write&connect_timeout=2"
	return d
}

// DSN names all servers.
func (d *Database) DSN() string { return d.dsn }

// Primary is the server that takes writes.
func (d *Database) Primary() *pglab.Server { return d.servers[0] }

// Failover waits until the primary has not answered for a time, and promotes the
// replica that has most. It returns when that one takes writes.
func (d *Database) Failover(patience time.Duration) {
	d.t.Helper()
	watcher := d.servers[1].Host()
	for silent := time.Now(); time.Since(silent) < patience; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
		conn, err := watcher.Dial(ctx, "tcp4", d.Primary().Address())
		cancel()
		if err == nil {
			conn.Close()
			silent = time.Now()
		}
	}
	d.promoteBest()
}

// promoteBest makes the replica the primary that has received most of the log:
// whatever was acknowledged is there.
func (d *Database) promoteBest() {
	d.t.Helper()
	best, most := 1, ""
	for i, s := range d.servers[1:] {
		lsn := s.Query("SELECT lpad(split_part(l, '/', 1), 8, '0') || lpad(split_part(l, '/', 2), 8, '0') FROM (SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text AS l) AS x")
		if lsn > most {
			best, most = i+1, lsn
		}
	}
	next, old := d.servers[best], d.servers[0]
	next.Promote()
	order := append([]*pglab.Server{next}, old)
	for i, s := range d.servers {
		if i != 0 && i != best {
			d.follow(s, next)
			order = append(order, s)
		}
	}
	d.servers = order
	var others []*pglab.Server
	for _, s := range d.servers[1:] {
		if s != old {
			others = append(others, s)
		}
	}
	next.Synchronous(others...)
}

// follow points a running replica at another primary.
func (d *Database) follow(s, primary *pglab.Server) {
	d.t.Helper()
	host, port, _ := strings.Cut(primary.Address(), ":")
	s.Query(fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=%s port=%s user=%s application_name=%s'", host, port, pglab.User, s.Host().Name()))
	s.Query("SELECT pg_reload_conf()")
}

// Repair makes the server that was the primary before the last Failover a replica.
func (d *Database) Repair() {
	d.t.Helper()
	d.servers[1].Rejoin(d.Primary())
	d.Primary().Synchronous(d.servers[1:]...)
}

// Switchover hands over in order: the primary ends, and a replica that has
// everything takes over.
func (d *Database) Switchover() {
	d.t.Helper()
	d.Primary().Stop()
	d.promoteBest()
}

// Down ends every server at once.
func (d *Database) Down() {
	for _, s := range d.servers {
		s.Kill()
	}
}

// Up starts every server again, as it was.
func (d *Database) Up() {
	d.t.Helper()
	for _, s := range d.servers {
		s.Run()
	}
}
