"""Tests of the warehouse share one home, so that dbt parses its project once.

The store and everything that the pipeline writes are new for each test.
"""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import pytest

from mled.settings import Settings
from tests import postgres

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("lab")


@pytest.fixture
def home(request, tmp_path_factory, tmp_path, monkeypatch):
    """With the parameter `postgresql`, the store is there; else in SQLite."""
    from lab import fresh_home

    folder = fresh_home(tmp_path_factory)
    monkeypatch.setenv("MLED_HOME", str(folder))
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if getattr(request, "param", None) == "postgresql":
        url = postgres.new_database(request.getfixturevalue("postgres_server"))
    monkeypatch.setenv("MLED_STORE_URL", url)
    return folder


@pytest.fixture
def lab(settings):
    from lab import Lab

    return Lab(settings)


@pytest.fixture
def etl(settings):
    """Runs the whole pipeline; returns its report."""
    from mled.warehouse.pipeline import run_etl

    return functools.partial(run_etl, settings)


@pytest.fixture
def build():
    """Writes a build file in which two marts hold the given number in many rows."""
    import duckdb

    def write(settings, number, series="series"):
        settings.build_file.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(str(settings.build_file)) as connection:
            connection.execute("create schema if not exists marts")
            connection.execute("create schema if not exists bookkeeping")
            for table in ("frozen", "applied", "published"):
                connection.execute(
                    f"create or replace table bookkeeping.{table} as "
                    f"select '{series}' as series, {number} as batch_id"
                )
            for table in ("a", "b"):
                connection.execute(
                    f"create or replace table marts.{table} as "
                    f"select {number} as number from range(10000)"
                )

    return write


@pytest.fixture
def project(settings, tmp_path, monkeypatch):
    """A copy of the dbt project, on which the settings are set."""
    copy = tmp_path / "dbt_project"
    shutil.copytree(settings.dbt_project, copy)
    monkeypatch.setattr(Settings, "dbt_project", property(lambda self: copy))
    monkeypatch.setattr(Settings, "dbt_target", property(lambda self: tmp_path / "target"))
    return copy


@pytest.fixture(scope="module")
def untested():
    """Runs of the pipeline leave out the tests of the data, which write nothing and take long."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mled.warehouse.dbt.BUILD", ("run",))
        yield
