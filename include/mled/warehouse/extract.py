"""Extraction: the store's changed rows, from one snapshot, into one batch of Parquet files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled.settings import Settings
from mled.store import connect
from mled.store.database import head
from mled.store.schema import STAMPED, Clock, Metric, MetricChange, Tombstone
from mled.warehouse import batches
from mled.warehouse.batches import Batch, File
from mled.warehouse.files import WarehouseError, commit_folder, empty_folder

CHUNK_ROWS = 100_000
"""Rows held in memory at a time; also the size of a Parquet row group."""

_ARROW_TYPES: dict[type[sa.types.TypeEngine], pa.DataType] = {
    sa.Boolean: pa.bool_(),
    sa.Integer: pa.int64(),
    sa.Float: pa.float64(),
    sa.String: pa.string(),
    sa.JSON: pa.string(),
}


def extract(settings: Settings) -> Batch | None:
    """Write what changed in the store since the last batch as a new batch; None if nothing did.

    Call it under `files.exclusive`. Memory is bounded by `CHUNK_ROWS`, whatever the number of
    rows. A batch holds a file for each table with changed rows, and for each table that no
    earlier batch knew: the columns of the table and `is_deleted`. A deleted row has only its key
    and `updated_at`.

    Raises:
        WarehouseError: the store is another one than the last batch's, went back in time, or
            lost or retyped a column.
        StoreError: the store cannot be read.
    """
    previous = batches.last(settings)
    aside = empty_folder(settings.staging / "tmp")
    with connect(settings).read() as connection:
        high = connect(settings).dialect.high(connection)
        store_id = connection.execute(sa.select(Clock.store_id)).scalar_one()
        columns = {table.name: _types(table) for table in STAMPED}
        _check(settings, previous, store_id, high, columns)
        low = previous.high if previous else 0
        if previous and high == low:
            return None
        known = previous.columns if previous else {}
        folder = aside / f"batch_id={high}"
        folder.mkdir()
        files = {
            table.name: file
            for table in STAMPED
            if (file := _write_table(connection, table, low, high, folder, table.name not in known))
        }
    if not files:
        return None
    batch = Batch(
        batch_id=high,
        store_id=store_id,
        schema_version=head(),
        low=low,
        high=high,
        created_at=datetime.now(UTC).isoformat(),
        tables=files,
        columns=columns,
    )
    batch.write(folder)
    commit_folder(folder, batches.folder_of(settings, batch.batch_id))
    return batch


def arrow_schema(table: sa.Table) -> pa.Schema:
    """The schema of a table's files in staging.

    Raises:
        WarehouseError: a column's type has no counterpart.
    """
    fields = [pa.field(column.name, _arrow_type(column)) for column in table.columns]
    return pa.schema([*fields, pa.field("is_deleted", pa.bool_(), nullable=False)])


def _arrow_type(column: sa.Column) -> pa.DataType:
    for cls in type(column.type).__mro__:
        if cls in _ARROW_TYPES:
            return _ARROW_TYPES[cls]
    raise WarehouseError(
        f"column {column.table.name}.{column.name} is of type {column.type!r}, which staging does "
        "not know: add it to the types in mled/warehouse/extract.py"
    )


def _types(table: sa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in arrow_schema(table)}


def _check(
    settings: Settings,
    previous: Batch | None,
    store_id: str,
    high: int,
    columns: dict[str, dict[str, str]],
) -> None:
    """Refuse to continue the series of batches with rows that do not belong to it."""
    if previous is None:
        return
    afresh = (
        f"to build the mart afresh from the store as it is now, move {settings.staging} and "
        f"{settings.build_file.parent} away and run the ETL again"
    )
    if store_id != previous.store_id:
        raise WarehouseError(
            f"the store {settings.store} is {store_id}, but staging was read from "
            f"{previous.store_id}: set MLED_STORE_URL back, or, {afresh}"
        )
    if high < previous.high:
        raise WarehouseError(
            f"the store's clock is at {high}, but staging was read up to {previous.high}: the "
            f"store has been restored from a backup; {afresh}"
        )
    for table, types in previous.columns.items():
        for column, kind in types.items():
            now = columns.get(table, {}).get(column)
            if now != kind:
                change = "was removed" if now is None else f"was {kind} and is now {now}"
                raise WarehouseError(
                    f"column {table}.{column} of the store {change}: adapt the models of "
                    f"dbt_project that use it; then, {afresh}"
                )


def _write_table(
    connection: Connection, table: sa.Table, low: int, high: int, folder: Path, even_empty: bool
) -> File | None:
    """Write a table's changed and deleted rows; None when there are none and none are wanted."""
    path = folder / f"{table.name}.parquet"
    writer = None
    inserted = updated = deleted = 0
    for chunk in _chunks(connection, table, low, high):
        writer = writer or pq.ParquetWriter(path, chunk.schema, compression="zstd")
        writer.write_batch(chunk, row_group_size=CHUNK_ROWS)
        gone = pc.sum(chunk["is_deleted"]).as_py()
        new = pc.sum(pc.greater(chunk["created_at"], low)).as_py() or 0
        inserted, updated, deleted = (
            inserted + new,
            updated + chunk.num_rows - gone - new,
            deleted + gone,
        )
    if writer is None:
        if not even_empty:
            return None
        writer = pq.ParquetWriter(path, arrow_schema(table), compression="zstd")
    writer.close()
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    rows = inserted + updated + deleted
    return File(rows, inserted, updated, deleted, path.stat().st_size, sha256)


