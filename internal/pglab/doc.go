// Package pglab runs real PostgreSQL servers on the hosts of a lab: a primary,
// replicas that stream from it, a promotion, a crash, and the way back.
//
//	primary := pglab.Start(t, l.Host("db1"))
//	replica := primary.Replica(l.Host("db2"))
//	primary.Synchronous(replica)
//	dsn := pglab.DSN(primary, replica) // postgres://portcullis@10.77.4.3:27017,…
//	primary.Kill()
//	replica.Promote()
//	primary.Rejoin(replica)
//
// The servers listen on 27017, the port of row database. Whoever is in the lab gets
// in without a password. Nothing is flushed to the disk: a server that is killed
// loses nothing, as the kernel goes on, and tests do not wait for the disk.
//
// It needs what a lab needs, and the Debian package postgresql-15. For tests alone.
package pglab
