"""The store in PostgreSQL: writers side by side, triggers that keep the clock."""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, Connection, Engine

from mled.store.dialects import Dialect, StoreError
from mled.store.schema import STAMPED, Base, Clock, Metric, MetricChange

# Writers run side by side, so a stamp may be committed after a larger one. Before its first stamp
# a transaction therefore announces the clock's value, as the key of an advisory lock that lasts
# until it ends: all its stamps are larger. An extraction ends below the smallest announcement.
_ANNOUNCED = 10**15  # the clock starts here (September 2001), so every announcement is above

_FUNCTIONS = f"""
CREATE SEQUENCE IF NOT EXISTS mled_clock;
SELECT setval('mled_clock', greatest(last_value, {_ANNOUNCED})) FROM mled_clock;

CREATE OR REPLACE FUNCTION mled_tick() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    stamp bigint;
    now_us bigint := extract(epoch FROM clock_timestamp()) * 1000000;
BEGIN
    IF coalesce(current_setting('mled.announced', true), '') = '' THEN
        PERFORM pg_advisory_xact_lock_shared((SELECT last_value FROM mled_clock));
        PERFORM set_config('mled.announced', 'yes', true);
    END IF;
    stamp := nextval('mled_clock');
    -- The sequence is moved up to the time of day when it lags by a second, by one session at a
    -- time; it could fall back only if others took a million stamps between these two lines.
    IF now_us > stamp + 1000000 AND pg_try_advisory_lock(1) THEN
        IF now_us > (SELECT last_value FROM mled_clock) + 1000000 THEN
            PERFORM setval('mled_clock', now_us);
        END IF;
        PERFORM pg_advisory_unlock(1);
        stamp := nextval('mled_clock');
    END IF;
    RETURN stamp;
END $$;

CREATE OR REPLACE FUNCTION mled_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := mled_tick();
    IF TG_OP = 'INSERT' THEN
        NEW.created_at := NEW.updated_at;
    END IF;
    IF TG_TABLE_NAME = 'metric' THEN
        INSERT INTO metric_change (trial_id, updated_at)
        VALUES (NEW.trial_id, NEW.updated_at)
        ON CONFLICT (trial_id) DO UPDATE
        SET updated_at = greatest(metric_change.updated_at, excluded.updated_at);
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION mled_keep_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE integrity_constraint_violation USING MESSAGE = 'the primary key of ' || TG_TABLE_NAME
        || ' never changes: insert a new row and delete the old one';
END $$;

CREATE OR REPLACE FUNCTION mled_bury() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    key jsonb;
BEGIN
    SELECT jsonb_object_agg(name, to_jsonb(OLD) -> name) INTO key FROM unnest(TG_ARGV) AS name;
    INSERT INTO tombstone (table_name, key, updated_at)
    VALUES (TG_TABLE_NAME, key::text, mled_tick());
    RETURN NULL;
END $$;
"""


def _triggers(table: Table) -> Iterator[str]:
    t = table.name
    keys = [c.name for c in table.primary_key]
    yield (
        f"CREATE OR REPLACE TRIGGER {t}_stamp BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW "
        "WHEN (NEW.updated_at::text IS DISTINCT FROM current_setting('mled.ticket', true)) "
        "EXECUTE FUNCTION mled_stamp()"
    )
    changed = " OR ".join(f"OLD.{k} IS DISTINCT FROM NEW.{k}" for k in keys)
    yield (
        f"CREATE OR REPLACE TRIGGER {t}_keep_key BEFORE UPDATE OF {', '.join(keys)} ON {t} "
        f"FOR EACH ROW WHEN ({changed}) EXECUTE FUNCTION mled_keep_key()"
    )
    arguments = ", ".join(f"'{k}'" for k in keys)
    yield (
        f"CREATE OR REPLACE TRIGGER {t}_bury AFTER DELETE ON {t} "
        f"FOR EACH ROW EXECUTE FUNCTION mled_bury({arguments})"
    )


