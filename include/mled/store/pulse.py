"""The thread that writes what running trials have buffered, and their heartbeats."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import Protocol


class Beating(Protocol):
    """What the pulse asks of a trial."""

    pulse_seconds: float

    def pulse(self) -> None: ...


class Pulse:
    """One thread a process, which writes the buffers and heartbeats of its open trials."""

    def __init__(self):
        self._trials: set[Beating] = set()
        self._thread: threading.Thread | None = None

    def add(self, trial: Beating) -> None:
        self._trials.add(trial)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="mled-pulse", daemon=True)
            self._thread.start()

    def discard(self, trial: Beating) -> None:
        self._trials.discard(trial)

    def flush(self) -> None:
        for trial in tuple(self._trials):
            trial.pulse()

    def forget(self) -> None:
        """In a forked child: the parent's trials and thread are not ours."""
        self.__init__()

    def _run(self) -> None:
        while True:
            trials = tuple(self._trials)
            time.sleep(max(min((t.pulse_seconds for t in trials), default=1.0), 0.01))
            self.flush()


PULSE = Pulse()
atexit.register(PULSE.flush)
os.register_at_fork(after_in_child=PULSE.forget)
