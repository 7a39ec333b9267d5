"""Cheap programs under the real process manager."""

from __future__ import annotations

import sys

import pytest

from mled import processes, services

# Ignores the signal to stop, and has a child in a session of its own.
STUBBORN = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"], start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def sleepers(settings, monkeypatch, tmp_path):
    """Two programs in place of the servers: one that stops when asked, one that does not."""
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    programs = [
        services.Program("willing", ("/bin/sleep", "600"), {"NAME": "willing"}),
        services.Program(
            "stubborn", (sys.executable, str(script)), {"NAME": "stubborn"}, stop_seconds=1
        ),
    ]
    monkeypatch.setattr(services, "programs", lambda settings: programs)
    settings.logs.mkdir(parents=True)
    yield programs
    processes.stop(settings)
