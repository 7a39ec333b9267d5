"""An analyst's models are built on a copy, in which all that is published is there already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mled.warehouse import analyst
from mled.warehouse.files import WarehouseError


def test_a_new_model_is_built_on_a_copy_and_nothing_else_is(settings, project, lab, etl):
    lab.log(lab.trial(lab.experiment()), "accuracy", {0: 0.5})
    etl()
    published = settings.mart.resolve()
    before = published.stat().st_mtime_ns, settings.build_file.stat().st_mtime_ns
    copy = analyst.prepare(settings)
    with duckdb.connect(str(copy)) as connection:
        # A model that were built anew would not leave this.
        connection.execute("UPDATE marts.trials SET host = 'untouched'")
    (project / "models" / "marts" / "mine.sql").write_text(
        "{{ config(materialized='table') }} select trial_id, host from {{ ref('trials') }}"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("dbt"), "run", "--no-use-colors"],
        env={"PATH": "", **analyst.environment(settings)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT host FROM marts.mine").fetchall() == [("untouched",)]
    assert (published.stat().st_mtime_ns, settings.build_file.stat().st_mtime_ns) == before

    assert analyst.prepare(settings) == copy
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM marts.mine").fetchone() == (1,)
    etl()
    analyst.prepare(settings)
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT host FROM marts.trials").fetchall() == [("here",)]


def test_nothing_to_copy_yet(settings):
    with pytest.raises(WarehouseError, match="mled etl"):
        analyst.prepare(settings)
