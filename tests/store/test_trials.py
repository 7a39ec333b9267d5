"""Trials: what is recorded without being asked for, attempts that fence, bad input."""

import atexit
import math
import os
import threading

import pandas as pd
import pytest
import sqlalchemy as sa

import mled
from mled.store import reading
from mled.store.orphans import mark_orphans
from mled.store.schema import Artifact, Attempt, CodeVersion, Environment, Metric, Note, Split, Tag
from mled.store.schema import Experiment as ExperimentRow
from mled.store.schema import Trial as TrialRow
from mled.store.trials import Trial


@pytest.fixture
def experiment(database):
    return mled.experiment("study", dataset="digits", model="svm", objective="accuracy")


def rows(database, *columns):
    with database.read() as connection:
        return connection.execute(sa.select(*columns)).all()


def values(trial, metric):
    """step → value of a metric."""
    frame = reading.curves([trial.id], [metric])
    return dict(zip(frame.step, frame.value, strict=True))


def test_a_trial_records_more_than_it_is_told(experiment, database):
    with experiment.trial({"C": 1.0, "kernel": "rbf"}, seed=3) as trial:
        sum(range(2_000_000))
        trial.log({"loss": 0.5, "accuracy": 0.9}, step=4)
    attempt = rows(database, *Attempt.__table__.c)[0]
    assert (attempt.state, attempt.number, attempt.pid) == ("finished", 1, os.getpid())
    assert 0 < attempt.cpu_s <= attempt.duration_s + 1
    assert attempt.peak_memory_bytes > 10e6
    assert attempt.ended_at >= attempt.started_at
    environment = rows(database, *Environment.__table__.c)[0]
    assert environment.packages["SQLAlchemy"] == sa.__version__
    assert environment.hardware["cores"] == os.cpu_count()
    assert trial.params == {"C": 1.0, "kernel": "rbf"}
    assert values(trial, "loss") == {4: 0.5}


def test_an_error_whose_text_no_database_keeps_is_recorded_all_the_same(experiment, database):
    with pytest.raises(ValueError), experiment.trial({}):
        raise ValueError("a\x00b\ud800")
    assert rows(database, Attempt.error_message) == [("a\u2400b\\ud800",)]


def test_a_trial_that_raises_is_failed_with_its_traceback_and_points(experiment, database):
    with pytest.raises(ZeroDivisionError), experiment.trial({}) as trial:
        trial.log({"loss": 1.0}, step=0)
        1 / 0  # noqa: B018
    attempt = rows(database, *Attempt.__table__.c)[0]
    assert (attempt.state, attempt.error_type) == ("failed", "ZeroDivisionError")
    assert attempt.error_message == "division by zero"
    assert "1 / 0" in attempt.traceback
    assert values(trial, "loss") == {0: 1.0}


def test_the_code_version_is_that_of_the_checkout(experiment, database, tmp_path):
    for command in (
        "init -q",
        "-c user.name=a -c user.email=b commit -q --allow-empty -m first",
    ):
        assert os.system(f"git -C {tmp_path} {command}") == 0
    (tmp_path / "script.py").write_text("print()")
    with experiment.trial({}, code=tmp_path):
        pass
    version = rows(database, *CodeVersion.__table__.c)[0]
    assert len(version.git_commit) == 40
    assert version.dirty is True


def test_the_same_trial_again_is_a_new_attempt(experiment, database):
    for attempt in (1, 2):
        with experiment.trial({"a": 1}, seed=1) as trial:
            assert trial.attempt == attempt
            for step in range(4 - attempt):
                trial.log({"loss": float(attempt)}, step=step)
    assert len(rows(database, TrialRow.id)) == 1
    assert values(trial, "loss") == {0: 2.0, 1: 2.0}
    for other in ({"seed": 2}, {"seed": 1, "repeat": 1}):
        with experiment.trial({"a": 1}, **other):
            pass
    assert len(rows(database, TrialRow.id)) == 3


