"""A store in PostgreSQL while it is being filled from another one.

Until it is opened it has neither the triggers nor the constraints between rows: the rows bring
the stamps that they have, and arrive in an order in which a row may come before the one that it
refers to. A table of its own, `store_move`, says how far the filling has come; as long as it is
there, `connect` refuses the store. What is recorded there is committed with the rows themselves,
so whoever kills the filling loses at most the part that was under way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import AddConstraint, DropConstraint

from mled.store.database import UNFINISHED, Database, upgrade_within
from mled.store.dialects import StoreError
from mled.store.schema import STAMPED, Base, Clock, MetricChange, Tombstone

TABLES = (*STAMPED, MetricChange.__table__, Tombstone.__table__)
"""All that is copied, row by row; the clock's row is set when the store is opened."""

# Beside the clock's locks, whose keys are 1 and those of its stamps (see postgresql.py).
_LOCK = 2

_STATE = sa.Table(
    UNFINISHED,
    sa.MetaData(),
    sa.Column("store_id", sa.String(36), nullable=False),
    sa.Column("low", sa.BigInteger, nullable=False),
    sa.Column("positions", sa.JSON, nullable=False),
    sa.Column("is_copied", sa.Boolean, nullable=False),
)

# The format of COPY on the wire, by the column's type; JSON travels as the text that it is.
_WIRE = {
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.Boolean: "bool",
    sa.Double: "float8",
    sa.String: "text",
    sa.JSON: "text",
}


class Incoming:
    """The store to be. Make it with `Incoming.opened`."""

    def __init__(self, database: Database, address: str):
        """`address` is the database's URL as messages show it, without a password."""
        self.database, self.address = database, address

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, database: Database, address: str, store_id: str, low: int
    ) -> Iterator[Incoming]:
        """The database, made ready for the rows of the store `store_id`, for this process alone.

        `low` is that store's clock, from which on changes have to be followed when this is the
        first time; a filling that was broken off goes on from its own.

        Raises:
            StoreError: the database holds something else, or someone else is filling it.
        """
        incoming = cls(database, address)
        with incoming._explained(), incoming._alone():
            with database.write() as connection:
                incoming._prepare(connection, store_id, low)
            yield incoming

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self.database.explained(), self.database.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK))).scalar():
                raise StoreError(f"{self.address} is being filled by another `mled store move`")
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))

    def _prepare(self, connection: Connection, store_id: str, low: int) -> None:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise StoreError(
                f"{self.address} keeps text as {encoding}: make a database with "
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )
        present = sa.inspect(connection)
        if present.has_table(UNFINISHED):
            state = connection.execute(sa.select(_STATE)).one()
            if state.store_id != store_id:
                raise StoreError(
                    f"{self.address} is half filled from another store ({state.store_id}, and this "
                    f"one is {store_id}): name an empty database"
                )
            self._loosen(connection)
            return
        was_store = present.has_table(Clock.__tablename__)
        if not was_store and (taken := present.get_table_names()):
            raise StoreError(
                f"{self.address} already has tables ({', '.join(sorted(taken)[:3])} …): "
                "name an empty database"
            )
        upgrade_within(self.database, connection)
        if was_store:
            self._refuse_another(connection, store_id)
        _STATE.create(connection)
        connection.execute(
            sa.insert(_STATE).values(store_id=store_id, low=low, positions={}, is_copied=False)
        )
        self._loosen(connection)

    def _refuse_another(self, connection: Connection, store_id: str) -> None:
        """Raise, unless the store that is there has no row."""
        found = connection.execute(sa.select(Clock.store_id)).scalar_one_or_none()
        if found == store_id:
            raise StoreError(
                f"{self.address} already holds this store ({store_id}), and is in use: this is an "
                "older copy of it; set MLED_STORE_URL to that database"
            )
        for table in TABLES:
            if connection.execute(sa.select(sa.exists(sa.select(table)))).scalar():
                raise StoreError(
                    f"{self.address} holds another store ({found}) with rows in {table.name}: "
                    "name an empty database"
                )

    def is_of(self, store_id: str) -> bool:
        """Whether the database holds this very store, open or not yet."""
        with self.database.read() as connection:
            present = sa.inspect(connection)
            table = _STATE if present.has_table(UNFINISHED) else Clock.__table__
            if not present.has_table(table.name):
                return False
            return connection.execute(sa.select(table.c.store_id)).scalar_one() == store_id

    def _loosen(self, connection: Connection) -> None:
        """Take away what the rows would not pass, one by one, in the order in which they come."""
        for constraint in _constraints(_FOREIGN, _UNIQUE):
            connection.execute(DropConstraint(constraint, if_exists=True))
        for table in STAMPED:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")

    def state(self) -> sa.Row:
        """`low`, `positions` (table → the last key that was copied), `is_copied`."""
        with self.database.read() as connection:
            return connection.execute(sa.select(_STATE)).one()

    def add(self, table: sa.Table, rows: Sequence[Sequence], last_key: Sequence) -> None:
        """Copy rows, which follow those that are there in the order of their keys."""
        with self._explained(), self.database.write() as connection:
            _copy(connection, table, table.name, rows)
            positions = connection.execute(sa.select(_STATE.c.positions)).scalar_one()
            positions |= {table.name: list(last_key)}
            connection.execute(sa.update(_STATE).values(positions=positions))

    def apply(
        self, changes: Iterable[tuple[sa.Table, Iterable[Sequence[Sequence]]]], low: int, high: int
    ) -> int:
        """Replace what changed after the stamp `low`; the number of rows. Then `high` is the low.

        `changes` holds, for each of `TABLES`, chunks of its changed rows.
        """
        count = 0
        with self._explained(), self.database.write() as connection:
            for table, chunks in changes:
                aside = f"changed_{table.name}"
                connection.exec_driver_sql(
                    f"CREATE TEMPORARY TABLE {aside} (LIKE {table.name}) ON COMMIT DROP"
                )
                for rows in chunks:
                    _copy(connection, table, aside, rows)
                    count += len(rows)
            # All old rows go before the first new one comes: a name may have changed its owner.
            for table in TABLES:
                keys = ", ".join(f'"{c.name}"' for c in table.primary_key)
                connection.exec_driver_sql(
                    f"DELETE FROM {table.name} WHERE ({keys}) IN "
                    f"(SELECT {keys} FROM changed_{table.name})"
                )
            _insert_changed(connection, Tombstone.__table__)
            for table in STAMPED:
                _delete_buried(connection, table, low)
            for table in (*STAMPED, MetricChange.__table__):
                _insert_changed(connection, table)
            connection.execute(sa.update(_STATE).values(low=high))
        return count

    def copied(self) -> None:
        """Note that `add` has brought every row there was; from now on changes follow."""
        with self.database.write() as connection:
            connection.execute(sa.update(_STATE).values(is_copied=True))

    def filled(self) -> None:
        """Add the unique constraints: the rows are those of one moment now, and they hold."""
        with self._explained(), self.database.write() as connection:
            for constraint in _constraints(_UNIQUE):
                connection.execute(AddConstraint(constraint, isolate_from_table=False))
            connection.exec_driver_sql("ANALYZE")

    def complete(self, clock: sa.Row, last_ids: Mapping[str, int]) -> None:
        """Make it a whole store with its identity, clock and numbers; it stays shut."""
        with self._explained(), self.database.write() as connection:
            for constraint in _constraints(_FOREIGN):
                add = str(AddConstraint(constraint, isolate_from_table=False).compile(connection))
                connection.exec_driver_sql(f"{add} NOT VALID")
            connection.execute(
                sa.update(Clock).values(store_id=clock.store_id, last_us=clock.last_us)
            )
            connection.exec_driver_sql(
                f"SELECT setval('mled_clock', greatest(last_value, {clock.last_us:d})) "
                "FROM mled_clock"
            )
            for table, last in last_ids.items():
                if last == 0:  # no row was ever kept
                    continue
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last:d})"
                )
            for table in STAMPED:
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")

    def open(self) -> None:
        """Let everyone in; then check the references between the rows, while they are used."""
        with self._explained(), self.database.write() as connection:
            _STATE.drop(connection, checkfirst=True)
        for constraint in _constraints(_FOREIGN):
            # Each by itself: it holds a lock until its transaction ends.
            with self._explained(), self.database.write() as connection:
                connection.exec_driver_sql(
                    f"ALTER TABLE {constraint.table.name} VALIDATE CONSTRAINT {_name(constraint)}"
                )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise StoreError(
                f"{self.address}: {str(error).strip()}; once that is mended, run the same command "
                "again: it goes on where it was"
            ) from error


