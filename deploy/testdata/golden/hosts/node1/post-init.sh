#!/bin/sh
# Runs once in the life of the cluster, on the node that made the database: the
# appliance's own role and database. Patroni calls it with a connection string.
set -eu
# The password goes by a variable of psql, so that no other user sees it among the
# processes.
/usr/lib/postgresql/15/bin/psql "$1" -X -q -v ON_ERROR_STOP=1 <<'SQL'
\set password `echo "$PORTCULLIS_DATABASE_PASSWORD"`
CREATE ROLE portcullis LOGIN PASSWORD :'password';
CREATE DATABASE portcullis OWNER portcullis;
REVOKE ALL ON DATABASE portcullis FROM PUBLIC;
SQL
