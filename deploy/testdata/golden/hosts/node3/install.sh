#!/bin/sh
# Puts the files of node3 into their places, with the owners that may read them.
# Run it as root on node3, in the folder that was copied there, after prepare.sh
# has made the secrets. Packages: etcd-server postgresql-15 patroni (docs: deployment.md).
# It starts nothing, and may be run again.
set -eu
umask 022
cd "$(dirname "$0")"

put() { # put OWNER MODE FILE PLACE
	[ -e "$3" ] || { echo "install.sh: $3 is missing; run prepare.sh first, and copy the whole folder" >&2; exit 1; }
	install -D -o "$1" -g "$1" -m "$2" "$3" "$4"
}
folder() { install -d -o "$1" -g "$1" -m "$2" "$3"; }

# etcd: it decides who the primary is.
folder etcd 0700 /var/lib/etcd/portcullis
put root 0644 etcd.env /etc/default/etcd
put etcd 0644 ca.crt /etc/portcullis/etcd/ca.crt
put etcd 0644 server.crt /etc/portcullis/etcd/server.crt
put etcd 0600 server.key /etc/portcullis/etcd/server.key

# Patroni: it runs PostgreSQL.
folder postgres 0700 /var/lib/postgresql/portcullis
folder postgres 0700 /etc/portcullis/database
put postgres 0600 patroni.yml /etc/patroni/config.yml
put root 0644 patroni.conf /etc/systemd/system/patroni.service.d/portcullis.conf
put postgres 0644 ca.crt /etc/portcullis/database/ca.crt
put postgres 0644 server.crt /etc/portcullis/database/server.crt
put postgres 0600 server.key /etc/portcullis/database/server.key
put postgres 0600 patroni.env /etc/portcullis/database/patroni.env
put postgres 0755 post-init.sh /etc/portcullis/database/post-init.sh

# The node.
id portcullis >/dev/null 2>&1 || useradd --system --home-dir /var/lib/portcullis --shell /usr/sbin/nologin portcullis
folder portcullis 0700 /var/lib/portcullis
put root 0644 portcullis.yaml /etc/portcullis/portcullis.yaml
put portcullis 0600 master.key /etc/portcullis/master.key
put root 0644 portcullis.service /etc/systemd/system/portcullis.service
put root 0644 sysctl.conf /etc/sysctl.d/60-portcullis.conf
put portcullis 0600 portcullis.env /etc/portcullis/portcullis.env
put root 0644 ca.crt /etc/portcullis/database-ca.crt

echo "installed; next: systemctl daemon-reload"
