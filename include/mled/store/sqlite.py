"""The store in SQLite: write-ahead log, one writer at a time, triggers that keep the clock."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import sqlalchemy as sa
from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Connection, Engine

from mled.store.dialects import Dialect, StoreError
from mled.store.schema import STAMPED, Base, Clock, Metric, MetricChange

_NOW = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
# Nothing is written without the clock, so one trigger on it stops every writer.
_RETIRED = "store_has_moved"
_TICK = f"UPDATE clock SET last_us = max(last_us + 1, {_NOW})"


def _match(table: Table, row: str) -> str:
    return " AND ".join(f'"{c.name}" = {row}."{c.name}"' for c in table.primary_key)


def _change(table: Table, row: str) -> str:
    """Note in `metric_change` that a trial's points changed; nothing for other tables."""
    if table.name != "metric":
        return ""
    return (
        f"INSERT INTO metric_change (trial_id, updated_at) "
        f"SELECT {row}.trial_id, last_us FROM clock WHERE true "
        "ON CONFLICT (trial_id) DO UPDATE SET updated_at = excluded.updated_at;"
    )


def triggers() -> Iterator[tuple[str, str]]:
    """The name and the SQL of each trigger that a SQLite store has."""
    for table in STAMPED:
        t = table.name
        stamp = "(SELECT last_us FROM clock)"
        passes = "(SELECT last_us FROM clock WHERE is_open)"
        keys = [f'"{c.name}"' for c in table.primary_key]
        key_json = ", ".join(f"'{c.name}', OLD.\"{c.name}\"" for c in table.primary_key)
        yield (
            f"{t}_stamp_insert",
            f"AFTER INSERT ON {t} WHEN NEW.updated_at IS NOT {passes} BEGIN "
            f"{_TICK}, is_open = 1; "
            f"UPDATE {t} SET updated_at = {stamp}, created_at = {stamp} "
            f"WHERE {_match(table, 'NEW')}; "
            f"UPDATE clock SET is_open = 0; {_change(table, 'NEW')} END",
        )
        yield (
            f"{t}_stamp_update",
            f"AFTER UPDATE ON {t} WHEN NEW.updated_at IS NOT {passes} BEGIN "
            f"{_TICK}, is_open = 1; "
            f"UPDATE {t} SET updated_at = {stamp} WHERE {_match(table, 'NEW')}; "
            f"UPDATE clock SET is_open = 0; {_change(table, 'NEW')} END",
        )
        yield (
            f"{t}_keep_key",
            f"BEFORE UPDATE OF {', '.join(keys)} ON {t} "
            f"WHEN {' OR '.join(f'OLD.{k} IS NOT NEW.{k}' for k in keys)} BEGIN "
            f"SELECT RAISE(ABORT, 'the primary key of {t} never changes: "
            "insert a new row and delete the old one'); END",
        )
        yield (
            f"{t}_bury",
            f"AFTER DELETE ON {t} BEGIN {_TICK}, is_open = 0; "
            f"INSERT INTO tombstone (table_name, key, updated_at) "
            f"SELECT '{t}', json_object({key_json}), last_us FROM clock; END",
        )


def _problems(connection: sqlite3.Connection) -> list[str]:
    """What SQLite's own checks say of a database's pages, indexes and foreign keys."""
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
        orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(10)
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [line for line in found if line != "ok"] + [
        f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in orphans
    ]


def _users(files: list[Path]) -> list[str]:
    """Other processes that have one of the files open, as "name (number)"."""
    wanted = {str(file.resolve()) for file in files}
    users = []
    for process in psutil.process_iter(["pid", "name"]):
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(f.path in wanted for f in process.open_files()):
                users.append(f"{process.info['name']} ({process.pid})")
    return users


