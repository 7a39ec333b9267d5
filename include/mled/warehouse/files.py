"""Files that survive a crash, and the lock that lets only one pipeline at them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mled.settings import Settings


class WarehouseError(RuntimeError):
    """The pipeline cannot go on; the message says why and what to do."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, waiting for it as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the warehouse's lock: one process extracts, builds or publishes at a time.

    The operating system frees the lock when the process ends, however it ends.

    Raises:
        WarehouseError: another process holds the lock.
    """
    path = settings.warehouse / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise WarehouseError(
                f"another ETL is at work (process {file.read().strip() or 'unknown'} holds "
                f"{path}): wait until it has ended and try again"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def sync(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The hash of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit_folder(folder: Path, target: Path) -> None:
    """Move a folder that was written aside to its final name: all of it, or nothing."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, target)
    sync(target.parent)


def discard(folder: Path, aside: Path) -> None:
    """Remove a folder that others may look for: it is gone in one step, whatever happens.

    `aside` is a folder on the same disk in which nothing has to last.
    """
    aside.mkdir(parents=True, exist_ok=True)
    gone = aside / f"discarded-{folder.name}"
    os.rename(folder, gone)
    shutil.rmtree(gone)


def empty_folder(folder: Path) -> Path:
    """`folder`, made anew; what a killed process left in it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
