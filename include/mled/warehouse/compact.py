"""Keeping staging small: neighbouring batches become one, and rows that were replaced go."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mled.settings import Settings
from mled.store.schema import STAMPED
from mled.warehouse import batches
from mled.warehouse.batches import Batch, File
from mled.warehouse.files import empty_folder, sha256

MOST = 24
"""Batches that may lie in staging; each file of each costs every run some time to look at."""

_KEYS = {table.name: [column.name for column in table.primary_key] for table in STAMPED}


def compact(settings: Settings, most: int = MOST) -> Batch | None:
    """Merge the newest batches when there are more than `most`; None when there are not.

    Call it under `files.exclusive`, when dbt has applied all batches. Of each key the newest
    version stays, and keeps the number of the batch that brought it. A merged batch is larger
    than all newer ones together, so a row is rewritten a number of times that grows with the
    logarithm of the rows there are.

    Raises:
        WarehouseError: staging is damaged, or another machine has changed it meanwhile.
        OSError: the disk is full, for example; staging stays as it was.
    """
    series = batches.series(settings)
    if len(series) <= most:
        return None
    merged = _merge(settings, series, _first_to_merge(series))
    batches.series(settings)  # it removes the batches that the merged one replaces
    if settings.object_store:
        from mled.warehouse import remote_mart, remote_staging

        remote_staging.sweep(settings)
        remote_mart.sweep(settings)
    return merged


def _first_to_merge(series: Sequence[Batch]) -> int:
    """Where the newest batches begin that are no longer dwarfed by the one before them."""
    first, merged = len(series) - 1, series[-1].bytes
    while first and series[first - 1].bytes < 2 * merged:
        first -= 1
        merged += series[first].bytes
    return min(first, len(series) - 2)


def _merge(settings: Settings, series: Sequence[Batch], first: int) -> Batch:
    """Make one batch of all from the `first` on."""
    merged = series[first:]
    # Before the first batch there is nothing that a deletion could concern, unless the build
    # file of another machine lags behind.
    is_base = first == 0 and not settings.object_store
    batch = dataclasses.replace(
        merged[-1], low=merged[0].low, created_at=datetime.now(UTC).isoformat(), tables={}
    )
    folder = empty_folder(settings.staging / "tmp") / batch.name
    folder.mkdir()
    for table, key in _KEYS.items():
        files = [
            str(batches.folder_of(settings, b) / f"{table}.parquet")
            for b in merged
            if table in b.tables
        ]
        if files:
            path = folder / f"{table}.parquet"
            batch.tables[table] = _merge_files(settings, files, key, path, batch.low, is_base)
    batch.write(folder)
    batches.commit(settings, batch, folder, series)
    return batch


def _merge_files(
    settings: Settings, files: list[str], key: list[str], path: Path, low: int, is_base: bool
) -> File:
    by = ", ".join(key)
    kept = "WHERE NOT is_deleted" if is_base else ""
    limits = {
        "memory_limit": settings.duckdb_memory,
        "temp_directory": str(path.parent.parent / "spilled"),
        "threads": settings.dbt_threads,
    }
    with duckdb.connect(config=limits) as connection:
        connection.execute(
            f"""
            COPY (
                SELECT * FROM (
                    SELECT * FROM read_parquet($files, union_by_name = true)
                    QUALIFY row_number() OVER (
                        PARTITION BY {by} ORDER BY staged_in DESC, is_deleted
                    ) = 1
                ) {kept} ORDER BY {by}
            ) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
            """,
            {"files": files},
        )
        rows, deleted, inserted = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE is_deleted), "
            "count(*) FILTER (WHERE NOT is_deleted AND created_at > $low) "
            "FROM read_parquet($path)",
            {"low": low, "path": str(path)},
        ).fetchone()
    updated = rows - inserted - deleted
    return File(rows, inserted, updated, deleted, path.stat().st_size, sha256(path))
