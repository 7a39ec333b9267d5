"""Planning, running and summing up a search, without Airflow."""

import os
import signal
import time
from multiprocessing import get_context

import pytest
import sqlalchemy as sa

from mled.store import reading
from mled.store.schema import (
    FAILED,
    FINISHED,
    ORPHANED,
    PENDING,
    Attempt,
    Experiment,
    Metric,
    Split,
    Trial,
)
from mled.store.trials import now
from training import models, search
from training.experiments import InvalidExperiment
from training.search import running

REQUEST = {
    "experiment": "small",
    "dataset": "wine",
    "model": "svm",
    "grid": {"C": [0.1, 1, 10], "kernel": ["rbf", "linear"]},
    "author": "Ada",
}
MLP = {
    "experiment": "curves",
    "dataset": "wine",
    "model": "mlp",
    "grid": {"hidden": [4, 8], "epochs": [3]},
    "objective": "loss",
    "direction": "minimize",
}
# A model that does what its hyperparameter says, in a process of the test's.
ACTOR = """
'''Does as it is told.'''
import os, pathlib, signal, time
from typing import Any
from training.models import Hyperparameters, Model

class ActorHyperparameters(Hyperparameters):
    number: int = 0
    folder: str = ""
    act: str = "finish"

def train(params, data, seed, session):
    session.log({"accuracy": 1.0})
    if params.act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if params.act == "raise":
        raise ValueError(f"number {params.number}")
    if params.act == "wait":
        pathlib.Path(params.folder, "began").touch()
        while not pathlib.Path(params.folder, "go").exists():
            time.sleep(0.02)
    session.log({"ran": 1.0})

MODEL = Model("none", ActorHyperparameters, train)
"""


def flat(shards):
    return [id for shard in shards for id in shard]


def count(database, table):
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()


def states(database):
    with database.read() as connection:
        return dict(connection.execute(sa.select(Trial.id, Trial.state).order_by(Trial.id)).all())


def attempts(database, trial_id):
    query = sa.select(Attempt.number, Attempt.state).where(Attempt.trial_id == trial_id)
    with database.read() as connection:
        return connection.execute(query.order_by(Attempt.number)).all()


def in_a_process(trial_ids, request, **options):
    """Run a shard in a process of its own, as a task does."""
    process = get_context("fork").Process(
        target=search.run, args=(trial_ids, request), kwargs=options
    )
    process.start()
    return process


def wait_for(path, seconds=20):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.02)


def test_a_search_from_end_to_end(database):
    shards = search.plan(REQUEST, trials_per_task=4)
    assert [len(shard) for shard in shards] == [4, 2]
    for shard in shards:
        assert search.run(shard, REQUEST)["finished"] == len(shard)
    summary = search.summarise("small", flat(shards))
    assert summary["trials"] == {"finished": 6}
    assert (summary["left"], summary["failed"], summary["failures"]) == (0, 0, {})
    assert summary["trial_seconds"] > 0
    assert summary["objective"] == "accuracy"
    assert "experiments/?native_filters=" in summary["dashboard"]
    values = [row["value"] for row in summary["best"]]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    frame = reading.trials("small")
    assert set(frame["params.C"]) == {0.1, 1.0, 10.0}
    assert count(database, Split) == 1


def test_only_what_is_missing_is_planned_again(database):
    (shard, *_) = search.plan(REQUEST, trials_per_task=2)
    search.run(shard, REQUEST)
    began = now()
    again = flat(search.plan(REQUEST))
    assert len(again) == 4
    assert not set(again) & set(shard)
    assert search.run(shard, REQUEST)["reused"] == 2
    assert search.summarise("small", again, since=began)["reused"] == 2
    larger = REQUEST | {"grid": {**REQUEST["grid"], "degree": [3, 4]}}
    assert len(flat(search.plan(larger))) == 4 + 6


def test_everything_is_run_again_once_when_that_is_asked_for(database):
    (shard,) = search.plan(REQUEST, trials_per_task=6)
    search.run(shard, REQUEST)
    began = now()
    assert search.plan(REQUEST, trials_per_task=6, only_missing=False) == [shard]
    assert search.run(shard, REQUEST, since=began, only_missing=False)["finished"] == 6
    # A retry of the same run.
    assert search.run(shard, REQUEST, since=began, only_missing=False)["reused"] == 6
    assert {len(attempts(database, id)) for id in shard} == {2}


