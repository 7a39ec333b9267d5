"""The whole platform, started as a person starts it, in a temporary home on free ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from mled import settings as settings_module
from mled.airflow_api import Airflow
from mled.settings import ROOT, Settings
from tests.postgres import free_port

ARTIFACTS = ROOT / "test-artifacts"
MLED = ROOT / ".venv" / "bin" / "mled"
RUN_SECONDS = 600
HERE = Path(__file__).parent
WHOLE_PATH = "test_whole_path.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the whole path go first: it counts from an empty store."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ours = sorted((items[place] for place in places), key=lambda item: item.path.name != WHOLE_PATH)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@dataclass
class Platform:
    """A running platform.

    Attributes:
        settings: where it lies and on which ports it listens.
        airflow: its REST API, as the UI uses it.
    """

    settings: Settings
    airflow: Airflow

    def grid(self, **conf) -> dict:
        """Trigger a grid and wait for it; the DAG run."""
        run_id = self.airflow.trigger("grid_search", conf)
        return self.airflow.wait("grid_search", run_id, RUN_SECONDS)

    def etl(self) -> dict:
        """Trigger an ETL and wait until none runs any more; what its last task returned."""
        run_id = self.airflow.trigger("experiment_etl")
        run = self.airflow.wait("experiment_etl", run_id, RUN_SECONDS)
        assert run["state"] == "success", self.failures("experiment_etl", run_id)
        self.settle()
        return self.airflow.result("experiment_etl", run_id, "record")

    def settle(self) -> None:
        """Wait for the ETLs that grids have triggered: they take what a test changes meanwhile."""
        for run_id in self.airflow.active_runs("experiment_etl"):
            self.airflow.wait("experiment_etl", run_id, RUN_SECONDS)

    def failures(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Task id → end of its log, for the tasks of a run that failed."""
        return {
            task["task_id"]: self.airflow.log(dag_id, run_id, task["task_id"])[-3000:]
            for task in self.airflow.task_instances(dag_id, run_id)
            if task["state"] == "failed"
        }

    def store(self, query: str) -> list[tuple]:
        """Ask the store."""
        path = self.settings.store.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def mart(self, query: str) -> list[tuple]:
        """Ask the published mart, as its readers do."""
        with duckdb.connect(str(self.settings.mart.resolve()), read_only=True) as connection:
            return connection.execute(query).fetchall()


def _mled(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [MLED, *arguments], env=environment, text=True, capture_output=True, timeout=900
    )


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Start everything but the demo; stop it at the end and keep the logs."""
    home = Path(tempfile.mkdtemp(prefix="mled-e2e-"))
    variables = {
        "MLED_HOME": str(home / "home"),
        "MLED_AIRFLOW_PORT": str(free_port()),
        "MLED_SUPERSET_PORT": str(free_port()),
        # A test waits for it.
        "MLED_QUERY_TIMEOUT_S": "10",
    }
    settings = settings_module.load(variables)
    environment = os.environ | variables
    try:
        started = _mled(environment, "up", "--no-demo")
        assert started.returncode == 0, started.stdout + started.stderr
        with Airflow(settings) as airflow:
            yield Platform(settings, airflow)
    finally:
        _mled(environment, "down")
        shutil.rmtree(ARTIFACTS / "logs", ignore_errors=True)
        if settings.logs.exists():
            shutil.copytree(settings.logs, ARTIFACTS / "logs")
        shutil.rmtree(home, ignore_errors=True)
