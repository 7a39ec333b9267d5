"""Cores of this host, shared by the processes that train.

Airflow needs a second or so between two tasks of a slot. With more slots than cores, tasks start
and end while others train, and each waits here until a core is free.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.02

log = logging.getLogger(__name__)


@contextmanager
def one_core(folder: Path, cores: int) -> Iterator[None]:
    """Hold one of this host's `cores` cores, as soon as one is free.

    A core is a locked file in `folder`: the kernel frees it when its process ends in whatever way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"{socket.gethostname()}-{number}.lock" for number in range(cores)]
    began = time.monotonic()
    while (handle := _lock_any(names)) is None:
        time.sleep(POLL_SECONDS)
    log.info("got a core after %.1f s", time.monotonic() - began)
    try:
        yield
    finally:
        os.close(handle)


def _lock_any(names: list[Path]) -> int | None:
    """The open handle of the first file that nobody has locked; None when there is none."""
    for name in names:
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return handle
    return None