_FOREIGN, _UNIQUE = sa.ForeignKeyConstraint, sa.UniqueConstraint


def _constraints(*kinds: type) -> list[sa.Constraint]:
    return [
        constraint
        for table in Base.metadata.sorted_tables
        for constraint in sorted(table.constraints, key=_name)
        if isinstance(constraint, kinds)
    ]


def _name(constraint: sa.Constraint) -> str:
    return str(constraint.name or "")


def _copy(connection: Connection, table: sa.Table, into: str, rows: Iterable[Sequence]) -> None:
    types = [
        next(_WIRE[kind] for kind in type(c.type).__mro__ if kind in _WIRE) for c in table.columns
    ]
    cursor = connection.connection.cursor()
    columns = ", ".join(f'"{c.name}"' for c in table.columns)
    with cursor.copy(f"COPY {into} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def _insert_changed(connection: Connection, table: sa.Table) -> None:
    connection.exec_driver_sql(f"INSERT INTO {table.name} SELECT * FROM changed_{table.name}")


def _delete_buried(connection: Connection, table: sa.Table, low: int) -> None:
    """Delete the rows whose tombstone is newer than `low`."""
    keys = [(c.name, c.type.compile(connection.dialect)) for c in table.primary_key]
    buried = ", ".join(f"(key::json ->> '{name}')::{kind} AS \"{name}\"" for name, kind in keys)
    same = " AND ".join(f't."{name}" = gone."{name}"' for name, _ in keys)
    connection.exec_driver_sql(
        f"DELETE FROM {table.name} AS t USING (SELECT {buried} FROM tombstone "
        f"WHERE table_name = '{table.name}' AND updated_at > {low:d}) AS gone WHERE {same}"
    )
