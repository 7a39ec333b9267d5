"""The published mart in an object store: versions as objects, and one small object that lists them.

A version's objects are sent first, and never overwritten; then one conditional write puts it at
the end of the list. So readers on other machines know a version when all of it is there, and of
two machines that publish at once one succeeds. A reader fetches a version aside, checks its hashes,
and is then shown it like one that was published on its own machine: see `versions`.

Nothing here imports DuckDB, since Superset's processes fork after they have loaded this.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from mled.objects import Found, MissingObjectError, Objects, together
from mled.settings import Settings
from mled.warehouse import remote_staging, versions
from mled.warehouse.files import WarehouseError, empty_folder, locked, sha256

FOLDER = "mart"
VERSIONS = f"{FOLDER}/versions.json"
LOOKS = 3
"""How often the list is read again when a version of it was removed meanwhile."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """A published version: its files with their hashes, and the batches that are in it.

    `published_at` is in seconds since 1970.
    """

    name: str
    files: dict[str, str]
    bytes: int
    series: str
    batch_id: int
    published_at: float

    @property
    def folder(self) -> str:
        """The key under which the version's files lie."""
        return f"{FOLDER}/{self.name}"


def listed(found: Found | None) -> list[Version]:
    """The versions in the list, oldest first."""
    return remote_staging.parsed(found, "versions", Version)


def publish(settings: Settings, aside: Path, series: str, batch_id: int) -> str:
    """Publish the folder `aside`, and show it here; returns the version's name.

    `batch_id` is the newest batch, of the given series, that is in it.

    Raises:
        WarehouseError: another machine has published meanwhile, or newer rows.
        ObjectStoreError: the object store cannot be written.
    """
    objects = Objects(settings)
    found = objects.read(VERSIONS)
    before = listed(found)
    _check_newer(objects, before, series, batch_id)
    number = max(map(versions.number_of, [v.name for v in before] or ["0"])) + 1
    version = version_of(aside, settings.mart.name, number, series, batch_id)
    together(lambda name: objects.upload(aside / name, f"{version.folder}/{name}"), version.files)
    kept = _kept(before, settings.keep_marts)
    with _lock(settings):
        if not objects.swap(VERSIONS, as_list([*kept, version]), found):
            raise WarehouseError(
                f"another machine has changed {objects.url}/{VERSIONS} meanwhile, and this "
                "version is not shown: run the ETL again"
            )
        versions.add(settings, aside, version.name)
        versions.show(settings, version.name)
    objects.delete(f"{v.folder}/{file}" for v in before if v not in kept for file in v.files)
    return version.name


def version_of(folder: Path, mart: str, number: int, series: str, batch_id: int) -> Version:
    """The entry of a folder that is to be published; `mart` is the name of the mart's file."""
    files = {path.name: sha256(path) for path in folder.iterdir()}
    return Version(
        name=f"{number}-{files[mart][:16]}",
        files=files,
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        series=series,
        batch_id=batch_id,
        published_at=time.time(),
    )


def as_list(found: Iterable[Version]) -> bytes:
    """The content of the list."""
    return json.dumps({"versions": [asdict(version) for version in found]}, indent=1).encode()


def _check_newer(objects: Objects, before: list[Version], series: str, batch_id: int) -> None:
    """Refuse to show older rows than are shown, since another machine has built newer ones."""
    if not before:
        return
    if before[-1].series == series:
        is_older = batch_id < before[-1].batch_id
    else:
        is_older = series != remote_staging.series_of(objects.read(remote_staging.SERIES))
    if is_older:
        raise WarehouseError(
            f"another machine has published newer rows as version {before[-1].name} in "
            f"{objects.url}: run the ETL again"
        )


def _kept(before: list[Version], keep: int) -> list[Version]:
    """The versions that stay beside a new one: the newest, and those that were just replaced."""
    since = time.time() - versions.GRACE_SECONDS
    just_replaced = [v for v, next in pairwise(before) if next.published_at > since] + before[-1:]
    return [v for v in before if v in just_replaced or v in before[len(before) - keep + 1 :]]


def fetch(settings: Settings) -> None:
    """Bring the newest published version to this machine, and show it.

    One small request when it is shown already, or nothing has been published.

    Raises:
        ObjectStoreError: the object store cannot be read, or the version is damaged.
        OSError: the disk is full, for example; what was shown stays.
    """
    objects = Objects(settings)
    if not _is_behind(settings, objects):
        return
    with _lock(settings):
        for look in range(1, LOOKS + 1):
            try:
                if version := _is_behind(settings, objects):
                    _bring(settings, objects, version)
                return
            except MissingObjectError:
                if look == LOOKS:
                    raise


def _is_behind(settings: Settings, objects: Objects) -> Version | None:
    """The newest published version, if it is not the one that is shown."""
    newest = listed(objects.read(VERSIONS))[-1:]
    return newest[0] if newest and newest[0].name != versions.shown(settings) else None


def _bring(settings: Settings, objects: Objects, version: Version) -> None:
    if not versions.folder_of(settings, version.name).exists():
        aside = empty_folder(settings.warehouse / "fetched") / version.name
        aside.mkdir()
        together(
            lambda name: objects.download(
                f"{version.folder}/{name}", aside / name, version.files[name]
            ),
            version.files,
        )
        versions.add(settings, aside, version.name)
    versions.show(settings, version.name)


def _lock(settings: Settings):
    return locked(settings.warehouse / "shown.lock")


def sweep(settings: Settings) -> None:
    """Remove versions that died before they were listed, and what a killed removal left."""
    objects = Objects(settings)
    found = listed(objects.read(VERSIONS))
    objects.sweep(FOLDER, [VERSIONS, *(version.folder for version in found)])


class Follower:
    """Keeps what is shown on a machine that only reads up to date; for any number of threads.

    A look costs one small request, at most every `EVERY_SECONDS` and process. A version that
    takes longer than `PATIENCE_SECONDS` to arrive is shown when it is there, and the one before
    until then. When the object store cannot be read, what was fetched goes on being shown.
    """

    EVERY_SECONDS = 5.0
    PATIENCE_SECONDS = 10.0

    def __init__(self, settings: Settings):
        self._settings = settings
        self._starting = threading.Lock()
        self._look: threading.Thread | None = None
        self._began = self._ended = -self.EVERY_SECONDS
        self.problem: OSError | None = None
        """Why the newest version could not be fetched the last time."""

    def refresh(self) -> None:
        """Show the newest version, if it can be had soon."""
        with self._starting:
            now = time.monotonic()
            is_looking = self._look is not None and self._look.is_alive()
            if not is_looking and now - self._ended >= self.EVERY_SECONDS:
                self._began = now
                self._look = threading.Thread(target=self._fetch, name="mart-fetch", daemon=True)
                self._look.start()
            look, until = self._look, self._began + self.PATIENCE_SECONDS
        look.join(max(0.0, until - time.monotonic()))

    def _fetch(self) -> None:
        try:
            fetch(self._settings)
            self.problem = None
        except OSError as error:
            log.warning("the mart cannot be brought up to date: %s", error)
            self.problem = error
        finally:
            self._ended = time.monotonic()
