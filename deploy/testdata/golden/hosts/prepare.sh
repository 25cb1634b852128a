#!/bin/sh
# Makes what the hosts of the cluster need to know each other, and what nobody else
# may know: run it once, in the folder that `portcullis cluster render` wrote, before
# the folders of the hosts are copied to them. What is there already stays.
#
# It needs openssl. Afterwards ca/ and secrets/ belong into the safe: whoever has them
# has the database.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p ca secrets

secret() { # secret NAME BYTES: a random value, made once
	[ -s "secrets/$1" ] || openssl rand -base64 "$2" >"secrets/$1"
	cat "secrets/$1"
}
password() { # password NAME: the same in characters that need no quoting
	[ -s "secrets/$1" ] || openssl rand -hex 24 >"secrets/$1"
	cat "secrets/$1"
}

if [ ! -s ca/ca.key ]; then
	openssl ecparam -name prime256v1 -genkey -noout -out ca/ca.key
	openssl req -x509 -new -key ca/ca.key -sha256 -days 3650 -subj "/CN=Portcullis database CA" \
		-addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca/ca.crt
fi

certificate() { # certificate NODE ADDRESS: of a host as server and as client
	[ -s "$1/server.crt" ] && return
	openssl ecparam -name prime256v1 -genkey -noout -out "$1/server.key"
	openssl req -new -key "$1/server.key" -subj "/CN=$1" -out "$1/server.csr"
	cat >"$1/server.ext" <<-EXT
		basicConstraints=critical,CA:FALSE
		keyUsage=critical,digitalSignature
		extendedKeyUsage=serverAuth,clientAuth
		subjectAltName=DNS:$1,IP:$2
	EXT
	openssl x509 -req -in "$1/server.csr" -CA ca/ca.crt -CAkey ca/ca.key -CAcreateserial -sha256 -days 3650 -extfile "$1/server.ext" -out "$1/server.crt"
	rm "$1/server.csr" "$1/server.ext"
}

superuser=$(password superuser)
replication=$(password replication)
rewind=$(password rewind)
application=$(password application)
master=$(secret master.key 32)

certificate node1 10.0.0.11
cp ca/ca.crt node1/ca.crt
cat >node1/patroni.env <<ENV
PATRONI_SUPERUSER_PASSWORD=$superuser
PATRONI_REPLICATION_PASSWORD=$replication
PATRONI_REWIND_PASSWORD=$rewind
PORTCULLIS_DATABASE_PASSWORD=$application
ENV
echo "PGPASSWORD=$application" >node1/portcullis.env
echo "$master" >node1/master.key

certificate node2 10.0.0.12
cp ca/ca.crt node2/ca.crt
cat >node2/patroni.env <<ENV
PATRONI_SUPERUSER_PASSWORD=$superuser
PATRONI_REPLICATION_PASSWORD=$replication
PATRONI_REWIND_PASSWORD=$rewind
PORTCULLIS_DATABASE_PASSWORD=$application
ENV
echo "PGPASSWORD=$application" >node2/portcullis.env
echo "$master" >node2/master.key

certificate node3 10.0.0.13
cp ca/ca.crt node3/ca.crt
cat >node3/patroni.env <<ENV
PATRONI_SUPERUSER_PASSWORD=$superuser
PATRONI_REPLICATION_PASSWORD=$replication
PATRONI_REWIND_PASSWORD=$rewind
PORTCULLIS_DATABASE_PASSWORD=$application
ENV
echo "PGPASSWORD=$application" >node3/portcullis.env
echo "$master" >node3/master.key

echo "prepared; copy each host's folder to it as root, and run install.sh there"
