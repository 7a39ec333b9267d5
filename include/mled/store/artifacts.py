"""Files that trials leave, each kept once by the hash of its content.

With an object store they are kept there, and the folder on this machine is a copy of those that
were written or read here.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from mled.settings import Settings


def keep_file(path: Path, settings: Settings) -> tuple[Path, str, int]:
    """Keep a file under its hash; returns its copy here, its SHA-256, its size (bytes).

    Raises:
        OSError: it cannot be read, or the copy not written.
        ObjectStoreError: it cannot be sent to the object store.
    """
    aside = settings.artifacts / f"kept-{os.getpid()}-{threading.get_ident()}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        digest = _copy(path, aside)
        kept = settings.artifacts / name_of(digest)
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            aside.rename(kept)
    finally:
        aside.unlink(missing_ok=True)
    if settings.object_store:
        from mled.objects import Objects

        objects = Objects(settings)
        if not objects.exists(key_of(digest)):
            objects.upload(kept, key_of(digest))
    return kept, digest, kept.stat().st_size


def find_file(sha256: str, settings: Settings) -> Path:
    """The copy here of a file that was kept, fetched from the object store if need be.

    Raises:
        FileNotFoundError: it is not here, and there is no object store.
        ObjectStoreError: it is not there either, or damaged, or the object store cannot be read.
    """
    kept = settings.artifacts / name_of(sha256)
    if kept.exists():
        return kept
    if not settings.object_store:
        raise FileNotFoundError(
            f"{kept} is not there: restore it from a backup of the folder {settings.artifacts}"
        )
    from mled.objects import Objects

    aside = kept.with_name(f"{kept.name}.{os.getpid()}-{threading.get_ident()}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    Objects(settings).download(key_of(sha256), aside, sha256)
    aside.rename(kept)
    return kept


def name_of(sha256: str) -> str:
    """Where a file of this hash lies in the folder of artifacts."""
    return f"{sha256[:2]}/{sha256[2:]}"


def key_of(sha256: str) -> str:
    """The key of a file of this hash in the object store."""
    return f"artifacts/{name_of(sha256)}"


def _copy(path: Path, target: Path) -> str:
    """Copy a file and make sure that it is on the disk; returns the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with path.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(2**20):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()
