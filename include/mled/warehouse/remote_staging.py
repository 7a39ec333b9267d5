"""Staging in an object store: the batches as objects, and one small object that lists them.

The list is the series. Each change of it (a new batch, a merged one in the place of others, a new
series) is one conditional write, so of two machines that extract at once one succeeds and the
other changes nothing. A batch's objects are never overwritten: their folder bears the hash of its
manifest, and so of all it holds. Every machine works on a copy, which `pull` brings up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from mled.objects import Found, MissingObjectError, Objects, together
from mled.settings import Settings
from mled.warehouse.batches import MANIFEST, Batch, committed, folder_of, read
from mled.warehouse.files import WarehouseError, commit_folder, discard, empty_folder, sha256

T = TypeVar("T")

FOLDER = "staging"
SERIES = f"{FOLDER}/series.json"
LOOKS = 3
"""How often the list is read again when a batch of it was merged, and removed, meanwhile."""


@dataclass(frozen=True)
class Entry:
    """A batch in the list."""

    name: str
    manifest_sha256: str

    @property
    def folder(self) -> str:
        """The key under which the batch's files lie."""
        return f"{FOLDER}/{self.name}-{self.manifest_sha256[:16]}"

    @property
    def high(self) -> int:
        return int(self.name.partition("-")[2])


def entry_of(folder: Path) -> Entry:
    """The entry of a batch that lies on this machine, in a folder of its name."""
    return Entry(folder.name, sha256(folder / MANIFEST))


def parsed(found: Found | None, name: str, kind: type[T]) -> list[T]:
    """The entries of a list that lies in the object store; none while there is no list.

    Raises:
        WarehouseError: it is no list of `name`.
    """
    try:
        return [kind(**entry) for entry in json.loads(found.content)[name]] if found else []
    except (ValueError, KeyError, TypeError) as error:
        raise WarehouseError(
            f"the object store's list of {name} cannot be read ({error}): put an older version of "
            "it back, or choose another prefix in MLED_OBJECT_STORE"
        ) from error


def listed(found: Found | None) -> list[Entry]:
    """The batches in the list, oldest first."""
    return parsed(found, "batches", Entry)


def series_of(found: Found | None) -> str | None:
    """The series that the list is."""
    return json.loads(found.content)["series"] if found else None


def pull(settings: Settings) -> None:
    """Make this machine's copy of staging equal to what lies in the object store.

    Call it under `files.exclusive`.

    Raises:
        ObjectStoreError: the object store cannot be read.
    """
    objects = Objects(settings)
    for look in range(1, LOOKS + 1):
        entries = listed(objects.read(SERIES))
        _discard_others(settings, entries)
        try:
            for entry in entries:
                if not (committed(settings) / entry.name).exists():
                    _fetch(settings, objects, entry)
            return
        except MissingObjectError:
            if look == LOOKS:
                raise


def _discard_others(settings: Settings, entries: Iterable[Entry]) -> None:
    wanted = set(entries)
    for folder in committed(settings).glob("*-*"):
        if not (folder / MANIFEST).exists() or entry_of(folder) not in wanted:
            discard(folder, settings.staging / "tmp")


def _fetch(settings: Settings, objects: Objects, entry: Entry) -> None:
    folder = empty_folder(settings.staging / "tmp") / entry.name
    folder.mkdir()
    objects.download(f"{entry.folder}/{MANIFEST}", folder / MANIFEST, entry.manifest_sha256)
    files = {f"{table}.parquet": file.sha256 for table, file in read(folder).tables.items()}
    together(
        lambda name: objects.download(f"{entry.folder}/{name}", folder / name, files[name]), files
    )
    commit_folder(folder, committed(settings) / entry.name)


def upload(objects: Objects, folder: Path) -> Entry:
    """Send a batch's files; nobody sees them before its entry is in the list."""
    entry = entry_of(folder)
    together(lambda path: objects.upload(path, f"{entry.folder}/{path.name}"), folder.iterdir())
    return entry


def commit(settings: Settings, batch: Batch, folder: Path, base: Sequence[Batch] | None) -> None:
    """Send a batch that was written aside in `folder`, and list it; see `batches.commit`."""
    objects = Objects(settings)
    found = objects.read(SERIES)
    known = [entry_of(folder_of(settings, b)) for b in base or ()]
    if base is not None and listed(found) != known:
        raise _overtaken(objects)
    entries = [*(e for e in known if e.high <= batch.low), upload(objects, folder)]
    if not objects.swap(SERIES, as_list(batch.series, entries), found):
        raise _overtaken(objects)


def as_list(series: str, entries: Iterable[Entry]) -> bytes:
    """The content of the list."""
    content = {"series": series, "batches": [asdict(entry) for entry in entries]}
    return json.dumps(content, indent=1).encode()


def _overtaken(objects: Objects) -> WarehouseError:
    return WarehouseError(
        f"another machine has changed {objects.url}/{SERIES} meanwhile, and nothing of this run's "
        "was added to it: run the ETL again"
    )


def sweep(settings: Settings) -> None:
    """Remove what merged batches have replaced, and what died before it was listed."""
    objects = Objects(settings)
    entries = listed(objects.read(SERIES))
    objects.sweep(FOLDER, [SERIES, *(entry.folder for entry in entries)])
