"""Exactly once: after kill -9 anywhere, one clean run makes the mart equal to the store.

The seed of a round is printed when it fails; `FAULT_SEED=… pytest tests/warehouse/test_faults.py`
replays it with the same writes and the same points of death. `FAULT_ROUNDS=…` sets how many rounds
the long tests have.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time

import duckdb
import pytest
import sqlalchemy as sa
from lab import check
from sqlalchemy.engine import Connection

from mled.store.schema import Clock
from mled.warehouse import batches, extract
from mled.warehouse.batches import MANIFEST
from mled.warehouse.files import WarehouseError, sync
from mled.warehouse.pipeline import run_etl

SEED = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))

pytestmark = pytest.mark.usefixtures("untested")


def forked(action):
    """Run `action` in a fork of this process; return its process id."""
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
    return child


def wait(child):
    """The exit code of a fork, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def doomed(settings, last_step, counted=None, only=None):
    """Run the pipeline until `last_step`, then kill -9 this process.

    Steps are the moments that matter to what is left: each sync and renaming of a file, each
    commit to the store, each statement that dbt sends to DuckDB, and each request to an object
    store; or `only` those of one function.
    """
    from botocore.httpsession import URLLib3Session
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
        (URLLib3Session, "send"),
    ):
        if only in (None, name):
            setattr(owner, name, stepping(getattr(owner, name)))
    run_etl(settings)
    if counted:
        os.write(counted, str(steps).encode())


@pytest.fixture
def steps(settings, etl):
    """The number of steps of a run."""
    etl()
    reader, writer = os.pipe()
    assert wait(forked(lambda: doomed(settings, None, writer))) == 0
    os.close(writer)
    return int(os.read(reader, 20))


# Every version is built as a whole, so these agree in each; they would not in a mixture.
AGREEING = """
    SELECT
        (SELECT count(*) FROM marts.metrics_wide),
        (SELECT coalesce(sum(steps), 0) FROM intermediate.int_trial_metrics
         SEMI JOIN marts.trials USING (trial_id) WHERE NOT is_deleted)
"""


@pytest.fixture
def readers(settings, etl):
    """Two processes that read the mart all the time; at the end, none has seen anything wrong."""
    etl()
    stop, stopping = os.pipe()
    result, report = os.pipe()

    def read():
        os.close(stopping)
        os.set_blocking(stop, False)
        reads, errors, versions = 0, [], set()
        while True:
            with contextlib.suppress(BlockingIOError):
                os.read(stop, 1)
                break
            try:
                path = settings.mart.resolve()
                with duckdb.connect(str(path), read_only=True) as connection:
                    points, expected = connection.execute(AGREEING).fetchone()
                reads += 1
                versions.add(path.parent.name)
                if points != expected:
                    errors.append(f"{points} points, {expected} expected in {path}")
            except (duckdb.Error, OSError) as error:
                errors.append(str(error))
            time.sleep(0.05)
        os.write(report, json.dumps([reads, len(versions), errors[:3]]).encode() + b"\n")

    children = [forked(read) for _ in range(2)]
    yield
    os.close(stopping)
    assert [wait(child) for child in children] == [0, 0]
    os.close(report)
    with os.fdopen(result) as lines:
        for reads, versions, errors in map(json.loads, lines):
            assert errors == []
            assert reads > versions > 1


def slow_writer(lab, seed):
    """A transaction that stays open for a while; it may be rolled back, or die."""
    rng = random.Random(seed)
    with contextlib.suppress(ZeroDivisionError), lab.database.write() as connection:
        connection.execute(sa.text("UPDATE author SET name = name"))
        time.sleep(rng.random() / 2)
        end = rng.choice(["commit", "roll back", "die"])
        if end == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if end == "roll back":
            raise ZeroDivisionError


def disturb(lab, rng):
    """Set back the system's clock, as far as the store can tell."""
    if rng.random() < 0.2:
        with lab.database.write() as connection:
            connection.execute(sa.update(Clock).values(last_us=Clock.last_us + 3_600_000_000))


