"""Extraction: the store's changed rows, from one snapshot, into one batch of Parquet files."""

from __future__ import annotations

import gc
import io
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled.settings import Settings
from mled.store import changes, connect
from mled.store.database import head
from mled.store.schema import STAMPED
from mled.warehouse import batches
from mled.warehouse.batches import Batch, File
from mled.warehouse.files import WarehouseError, empty_folder, sha256

CHUNK_ROWS = 100_000
"""Rows held in memory at a time; also the size of a Parquet row group."""

_ARROW_TYPES: dict[type[sa.types.TypeEngine], pa.DataType] = {
    sa.Boolean: pa.bool_(),
    sa.Integer: pa.int64(),
    sa.Float: pa.float64(),
    sa.String: pa.string(),
    sa.JSON: pa.string(),
}

_ADDED = (
    pa.field("is_deleted", pa.bool_(), nullable=False),
    pa.field("staged_in", pa.int64(), nullable=False),
)
"""What staging knows of a row beyond the store's own columns."""


def extract(settings: Settings, afresh: bool = False) -> Batch | None:
    """Write what changed in the store since the last batch as a new batch; None if nothing did.

    With `afresh`, everything, as the first batch of a series that replaces the one in staging.
    Call it under `files.exclusive`. Memory is bounded by `CHUNK_ROWS`, whatever the number of
    rows. A batch holds a file for each table with changed rows, and for each table that no
    earlier batch knew: the columns of the table, `is_deleted`, and `staged_in`, which is the
    number of the batch. A deleted row has only its key and `updated_at`.

    Raises:
        WarehouseError: the store is another one than the last batch's, went back in time, or
            lost or retyped a column; or another machine has extracted meanwhile.
        StoreError: the store cannot be read.
    """
    series = [] if afresh else batches.series(settings)
    previous = series[-1] if series else None
    database = connect(settings)
    store_id = database.identity()
    columns = {table.name: _types(table) for table in STAMPED}
    with database.snapshot(previous.high if previous else 0) as (connection, high):
        if previous:
            _check(settings, previous, store_id, high, columns)
            if high == previous.high:
                return None
        batch = Batch(
            batch_id=high,
            series=previous.series if previous else str(uuid.uuid4()),
            store_id=store_id,
            schema_version=head(),
            low=previous.high if previous else 0,
            high=high,
            created_at=datetime.now(UTC).isoformat(),
            tables={},
            columns=columns,
        )
        folder = empty_folder(settings.staging / "tmp") / batch.name
        folder.mkdir()
        known = previous.columns if previous else {}
        with _without_garbage_collection():
            for table in STAMPED:
                file = _write_table(connection, table, batch, folder, table.name not in known)
                if file:
                    batch.tables[table.name] = file
    if not batch.tables:
        return None
    batch.write(folder)
    batches.commit(settings, batch, folder, None if afresh else series)
    return batch


def arrow_schema(table: sa.Table) -> pa.Schema:
    """The schema of a table's files in staging.

    Raises:
        WarehouseError: a column's type has no counterpart.
    """
    fields = [pa.field(column.name, _arrow_type(column)) for column in table.columns]
    return pa.schema([*fields, *_ADDED])


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
    previous: Batch,
    store_id: str,
    high: int,
    columns: dict[str, dict[str, str]],
) -> None:
    """Refuse to continue the series of batches with rows that do not belong to it."""
    if store_id != previous.store_id:
        raise WarehouseError(
            f"the store {settings.store} is {store_id}, but staging was read from "
            f"{previous.store_id}: if it was restored from a backup, {batches.AFRESH}; "
            "otherwise set MLED_STORE_URL back"
        )
    if high < previous.high:
        raise WarehouseError(
            f"the store's clock is at {high}, but staging was read up to {previous.high}: the "
            f"store has been replaced by an older copy; {batches.AFRESH}"
        )
    for table, types in previous.columns.items():
        for column, kind in types.items():
            now = columns.get(table, {}).get(column)
            if now != kind:
                change = "was removed" if now is None else f"was {kind} and is now {now}"
                raise WarehouseError(
                    f"column {table}.{column} of the store {change}: adapt the models of "
                    f"dbt_project that use it, then {batches.AFRESH}"
                )


def _write_table(
    connection: Connection, table: sa.Table, batch: Batch, folder: Path, even_empty: bool
) -> File | None:
    """Write a table's changed and deleted rows; None when there are none and none are wanted."""
    path = folder / f"{table.name}.parquet"
    writer = None
    inserted = updated = deleted = 0
    for chunk in _chunks(connection, table, batch):
        writer = writer or pq.ParquetWriter(path, chunk.schema, compression="zstd")
        writer.write_batch(chunk, row_group_size=CHUNK_ROWS)
        gone = pc.sum(chunk["is_deleted"]).as_py()
        new = pc.sum(pc.greater(chunk["created_at"], batch.low)).as_py() or 0
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
    rows = inserted + updated + deleted
    return File(rows, inserted, updated, deleted, path.stat().st_size, sha256(path))


def _chunks(connection: Connection, table: sa.Table, batch: Batch) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(table)
    streamed = connection.execution_options(stream_results=True)
    # Neither query ends at the batch's `high`: a row that was changed again before the snapshot
    # was taken would then be missing, though rows that refer to it are not.
    for rows in streamed.execute(changes.changed(table, batch.low)).partitions(CHUNK_ROWS):
        kinds = schema.types[: -len(_ADDED)]
        columns = [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), kinds, strict=True)]
        yield pa.record_batch([*columns, *_added(len(rows), False, batch)], schema=schema)
    for rows in streamed.execute(changes.deleted(table, batch.low)).partitions(CHUNK_ROWS):
        yield _tombstones(table, schema, rows, batch)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Rows have no cycles; to look for some among them takes as long as to read them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _added(rows: int, is_deleted: bool, batch: Batch) -> list[pa.Array]:
    return [
        pa.repeat(pa.scalar(is_deleted), rows),
        pa.repeat(pa.scalar(batch.batch_id, pa.int64()), rows),
    ]


def _tombstones(
    table: sa.Table, schema: pa.Schema, rows: Sequence[sa.Row], batch: Batch
) -> pa.RecordBatch:
    keys, stamps = zip(*rows, strict=True)
    key_schema = pa.schema([schema.field(column.name) for column in table.primary_key])
    parsed = pyarrow.json.read_json(
        io.BytesIO("\n".join(keys).encode()),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=key_schema),
    ).combine_chunks()
    filled = {name: parsed[name].combine_chunks() for name in key_schema.names}
    filled["updated_at"] = pa.array(stamps, pa.int64())
    filled |= zip((f.name for f in _ADDED), _added(len(rows), True, batch), strict=True)
    return pa.record_batch(
        [filled.get(f.name, pa.nulls(len(rows), f.type)) for f in schema], schema=schema
    )
