"""An analyst's models are built on a copy, in which all that is published is there already."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from lab import mart

from mled.settings import ROOT
from mled.store.schema import Attempt
from mled.warehouse import analyst, dbt
from mled.warehouse.files import WarehouseError


def example():
    """The SQL and the YAML of the model that the documentation adds."""
    text = (ROOT / "docs" / "warehouse.md").read_text()
    text = text[text.index("## From a new .sql file to a chart") :]
    blocks = re.findall(r"```(sql|yaml)\n(.*?)```", text, flags=re.DOTALL)
    return {kind: textwrap.dedent(block) for kind, block in blocks}


def test_a_new_model_is_built_on_a_copy_and_nothing_else_is(settings, project, lab, etl):
    lab.retry(lab.trial(lab.experiment()))
    with lab.database.write() as connection:
        connection.execute(sa.update(Attempt).values(duration_s=61.0))
    etl()
    published = settings.mart.resolve()
    before = published.stat().st_mtime_ns, settings.build_file.stat().st_mtime_ns
    copy = analyst.prepare(settings)
    with duckdb.connect(str(copy)) as connection:
        # A model that were built anew would not leave this.
        connection.execute("UPDATE marts.trials SET host = 'untouched'")
    model = project / "models" / "analyses" / "slow_trials"
    model.with_suffix(".sql").write_text(example()["sql"])
    model.with_suffix(".yml").write_text(example()["yaml"])
    done = subprocess.run(
        [Path(sys.executable).with_name("dbt"), *dbt.BUILD, "--no-use-colors"],
        env={"PATH": "", **analyst.environment(settings)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT host FROM marts.trials").fetchall() == [("untouched",)]
        assert connection.execute("SELECT duration_s FROM marts.slow_trials").fetchall() == [(61,)]
    assert "unique_rows_slow_trials" in done.stdout
    assert (published.stat().st_mtime_ns, settings.build_file.stat().st_mtime_ns) == before

    assert analyst.prepare(settings) == copy
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM marts.slow_trials").fetchone() == (1,)
    etl()
    assert mart(settings, "select trial_id from marts.slow_trials") == [(1,)]
    analyst.prepare(settings)
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("SELECT host FROM marts.trials").fetchall() == [("there",)]


def test_nothing_to_copy_yet(settings):
    with pytest.raises(WarehouseError, match="mled etl"):
        analyst.prepare(settings)
