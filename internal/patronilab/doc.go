// Package patronilab starts the reference database in a network of namespaces: etcd,
// Patroni and PostgreSQL as Debian ships them, with the files that
// `portcullis cluster render` writes, each as the user that systemd would give it.
//
// For tests alone. It needs what package lab needs, and the Debian packages patroni,
// etcd-server, postgresql-15 and openssl.
package patronilab
