"""Opening the store, and its transactions."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled import settings as settings_module
from mled.settings import Settings
from mled.store.dialects import StoreError, dialect_of
from mled.store.schema import Clock

MIGRATIONS = Path(__file__).parent / "migrations"
UNFINISHED = "store_move"
"""The table that a store has as long as it is being filled (see `incoming.py`)."""

# Alembic announces its database at every look at the schema's revision, in each task's log.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


class Database:
    """A store's engine; safe to use from several threads, and on both sides of a fork."""

    def __init__(self, url: str, busy_timeout_s: float = 60.0):
        """`url` is an SQLAlchemy URL; nothing is opened yet.

        Raises:
            StoreError: the URL is of no supported database.
        """
        try:
            self.url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise StoreError(
                f"{url!r} is no URL of a store; write sqlite:////path/to/mled.db"
            ) from None
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.dialect = dialect_of(self.url)
        self._engine = self.dialect.create_engine(self.url, busy_timeout_s)
        self._pid = os.getpid()

    @property
    def engine(self) -> sa.Engine:
        """The engine, with connections of this process only."""
        if self._pid != os.getpid():
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: all or nothing, durable once the block is left.

        Raises:
            StoreError: the database is locked for too long, full, read-only or damaged.
        """
        with self.explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot of the store and blocks no writer."""
        with self.explained(), self.engine.connect() as connection:
            connection = connection.execution_options(reads=True)
            with connection.begin():
                yield connection

    @contextmanager
    def snapshot(self, low: int = 0) -> Iterator[tuple[Connection, int]]:
        """One snapshot, and the stamp up to which it lacks no row and never will.

        That stamp is at least `low`, up to which rows were read before, unless the clock itself
        has gone back below it: then the store is another one than it was.
        """
        with self.read() as connection:
            # A writer may announce a value that an extraction has passed: its stamps are larger.
            clock = self.dialect.clock(connection)
            high = self.dialect.high(connection)
        with self.read() as connection:
            yield connection, max(high, low) if clock >= low else high

    @contextmanager
    def ticket(self, connection: Connection) -> Iterator[int]:
        """One stamp for many rows of a write transaction (see `dialects.py`)."""
        yield self.dialect.open_ticket(connection)
        self.dialect.close_ticket(connection)

    def identity(self) -> str:
        """Which store this is: a UUID that no other store and no backup has."""
        with self.read() as connection:
            return connection.execute(sa.select(Clock.store_id)).scalar_one()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of the database become StoreErrors that say what to do, where that is known."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            message = self.dialect.explain(error, self.url)
            if message is None:
                raise
            raise StoreError(message) from error


def connect(settings: Settings | None = None) -> Database:
    """The store of these settings (the environment's by default), made on first use.

    Raises:
        StoreError: the store cannot be opened, or its schema is not the code's.
    """
    settings = settings or settings_module.load()
    return _connect(settings.store, settings.busy_timeout_s)


@functools.lru_cache(maxsize=16)
def _connect(url: str, busy_timeout_s: float) -> Database:
    database = Database(url, busy_timeout_s)
    with database.read() as connection:
        _refuse_unfinished(database, connection)
        current = _revision(connection)
    if current is None:
        upgrade(database)
    elif current != head():
        _refuse(current)
    return database


def migrate(settings: Settings | None = None) -> Database:
    """Create the store, or bring its schema up to the code's; does nothing when it is.

    Raises:
        StoreError: the store's schema is newer than the code.
    """
    settings = settings or settings_module.load()
    database = Database(settings.store, settings.busy_timeout_s)
    upgrade(database)
    return database


def upgrade(database: Database, revision: str = "head") -> None:
    """Run the migrations up to `revision` in one transaction.

    Raises:
        StoreError: the store's schema is newer than the code, or the store is being moved.
    """
    with database.write() as connection:
        _refuse_unfinished(database, connection)
        upgrade_within(database, connection, revision)


def upgrade_within(database: Database, connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` in a transaction that the caller has begun."""
    from alembic import command
    from alembic.util import CommandError

    config = _alembic()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        if "Can't locate revision" not in str(error):
            raise
        _refuse(_revision(connection))
    if revision in ("head", head()):
        database.dialect.install_clock(connection)


@functools.cache
def head() -> str:
    """The newest schema revision that the code knows."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_alembic()).get_current_head()


def _alembic():
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _revision(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _refuse_unfinished(database: Database, connection: Connection) -> None:
    if sa.inspect(connection).has_table(UNFINISHED):
        raise StoreError(
            f"the store {database.url.render_as_string()} is not complete: `mled store move` was "
            "filling it and has not ended; wait for it, or run that command again"
        )


def _refuse(revision: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {r.revision for r in ScriptDirectory.from_config(_alembic()).walk_revisions()}
    if revision in known:
        raise StoreError(
            f"the store's schema is {revision}, the code's is {head()}: run `mled store upgrade`"
        )
    raise StoreError(
        f"the store's schema is {revision}, which this code does not know (its newest is "
        f"{head()}): install the version of MLED that wrote the store"
    )