def test_a_failed_trial_hurts_only_itself_and_is_run_again(database, monkeypatch):
    train = models.get("svm").train

    def fails_once(params, data, seed, session):
        session.log({"started": 1.0})
        if params.C == 1.0 and params.kernel == "linear":
            raise RuntimeError("the data is bewitched")
        train(params, data, seed, session)

    broken = models.Model("scikit-learn", models.get("svm").hyperparameters, fails_once)
    shards = search.plan(REQUEST, trials_per_task=6)
    with monkeypatch.context() as patch:
        patch.setattr(models, "get", lambda name: broken)
        began = now()
        ended = search.run(shards[0], REQUEST, since=began)
        assert (ended["finished"], ended["failed"]) == (5, 1)
        # A retry in the same run leaves it.
        ended = search.run(shards[0], REQUEST, since=began)
        assert (ended["reused"], ended["failed"]) == (5, 1)
    summary = search.summarise("small", shards[0])
    assert summary["trials"] == {"finished": 5, "failed": 1}
    assert summary["failures"] == {"the data is bewitched": 1}
    assert (summary["left"], summary["failed"]) == (0, 1)
    retry = search.plan(REQUEST)
    assert len(retry) == 1
    assert search.run(retry[0], REQUEST)["finished"] == 1
    assert search.summarise("small")["trials"] == {"finished": 6}


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": {"C": [1], "depth": [1]}},
        {"grid": {"C": []}},
        {"grid": {"C": ["much"]}},
        {"dataset": "mnist"},
        {"dataset": "diabetes"},
        {"folds": 100},
        {"grid": {"C": list(range(1, 2000)), "gamma": [i / 10_000 for i in range(1, 2000)]}},
    ],
)
def test_a_bad_request_leaves_nothing_in_the_store(database, changes):
    with pytest.raises(InvalidExperiment):
        search.plan({**REQUEST, **changes})
    assert count(database, Experiment) == count(database, Trial) == 0


def test_trials_that_saw_another_split_are_not_mixed(database):
    (shard,) = search.plan(REQUEST, trials_per_task=6)
    search.run(shard[:1], REQUEST)
    for changes in ({"folds": 3}, {"split_seed": 1}):
        with pytest.raises(InvalidExperiment, match="have seen another split of the rows"):
            search.plan({**REQUEST, **changes})
    folded = {**REQUEST, "experiment": "folded", "folds": 3}
    ids = flat(search.plan(folded))
    assert len(ids) == 18
    assert search.run(ids, folded)["finished"] == 18
    assert count(database, Split) == 1 + 3
    assert search.plan(folded) == []


