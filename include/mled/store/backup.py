"""Backups of the store: taken while it is in use, kept for hours, days and weeks, put back.

A store that was put back has a new identity, so the warehouse notices and does not mistake its
older rows for the newest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mled.settings import Settings
from mled.store.database import Database, connect
from mled.store.dialects import StoreError, dialect_of

_NAME = re.compile(r"store-(\d{8}T\d{6}Z)\.(db|dump)")
_TIME = "%Y%m%dT%H%M%SZ"

KEEP = {"%Y-%m-%d %H": 24, "%Y-%m-%d": 7, "%G-%V": 8}
"""For each length of time (an hour, a day, a week), of how many the newest backup is kept."""


@dataclass(frozen=True)
class Backup:
    """A backup file and when it was taken (UTC)."""

    path: Path
    taken_at: datetime

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


def backups(settings: Settings) -> list[Backup]:
    """The backups of these settings' store, newest first."""
    found = []
    for path in settings.backups.glob("store-*"):
        if match := _NAME.fullmatch(path.name):
            taken_at = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            found.append(Backup(path, taken_at))
    return sorted(found, key=lambda backup: backup.taken_at, reverse=True)


def take(settings: Settings) -> Backup:
    """Copy the store while it is in use; the copy is checked before it gets its name.

    Raises:
        StoreError: the store cannot be read, or the copy cannot be written or is damaged.
    """
    database = connect(settings)
    settings.backups.mkdir(parents=True, exist_ok=True)
    taken_at = datetime.now(UTC).replace(microsecond=0)
    suffix = database.dialect.backup_suffix
    path = settings.backups / f"store-{taken_at.strftime(_TIME)}.{suffix}"
    aside = path.with_name(f".{path.name}.part")
    try:
        database.dialect.backup(database.url, aside)
        aside.rename(path)
    except OSError as error:
        raise StoreError(f"the backup {path} cannot be written: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return Backup(path, taken_at)


def expired(found: Iterable[Backup]) -> list[Backup]:
    """The backups that retention does not keep: see `KEEP`."""
    found = sorted(found, key=lambda backup: backup.taken_at, reverse=True)
    kept: set[Path] = set()
    for period, count in KEEP.items():
        newest: dict[str, Path] = {}
        for backup in found:
            newest.setdefault(backup.taken_at.strftime(period), backup.path)
        kept |= set(list(newest.values())[:count])
    return [backup for backup in found if backup.path not in kept]


def prune(settings: Settings) -> list[Backup]:
    """Delete the backups that retention does not keep; returns them."""
    gone = expired(backups(settings))
    for backup in gone:
        backup.path.unlink()
    return gone


def check(database: Database) -> list[str]:
    """What is wrong with the store's file or tables; an empty list when nothing is."""
    with database.read() as connection:
        return database.dialect.check(connection)


def restore(settings: Settings, path: Path | None = None) -> tuple[Backup, Path | None]:
    """Put a backup (the newest by default) in the place of the store.

    What lay there is kept beside it. Returns the backup and where the old store lies now
    (None when there was none).

    Raises:
        StoreError: there is no such backup, it is damaged, or the store is in use.
    """
    found = backups(settings)
    if path is None:
        if not found:
            raise StoreError(
                f"there is no backup in {settings.backups}: take one with `mled store backup`"
            )
        backup = found[0]
    else:
        if not path.is_file():
            known = ", ".join(str(b.path) for b in found[:3]) or "none"
            raise StoreError(f"there is no backup {path}; the newest are {known}")
        backup = Backup(path, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    database = Database(settings.store, settings.busy_timeout_s)
    label = time.strftime("%Y%m%dT%H%M%S")
    return backup, dialect_of(database.url).restore(database.url, backup.path, label)
