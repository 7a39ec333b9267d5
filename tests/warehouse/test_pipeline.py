"""Each run leaves a record, whatever becomes of it."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa
from lab import check, mart

from mled.store.schema import EtlRun
from mled.warehouse import dbt
from mled.warehouse.files import WarehouseError, exclusive
from mled.warehouse.pipeline import Run
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
    assert row.stage_seconds.keys() == {"extract", "dbt", "publish"}

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


def test_a_mart_of_another_store_is_not_mixed_with_this_one(settings, lab, etl):
    lab.log(lab.trial(lab.experiment()), "accuracy", {0: 0.5})
    etl()
    for folder in (settings.staging / "committed").iterdir():
        folder.rename(settings.staging / folder.name)
    with lab.database.write() as connection:
        connection.execute(sa.text("UPDATE clock SET store_id = 'another'"))
    with pytest.raises(WarehouseError, match="was built from batches that are not in"):
        etl()


def test_an_error_of_dbt_names_the_model(settings, lab, etl):
    lab.experiment()
    etl()
    with pytest.raises(WarehouseError, match="no_such_model"):
        dbt.build(settings, "--select", "no_such_model", "--warn-error")