def test_a_resumed_attempt_keeps_the_points_and_goes_on(experiment):
    with pytest.raises(KeyboardInterrupt), experiment.trial({}) as trial:
        trial.log({"loss": 1.0})
        trial.log({"loss": 0.5})
        raise KeyboardInterrupt
    with experiment.trial({}, resume=True) as trial:
        trial.log({"loss": 0.25})
    assert values(trial, "loss") == {0: 1.0, 1: 0.5, 2: 0.25}


def test_an_older_attempt_is_shut_out(experiment, database):
    old = experiment.trial({})
    with pytest.raises(mled.Superseded, match="attempt 2 has begun"), old:
        old.log({"loss": 9.0}, step=0)
        with Trial(database, old.id) as new:
            new.log({"loss": 1.0}, step=0)
        old.log({"loss": 9.0}, step=1)
    assert values(new, "loss") == {0: 1.0}
    states = rows(database, Attempt.number, Attempt.state)
    assert sorted(states) == [(1, "orphaned"), (2, "finished")]
    assert rows(database, TrialRow.state) == [("finished",)]
    with pytest.raises(mled.StoreError, match="not running"):
        new.log({"loss": 1.0})


def test_a_trial_whose_process_is_gone_is_recognised(experiment, database):
    pid = os.fork()
    if pid == 0:
        trial = experiment.trial({}).__enter__()
        trial.log({"loss": 1.0}, step=0)
        trial.flush()
        os._exit(9)
    os.waitpid(pid, 0)
    alive = experiment.trial({"alive": True})
    with alive:
        (orphan,) = mark_orphans(database)
        assert orphan != alive.id
    states = dict(rows(database, TrialRow.id, TrialRow.state))
    assert states == {orphan: "orphaned", alive.id: "finished"}
    with Trial(database, orphan, resume=True) as again:
        assert again.attempt == 2
    assert values(again, "loss") == {0: 1.0}


def test_a_silent_trial_of_another_host_is_orphaned_and_revived(experiment, database):
    with experiment.trial({}) as trial:
        with database.write() as connection:
            connection.execute(
                sa.update(Attempt).values(
                    host="elsewhere", heartbeat_at=Attempt.heartbeat_at - 10**9
                )
            )
        assert mark_orphans(database, silence_s=900) == [trial.id]
        assert mark_orphans(database, silence_s=900) == []
        trial.log({"loss": 1.0}, step=0)
    assert rows(database, TrialRow.state) == [("finished",)]
    assert rows(database, Attempt.state, Attempt.error_message) == [("finished", None)]


def test_the_background_writes_points_and_heartbeats(experiment, database, monkeypatch):
    monkeypatch.setenv("MLED_FLUSH_SECONDS", "0.05")
    monkeypatch.setenv("MLED_HEARTBEAT_SECONDS", "0.1")
    with experiment.trial({}) as trial:
        started = rows(database, Attempt.heartbeat_at)
        trial.log({"loss": 1.0}, step=0)
        for _ in range(100):
            if values(trial, "loss") and rows(database, Attempt.heartbeat_at) > started:
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("no point and heartbeat after five seconds")


def test_values_and_steps_of_every_kind(experiment):
    with experiment.trial({}) as trial:
        trial.log({"m": math.nan, "n": math.inf, "i": 3, "b": True, "t": "text", "z": None}, step=7)
        trial.log({"n": -math.inf}, step=2)
        trial.log({"n": 5}, step=2)
        trial.log({"auto": 1.0})
        trial.log({"auto": 2.0})
    assert values(trial, "n") == {2: 5.0, 7: math.inf}
    assert math.isnan(values(trial, "m")[7])
    assert values(trial, "i") == {7: 3.0}
    assert values(trial, "t") == {}
    assert values(trial, "auto") == {0: 1.0, 1: 2.0}


