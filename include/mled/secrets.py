"""Passwords and keys, each generated once into a file that only its owner can read.

Only the standard library is imported here: Superset's environment uses it too.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mled.settings import Settings

REFERENCE = re.compile(r"\{(\w+)\}")


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
    return create(settings.secrets / name, nbytes)


def create(path: Path, nbytes: int = 32) -> str:
    """The secret in a file, generated first if the file does not exist: see `secret`."""
    if not path.exists():
        _create(path, secrets.token_urlsafe(nbytes))
    return _read(path)


def filled(url: str, folder: Path) -> str:
    """`url` with each `{name}` replaced by the secret of this name in `folder`.

    Raises:
        SecretError: there is no such secret, or it is empty.
    """
    return REFERENCE.sub(lambda match: urllib.parse.quote(_read(folder / match[1]), ""), url)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise SecretError(
            f"there is no secret {path}: write a value into it (MLED_SECRETS_DIR names the folder)"
        ) from None
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
