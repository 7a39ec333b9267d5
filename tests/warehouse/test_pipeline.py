"""Each run leaves a record, whatever becomes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from lab import check, mart

from mled.store.schema import EtlRun, Metric
from mled.warehouse import batches, dbt
from mled.warehouse.compact import compact
from mled.warehouse.files import WarehouseError, exclusive
from mled.warehouse.pipeline import Run, rebuild
from mled.warehouse.runs import Recorder


@pytest.fixture
def record(database):
    """Reads the newest row of etl_run."""

    def read():
        with database.read() as connection:
            newest = sa.select(EtlRun.__table__).order_by(EtlRun.id.desc()).limit(1)
            return connection.execute(newest).one()

    return read


def test_a_run_records_what_it_did(settings, lab, etl, record):
    trial = lab.trial(lab.experiment())
    lab.log(trial, "accuracy", {0: 0.5, 1: 0.75})
    report = etl()
    row = record()
    assert row.state == report.state == "succeeded"
    assert row.tables["metric"] == {"inserted": 2, "updated": 0, "deleted": 0}
    assert row.rows_read == report.rows_changed + 1  # the row itself
    assert row.batch_id == row.high and row.low == 0
    assert row.bytes > 0 and row.lag_s > 0 and row.mart_version == 1
    assert row.stage_seconds.keys() == {"extract", "dbt", "publish", "compact"}

    # A run appears in the mart with its outcome, so with the next one.
    assert mart(settings, "select count(*) from marts.etl_runs") == [(0,)]
    etl()
    assert mart(settings, "select run_id, state, rows_read, mart_version from marts.etl_runs") == [
        (row.run_id, "succeeded", row.rows_read, 1)
    ]


def test_a_stage_that_fails_is_recorded_and_the_next_run_mends_it(
    settings, lab, etl, record, monkeypatch
):
    lab.log(lab.trial(lab.experiment()), "accuracy", {0: 0.5})

    def fail(settings):
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("mled.warehouse.pipeline.publish", fail)
        with pytest.raises(OSError, match="No space"):
            etl()
    row = record()
    assert (row.state, row.error) == ("failed", "publish: No space left on device")
    assert not settings.mart.exists()

    assert etl().rows_changed == 0
    check(settings)


def test_a_failing_test_of_the_data_stops_the_publication(settings, lab, etl, record):
    lab.log(lab.trial(lab.experiment()), "accuracy", {0: 0.5})
    etl()
    version = record().mart_version
    with lab.database.write() as connection:
        connection.execute(sa.text("PRAGMA ignore_check_constraints = ON"))
        connection.execute(sa.text("UPDATE trial SET state = 'odd'"))
    with pytest.raises(WarehouseError, match="accepted_values_metrics_wide_state"):
        etl()
    row = record()
    assert row.state == "failed" and "accepted_values_metrics_wide_state" in row.error
    assert row.mart_version is None
    assert settings.mart.resolve().parent.name == str(version)


def test_a_killed_run_is_marked_by_the_next(settings, lab, etl, record):
    Recorder(settings, "killed").begin()
    assert record().state == "running"
    etl()
    found = mart(settings, "select state, error from marts.etl_runs where run_id = 'killed'")
    assert found[0][0] == "failed"
    assert "killed" in found[0][1]


def test_a_run_may_be_tried_again_under_its_name(settings, lab, record):
    run = Run(settings, "scheduled__1")
    run.begin()
    with pytest.raises(ZeroDivisionError), Recorder(settings, "scheduled__1").stage("extract"):
        raise ZeroDivisionError
    assert run.end().state == "failed"
    assert record().error == "extract: ZeroDivisionError"
    run.begin()
    assert (record().state, record().error) == ("running", None)


def test_only_one_pipeline_runs(settings, lab, etl, record):
    with exclusive(settings), pytest.raises(WarehouseError, match=f"process {os.getpid()} holds"):
        etl()
    etl()
    assert record().id == 1


def test_nothing_begins_while_airflows_dbt_builds(settings, lab, etl, record):
    etl()
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-c", script, str(settings.build_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as builder:
        builder.stdout.readline()
        with pytest.raises(WarehouseError, match="another ETL is at work"):
            etl()
        builder.communicate(b"\n")
    assert record().id == 1
    etl()


def test_a_mart_of_another_store_is_not_mixed_with_this_one(settings, lab, etl):
    lab.log(lab.trial(lab.experiment()), "accuracy", {0: 0.5})
    etl()
    batches.committed(settings).rename(settings.staging / "elsewhere")
    with lab.database.write() as connection:
        connection.execute(sa.text("UPDATE clock SET store_id = 'another'"))
    with pytest.raises(WarehouseError, match=r"was built from the store.*mled warehouse rebuild"):
        etl()


def test_a_restored_store_is_read_anew_on_request(settings, lab, etl):
    for _ in range(2):
        lab.log(lab.trial(lab.experiment(), {"lr": 1}), "accuracy", {0: 0.5})
        etl()
    columns = mart(
        settings, "select name, column_name from intermediate.int_hyperparameter_columns"
    )
    with lab.database.write() as connection:
        connection.execute(sa.text("UPDATE clock SET store_id = 'restored'"))
        connection.execute(sa.text("DELETE FROM trial WHERE id = 2"))
        connection.execute(sa.text("DELETE FROM tombstone"))
    with pytest.raises(WarehouseError, match="mled warehouse rebuild"):
        etl()
    rebuild(settings)
    check(settings)
    assert columns == mart(
        settings, "select name, column_name from intermediate.int_hyperparameter_columns"
    )
    assert etl().rows_changed == 0


def test_batches_that_are_lost_are_read_again(settings, lab, etl):
    trial = lab.trial(lab.experiment())
    lab.log(trial, "accuracy", {0: 0.5, 1: 0.75})
    etl()
    shutil.rmtree(settings.staging)
    lab.delete(Metric, Metric.step == 0)
    with lab.database.write() as connection:
        connection.execute(sa.text("DELETE FROM tombstone"))
    etl()
    check(settings)


def test_a_lost_build_file_is_built_anew_with_the_same_columns(settings, lab, etl):
    lab.log(lab.trial(lab.experiment(), {"lr": 1}), "accuracy", {0: 0.5})
    etl()
    lab.log(lab.trial(lab.experiment(), {"LR": 1}), "accuracy", {0: 0.5})
    etl()
    compact(settings, most=1)
    asked = "select name, column_name from intermediate.int_hyperparameter_columns order by all"
    columns = mart(settings, asked)
    settings.build_file.unlink()
    etl()
    check(settings)
    assert mart(settings, asked) == columns == [("LR", "hp_lr__2"), ("lr", "hp_lr")]


def test_a_model_whose_code_changed_is_built_anew(settings, project, lab, etl):
    trial = lab.trial(lab.experiment())
    lab.log(trial, "accuracy", {0: 0.5, 1: 0.75})
    etl()

    def edit(path, old, new):
        text = (project / path).read_text()
        assert old in text
        (project / path).write_text(text.replace(old, new))

    edit("models/intermediate/int_trial_metrics.sql", "avg(number)", "avg(number) * 2")
    edit("models/marts/etl_runs.sql", "        lag_s,", "        lag_s, lag_s as age_s,")
    edit(
        "models/marts/etl_runs.yml",
        "      - name: mart_version",
        "      - {name: age_s, data_type: double, description: Age.}\n      - name: mart_version",
    )
    assert etl().rows_changed == 0
    assert mart(settings, "select mean_value from intermediate.int_trial_metrics") == [(1.25,)]
    assert mart(settings, "select count(age_s) > 0 from marts.etl_runs") == [(True,)]
    check(settings)


def test_the_command_shows_stages_and_one_line_for_an_error(settings, lab):
    lab.log(lab.trial(lab.experiment()), "accuracy", {0: 0.5})
    mled = [Path(sys.executable).with_name("mled")]

    def run(*arguments):
        done = subprocess.run([*mled, *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = run("etl")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == [
        *("extract", "dbt", "publish", "compact")
    ]
    assert "version 1 is shown" in out
    assert run("warehouse", "rebuild")[0] == 0
    check(settings)
    with lab.database.write() as connection:
        connection.execute(sa.text("UPDATE clock SET store_id = 'another'"))
    code, _, error = run("etl")
    assert code == 1
    assert error.startswith("mled: the store ") and error.count("\n") == 1


def test_an_error_of_dbt_names_the_model(settings, lab, etl):
    lab.experiment()
    etl()
    with pytest.raises(WarehouseError, match="no_such_model"):
        dbt.build(settings, "--select", "no_such_model", "--warn-error")
