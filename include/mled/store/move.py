"""Moving a SQLite store to PostgreSQL while trials go on writing to it.

1. The rows are copied table by table, in the order of their keys, while writers go on.
2. What changed meanwhile follows, in rounds; after the first, both stores are compared row by row
   as of one moment.
3. Under the write lock, for which writers wait a moment, the last changes follow and are compared
   too; then the old store refuses writers with the new one's address, and the new one opens.

Identity, clock, stamps and numbers stay what they were, so for the warehouse it is the same store.
Killed at any moment, the move goes on where it was when it is started again: until the old store
refuses writers nobody can use the new one, and from then on nobody can write to the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled.secrets import REFERENCE, filled
from mled.settings import Settings
from mled.store import changes
from mled.store.database import Database, connect
from mled.store.dialects import StoreError
from mled.store.incoming import TABLES, Incoming
from mled.store.postgresql import PostgreSQL
from mled.store.schema import RUNNING, Attempt, Clock, Metric
from mled.store.sqlite import SQLite
from mled.store.values import keepable

CHUNK_ROWS = 50_000
"""Rows held in memory at a time, and lost by a kill at most."""
SHORT_S = 2.0
"""What changed while a round lasted no longer than this is left to the last one."""
ROUNDS = 20
"""Rounds after which the last one is begun, however long it may take."""
IDLE_S = 5.0
"""Seconds between two looks for running trials."""

Shown = Callable[[str, int], "contextlib.AbstractContextManager[Callable[[int], object]]"]
"""Shows a step, given its name and number of rows; gives what to call as rows are done."""


@contextlib.contextmanager
def silent(name: str, rows: int) -> Iterator[Callable[[int], object]]:
    """A `Shown` that shows nothing."""
    yield lambda rows: None


@dataclass(frozen=True)
class Digest:
    """Rows of a table: their number, and a checksum that does not depend on their order."""

    rows: int
    checksum: int


@dataclass(frozen=True)
class Moved:
    """What was done.

    Attributes:
        tables: table → its rows as they were compared, equal on both sides.
        running: trials that were running when the old store closed.
        stop_s: seconds for which writers had to wait.
    """

    tables: dict[str, Digest]
    running: int
    stop_s: float


def move(settings: Settings, to: str, *, when_idle: bool = False, shown: Shown = silent) -> Moved:
    """Move the store of these settings to the PostgreSQL database at the URL `to`.

    As in the settings, `{name}` in the URL stands for the secret of that name. With `when_idle`,
    the old store closes at a moment when no trial is running. A move that was broken off goes on;
    one that has ended is left as it is, and an empty `Moved` returned.

    Raises:
        StoreError: the store is not in SQLite or has moved elsewhere; the database cannot be
            reached, holds something else, or is being filled by another process; or the stores
            differ after all. The old store stays in use then.
    """
    source = connect(settings)
    target = Database(filled(to, settings.secrets), settings.busy_timeout_s)
    if not isinstance(source.dialect, SQLite):
        raise StoreError(f"the store {source.url.render_as_string()} is not in SQLite: it stays")
    if not isinstance(target.dialect, PostgreSQL):
        raise StoreError(f"--to={to!r} is not PostgreSQL: write postgresql://user@host/database")
    return Move(source, target, _address(to), shown).run(when_idle)


def what_next(settings: Settings, to: str, moved: Moved) -> str:
    """What to tell a person whose store has moved."""
    address = _address(to)
    lines = [f"The store is in {address} now."]
    if moved.tables:
        rows = sum(digest.rows for digest in moved.tables.values())
        lines = [
            f"{rows:,} rows of {len(moved.tables)} tables are equal on both sides; "
            f"writers had to wait for {moved.stop_s:.1f} s",
            *lines,
        ]
    lines += [
        "What is left to do, wherever MLED runs:",
        f"  1. export MLED_STORE_URL='{address}'"
        + ("  (with the password)" if "***" in address else ""),
        "  2. make down && make up",
    ]
    if moved.running:
        lines.append(
            f"{moved.running} trials were running: they end with an error at their next write, and "
            "go on from what was recorded when their grid is run again."
        )
    lines.append(
        f"The old store, {settings.store}, takes no more writes; delete it when all is well. "
        f"Artefacts stay where they are, in {settings.artifacts}."
    )
    return "\n".join(lines)


def _address(url: str) -> str:
    """A URL as messages show it: with the name of its secret, or with stars for its password."""
    if REFERENCE.search(url):
        return url
    return sa.make_url(url).set(drivername="postgresql").render_as_string()


class Move:
    """One move from `source`, which is in SQLite, to `target`, shown as `address`."""

    def __init__(self, source: Database, target: Database, address: str, shown: Shown):
        self.source, self.target, self.address, self.shown = source, target, address, shown

    def run(self, when_idle: bool) -> Moved:
        with self.source.read() as connection:
            clock = connection.execute(sa.select(Clock)).one()
            retired = self.source.dialect.is_retired(connection)
        if retired:
            return self._finish(clock.store_id)
        with Incoming.opened(
            self.target, self.address, clock.store_id, clock.last_us
        ) as self.incoming:
            self._copy()
            high, tables = self._compare()
            took, rounds = SHORT_S + 1, 0
            while took > SHORT_S and rounds < ROUNDS:
                began = time.monotonic()
                high = self._catch_up(high)
                took, rounds = time.monotonic() - began, rounds + 1
            while (moved := self._close(high, tables, when_idle)) is None:
                time.sleep(IDLE_S)
                high = self._catch_up(high)
            self.incoming.open()
        return moved

    def _finish(self, store_id: str) -> Moved:
        """The old store is closed already: make sure that the new one is open."""
        incoming = Incoming(self.target, self.address)
        if not incoming.is_of(store_id):
            with self.source.write() as connection:
                self.source.dialect.close_ticket(connection)  # says where the store is
        incoming.open()
        return Moved({}, 0, 0.0)

    def _copy(self) -> None:
        """Copy every row that was there when the move began; newer ones may come along."""
        state = self.incoming.state()
        if state.is_copied:
            return
        for table in TABLES:
            keys = list(table.primary_key)
            last = state.positions.get(table.name)
            with self.source.read() as connection:
                total = _count(connection, table, _after(keys, last))
            with self._shown("copy", table, total) as done:
                while rows := self._chunk(table, keys, last):
                    last = [rows[-1][table.columns.keys().index(key.name)] for key in keys]
                    self.incoming.add(table, rows, last)
                    done(len(rows))
        self.incoming.copied()

    def _chunk(self, table: sa.Table, keys: list[sa.Column], last: list | None) -> list:
        # A transaction for each chunk: a long one would keep SQLite's log from being emptied.
        query = changes.rows(table).where(_after(keys, last)).order_by(*keys).limit(CHUNK_ROWS)
        with self.source.read() as connection:
            return _keepable(table, connection.execute(query).all())

    def _follow(self, connection: Connection) -> int:
        """Bring the target from where it is to the source as `connection` sees it; its clock."""
        low, high = self.incoming.state().low, self.source.dialect.clock(connection)
        changed = (
            (table, _chunks(connection, table, changes.changed(table, low))) for table in TABLES
        )
        self.incoming.apply(changed, low, high)
        return high

    def _compare(self) -> tuple[int, dict[str, Digest]]:
        """Follow to one moment and compare all rows; the clock then, and the digests."""
        with self.source.read() as connection:
            with self.shown("follow the writers", 0):
                high = self._follow(connection)
                self.incoming.filled()
            return high, self._equal(connection, None)

    def _catch_up(self, low: int) -> int:
        """Follow to one moment and compare what changed after `low`; the clock then."""
        with self.source.read() as connection:
            high = self._follow(connection)
            self._equal(connection, low)
        return high

    def _close(self, high: int, tables: dict[str, Digest], when_idle: bool) -> Moved | None:
        """Follow and compare what changed after `high` under the write lock; retire the source.

        None, and nothing is changed, when a trial is running and that should be waited for.
        """
        with self.source.write() as connection:
            began = time.monotonic()
            running = _count(connection, Attempt.__table__, Attempt.state == RUNNING)
            if running and when_idle:
                return None
            self._follow(connection)
            self._equal(connection, high)
            clock = connection.execute(sa.select(Clock)).one()
            self.incoming.complete(clock, self.source.dialect.last_ids(connection))
            self.source.dialect.retire(connection, self.address)
        return Moved(tables, running, time.monotonic() - began)

    def _equal(self, connection: Connection, low: int | None) -> dict[str, Digest]:
        """Digests of all rows, or those changed after `low`, which have to be equal.

        Raises:
            StoreError: they are not.
        """
        found = {}
        with self.target.read() as other:
            for table in TABLES:
                if low is None:
                    query, rows = changes.rows(table), _count(connection, table)
                else:
                    query, rows = changes.changed(table, low), 0
                with self._shown("compare", table, 2 * rows) as done:
                    here = _digest(_chunks(connection, table, query), done)
                    there = _digest(_chunks(other, table, query), done)
                if here != there:
                    raise StoreError(
                        f"{table.name} has {here.rows:,} rows with the checksum "
                        f"{here.checksum:016x} here, and {there.rows:,} with {there.checksum:016x} "
                        f"in {self.address}: somebody else wrote to that database; make it "
                        "anew, and run the same command again. The old store stays in use"
                    )
                found[table.name] = here
        return found

    def _shown(
        self, what: str, table: sa.Table, rows: int
    ) -> contextlib.AbstractContextManager[Callable[[int], object]]:
        """Shows a step over rows of a table, unless it has none."""
        return (self.shown if rows else silent)(f"{what} {table.name}", rows)


def _count(connection: Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    return connection.execute(
        sa.select(sa.func.count()).select_from(table).where(*where)
    ).scalar_one()


def _after(keys: list[sa.Column], last: list | None) -> sa.ColumnElement[bool]:
    return sa.true() if last is None else sa.tuple_(*keys) > sa.tuple_(*last)


def _chunks(connection: Connection, table: sa.Table, query: sa.Select) -> Iterator[list]:
    streamed = connection.execution_options(yield_per=CHUNK_ROWS)
    for rows in streamed.execute(query).partitions():
        yield _keepable(table, rows)


def _keepable(table: sa.Table, rows: list) -> list:
    """Rows without NUL in their texts, which SQLite keeps and PostgreSQL does not.

    Points have none: what is no number is kept as JSON.
    """
    if table is Metric.__table__:
        return rows
    return [tuple(keepable(v) if type(v) is str else v for v in row) for row in rows]


def _digest(chunks: Iterable[list], done: Callable[[int], object]) -> Digest:
    count = total = 0
    for rows in chunks:
        for row in rows:
            text = repr(tuple(row)).encode()
            total += int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        count += len(rows)
        done(len(rows))
    return Digest(count, total % 2**64)