def survive(settings, lab, etl, steps, rounds):
    print(f"FAULT_SEED={SEED}, {steps} steps a run")
    for number in range(rounds):
        rng = random.Random(f"{SEED} {number}")
        print(f"round {number}")
        for _ in range(rng.randrange(1, 25)):
            lab.scribble(rng)
        disturb(lab, rng)
        others = []
        if rng.random() < 0.2:
            others.append(forked(lambda rng=rng: slow_writer(lab, rng.random())))
        if rng.random() < 0.1:
            others.append(forked(lambda: run_etl(settings)))
        # Spread over the run, so that every stage is hit whatever the seed.
        last_step = round((number + rng.random()) * steps / rounds) + 1
        code = wait(forked(lambda last_step=last_step: doomed(settings, last_step)))
        assert code in (-signal.SIGKILL, 0) or (code == 2 and others)
        for other in others:
            assert wait(other) in (-signal.SIGKILL, 0, 2)
        for _ in range(rng.randrange(3)):
            lab.scribble(rng)
        etl()
        check(settings)


def test_killed_anywhere(settings, lab, etl, steps, readers):
    survive(settings, lab, etl, steps, rounds=25)


@pytest.mark.long
@pytest.mark.parametrize(
    ("home", "rounds"), [("sqlite", 300), ("postgresql", 100)], indirect=["home"]
)
def test_killed_anywhere_again_and_again(settings, lab, etl, steps, readers, rounds):
    survive(settings, lab, etl, steps, int(os.environ.get("FAULT_ROUNDS", rounds)))


def test_two_at_once(settings, lab, etl):
    rng = random.Random(SEED)
    print(f"FAULT_SEED={SEED}")
    etl()
    for _ in range(10):
        lab.scribble(rng)
    children = [forked(lambda: run_etl(settings)) for _ in range(2)]
    # One does the work; the other is told to wait, unless it came when all was done.
    assert sorted(wait(child) for child in children) in ([0, 0], [0, 2])
    etl()
    check(settings)


def test_stamps_of_the_wall_clock_would_be_noticed(settings, lab, etl):
    """Whole seconds of the day, as CURRENT_TIMESTAMP gives them: ties are lost."""
    trial = lab.trial(lab.experiment())
    etl()
    with lab.database.engine.begin() as connection:
        triggers = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%max(%'"
        ).all()
        for name, body in triggers:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
            connection.exec_driver_sql(
                body.replace("max(last_us + 1, ", "(").replace(
                    "86400000000 AS INTEGER)", "86400 AS INTEGER) * 1000000 + 10000000"
                )
            )
    with lab.database.write() as connection:  # no ticket: each row by the trigger
        insert = "INSERT INTO metric (trial_id, name, step, number) VALUES (?, 'loss', ?, 1)"
        connection.exec_driver_sql(insert, [(trial, step) for step in range(50)])
    etl()
    time.sleep(1)
    etl()
    seconds = iter(range(50, 10_000))
    with pytest.raises(AssertionError, match=r"metrics_wide: \d+ missing"):
        for _ in range(10):
            for _ in range(20):
                with lab.database.write() as connection:
                    connection.exec_driver_sql(insert, (trial, next(seconds)))
                if next(seconds) % 5 == 0:
                    extract.extract(settings)
            etl()
            check(settings)


def test_a_watermark_before_the_data_would_be_noticed(settings, lab, etl, monkeypatch):
    """The manifest first, then the files: who dies between them never reads those rows."""

    def watermark_first(folder, target):
        target.mkdir(parents=True)
        os.rename(folder / MANIFEST, target / MANIFEST)
        sync(target)
        for path in folder.iterdir():
            os.rename(path, target / path.name)

    experiment = lab.experiment()
    etl()
    monkeypatch.setattr(batches, "commit_folder", watermark_first)
    lab.log(lab.trial(experiment, {"C": 1}), "accuracy", {step: 0.5 for step in range(10)})
    assert wait(forked(lambda: doomed(settings, 3, only="rename"))) == -signal.SIGKILL
    etl()
    with pytest.raises(AssertionError, match="10 missing"):
        check(settings)
