"""Where the data lies, and how far it has come: what `mled status` shows below the programs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import sqlalchemy as sa

from mled.settings import Settings
from mled.warehouse import batches, versions


def lines(settings: Settings) -> Iterator[str]:
    """A line for the store, staging, the mart and the artifacts each.

    Raises:
        ObjectStoreError: the object store cannot be read.
    """
    yield f"store      {sa.make_url(settings.store).render_as_string(hide_password=True)}"
    yield from _remote(settings) if settings.object_store else _local(settings)


def _local(settings: Settings) -> Iterator[str]:
    highs = [int(path.name.partition("-")[2]) for path in batches.committed(settings).glob("*-*")]
    yield f"staging    {batches.committed(settings)}: {_batches(highs)}"
    yield f"mart       {settings.mart}: {_version(versions.shown(settings))}"
    yield f"artifacts  {settings.artifacts}"


def _remote(settings: Settings) -> Iterator[str]:
    from mled.objects import Objects
    from mled.warehouse import remote_mart, remote_staging

    objects = Objects(settings)
    entries = remote_staging.listed(objects.read(remote_staging.SERIES))
    found = remote_mart.listed(objects.read(remote_mart.VERSIONS))
    newest = found[-1] if found else None
    at = f" of {_time(newest.published_at)}, {newest.bytes / 1e6:,.1f} MB" if newest else ""
    where = f"{objects.url}/{{}} at {objects.endpoint}"
    batches_there = _batches([entry.high for entry in entries])
    yield f"staging    {where.format(remote_staging.FOLDER)}: {batches_there}"
    yield f"mart       {where.format(remote_mart.FOLDER)}: {_version(newest and newest.name)}{at}"
    yield f"           shown here: {settings.mart}: {_version(versions.shown(settings))}"
    yield f"artifacts  {where.format('artifacts')}"


def _batches(highs: list[int]) -> str:
    if not highs:
        return "nothing yet"
    return f"{len(highs)} batches, up to {_time(max(highs) / 1e6)}"


def _version(name: str | None) -> str:
    return "nothing yet" if name is None else f"version {versions.number_of(name)}"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
