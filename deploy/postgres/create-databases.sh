#!/bin/sh
# Run once, by PostgreSQL's official image on an empty volume: a user and a database each for
# Airflow, the store and Superset. None can read what belongs to another.
set -eu
for name in airflow mled superset; do
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set name="$name" --set password="$(cat "/run/secrets/${name}_database_password")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
