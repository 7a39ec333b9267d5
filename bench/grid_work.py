"""The work of a trial in the grid benchmark; needs the standard library only."""

from __future__ import annotations

import time


def work(seconds: float) -> float:
    """Take so much processor time, however busy the machine is; returns what was taken."""
    began = time.thread_time()
    while (taken := time.thread_time() - began) < seconds:
        sum(range(10_000))
    return taken
