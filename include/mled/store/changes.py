"""What changed in a store since a stamp of its clock, as queries."""

from __future__ import annotations

import sqlalchemy as sa

from mled.store.schema import Metric, MetricChange, Tombstone


def rows(table: sa.Table) -> sa.Select:
    """All rows of a table. JSON stays the text that the store holds: it is not interpreted."""
    return sa.select(
        *(sa.cast(c, sa.Text) if isinstance(c.type, sa.JSON) else c for c in table.columns)
    )


def changed(table: sa.Table, low: int) -> sa.Select:
    """The rows of a table that were inserted or updated after the stamp `low`."""
    query = rows(table).where(table.c.updated_at > low)
    if table is Metric.__table__:
        trials = sa.select(MetricChange.trial_id).where(MetricChange.updated_at > low)
        query = query.where(table.c.trial_id.in_(trials))
    return query


def deleted(table: sa.Table, low: int) -> sa.Select:
    """Key (JSON) and stamp of the rows of a table that were deleted after the stamp `low`."""
    return sa.select(Tombstone.key, Tombstone.updated_at).where(
        Tombstone.table_name == table.name, Tombstone.updated_at > low
    )