class SQLite(Dialect):
    """WAL, one writer at a time, who holds the lock from the start of its transaction.

    `synchronous=FULL` syncs the log at each commit, so that not even a power cut takes back what
    was acknowledged; since points are written in batches it costs little (see bench/store.py).
    """

    def create_engine(self, url: URL, busy_timeout_s: float) -> Engine:
        if url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args={"timeout": busy_timeout_s})

        @sa.event.listens_for(engine, "connect")
        def configure(connection, record):
            # The driver's own BEGIN comes too late: a write lock taken in mid-transaction can
            # fail at once instead of waiting.
            connection.isolation_level = None
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                # Without it INSERT OR REPLACE removes rows behind the back of the triggers.
                "recursive_triggers = ON",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @sa.event.listens_for(engine, "begin")
        def begin(connection):
            reads = connection.get_execution_options().get("reads", False)
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return engine

    def install_clock(self, connection: Connection) -> None:
        # A store that has moved says so here.
        connection.exec_driver_sql("UPDATE clock SET is_open = 0")
        connection.execute(
            sqlite.insert(Clock)
            .values(id=1, store_id=str(uuid.uuid4()), last_us=0, is_open=False)
            .on_conflict_do_nothing()
        )
        present = dict(
            connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).all()
        )
        for name, body in triggers():
            wanted = f"CREATE TRIGGER {name} {body}"
            if present.get(name) != wanted:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
                connection.exec_driver_sql(wanted)

    def open_ticket(self, connection: Connection) -> int:
        return connection.exec_driver_sql(f"{_TICK}, is_open = 1 RETURNING last_us").scalar_one()

    def close_ticket(self, connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE clock SET is_open = 0")

    def clock(self, connection: Connection) -> int:
        return connection.execute(sa.select(Clock.last_us)).scalar_one()

    def high(self, connection: Connection) -> int:
        # The write lock makes stamps follow commit order: what is visible is complete.
        return self.clock(connection)

    def insert(self, table) -> sa.Insert:
        return sqlite.insert(table)

    def write_points(self, connection: Connection, rows: Sequence[tuple], stamp: int) -> None:
        # One prepared statement over plain tuples: SQLAlchemy's own parameter processing would
        # cost more than the insert.
        connection.exec_driver_sql(
            f"INSERT INTO {Metric.__tablename__} "
            "(trial_id, name, step, number, text, created_at, updated_at) "
            f"VALUES (?, ?, ?, ?, ?, {stamp:d}, {stamp:d}) "
            "ON CONFLICT (trial_id, name, step) DO UPDATE SET number = excluded.number, "
            "text = excluded.text, updated_at = excluded.updated_at",
            rows,
        )
        trials = {row[0] for row in rows}
        insert = sqlite.insert(MetricChange)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["trial_id"], set_={"updated_at": insert.excluded.updated_at}
            ),
            [{"trial_id": trial, "updated_at": stamp} for trial in trials],
        )

    def retire(self, connection: Connection, to: str) -> None:
        """Refuse all writes from now on, by whatever tool, since the store is at the URL `to`."""
        message = f"the store has moved to {to}: set MLED_STORE_URL to it".replace("'", "''")
        connection.exec_driver_sql(
            f"CREATE TRIGGER {_RETIRED} BEFORE UPDATE ON clock BEGIN "
            f"SELECT RAISE(ABORT, '{message}'); END"
        )

    def is_retired(self, connection: Connection) -> bool:
        found = sa.text("SELECT count(*) FROM sqlite_master WHERE name = :name")
        return connection.execute(found, {"name": _RETIRED}).scalar_one() > 0

    def last_ids(self, connection: Connection) -> dict[str, int]:
        """Table → the largest number that any of its rows ever had."""
        numbered = connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence").all()
        return {name: seq for name, seq in numbered if name in Base.metadata.tables}

    backup_suffix = "db"

    def backup(self, url: URL, path: Path) -> None:
        with (
            contextlib.closing(sqlite3.connect(url.database)) as source,
            contextlib.closing(sqlite3.connect(path)) as copy,
        ):
            try:
                source.backup(copy)
                # One file, with nothing beside it; whoever puts it to use has another store.
                copy.execute("PRAGMA journal_mode = DELETE")
                copy.execute("UPDATE clock SET store_id = ?", (str(uuid.uuid4()),))
                copy.commit()
            except sqlite3.Error as error:
                raise StoreError(f"the store cannot be copied, or is damaged: {error}") from error
            if problems := _problems(copy):
                raise StoreError(f"the store is damaged, and so is its copy: {problems[0]}")
        with path.open("rb") as written:
            os.fsync(written.fileno())

    def restore(self, url: URL, path: Path, label: str) -> Path | None:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as backup:
            if problems := _problems(backup):
                raise StoreError(f"the backup {path} is damaged: {problems[0]}")
        store = Path(url.database)
        files = [store, *(store.with_name(store.name + end) for end in ("-wal", "-shm"))]
        if users := _users(files):
            raise StoreError(f"the store is in use by {', '.join(users)}: stop them (make down)")
        store.parent.mkdir(parents=True, exist_ok=True)
        aside = store.with_name(f".{store.name}.part")
        shutil.copyfile(path, aside)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        old = None
        for file in files:
            if file.exists():
                moved = file.with_name(file.name.replace(store.name, f"{store.name}.{label}"))
                file.rename(moved)
                old = old or moved
        aside.rename(store)
        return old

    def check(self, connection: Connection) -> list[str]:
        return _problems(connection.connection.dbapi_connection)

    def explain(self, error: sa.exc.DBAPIError, url: URL) -> str | None:
        text = str(error.orig)
        if text.startswith("the store has moved"):
            return f"{text} ({url.database} takes no more writes)"
        for sign, meaning in (
            ("database is locked", "another program held the write lock for too long: end it, or "
             "raise MLED_BUSY_TIMEOUT_S"),
            ("readonly", "the file or its folder is read-only: give this user the right to write"),
            ("full", "the disk is full: free some space and try again"),
            ("unable to open", "the file cannot be opened: check the path and its rights"),
            ("malformed", "the file is damaged: restore a backup with `mled store restore`"),
            ("not a database", "the file is not a SQLite database: check MLED_STORE_URL"),
        ):  # fmt: skip
            if sign in text:
                return f"store {url.database}: {meaning} ({text})"
        return None
