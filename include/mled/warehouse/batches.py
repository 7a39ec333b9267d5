"""Batches in staging: immutable folders of Parquet files, each with a manifest.

A batch's folder appears whole, by one rename, and its manifest holds the watermark: there is no
second place that could disagree with the data. The folder is named by the stamps of the store's
clock between which it reads, as `low-high`, so no name is ever used again for other rows. Batches
that follow one another, from the store's first stamp on, are a series.

With an object store the folders here are a copy of what lies there: see `remote_staging`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mled.settings import Settings
from mled.warehouse.files import WarehouseError, commit_folder, discard

MANIFEST = "manifest.json"
AFRESH = "build everything afresh from the store as it is now with `mled warehouse rebuild`"
"""The way out when staging cannot be continued."""


@dataclass(frozen=True)
class File:
    """What a batch took of one table."""

    rows: int
    inserted: int
    updated: int
    deleted: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Batch:
    """A manifest: rows of the store `store_id` with `updated_at` above `low`.

    It lacks none up to `high`; it may hold some beyond, which the next batch brings again.
    `columns` holds the type of every column of every table of the store at that time, whether
    or not the batch has rows of it; `tables` the files.
    """

    batch_id: int
    series: str
    store_id: str
    schema_version: str
    low: int
    high: int
    created_at: str
    tables: dict[str, File]
    columns: dict[str, dict[str, str]]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.low}-{self.high}"

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.tables.values())

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.tables.values())

    def write(self, folder: Path) -> None:
        """Write the manifest into the batch's folder."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def committed(settings: Settings) -> Path:
    """The folder in which the batches lie."""
    return settings.staging / "committed"


def folder_of(settings: Settings, batch: Batch) -> Path:
    """Where a batch lies once it is committed."""
    return committed(settings) / batch.name


def read(folder: Path) -> Batch:
    """The manifest of a committed batch.

    Raises:
        WarehouseError: the manifest is missing or is no manifest.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = {name: File(**file) for name, file in content.pop("tables").items()}
        return Batch(**content, tables=tables)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WarehouseError(
            f"{path} is no manifest of a batch ({error}): restore the folder {folder.parent} "
            f"from a backup, or {AFRESH}"
        ) from error


def series(settings: Settings) -> list[Batch]:
    """The committed batches, oldest first; batches that a merged one replaces are removed.

    Raises:
        WarehouseError: a manifest is damaged, or a batch is missing between two others.
        ObjectStoreError: the object store cannot be read.
    """
    if settings.object_store:
        from mled.warehouse import remote_staging

        remote_staging.pull(settings)
    found = sorted(
        (read(folder) for folder in committed(settings).glob("*-*")),
        key=lambda batch: (batch.low, -batch.high),
    )
    kept: list[Batch] = []
    for batch in found:
        end = kept[-1].high if kept else 0
        if kept and batch.high <= end:
            discard(folder_of(settings, batch), settings.staging / "tmp")
        elif batch.low != end:
            raise WarehouseError(
                f"{committed(settings)} has no batch for the stamps from {end} to {batch.low}: "
                f"put its folder back, or {AFRESH}"
            )
        else:
            kept.append(batch)
    return kept


def commit(settings: Settings, batch: Batch, folder: Path, base: Sequence[Batch] | None) -> None:
    """Make a batch that was written aside in `folder` part of the series, in one step.

    `base` is the series as it was when the batch was begun; None starts a new one. A batch
    replaces those of its window.

    Raises:
        WarehouseError: another machine has changed the series since.
        ObjectStoreError: the object store cannot be written.
    """
    if settings.object_store:
        from mled.warehouse import remote_staging

        remote_staging.commit(settings, batch, folder, base)
    if base is None and committed(settings).exists():
        discard(committed(settings), settings.staging / "tmp")
    commit_folder(folder, folder_of(settings, batch))
