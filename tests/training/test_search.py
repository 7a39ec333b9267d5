"""Planning, running and summing up a search, without Airflow."""

import pytest
import sqlalchemy as sa

from mled.store import reading
from mled.store.schema import Experiment, Metric, Split, Trial
from training import models, search
from training.experiments import InvalidExperiment

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


def flat(shards):
    return [id for shard in shards for id in shard]


def count(database, table):
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()


def test_a_search_from_end_to_end(database):
    shards = search.plan(REQUEST, trials_per_task=4)
    assert [len(shard) for shard in shards] == [4, 2]
    for shard in shards:
        assert search.run(shard)["finished"] == len(shard)
    summary = search.summarise("small", flat(shards))
    assert summary["trials"] == {"finished": 6}
    assert (summary["left"], summary["failed"], summary["failures"]) == (0, 0, {})
    assert summary["trial_seconds"] > 0
    values = [row["value"] for row in summary["best"]]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    frame = reading.trials("small")
    assert set(frame["params.C"]) == {0.1, 1.0, 10.0}
    assert count(database, Split) == 1


def test_only_what_is_missing_is_planned_again(database):
    (shard, *_) = search.plan(REQUEST, trials_per_task=2)
    search.run(shard)
    again = flat(search.plan(REQUEST))
    assert len(again) == 4
    assert not set(again) & set(shard)
    assert search.run(shard) == {"finished": 0, "failed": 0, "reused": 2, "superseded": 0}
    larger = REQUEST | {"grid": {**REQUEST["grid"], "degree": [3, 4]}}
    assert len(flat(search.plan(larger))) == 4 + 6


def test_a_failed_trial_hurts_only_itself_and_is_run_again(database, monkeypatch):
    train = models.get("svm").train

    def fails_once(params, data, seed, log):
        log({"started": 1.0})
        if params.C == 1.0 and params.kernel == "linear":
            raise RuntimeError("the data is bewitched")
        train(params, data, seed, log)

    broken = models.Model("scikit-learn", models.get("svm").hyperparameters, fails_once)
    shards = search.plan(REQUEST, trials_per_task=6)
    with monkeypatch.context() as patch:
        patch.setattr(models, "get", lambda name: broken)
        assert search.run(shards[0]) == {
            "finished": 5,
            "failed": 1,
            "reused": 0,
            "superseded": 0,
        }
    summary = search.summarise("small", shards[0])
    assert summary["trials"] == {"finished": 5, "failed": 1}
    assert summary["failures"] == {"the data is bewitched": 1}
    assert (summary["left"], summary["failed"]) == (0, 1)
    retry = search.plan(REQUEST)
    assert len(retry) == 1
    assert search.run(retry[0])["finished"] == 1
    assert search.summarise("small")["trials"] == {"finished": 6}


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": {"C": [1], "depth": [1]}},
        {"grid": {"C": []}},
        {"grid": {"C": ["much"]}},
        {"dataset": "mnist"},
        {"grid": {"C": list(range(1, 2000)), "gamma": [i / 10_000 for i in range(1, 2000)]}},
    ],
)
def test_a_bad_request_leaves_nothing_in_the_store(database, changes):
    with pytest.raises(InvalidExperiment):
        search.plan({**REQUEST, **changes})
    assert count(database, Experiment) == count(database, Trial) == 0


@pytest.mark.parametrize("request_", [REQUEST, MLP], ids=lambda r: r["model"])
def test_the_same_trial_twice_gives_the_same_metrics_bit_for_bit(home, monkeypatch, request_):
    runs = []
    for number in (1, 2):
        monkeypatch.setenv("MLED_HOME", str(home / str(number)))
        trial_ids = flat(search.plan(request_))
        search.run(trial_ids)
        frame = reading.curves(trial_ids)
        runs.append({tuple(row[:3]): row[3].hex() for row in frame.itertuples(index=False)})
    assert runs[0] == runs[1]
    assert len(runs[0]) > len(trial_ids)


def test_a_curve_has_a_point_for_each_epoch(database):
    trial_ids = flat(search.plan(MLP))
    search.run(trial_ids)
    with database.read() as connection:
        steps = connection.execute(
            sa.select(Metric.step).where(Metric.trial_id == trial_ids[0], Metric.name == "loss")
        ).scalars()
        assert sorted(steps) == [0, 1, 2]