@pytest.mark.parametrize(
    ("metrics", "step", "message"),
    [
        ({"a": 1.0, "b": [1]}, 0, "metric 'b' is a list"),
        ({"a": 1.0, "b": object()}, 0, "metric 'b'"),
        ({"a": 1.0, "b\nc": 1.0}, 0, "control character"),
        ({"a": 1.0}, -1, "step -1 is out of range"),
        ({"a": 1.0}, 1.5, "step 1.5 is float"),
        ({"a": 1.0}, True, "step True is bool"),
        ({"a": 1.0}, 2**63, "out of range"),
    ],
)
def test_a_bad_point_is_refused_and_none_of_its_call_is_kept(experiment, metrics, step, message):
    with experiment.trial({}) as trial, pytest.raises(mled.InvalidValue, match=message):
        trial.log(metrics, step=step)
    assert reading.curves([trial.id]).empty


def test_bad_hyperparameters_leave_nothing_behind(experiment, database):
    points = [mled.Point({"a": 1}), mled.Point({"a": "x" * 10_000_000})]
    with pytest.raises(mled.InvalidValue, match="hyperparameter 'a'"):
        experiment.register(points)
    with pytest.raises(mled.InvalidValue, match="seed -1"):
        experiment.register([mled.Point({"a": 1}), mled.Point({"a": 2}, seed=-1)])
    with pytest.raises(mled.InvalidValue, match="hyperparameter 'a'"):
        mled.experiment("other", dataset="d", model="m", points=points)
    assert rows(database, TrialRow.id) == []
    assert rows(database, ExperimentRow.name) == [("study",)]


def test_an_experiment_keeps_its_model_and_dataset_and_takes_new_facts(experiment, database):
    with pytest.raises(mled.InvalidValue, match="about model 'svm' on dataset 'digits'"):
        mled.experiment("study", dataset="digits", model="mlp")
    with pytest.raises(mled.InvalidValue, match="another name"):
        mled.experiment(
            "study", dataset=mled.DatasetVersion("digits", version="other"), model="svm"
        )
    before = rows(database, ExperimentRow.updated_at)
    mled.experiment("study", dataset="digits", model="svm", objective="accuracy")
    assert rows(database, ExperimentRow.updated_at) == before
    mled.experiment("study", dataset="digits", model="svm", direction="minimize", author="Ada")
    assert rows(database, ExperimentRow.objective, ExperimentRow.direction) == [
        ("accuracy", "minimize")
    ]
    with pytest.raises(mled.InvalidValue, match="direction 'up'"):
        mled.experiment("study", dataset="digits", model="svm", direction="up")


def test_registering_again_keeps_each_trial(experiment):
    points = [mled.Point({"a": a}, seed=s) for a in range(30) for s in range(5)]
    ids = experiment.register(points)
    assert len(set(ids)) == 150
    assert experiment.register(points[::-1]) == ids[::-1]
    assert experiment.register([*points[:2], mled.Point({"a": 99})])[:2] == ids[:2]


def test_tags_notes_and_splits(experiment, database):
    with experiment.trial({}) as trial:
        trial.tag("good")
        trial.tag("plot", {"axes": [1, 2]})
        trial.tag("good", "very")
        trial.note("It's all right")
        for _ in range(2):
            trial.split(mled.SplitRecord("abc", "holdout", train_rows=10, evaluation_rows=5))
            trial.flush()
    assert sorted(rows(database, Tag.name, Tag.kind, Tag.text)) == [
        ("good", "text", "very"),
        ("plot", "json", '{"axes":[1,2]}'),
    ]
    assert rows(database, Note.text) == [("It's all right",)]
    assert rows(database, Split.id) == rows(database, TrialRow.split_id)


