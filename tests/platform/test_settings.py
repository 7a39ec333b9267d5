"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mled import settings
from mled.settings import Settings, SettingsError, load


def test_without_variables_everything_has_its_default():
    assert load({}) == Settings()


def test_a_variable_replaces_the_default_and_keeps_its_type(tmp_path):
    given = load({"MLED_HOME": str(tmp_path), "MLED_WORKERS": "3", "MLED_FLUSH_SECONDS": "0.5"})
    assert (given.home, given.workers, given.flush_seconds) == (tmp_path, 3, 0.5)


def test_an_empty_variable_counts_as_unset():
    assert load({"MLED_WORKERS": "", "MLED_HOME": ""}) == Settings()


def test_a_relative_home_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load({"MLED_HOME": "state"}).home == tmp_path / "state"


def test_the_user_s_home_is_expanded():
    assert load({"MLED_HOME": "~/state"}).home == Path.home() / "state"


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("MLED_AIRFLOW_PORT", "http", "whole number"),
        ("MLED_AIRFLOW_PORT", "80.5", "whole number"),
        ("MLED_BUSY_TIMEOUT_S", "soon", "a number"),
        ("MLED_WORKERS", "0", "below 1"),
        ("MLED_MIN_FREE_MB", "-1", "below 0"),
        ("MLED_BUSY_TIMEOUT_S", "nan", "below 0"),
    ],
)
def test_a_wrong_value_is_named_with_the_variable_and_the_way_out(variable, value, wanted):
    with pytest.raises(SettingsError) as caught:
        load({variable: value})
    message = str(caught.value)
    assert variable in message and repr(value) in message and wanted in message
    assert "unset it to use the default" in message and "\n" not in message


def test_a_child_process_reads_the_same_settings(tmp_path):
    original = load({"MLED_HOME": str(tmp_path), "MLED_WORKERS": "5", "MLED_DUCKDB_MEMORY": "1GB"})
    assert load(original.environ()) == original


def test_every_setting_says_what_it_means():
    assert all(field.metadata["help"] for field in dataclasses.fields(Settings))


def test_the_store_is_sqlite_in_the_home_unless_a_url_is_given(tmp_path):
    assert load({"MLED_HOME": str(tmp_path)}).store == f"sqlite:///{tmp_path}/store/mled.db"
    assert load({"MLED_STORE_URL": "postgresql://x/y"}).store == "postgresql://x/y"


def test_browsers_reach_the_servers_where_our_programs_do_unless_told_otherwise():
    alone = load({"MLED_AIRFLOW_PORT": "81"})
    assert alone.airflow_page == alone.airflow_url == "http://127.0.0.1:81"
    behind = load(
        {
            "MLED_AIRFLOW_SERVER": "http://api-server:8080",
            "MLED_AIRFLOW_PUBLIC_URL": "https://mled.example/airflow/",
            "MLED_SUPERSET_PUBLIC_URL": "https://charts.example/",
        }
    )
    assert behind.airflow_url == "http://api-server:8080"
    assert behind.airflow_page == "https://mled.example/airflow"
    assert behind.superset_page == "https://charts.example"


def test_the_repository_is_found():
    assert (settings.ROOT / "pyproject.toml").is_file()


def test_an_unknown_executor_is_refused_with_those_that_there_are():
    with pytest.raises(SettingsError, match=r"MLED_EXECUTOR='kubernetes' .*local .*celery or edge"):
        load({"MLED_EXECUTOR": "kubernetes"})
