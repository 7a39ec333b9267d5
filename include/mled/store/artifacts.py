"""Files that trials leave, each kept once by the hash of its content."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


def keep_file(path: Path, folder: Path) -> tuple[Path, str, int]:
    """Copy a file to `folder` under its hash; returns the copy, its SHA-256, its size (bytes)."""
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    kept = folder / digest[:2] / digest[2:]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(f".{os.getpid()}")
        with path.open("rb") as source, aside.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
        aside.rename(kept)
    return kept, digest, kept.stat().st_size
