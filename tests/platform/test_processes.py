"""Starting, losing and stopping processes under a real supervisord."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil
import pytest

from mled import processes


def _wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def _lives(process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def running(settings, sleepers):
    """The programs, running; the stubborn one has its child."""
    processes.launch(settings)
    processes.start(settings)
    # supervisord, both programs, and the child of one.
    _wait_until(lambda: len(list(processes.members(settings))) == 4)
    return settings


def test_nothing_runs_at_first(settings):
    assert processes.states(settings) == {}
    assert processes.stop(settings) == 0


def test_every_process_is_gone_after_a_stop(running):
    everything = list(processes.members(running))
    assert processes.stop(running) == 4
    assert not any(_lives(process) for process in everything)
    assert processes.states(running) == {}
    assert processes.stop(running) == 0


def test_a_program_that_dies_comes_back(running):
    _wait_until(lambda: all(s.running for s in processes.states(running).values()))
    before = processes.states(running)["willing"].pid
    os.kill(before, signal.SIGKILL)
    _wait_until(lambda: processes.states(running)["willing"].pid not in (0, before))


def test_what_a_killed_supervisord_leaves_behind_is_found_and_stopped(running):
    orphans = list(processes.members(running))
    supervisord = psutil.Process(int((running.run / "supervisord.pid").read_text()))
    supervisord.kill()
    supervisord.wait()
    assert processes.states(running) == {}
    assert len(list(processes.members(running))) == 3
    assert processes.stop(running) == 3
    assert not any(_lives(process) for process in orphans)


def test_the_session_of_an_earlier_boot_is_nobody_s(running, monkeypatch, tmp_path):
    boot = tmp_path / "boot_id"
    boot.write_text("another boot\n")
    with monkeypatch.context() as patch:
        patch.setattr(processes, "BOOT_ID", boot)
        assert list(processes.members(running)) == []
    assert len(list(processes.members(running))) == 4


def test_a_session_number_that_was_given_to_somebody_else_is_left_alone(settings):
    settings.run.mkdir(parents=True)
    processes._write_session(settings, os.getpid())
    text = (settings.run / "session.json").read_text()
    started = str(psutil.Process().create_time())
    (settings.run / "session.json").write_text(text.replace(started, "12345.0"))
    assert list(processes.members(settings)) == []


def test_a_changed_configuration_is_noticed(running, sleepers):
    assert not processes.configuration_changed(running)
    sleepers.pop()
    assert processes.configuration_changed(running)


def test_the_end_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("one\n\ntwo\nthree\n\n")
    assert processes.tail(log, 2) == "two\nthree"
    assert processes.tail(tmp_path / "none", 2) == "(no log)"
