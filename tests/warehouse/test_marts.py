"""The marts equal the join of the store, whatever happens to its rows."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from lab import check, mart

from mled.store.schema import (
    Attempt,
    Author,
    Experiment,
    Hyperparameter,
    MaintenanceRun,
    Metric,
    Note,
    Tag,
    Trial,
)
from mled.warehouse import dbt


@pytest.fixture
def filled(lab, etl):
    """Two experiments of three trials, loaded; their ids."""
    experiments = [lab.experiment(), lab.experiment(direction="minimize")]
    for experiment in experiments:
        for c in (0.1, 1, 10):
            trial = lab.trial(experiment, {"C": c, "kernel": "rbf"})
            lab.log(trial, "accuracy", {step: step / 10 + c / 100 for step in range(5)})
            lab.log(trial, "seconds", {0: 1.5})
    etl()
    return experiments


@pytest.mark.parametrize("home", ["postgresql"], indirect=True)
def test_a_store_in_postgresql_gives_the_same_marts(settings, lab, etl):
    rng = random.Random(5)
    for _ in range(3):
        for _ in range(40):
            lab.scribble(rng)
        etl()
        check(settings)


def test_first_load_then_nothing_then_one_changed_trial(settings, lab, etl, filled):
    check(settings)
    newest = mart(settings, "select max(batch_id) from marts.metrics_wide")[0][0]

    assert etl().rows_changed == 0
    check(settings)

    lab.log(2, "accuracy", {5: 0.9})
    report = etl()
    assert report.rows_changed == 1
    assert report.tables["metric"] == {"inserted": 1, "updated": 0, "deleted": 0}
    check(settings)
    changed = mart(
        settings, f"select trial_id, step from marts.metrics_wide where batch_id > {newest}"
    )
    assert changed == [(2, 5)]


def test_models_that_a_batch_does_not_concern_are_passed_over(settings, lab, etl, filled):
    def ran():
        results = json.loads((settings.dbt_target / "run_results.json").read_text())["results"]
        models = [r for r in results if r["unique_id"].startswith("model.")]
        return {r["unique_id"].split(".")[-1] for r in models if r["message"] != "UNCHANGED"}

    etl()
    assert {"int_etl_runs", "etl_runs"} <= ran()
    assert not {"int_metrics", "int_trials", "metrics_wide", "trials", "trial_tags"} & ran()
    with duckdb.connect(str(settings.build_file), read_only=True) as connection:
        behind = "select model from bookkeeping.applied, bookkeeping.frozen where applied.batch_id"
        assert connection.execute(f"{behind} <> frozen.batch_id").fetchall() == []

    lab.tag(1, "stage", "final")
    etl()
    assert {"int_tags", "trial_tags"} <= ran()
    assert not {"int_metrics", "metrics_wide", "trials", "trial_notes"} & ran()
    check(settings)


def test_deleted_points_and_trials_disappear_and_come_back(settings, lab, etl, filled):
    lab.delete(Metric, Metric.trial_id == 1, Metric.step >= 2)
    lab.delete(Metric, Metric.trial_id == 2, Metric.name == "seconds")
    lab.delete(Trial, Trial.id == 3)
    etl()
    check(settings)
    assert mart(settings, "select count(*) from marts.metrics_wide where trial_id = 3") == [(0,)]
    assert mart(settings, "select count(*) from marts.trials where trial_id = 3") == [(0,)]

    lab.log(1, "accuracy", {3: 0.75})
    lab.log(2, "seconds", {0: 2.5})
    etl()
    check(settings)


def test_deleted_and_written_again_in_one_window(settings, lab, etl, filled):
    lab.delete(Metric, Metric.trial_id == 1, Metric.step == 2)
    lab.log(1, "accuracy", {2: 0.99, 7: 0.5})
    lab.delete(Metric, Metric.trial_id == 1, Metric.step == 7)
    etl()
    check(settings)


def test_a_changed_attribute_reaches_every_row(settings, lab, etl, filled):
    lab.update(Author, 1, name="somebody else")
    lab.update(Experiment, filled[1], name="renamed", objective="seconds", direction="maximize")
    lab.update(Trial, 1, state="failed")
    lab.update(Trial, 2, experiment_id=filled[1])
    etl()
    check(settings)

    with lab.database.write() as connection:
        connection.execute(sa.update(Attempt).where(Attempt.trial_id == 5).values(host="there"))
    lab.delete(Hyperparameter, Hyperparameter.trial_id == 4, Hyperparameter.name == "kernel")
    etl()
    check(settings)


def test_what_belongs_to_a_trial_follows_it(settings, lab, etl, filled):
    lab.retry(1)
    lab.tag(1, "stage", "draft")
    lab.tag(1, "score", math.nan)
    lab.note(1, "odd at the end")
    lab.artifact(1, "model.pt", "first")
    lab.artifact(2, "model.pt", "second")
    lab.maintain(problems=["row 5 refers to nothing"], state="failed", error="damaged")
    unfinished = lab.maintain(state="running", ended_at=None)
    etl()
    check(settings)
    found = mart(
        settings,
        "select state, error_type, traceback, metrics['accuracy'].max_step, total_duration_s - "
        "duration_s from marts.trials where trial_id = 1",
    )
    assert found == [("failed", "ValueError", "Traceback …", 4, 5.0)]
    packages = mart(
        settings,
        "select package, version from marts.environment_packages "
        "semi join (from marts.trial_environments where trial_id = 1) using (environment_id)",
    )
    assert dict(packages)["numpy"] == "1" and len(packages) == 2

    lab.tag(1, "stage", "final")
    lab.artifact(1, "model.pt", "third")
    lab.retry(1)
    lab.delete(Note, Note.trial_id == 1)
    lab.delete(Tag, Tag.name == "score")
    lab.delete(Trial, Trial.id == 2)
    lab.update(Experiment, filled[0], name="renamed")
    lab.update(MaintenanceRun, unfinished, state="succeeded", ended_at=2 * 10**15)
    etl()
    check(settings)
    etl(full_refresh=True)
    check(settings)


def test_odd_values_arrive_as_they_are(settings, lab, etl):
    experiment = lab.experiment()
    odd = {"nan": math.nan, "inf": math.inf, "big": 2**60, "none": None, "flag": True}
    trial = lab.trial(experiment, odd | {"text": "it's", "list": [1, {"a": None}], "small": 1e-7})
    lab.log(trial, "accuracy", {0: math.nan, 1: -math.inf, 2: 0.1 + 0.2, 3: True, 4: 5e-324})
    lab.log(trial, "report", {0: "nan", 1: {"f1": [0.5, None]}, 2: None})
    lab.trial(lab.experiment(), {"nan": 1.0})
    etl()
    check(settings)
    found = mart(
        settings,
        "select value from marts.metrics_wide where metric = 'accuracy' order by step",
    )
    assert math.isnan(found[0][0])
    assert [value for (value,) in found[1:]] == [-math.inf, 0.1 + 0.2, 1.0, 5e-324]
    row = mart(
        settings,
        "select distinct hp_nan, hp_inf, hp_big, hp_flag, hp_text, hp_list, hp_small "
        "from marts.metrics_wide",
    )
    assert math.isnan(row[0][0])
    assert row[0][1:] == (math.inf, float(2**60), True, "it's", '[1,{"a":null}]', 1e-7)


def test_new_hyperparameters_get_columns_that_keep_their_meaning(settings, lab, etl):
    def value(column, trial):
        return mart(
            settings, f"select distinct {column} from marts.metrics_wide where trial_id = {trial}"
        )

    def logged(hyperparameters):
        trial = lab.trial(experiment, hyperparameters)
        lab.log(trial, "accuracy", {0: 0.5})
        return trial

    experiment = lab.experiment()
    first = logged({"lr": 0.1, "depth": None})
    etl()
    assert value("hp_lr", first) == [(0.1,)]

    second = logged({"LR": 0.2, "lr": "auto", "depth": 3})
    etl()
    check(settings)
    assert value("hp_lr, hp_lr__2, hp_depth", first) == [(0.1, None, None)]
    # A value that does not fit the type of its column is not lost.
    assert value("hp_lr, hp_lr__2, hp_depth, hyperparameters_other['lr']", second) == [
        (None, 0.2, 3.0, "auto")
    ]


def test_labels_show_what_varies_and_follow_when_that_changes(settings, lab, etl):
    def labels():
        etl()
        check(settings)
        wide = mart(settings, "select distinct trial_id, hyperparameters from marts.metrics_wide")
        trials = mart(settings, "select trial_id, hyperparameters from marts.trials")
        assert sorted(trials) == sorted(wide)
        return dict(sorted(wide))

    def logged(experiment, hyperparameters):
        trial = lab.trial(experiment, hyperparameters)
        lab.log(trial, "accuracy", {0: 0.5, 1: 0.75})

    experiment, other = lab.experiment(), lab.experiment()
    logged(experiment, {"C": 1, "kernel": "rbf"})
    assert labels() == {1: "C=1, kernel=rbf"}
    logged(experiment, {"C": 2, "kernel": "rbf"})
    assert labels() == {1: "C=1", 2: "C=2"}
    logged(experiment, {"C": 2, "kernel": "linear", "gamma": None})
    every = {1: "C=1, kernel=rbf", 2: "C=2, kernel=rbf", 3: "C=2, gamma=null, kernel=linear"}
    assert labels() == every

    lab.update(Trial, 3, experiment_id=other)
    assert labels() == every | {1: "C=1", 2: "C=2"}
    lab.delete(Trial, Trial.id == 1)
    assert labels() == {2: "C=2, kernel=rbf", 3: every[3]}


def test_a_rebuild_from_staging_gives_the_same_mart(settings, lab, etl, filled):
    lab.delete(Trial, Trial.id == 3)
    lab.log(1, "accuracy", {2: 0.99})
    etl()
    etl(full_refresh=True)
    check(settings)


def test_the_project_builds_without_a_warning(settings, etl, filled):
    """All of it, the unit tests and the tests of all rows too."""
    build = subprocess.run(
        [Path(sys.executable).with_name("dbt"), "build", "--show-all-deprecations"],
        env={
            **os.environ,
            **dbt.environment(settings),
            "MLED_TEST_ALL_ROWS": "true",
            "DBT_USE_COLORS": "False",
        },
        capture_output=True,
        text=True,
    )
    summary = build.stdout.splitlines()[-1]
    assert "WARN=0 ERROR=0 SKIP=0" in summary, build.stdout
    assert "7 unit tests" in build.stdout
    assert "deprecat" not in build.stdout.lower()
