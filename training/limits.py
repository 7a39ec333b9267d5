"""Time limits for code that runs in the main thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TimeLimitExceeded(TimeoutError):
    """The code ran for longer than it was allowed to."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise in the block once it has run for `seconds`; 0 sets no limit.

    A library's call that does not come back to Python is only stopped when it does. The block
    must run in the main thread, since that is where signals arrive.

    Raises:
        TimeLimitExceeded: the time is over.
    """
    if not seconds:
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimitExceeded(
            f"the trial ran for longer than its limit of {seconds:g} s (time_limit_s)"
        )

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold a time limit back until the block is left: it must not end half-way."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
