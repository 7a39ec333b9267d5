"""Passwords and keys, each generated once into a file that only its owner can read.

Only the standard library is imported here: Superset's environment uses it too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from mled.settings import Settings


class SecretError(RuntimeError):
    """A secret's file cannot be used."""


def secret(settings: Settings, name: str, nbytes: int = 32) -> str:
    """Return the secret called `name`, generating it if it does not exist yet.

    The text is URL-safe base64 of `nbytes` random bytes and lies in the file
    `settings.secrets / name` (mode 0600, folder 0700). Processes that ask at the
    same time get the same secret. A person may put a value of their own there.

    Raises:
        SecretError: the file is empty.
        OSError: the file can be neither read nor written.
    """
    path = settings.secrets / name
    if not path.exists():
        _create(path, secrets.token_urlsafe(nbytes))
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise SecretError(f"the secret {path} is empty; write a value into it or delete the file")
    return text


def _create(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and the first of two racing processes wins.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
