#!/bin/sh
# Does what PostgreSQL's official image does when it starts, as far as docker-compose.yml relies on
# it: an empty volume gets a cluster, a password, and the scripts of docker-entrypoint-initdb.d.
set -eu
export PGDATA=/var/lib/postgresql/data
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" --no-sync \
        --auth-local trust --auth-host scram-sha-256 --encoding UTF8
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait start --options "-c listen_addresses='' -c unix_socket_directories=/tmp"
    for script in /docker-entrypoint-initdb.d/*.sh; do PGHOST=/tmp "$script"; done
    pg_ctl --wait --mode fast stop
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
