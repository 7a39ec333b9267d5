"""Batches in staging: immutable folders of Parquet files, each with a manifest.

A batch's folder appears whole, by one rename, and its manifest holds the watermark: there is no
second place that could disagree with the data. A batch bears the stamp of the store's clock up to
which it reads as its number, so no number is ever used again for other rows.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from mled.settings import Settings
from mled.warehouse.files import WarehouseError

MANIFEST = "manifest.json"


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
    """A manifest: rows of the store `store_id` with `low < updated_at <= high`.

    `columns` holds the type of every column of every table of the store at that time, whether
    or not the batch has rows of it; `tables` the files.
    """

    batch_id: int
    store_id: str
    schema_version: str
    low: int
    high: int
    created_at: str
    tables: dict[str, File]
    columns: dict[str, dict[str, str]]

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


def folder_of(settings: Settings, batch_id: int) -> Path:
    """Where the batch lies once it is committed."""
    return settings.staging / "committed" / f"batch_id={batch_id}"


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
            "from a backup, or move it away to read the whole store again"
        ) from error


def last(settings: Settings) -> Batch | None:
    """The newest committed batch; None before the first."""
    ids = [
        int(folder.name.removeprefix("batch_id="))
        for folder in (settings.staging / "committed").glob("batch_id=*")
    ]
    return read(folder_of(settings, max(ids))) if ids else None
