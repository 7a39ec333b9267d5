"""What SQLite and PostgreSQL do differently, and the clock that both keep.

The store's clock gives out integer microseconds UTC that never go back, even when the system's
clock does. Every row carries the stamp of its last change (`updated_at`), put there by a trigger,
so a write by any tool counts. A bulk writer may take one stamp for many rows (a ticket): rows
that carry it pass the triggers untouched, which more than halves the cost of a row. A ticket is
open only between its taking and the end of that transaction, and no one else can use it; so no
row can pass with a stamp that an extraction has already gone beyond.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.ext.compiler import compiles

# Backend name in a URL -> the module and class that serve it.
_DIALECTS = {
    "sqlite": ("mled.store.sqlite", "SQLite"),
    "postgresql": ("mled.store.postgresql", "PostgreSQL"),
}


class StoreError(RuntimeError):
    """The store cannot do what was asked; the message says why and what to do."""


class ParsedJson(sa.sql.functions.FunctionElement):
    """A text column as JSON, of which `[key]` takes a part."""

    type = sa.JSON()
    inherit_cache = True


@compiles(ParsedJson)
def _as_it_is(element, compiler, **options):
    return compiler.process(element.clauses, **options)


@compiles(ParsedJson, "postgresql")
def _cast(element, compiler, **options):
    return f"CAST({compiler.process(element.clauses, **options)} AS JSON)"


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
    def clock(self, connection: Connection) -> int:
        """The largest stamp that was given out."""

    @abc.abstractmethod
    def high(self, connection: Connection) -> int:
        """The highest stamp that no transaction can still add a row below.

        Read it before the snapshot whose rows it bounds.
        """

    @abc.abstractmethod
    def insert(self, table) -> sa.Insert:
        """An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def write_points(self, connection: Connection, rows: Sequence[tuple], stamp: int) -> None:
        """Insert or replace metric points `(trial_id, name, step, number, text)`."""

    backup_suffix: str
    """Ending of a backup file's name."""

    @abc.abstractmethod
    def backup(self, url: URL, path: Path) -> None:
        """Write a checked copy of the store, as it is at this moment, to `path`.

        Raises:
            StoreError: the store cannot be read, or the copy is damaged.
        """

    @abc.abstractmethod
    def restore(self, url: URL, path: Path, label: str) -> Path | None:
        """Put a backup in the store's place, with a new identity.

        What lay there is kept under a name with `label`.

        Returns where that is now; None when there was nothing, or it is on a server.

        Raises:
            StoreError: the backup is damaged, or a program has the store open.
        """

    @abc.abstractmethod
    def check(self, connection: Connection) -> list[str]:
        """What is wrong with the store; an empty list when nothing is."""

    @abc.abstractmethod
    def explain(self, error: sa.exc.DBAPIError, url: URL) -> str | None:
        """What to tell a person about an error of the database; None for an unknown one."""


def dialect_of(url: URL) -> Dialect:
    """The dialect of a URL.

    Raises:
        StoreError: it is neither a SQLite nor a PostgreSQL URL.
    """
    try:
        module, name = _DIALECTS[url.get_backend_name()]
    except KeyError:
        raise StoreError(
            f"store {url.render_as_string()}: {url.get_backend_name()} is not "
            f"supported; use {' or '.join(_DIALECTS)}, as in sqlite:////path/to/mled.db"
        ) from None
    return getattr(importlib.import_module(module), name)()
