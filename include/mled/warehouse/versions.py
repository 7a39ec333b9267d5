"""Published versions of the mart on this machine: folders that never change, and a link to one."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from mled.settings import Settings
from mled.warehouse.files import commit_folder, sync

GRACE_SECONDS = 600
"""How long a version stays at least: a reader may just have looked up its path."""


def folder_of(settings: Settings, name: str) -> Path:
    """Where the version of a name lies; a name begins with the version's number."""
    return settings.warehouse / "versions" / name


def number_of(name: str) -> int:
    """The number in a version's name, such as `12` or `12-9f86d081884c7d65`."""
    return int(name.partition("-")[0])


def names(settings: Settings) -> list[str]:
    """The versions on this machine, oldest first."""
    found = (path.name for path in (settings.warehouse / "versions").glob("[0-9]*"))
    return sorted(found, key=number_of)


def shown(settings: Settings) -> str | None:
    """The name of the version that readers are shown; None when there is none."""
    return settings.mart.resolve().parent.name if settings.mart.exists() else None


def add(settings: Settings, aside: Path, name: str) -> None:
    """Move a folder that was written aside among the versions."""
    commit_folder(aside, folder_of(settings, name))


def show(settings: Settings, name: str) -> None:
    """Lead readers to a version, in one step, and remove those that are too old."""
    _point(settings.mart.parent, folder_of(settings, name))
    _prune(settings, name)


def _point(link: Path, folder: Path) -> None:
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(folder.relative_to(link.parent))
    os.replace(new, link)
    sync(link.parent)


def _prune(settings: Settings, current: str) -> None:
    """Remove the versions that are neither among the newest ones nor young."""
    found = names(settings)
    for name in set(found) - {current, *found[-settings.keep_marts :]}:
        folder = folder_of(settings, name)
        if time.time() - folder.stat().st_mtime > GRACE_SECONDS:
            shutil.rmtree(folder)
