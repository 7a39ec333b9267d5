"""Small write operations that several modules of the store share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled.store.database import Database


def find_or_insert(
    database: Database, connection: Connection, table, row: dict[str, Any], key: tuple[str, ...]
) -> int:
    """The id of the row with this key, inserted when there is none.

    Facts that are not None are updated when they differ.
    """
    match = [getattr(table, column) == row[column] for column in key]
    id = connection.execute(sa.select(table.id).where(*match)).scalar_one_or_none()
    given = {column: value for column, value in row.items() if value is not None}
    if id is None:
        insert = database.dialect.insert(table).values(**given)
        connection.execute(insert.on_conflict_do_nothing())
        return connection.execute(sa.select(table.id).where(*match)).scalar_one()
    update_if_changed(connection, table, id, {k: v for k, v in given.items() if k not in key})
    return id


def update_if_changed(connection: Connection, table, id: int, facts: Mapping[str, Any]) -> None:
    """Update a row only when a fact differs: each update makes the warehouse read it again."""
    if not facts:
        return
    columns = [getattr(table, column) for column in facts]
    present = connection.execute(sa.select(*columns).where(table.id == id)).one()
    if tuple(present) != tuple(facts.values()):
        connection.execute(sa.update(table).where(table.id == id).values(**facts))


def upsert(
    database: Database, connection: Connection, table, key: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Insert a row, or replace the facts of the one with this key."""
    connection.execute(
        database.dialect.insert(table)
        .values(**key, **facts)
        .on_conflict_do_update(index_elements=list(key), set_=facts)
    )
