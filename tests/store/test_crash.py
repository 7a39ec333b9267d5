"""Whatever was acknowledged survives `kill -9`, and what may be lost is bounded."""

import os
import random
import signal
import time

import pytest
import sqlalchemy as sa

import mled
from mled.store import connect
from mled.store.orphans import mark_orphans
from mled.store.schema import Attempt, Metric
from mled.store.schema import Trial as TrialRow


def log_for_ever(first, acknowledge):
    """Log points from step `first` on, and acknowledge each flush: what a killed process runs."""
    experiment = mled.experiment("crash", dataset="d", model="m")
    with experiment.trial({"a": 1}, resume=True) as trial:
        step = first
        while True:
            for _ in range(7):
                trial.log({"loss": float(step), "accuracy": 0.5}, step=step)
                step += 1
            trial.flush()
            os.write(acknowledge, f"{step - 1}\n".encode())


def kill_writers(database, times, seed):
    chance = random.Random(seed)
    acknowledged = -1
    for attempt in range(1, times + 1):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            log_for_ever(acknowledged + 1, write)
        os.close(write)
        with os.fdopen(read) as lines:
            first = lines.readline()
            time.sleep(chance.uniform(0, 0.1))
            os.kill(pid, signal.SIGKILL)
            acknowledged = max(int(line) for line in [first, *lines])
        os.waitpid(pid, 0)
        with database.read() as connection:
            steps = connection.execute(
                sa.select(Metric.name, sa.func.count(), sa.func.min(Metric.step))
                .where(Metric.step <= acknowledged, Metric.number.is_not(None))
                .group_by(Metric.name)
            ).all()
        assert sorted(steps) == [(n, acknowledged + 1, 0) for n in ("accuracy", "loss")], seed
        orphans = mark_orphans(database)
        assert len(orphans) == 1
        with database.read() as connection:
            (trial,) = connection.execute(sa.select(TrialRow.state, TrialRow.attempt)).all()
            errors = connection.execute(sa.select(Attempt.error_message)).scalars().all()
        assert trial == ("orphaned", attempt)
        assert len(errors) == attempt
        assert "is gone" in errors[-1]


def test_acknowledged_points_survive_kill_9(database):
    kill_writers(database, times=20, seed=random.randrange(10**6))


@pytest.mark.long
def test_acknowledged_points_survive_kill_9_many_times(database):
    kill_writers(database, times=200, seed=random.randrange(10**6))


def test_what_a_crash_loses_is_bounded_in_points(database, monkeypatch):
    """Nothing is flushed by hand: all but the last MLED_FLUSH_POINTS points must be there."""
    monkeypatch.setenv("MLED_FLUSH_POINTS", "100")
    monkeypatch.setenv("MLED_FLUSH_SECONDS", "3600")
    experiment = mled.experiment("bounded", dataset="d", model="m")
    pid = os.fork()
    if pid == 0:
        trial = experiment.trial({}).__enter__()
        for step in range(1050):
            trial.log({"loss": 1.0}, step=step)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with connect().read() as connection:
        kept = connection.execute(sa.select(sa.func.count()).select_from(Metric)).scalar()
    assert 950 < kept < 1050


def test_what_a_crash_loses_is_bounded_in_seconds(database, monkeypatch):
    monkeypatch.setenv("MLED_FLUSH_SECONDS", "0.2")
    experiment = mled.experiment("bounded", dataset="d", model="m")
    pid = os.fork()
    if pid == 0:
        trial = experiment.trial({}).__enter__()
        trial.log({"loss": 1.0}, step=0)
        time.sleep(3)
        trial.log({"loss": 1.0}, step=1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with connect().read() as connection:
        assert connection.execute(sa.select(Metric.step)).scalars().all() == [0]


def write_many(name, trials, points):
    """Two seconds or so of a busy worker: open trials, log, flush, end."""
    experiment = mled.experiment("many", dataset="d", model="m")
    for number in range(trials):
        with experiment.trial({"worker": name, "number": number}) as trial:
            for step in range(points):
                trial.log({"loss": float(step), "accuracy": 1.0}, step=step)
                if step % 50 == 0:
                    trial.flush()


def test_eight_processes_write_at_once_and_nothing_is_lost(database):
    workers = []
    for name in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                write_many(name, trials=5, points=400)
            except BaseException:
                os._exit(1)
            os._exit(0)
        workers.append(pid)
    failed = [pid for pid in workers if os.waitpid(pid, 0)[1] != 0]
    with database.read() as connection:
        points = connection.execute(sa.select(sa.func.count()).select_from(Metric)).scalar()
        states = connection.execute(sa.select(TrialRow.state)).scalars().all()
    assert failed == []
    assert states == ["finished"] * 40
    assert points == 8 * 5 * 400 * 2