def test_a_dataset_that_changed_since_the_plan_is_refused(database, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,kind\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    request = {**REQUEST, "dataset": "file", "path": str(path), "target": "kind"}
    ids = flat(search.plan(request))
    assert search.run(ids[:1], request)["finished"] == 1
    path.write_text("a,kind\n" + "".join(f"{i},{i % 2}\n" for i in range(22)))
    with pytest.raises(InvalidExperiment, match=r"'data.csv' has changed since the trials were"):
        search.run(ids[1:], request)


def test_a_budget_leaves_the_rest_pending(database):
    assert len(flat(search.plan(REQUEST, budget_trials=4))) == 4
    ids = flat(search.plan(REQUEST))
    assert search.run(ids, REQUEST, until=time.time() - 1)["left"] == 6
    assert set(states(database).values()) == {PENDING}
    assert search.summarise("small", ids)["left"] == 6


def test_measured_times_decide_the_size_of_shards(database, monkeypatch):
    monkeypatch.setenv("MLED_WORKERS", "2")
    request = {**REQUEST, "seeds": list(range(20))}
    before = [len(shard) for shard in search.plan(request)]
    search.run([search.plan(request)[0][0]], request)
    after = [len(shard) for shard in search.plan(request)]
    # Nothing is known: the last shards are a 32nd of the trials, and what is left over.
    assert max(before[-3:]) == 3
    # Trials of milliseconds are not worth tasks of so few.
    assert min(after[:-1]) > 5
    # Another experiment with the same model and data starts from that.
    other = [len(shard) for shard in search.plan({**request, "experiment": "other"})]
    assert min(other[:-1]) > 5


def plan_actor(add_model, *acts, folder=""):
    """Register a trial for each act; request and ids, in their order."""
    add_model("actor", ACTOR)
    request = {"experiment": "actor", "dataset": "wine", "model": "actor"}
    ids = []
    for number, act in enumerate(acts):
        one = {**request, "grid": {"number": [number], "act": [act], "folder": [str(folder)]}}
        ids += flat(search.plan(one))
    return {**request, "grid": {}}, ids


def test_a_trial_that_kills_its_process_hurts_only_itself(database, add_model):
    request, ids = plan_actor(add_model, "finish", "kill", "finish", "raise")
    began = now()
    for _ in range(2):
        process = in_a_process(ids, request, since=began)
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    # The second try ran it last; the third does not risk its process again.
    assert search.run(ids, request, since=began) == {
        "finished": 0,
        "failed": 2,
        "reused": 2,
        "superseded": 0,
        "left": 0,
    }
    assert list(states(database).values()) == [FINISHED, FAILED, FINISHED, FAILED]
    failures = search.summarise("actor", ids)["failures"]
    assert any("died 2 times in this run" in message for message in failures)
    assert [state for _, state in attempts(database, ids[1])] == [ORPHANED, ORPHANED, FAILED]
    assert len(attempts(database, ids[3])) == 1


def test_a_trial_that_runs_in_another_process_is_waited_for(database, add_model, tmp_path):
    request, ids = plan_actor(add_model, "wait", "finish", folder=tmp_path)
    began = now()
    first = in_a_process(ids, request, since=began)
    wait_for(tmp_path / "began")
    second = in_a_process(ids, request, since=began)
    end = time.monotonic() + 20
    while states(database)[ids[1]] != FINISHED:
        assert time.monotonic() < end
        time.sleep(0.02)
    (tmp_path / "go").touch()
    for process in (first, second):
        process.join(30)
        assert process.exitcode == 0
    assert [attempts(database, id) for id in ids] == [[(1, FINISHED)]] * 2


def test_a_zombie_cannot_write_into_a_newer_attempt(database, add_model, tmp_path, monkeypatch):
    monkeypatch.setenv("MLED_ORPHAN_SECONDS", "1")
    monkeypatch.setenv("MLED_HEARTBEAT_SECONDS", "0.2")
    monkeypatch.setenv("MLED_FLUSH_SECONDS", "0.2")
    request, ids = plan_actor(add_model, "wait", "finish", folder=tmp_path)
    zombie = in_a_process(ids, request)
    wait_for(tmp_path / "began")
    # As dead as a machine that sleeps: no heartbeat.
    os.kill(zombie.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    assert search.run(ids, request)["finished"] == 2
    stamps = points(database, ids)
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.join(30)
    assert zombie.exitcode == 0
    assert attempts(database, ids[0]) == [(1, ORPHANED), (2, FINISHED)]
    assert attempts(database, ids[1]) == [(1, FINISHED)]
    assert points(database, ids) == stamps


def points(database, ids):
    columns = (Metric.trial_id, Metric.name, Metric.step, Metric.number, Metric.updated_at)
    with database.read() as connection:
        return connection.execute(sa.select(*columns).where(Metric.trial_id.in_(ids))).all()


def test_a_shard_that_nobody_waits_for_stops_after_its_trial(database, add_model):
    request, ids = plan_actor(add_model, "finish", "finish")
    answers = iter([True, False])
    with pytest.raises(running.Abandoned, match="1 trials are left"):
        search.run(ids, request, is_wanted=lambda: next(answers))
    assert list(states(database).values()) == [FINISHED, PENDING]


def test_a_trial_over_its_time_limit_fails_and_the_next_one_runs(database, add_model, tmp_path):
    request, ids = plan_actor(add_model, "wait", "finish", folder=tmp_path)
    ended = search.run(ids, request, time_limit_s=0.2)
    assert (ended["finished"], ended["failed"]) == (1, 1)
    (message,) = search.summarise("actor")["failures"]
    assert message == "the trial ran for longer than its limit of 0.2 s (time_limit_s)"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
