"""The DAG has a task for each model, and runs one stage after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mled.settings import ROOT
from mled.warehouse import dbt
from mled.warehouse.files import WarehouseError

DESCRIBE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import experiment_etl
dag = experiment_etl.experiment_etl()
json.dump({
    "catchup": dag.catchup,
    "max_active_runs": dag.max_active_runs,
    "assets": [asset.name for asset in dag.timetable.asset_condition.objects],
    "cron": dag.timetable.timetable.expression,
    "tasks": {
        task.task_id: {
            "upstream": sorted(task.upstream_task_ids),
            "pool": task.pool,
            "retries": task.retries,
            "trigger_rule": task.trigger_rule,
        }
        for task in dag.tasks
    },
}, open(sys.argv[2], "w"))
"""


@pytest.fixture
def dag(home, tmp_path):
    """What the DAG file says, read by an Airflow of its own."""
    result = tmp_path / "dag.json"
    environ = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "MLED_HOME": str(home),
        "COSMOS__ENABLE_TELEMETRY": "False",
    }
    command = [sys.executable, "-c", DESCRIBE, str(ROOT / "dags"), str(result)]
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return json.loads(result.read_text())


def test_stages_models_and_schedule(dag):
    assert dag["cron"] == "0 * * * *"
    assert dag["assets"] == ["mled://experiments"]
    assert dag["max_active_runs"] == 1 and not dag["catchup"]

    tasks = dag["tasks"]
    for mart in ("trials", "metrics_wide", "hyperparameter_impact", "etl_runs"):
        assert f"dbt.{mart}_run" in tasks["publish"]["upstream"]
    assert "dbt.int_metrics_run" in tasks["dbt.metrics_wide_run"]["upstream"]
    assert tasks["record"]["upstream"] == ["publish"]
    assert tasks["record"]["trigger_rule"] == "all_done"
    producer = tasks["dbt.dbt_producer_watcher"]
    assert producer["upstream"] == ["extract"]
    assert producer["pool"] == "dbt"
    # A task of dbt that is tried again would run dbt beside the first one.
    assert {t["retries"] for name, t in tasks.items() if name.startswith("dbt.")} == {0}


def test_the_manifest_follows_the_project(settings, project):
    path = dbt.manifest(settings)
    written = path.stat().st_mtime_ns
    assert dbt.manifest(settings) == path
    assert path.stat().st_mtime_ns == written

    (project / "models" / "marts" / "mine.sql").write_text("select * from {{ ref('trials') }}")
    nodes = json.loads(dbt.manifest(settings).read_text())["nodes"]
    assert "model.mled.mine" in nodes

    (project / "models" / "marts" / "mine.sql").write_text("select * from {{ ref('nothing') }}")
    with pytest.raises(WarehouseError, match=r"(?s)dbt parse failed.*'nothing'"):
        dbt.manifest(settings)
