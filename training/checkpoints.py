"""Where the state of a trial that is not finished is kept, so that it can go on after a crash."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Checkpoints(Protocol):
    """The last saved state of each trial, as bytes; a write replaces the one before, or fails."""

    def read(self, trial_id: int) -> bytes | None: ...

    def write(self, trial_id: int, state: bytes) -> None: ...

    def delete(self, trial_id: int) -> None: ...


class FileCheckpoints:
    """A file for each unfinished trial in a folder, which all hosts that run trials must share."""

    def __init__(self, folder: Path):
        self._folder = folder

    def read(self, trial_id: int) -> bytes | None:
        try:
            return self._path(trial_id).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, trial_id: int, state: bytes) -> None:
        path = self._path(trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Its own name for each process: one that was taken for dead may still be writing.
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        with aside.open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)

    def delete(self, trial_id: int) -> None:
        self._path(trial_id).unlink(missing_ok=True)

    def _path(self, trial_id: int) -> Path:
        return self._folder / f"trial-{trial_id}.state"