def _client(url: URL, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own client programs against the server of a URL."""
    environment = {
        "PGHOST": url.host,
        "PGPORT": url.port and str(url.port),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    try:
        done = subprocess.run(
            [program, *arguments],
            env=os.environ | {name: value for name, value in environment.items() if value},
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise StoreError(
            f"{program} is not installed: install PostgreSQL's client programs "
            "(Debian: apt-get install postgresql-client)"
        ) from None
    if done.returncode:
        problem = (done.stderr.strip() or "no message").splitlines()[-1]
        raise StoreError(f"{program} failed for {url.render_as_string()}: {problem}")


class PostgreSQL(Dialect):
    """Each transaction commits by itself; `synchronous_commit` stays as the server has it."""

    def create_engine(self, url: URL, busy_timeout_s: float) -> Engine:
        engine = sa.create_engine(
            url,
            pool_pre_ping=True,
            connect_args={"options": f"-c lock_timeout={round(busy_timeout_s * 1000)}"},
        )

        @sa.event.listens_for(engine, "begin")
        def begin(connection):
            if connection.get_execution_options().get("reads", False):
                connection.exec_driver_sql(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
                )

        return engine

    def install_clock(self, connection: Connection) -> None:
        statements = [_FUNCTIONS, *(sql for table in STAMPED for sql in _triggers(table))]
        digest = hashlib.sha256("\n".join(statements).encode()).hexdigest()
        present = connection.exec_driver_sql(
            "SELECT obj_description(to_regproc('mled_tick'), 'pg_proc')"
        ).scalar()
        if present == digest:
            return
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"COMMENT ON FUNCTION mled_tick() IS '{digest}'")
        connection.execute(
            postgresql.insert(Clock)
            .values(id=1, store_id=str(uuid.uuid4()), last_us=0, is_open=False)
            .on_conflict_do_nothing()
        )

    def open_ticket(self, connection: Connection) -> int:
        stamp = connection.exec_driver_sql("SELECT mled_tick()").scalar_one()
        connection.exec_driver_sql(f"SET LOCAL mled.ticket = '{stamp:d}'")
        return stamp

    def close_ticket(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL mled.ticket = ''")

    def clock(self, connection: Connection) -> int:
        return connection.exec_driver_sql("SELECT last_value FROM mled_clock").scalar_one()

    def high(self, connection: Connection) -> int:
        # In this order: who takes a stamp below the clock's value has announced it before.
        now = self.clock(connection)
        floor = connection.exec_driver_sql(
            "SELECT min((classid::bigint << 32) | objid::bigint) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objsubid = 1 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            f"AND ((classid::bigint << 32) | objid::bigint) >= {_ANNOUNCED}"
        ).scalar_one()
        return now if floor is None else min(now, floor)

    def insert(self, table) -> sa.Insert:
        return postgresql.insert(table)

    def write_points(self, connection: Connection, rows: Sequence[tuple], stamp: int) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.exec_driver_sql(
            f"INSERT INTO {Metric.__tablename__} "
            "(trial_id, name, step, number, text, created_at, updated_at) "
            f"SELECT *, {stamp:d}, {stamp:d} FROM unnest(%s::bigint[], %s::text[], "
            "%s::bigint[], %s::double precision[], %s::text[]) "
            "ON CONFLICT (trial_id, name, step) DO UPDATE SET number = excluded.number, "
            "text = excluded.text, updated_at = excluded.updated_at",
            tuple(columns),
        )
        insert = postgresql.insert(MetricChange)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["trial_id"],
                set_={
                    "updated_at": sa.func.greatest(
                        MetricChange.updated_at, insert.excluded.updated_at
                    )
                },
            ),
            [{"trial_id": trial, "updated_at": stamp} for trial in {row[0] for row in rows}],
        )

    backup_suffix = "dump"

    def backup(self, url: URL, path: Path) -> None:
        _client(url, "pg_dump", "--format=custom", f"--file={path}")
        _client(url, "pg_restore", "--list", str(path))

    def restore(self, url: URL, path: Path, label: str) -> Path | None:
        _client(url, "pg_restore", "--list", str(path))
        options = (
            "--clean",
            "--if-exists",
            "--single-transaction",
            "--no-owner",
            "--exit-on-error",
        )
        _client(url, "pg_restore", *options, f"--dbname={url.database}", str(path))
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.update(Clock).values(store_id=str(uuid.uuid4())))
        engine.dispose()
        return None

    def check(self, connection: Connection) -> list[str]:
        # Reading every row of every table makes the server verify its pages' checksums.
        try:
            for table in Base.metadata.sorted_tables:
                connection.exec_driver_sql(f"SELECT count(t) FROM {table.name} AS t")
        except sa.exc.DBAPIError as error:
            return [str(error.orig).strip()]
        return []

    def explain(self, error: sa.exc.DBAPIError, url: URL) -> str | None:
        text = str(error.orig).strip().splitlines()[0] if str(error.orig) else ""
        meanings = {
            "55P03": "another program held a lock for too long: end it, or raise "
            "MLED_BUSY_TIMEOUT_S",
            "25006": "the server is read-only: use its primary",
            "53100": "the server's disk is full: free some space and try again",
            "28P01": "the password is wrong: check MLED_STORE_URL",
            "28000": "the server does not let this user in: check MLED_STORE_URL",
            "3D000": "there is no such database: create it, or check MLED_STORE_URL",
        }
        meaning = meanings.get(getattr(error.orig, "sqlstate", None) or "")
        if meaning is None and isinstance(error, sa.exc.OperationalError):
            meaning = "the server cannot be reached: check that it runs, and MLED_STORE_URL"
        return meaning and f"store {url.render_as_string()}: {meaning} ({text})"
