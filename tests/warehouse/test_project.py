"""What the dbt project says of itself is checked: its metrics, its exposures, its freshness."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import yaml

from mled.settings import ROOT
from mled.warehouse import dbt
from mled.warehouse.files import WarehouseError

ASSETS = ROOT / "include" / "superset" / "assets"


@pytest.fixture
def manifest(settings):
    return json.loads(dbt.manifest(settings).read_text())


def test_each_dashboard_is_an_exposure_of_what_it_reads(manifest):
    def read(path):
        return yaml.safe_load(path.read_text())

    models = {path.stem: read(path)["models"] for path in (ASSETS / "datasets").glob("*.yaml")}
    exposures = {e["url"].rstrip("/").split("/")[-1]: e for e in manifest["exposures"].values()}
    dashboards = {path.stem: read(path) for path in (ASSETS / "dashboards").glob("*.yaml")}
    assert exposures.keys() == dashboards.keys()
    for slug, dashboard in dashboards.items():
        charts = [chart for row in dashboard["rows"] for chart in row["charts"]]
        expected = {model for chart in charts for model in models[chart["dataset"]]}
        declared = {node.split(".")[-1] for node in exposures[slug]["depends_on"]["nodes"]}
        assert declared == expected, (
            f"models/marts/_exposures.yml, {slug}: see its charts' datasets"
        )
        assert exposures[slug]["label"] == dashboard["title"]


def test_each_table_says_its_grain_and_each_column_what_it_is(manifest):
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model":
            assert "Grain: one " in node["description"], node["name"]
            blank = [c["name"] for c in node["columns"].values() if not c["description"].strip()]
            assert node["columns"] and not blank, (node["name"], blank)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("measure: processor_seconds", "measure: no_such_measure", "no_such_measure"),
        ("denominator: trials}", "denominator: no_such_metric}", "no_such_metric"),
        ("agg_time_dimension: started_at", "agg_time_dimension: no_such_time", "no_such_time"),
    ],
)
def test_a_metric_that_nothing_supports_stops_dbt(settings, project, old, new, said):
    path = project / "models" / "semantic" / "trials.yml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(WarehouseError, match=said):
        dbt.parse(settings)


@pytest.mark.parametrize(("age_s", "status"), [(60, "pass"), (6000, "warn"), (8000, "error")])
def test_staging_that_grows_old_is_noticed(settings, lab, tmp_path, age_s, status):
    """`dbt source freshness`; the batch is written by hand, since the store's clock is right."""
    batch = settings.staging / "committed" / "0-1"
    batch.mkdir(parents=True)
    manifest = {"batch_id": 1, "series": "a", "store_id": "b"}
    (batch / "manifest.json").write_text(json.dumps(manifest))
    stamp = time.time_ns() // 1000 - age_s * 1_000_000
    duckdb.sql(f"COPY (SELECT {stamp} AS staged_in) TO '{batch / 'etl_run.parquet'}'")
    build = {"MLED_BUILD_FILE": str(tmp_path / "build.duckdb")}
    done = subprocess.run(
        [Path(sys.executable).with_name("dbt"), "--quiet", "source", "freshness"],
        env=os.environ | dbt.environment(settings) | build,
        capture_output=True,
        text=True,
    )
    results = json.loads((settings.dbt_target / "sources.json").read_text())["results"]
    assert [r["status"] for r in results] == [status], done.stdout
    assert done.returncode == (status == "error")
