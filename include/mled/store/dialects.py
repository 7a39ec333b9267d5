"""What differs between SQLite and PostgreSQL; no other module asks which one it is."""

from __future__ import annotations

import abc
import uuid
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Connection, Engine

from mled.store import clock
from mled.store.schema import Clock, Metric, MetricChange


class StoreError(RuntimeError):
    """The store cannot do what was asked; the message says why and what to do."""


class Dialect(abc.ABC):
    """The operations for which the two databases need different SQL."""

    @abc.abstractmethod
    def create_engine(self, url: URL, busy_timeout_s: float) -> Engine:
        """An engine whose transactions are serialised (write) or one snapshot (read)."""

    @abc.abstractmethod
    def install_clock(self, connection: Connection) -> None:
        """Create the clock's row and triggers, or bring them up to date."""

    @abc.abstractmethod
    def open_ticket(self, connection: Connection) -> int:
        """Take one stamp that rows of this transaction may carry; end with `close_ticket`."""

    @abc.abstractmethod
    def close_ticket(self, connection: Connection) -> None:
        """Make the triggers stamp each row again."""

    @abc.abstractmethod
    def high(self, connection: Connection) -> int:
        """The highest stamp up to which this snapshot lacks no row, nor ever will."""

    @abc.abstractmethod
    def insert(self, table) -> sa.Insert:
        """An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def write_points(self, connection: Connection, rows: Sequence[tuple], stamp: int) -> None:
        """Insert or replace metric points `(trial_id, name, step, number, text)`."""

    @abc.abstractmethod
    def explain(self, error: sa.exc.DBAPIError, url: URL) -> str | None:
        """What to tell a person about an error of the database; None for an unknown one."""


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
        for name, body in clock.sqlite_triggers():
            wanted = f"CREATE TRIGGER {name} {body}"
            if present.get(name) != wanted:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
                connection.exec_driver_sql(wanted)

    def open_ticket(self, connection: Connection) -> int:
        return connection.exec_driver_sql(
            f"{clock.SQLITE_TICK}, is_open = 1 RETURNING last_us"
        ).scalar_one()

    def close_ticket(self, connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE clock SET is_open = 0")

    def high(self, connection: Connection) -> int:
        # The write lock makes stamps follow commit order: what is visible is complete.
        return connection.execute(sa.select(Clock.last_us)).scalar_one()

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

    def explain(self, error: sa.exc.DBAPIError, url: URL) -> str | None:
        text = str(error.orig)
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


DIALECTS: dict[str, Dialect] = {"sqlite": SQLite()}


def dialect_of(url: URL) -> Dialect:
    """The dialect of a URL.

    Raises:
        StoreError: it is neither a SQLite nor a PostgreSQL URL.
    """
    try:
        return DIALECTS[url.get_backend_name()]
    except KeyError:
        raise StoreError(
            f"MLED_STORE_URL={url.render_as_string()!r}: {url.get_backend_name()} is not "
            f"supported; use one of {', '.join(DIALECTS)}, as in sqlite:////path/to/mled.db"
        ) from None