def _chunks(
    connection: Connection, table: sa.Table, low: int, high: int
) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(table)
    streamed = connection.execution_options(stream_results=True)
    for rows in streamed.execute(_changed(table, low, high)).partitions(CHUNK_ROWS):
        alive = pa.repeat(pa.scalar(False), len(rows))
        columns = zip(zip(*rows, strict=True), schema.types[:-1], strict=True)
        yield pa.record_batch([*(pa.array(c, t) for c, t in columns), alive], schema=schema)
    for rows in streamed.execute(_deleted(table, low, high)).partitions(CHUNK_ROWS):
        yield _tombstones(table, schema, rows)


def _changed(table: sa.Table, low: int, high: int) -> sa.Select:
    # JSON stays the text that the store holds: staging is not the place to interpret it.
    columns = [sa.cast(c, sa.Text) if isinstance(c.type, sa.JSON) else c for c in table.columns]
    query = sa.select(*columns).where(table.c.updated_at > low, table.c.updated_at <= high)
    if table is Metric.__table__:
        trials = sa.select(MetricChange.trial_id).where(MetricChange.updated_at > low)
        query = query.where(table.c.trial_id.in_(trials))
    return query


def _deleted(table: sa.Table, low: int, high: int) -> sa.Select:
    return sa.select(Tombstone.key, Tombstone.updated_at).where(
        Tombstone.table_name == table.name,
        Tombstone.updated_at > low,
        Tombstone.updated_at <= high,
    )


def _tombstones(table: sa.Table, schema: pa.Schema, rows: Sequence[sa.Row]) -> pa.RecordBatch:
    keys, stamps = zip(*rows, strict=True)
    key_schema = pa.schema([schema.field(column.name) for column in table.primary_key])
    parsed = pyarrow.json.read_json(
        io.BytesIO("\n".join(keys).encode()),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=key_schema),
    ).combine_chunks()
    filled = {name: parsed[name].combine_chunks() for name in key_schema.names}
    filled["updated_at"] = pa.array(stamps, pa.int64())
    filled["is_deleted"] = pa.repeat(pa.scalar(True), len(rows))
    return pa.record_batch(
        [filled.get(f.name, pa.nulls(len(rows), f.type)) for f in schema], schema=schema
    )
