"""Moving an installation to an object store: its batches, its newest mart, its artifacts.

What was sent is not sent again, so a push that was interrupted is simply run again.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from mled.objects import Objects, together
from mled.settings import Settings
from mled.store import artifacts
from mled.warehouse import batches, remote_mart, remote_staging, versions
from mled.warehouse.files import WarehouseError, exclusive, sha256
from mled.warehouse.publish import frozen

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Of a name and a number of bytes: what shows how many of them have been sent."""


def push(settings: Settings, bar: Bar) -> None:
    """Send what lies in the home folder to `MLED_OBJECT_STORE`; nothing here is changed.

    Where the object store has a series of batches or a mart already, those stay: whatever this
    installation has beyond them, the next run of the ETL takes from the store.

    Raises:
        WarehouseError: `MLED_OBJECT_STORE` is not set or holds another installation's staging, a
            file here is damaged, or an ETL is at work.
        ObjectStoreError: the object store cannot be used.
    """
    if not settings.object_store:
        raise WarehouseError("MLED_OBJECT_STORE is not set: set it to s3://BUCKET/PREFIX")
    here = dataclasses.replace(settings, object_store="")
    objects = Objects(settings)
    with exclusive(here), exclusive(settings):
        _push_staging(here, objects, bar)
        _push_mart(here, objects, bar)
        _push_artifacts(here, objects, bar)


def _push_staging(here: Settings, objects: Objects, bar: Bar) -> None:
    series = batches.series(here)
    found = objects.read(remote_staging.SERIES)
    if found and series and remote_staging.series_of(found) != series[-1].series:
        raise WarehouseError(
            f"{objects.url} holds the staging of another installation, or one that was built "
            "afresh: choose another prefix in MLED_OBJECT_STORE, or empty this one"
        )
    if found or not series:
        return
    entries = [remote_staging.entry_of(batches.folder_of(here, batch)) for batch in series]
    files = {}
    for batch, entry in zip(series, entries, strict=True):
        folder = batches.folder_of(here, batch)
        files[folder / batches.MANIFEST] = entry.folder, entry.manifest_sha256
        for table, file in batch.tables.items():
            files[folder / f"{table}.parquet"] = entry.folder, file.sha256
    _send(objects, "staging", {p: (f"{f}/{p.name}", h) for p, (f, h) in files.items()}, bar)
    _list(objects, remote_staging.SERIES, remote_staging.as_list(series[-1].series, entries))


def _push_mart(here: Settings, objects: Objects, bar: Bar) -> None:
    name = versions.shown(here)
    if name is None or objects.read(remote_mart.VERSIONS):
        return
    folder = versions.folder_of(here, name)
    number = versions.number_of(name)
    version = remote_mart.version_of(folder, here.mart.name, number, *frozen(folder))
    files = {folder / n: (f"{version.folder}/{n}", h) for n, h in version.files.items()}
    _send(objects, "mart", files, bar)
    _list(objects, remote_mart.VERSIONS, remote_mart.as_list([version]))


def _push_artifacts(here: Settings, objects: Objects, bar: Bar) -> None:
    hashes = {path: f"{path.parent.name}{path.name}" for path in here.artifacts.glob("??/*")}
    # Others are what a killed process was writing.
    whole = {path: digest for path, digest in hashes.items() if len(digest) == 64}
    files = {path: (artifacts.key_of(digest), digest) for path, digest in whole.items()}
    _send(objects, "artifacts", files, bar)


def _send(objects: Objects, folder: str, files: Mapping[Path, tuple[str, str]], bar: Bar) -> None:
    """Send files, each as a key and with a hash that it must have, unless they are there."""
    known = objects.keys(folder)
    missing = [path for path, (key, _) in files.items() if key not in known]
    telling = threading.Lock()
    with bar(folder, sum(path.stat().st_size for path in missing)) as tell:

        def sent(count: int) -> None:
            with telling:
                tell(count)

        def send(path: Path) -> None:
            key, wanted = files[path]
            if sha256(path) != wanted:
                raise WarehouseError(
                    f"{path} is damaged: its SHA-256 is not {wanted}; put it back from a backup, "
                    f"or remove it and {batches.AFRESH}"
                )
            objects.upload(path, key, sent)

        together(send, missing)


def _list(objects: Objects, key: str, content: bytes) -> None:
    if not objects.swap(key, content, None):
        raise WarehouseError(
            f"another machine has written {objects.url}/{key} meanwhile: push again"
        )
