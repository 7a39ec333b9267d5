"""Exactly once: after kill -9 anywhere, one clean run makes the mart equal to the store."""

from __future__ import annotations

import os
import random
import signal

import pytest
from lab import check
from sqlalchemy.engine import Connection

from mled.warehouse import extract
from mled.warehouse.files import WarehouseError
from mled.warehouse.pipeline import run_etl

SEED = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))
ROUNDS = 12


def in_child(action):
    """Run `action` in a fork of this process; return its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        except WarehouseError:
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def doomed(settings, last_step, counted=None):
    """Run the pipeline until `last_step`, then kill -9 this process.

    Steps are the moments that matter to what is left on the disk: each sync and renaming of a
    file, each commit to the store, and each statement that dbt sends to DuckDB.
    """
    from dbt.adapters.duckdb.environments.local import DuckDBCursorWrapper

    steps = 0

    def stepping(function):
        def step(*arguments, **keywords):
            nonlocal steps
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return step

    for owner, name in (
        *((os, name) for name in ("fsync", "rename", "replace", "symlink")),
        (Connection, "_commit_impl"),
        (DuckDBCursorWrapper, "execute"),
    ):
        setattr(owner, name, stepping(getattr(owner, name)))
    run_etl(settings)
    if counted:
        os.write(counted, str(steps).encode())


@pytest.fixture
def steps(settings, etl):
    """The number of steps of a run."""
    etl()
    reader, writer = os.pipe()
    assert in_child(lambda: doomed(settings, None, writer)) == 0
    os.close(writer)
    return int(os.read(reader, 20))


def test_killed_anywhere(settings, lab, etl, steps):
    rng = random.Random(SEED)
    print(f"FAULT_SEED={SEED}, {steps} steps")
    for number in range(ROUNDS):
        for _ in range(rng.randrange(1, 25)):
            lab.scribble(rng)
        # Spread over the run, so that every stage is hit whatever the seed.
        last_step = round((number + rng.random()) * steps / ROUNDS) + 1
        code = in_child(lambda last_step=last_step: doomed(settings, last_step))
        assert code in (-signal.SIGKILL, 0), f"round {number}"
        for _ in range(rng.randrange(3)):
            lab.scribble(rng)
        etl()
        check(settings)


def test_two_at_once(settings, lab, etl):
    rng = random.Random(SEED)
    print(f"FAULT_SEED={SEED}")
    etl()
    for _ in range(2):
        for _ in range(10):
            lab.scribble(rng)
        rival = os.fork()
        if not rival:
            os._exit(in_child(lambda: run_etl(settings)))
        mine = in_child(lambda: run_etl(settings))
        theirs = os.waitstatus_to_exitcode(os.waitpid(rival, 0)[1])
        # One does the work; the other is told to wait, unless it came when all was done.
        assert sorted((mine, theirs)) in ([0, 0], [0, 2])
        etl()
        check(settings)


def test_it_can_fail(settings, lab, etl, monkeypatch):
    """A window that begins too late loses rows, and `check` says so."""
    trial = lab.trial(lab.experiment())
    etl()
    lab.log(trial, "accuracy", {0: 0.5})

    exact = extract._changed
    monkeypatch.setattr(extract, "_changed", lambda t, low: exact(t, low + 10**9))
    etl()
    with pytest.raises(AssertionError):
        check(settings)