def test_an_artifact_is_kept_once_by_its_content(experiment, database, settings, tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    with experiment.trial({}) as trial:
        first = trial.artifact(file)
        assert trial.artifact(file, name="again") == first
        file.write_bytes(b"better")
        second = trial.artifact(file)
        with pytest.raises(mled.InvalidValue, match="is no file"):
            trial.artifact(tmp_path / "absent")
    assert (first.read_bytes(), second.read_bytes()) == (b"weights", b"better")
    kept = rows(database, Artifact.name, Artifact.path, Artifact.size)
    assert sorted(kept) == [
        ("again", str(first.relative_to(settings.artifacts)), 7),
        ("model.bin", str(second.relative_to(settings.artifacts)), 6),
    ]
    assert len([f for f in settings.artifacts.rglob("*") if f.is_file()]) == 2


def test_reading_back(experiment, database):
    for c in (0.1, 1.0, 10.0):
        with experiment.trial({"C": c, "kernel": "rbf"}) as trial:
            for step in range(3):
                trial.log({"accuracy": c + (step == 1), "note": "x"}, step=step)
    experiment.register([mled.Point({"C": 2.0})])
    frame = reading.trials("study")
    assert list(frame["params.C"]) == [0.1, 1.0, 10.0, 2.0]
    assert list(frame.state) == ["finished"] * 3 + ["pending"]
    assert isinstance(frame.started_at.dtype, pd.DatetimeTZDtype)
    best = reading.leaderboard("study", n=2)
    assert list(best.value) == [11.0, 2.0]
    assert list(best.step) == [1, 1]
    assert list(reading.leaderboard("study", by="last").value) == [10.0, 1.0, 0.1]
    assert list(reading.leaderboard("study", "accuracy", by=0).step) == [0, 0, 0]
    mled.experiment("study", dataset="digits", model="svm", direction="minimize")
    assert list(reading.leaderboard("study", n=1).value) == [0.1]
    with pytest.raises(mled.StoreError, match="no experiment 'other'; the latest are study"):
        reading.trials("other")
    with pytest.raises(mled.InvalidValue, match="by='worst'"):
        reading.leaderboard("study", by="worst")


def test_frames_become_arrow_tables(experiment):
    for seed, value in enumerate((0.1, "auto", None, [1, 2])):
        with experiment.trial({"lr": value, "k": seed}, seed=seed) as trial:
            trial.log({"accuracy": 0.5}, step=2)
    table = mled.to_arrow(mled.trials("study"))
    assert table["params.lr"].to_pylist() == ["0.1", "auto", None, "[1, 2]"]
    assert table["params.k"].to_pylist() == [0, 1, 2, 3]
    assert table["trial_id"].to_pylist() == [1, 2, 3, 4]
    curve = mled.to_arrow(mled.curves([1, 2]))
    assert curve.schema.names == ["trial_id", "metric", "step", "value"]
    assert curve["value"].to_pylist() == [0.5, 0.5]
    assert mled.to_arrow(mled.leaderboard("study"))["value"].to_pylist() == [0.5] * 4


def test_what_is_buffered_is_written_when_the_process_ends(experiment, database):
    pid = os.fork()
    if pid == 0:
        trial = experiment.trial({}).__enter__()
        trial.log({"loss": 1.0}, step=0)
        atexit._run_exitfuncs()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert rows(database, Metric.step) == [(0,)]


def test_an_empty_experiment_reads_as_an_empty_frame(experiment):
    assert reading.trials("study").empty
    assert reading.leaderboard("study").empty


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO metric (trial_id, name, step) VALUES (99, 'loss', 0)",
        "INSERT INTO metric (trial_id, name, step) SELECT id, 'loss', -1 FROM trial",
        "INSERT INTO trial (experiment_id, identity, seed, repeat, hyperparameters) "
        "SELECT experiment_id, identity, seed, repeat, '{}' FROM trial",
        "UPDATE trial SET state = 'finished'",
        "UPDATE trial SET state = 'done'",
        "UPDATE attempt SET state = 'finished'",
        "UPDATE attempt SET state = 'failed', ended_at = 1",
        "UPDATE experiment SET direction = 'up'",
        "INSERT INTO hyperparameter (trial_id, name, kind) SELECT id, 'b', 'date' FROM trial",
    ],
)
def test_wrong_data_is_impossible(experiment, database, statement):
    experiment.trial({"a": 1}).__enter__()
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.execute(sa.text(statement))
