"""The connection through which Superset reads the mart: locked, read-only, limited in time."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import duckdb
import pytest
from sqlalchemy.engine.url import make_url

from mled.settings import Settings

SUPERSET = Path(__file__).parents[2] / "include" / "superset"

ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range = 7"


class Record:
    """Stands for SQLAlchemy's connection record, of which a deadline uses `info` only."""

    def __init__(self) -> None:
        self.info: dict = {}


@pytest.fixture
def mart_connection(monkeypatch):
    monkeypatch.syspath_prepend(str(SUPERSET))
    # Superset's environment has this package; its wrapper only passes calls on.
    driver = types.SimpleNamespace(ConnectionWrapper=lambda connection: connection)
    monkeypatch.setitem(sys.modules, "duckdb_engine", driver)
    import mart_connection

    return mart_connection


@pytest.fixture
def settings(tmp_path):
    settings = Settings(home=tmp_path / "home", query_timeout_s=0.2, duckdb_memory="200MB")
    write_mart(settings.mart, 65)
    return settings


@pytest.fixture
def connection(mart_connection, settings):
    arguments = mart_connection.engine_arguments(settings, str(settings.mart))
    with arguments["creator"]() as connection:
        yield connection


def test_it_reads_the_mart(connection):
    assert connection.execute("SELECT count(*) FROM marts.trials").fetchone() == (65,)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_blob('{file}')",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/stolen.csv'",
        "EXPORT DATABASE '{folder}/stolen'",
        "IMPORT DATABASE '{folder}'",
        "ATTACH '{folder}/other.duckdb' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA memory_limit = '100GB'",
        "CREATE SECRET stolen (TYPE s3)",
        "CREATE TABLE marts.mine AS SELECT 1",
        "DELETE FROM marts.trials",
        "DROP TABLE marts.trials",
    ],
)
def test_it_refuses(connection, tmp_path, sql):
    file = tmp_path / "secret.csv"
    file.write_text("a,b\n1,2\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(duckdb.Error):
        connection.execute(sql.format(file=file, folder=tmp_path)).fetchall()
    assert sorted(tmp_path.iterdir()) == before


def write_mart(path: Path, trials: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA marts")
        connection.execute(f"CREATE TABLE marts.trials AS SELECT * FROM range({trials})")


def count_trials(mart_connection, settings, path: Path) -> int:
    with mart_connection.engine_arguments(settings, str(path))["creator"]() as connection:
        return connection.execute("SELECT count(*) FROM marts.trials").fetchone()[0]


def test_each_connection_reads_the_version_it_asks_for(mart_connection, settings, tmp_path):
    for trials in (1, 2):
        write_mart(tmp_path / str(trials) / "mart.duckdb", trials)
    for trials in (1, 2, 2, 1):
        path = tmp_path / str(trials) / "mart.duckdb"
        assert count_trials(mart_connection, settings, path) == trials


def test_a_query_under_way_outlives_a_publish(mart_connection, settings, connection, tmp_path):
    write_mart(tmp_path / "new" / "mart.duckdb", 3)
    assert count_trials(mart_connection, settings, tmp_path / "new" / "mart.duckdb") == 3
    assert connection.execute("SELECT count(*) FROM marts.trials").fetchone() == (65,)


def test_a_version_that_was_deleted_and_made_anew_is_read_anew(mart_connection, settings):
    assert count_trials(mart_connection, settings, settings.mart) == 65
    elsewhere = settings.home / "mart.duckdb"
    write_mart(elsewhere, 4)
    elsewhere.replace(settings.mart)
    assert count_trials(mart_connection, settings, settings.mart) == 4


def test_a_missing_mart_says_what_to_do(mart_connection, settings):
    settings.mart.unlink()
    create = mart_connection.engine_arguments(settings, str(settings.mart))["creator"]
    with pytest.raises(mart_connection.NothingPublishedError, match="experiment_etl"):
        create()


def test_each_statement_of_a_connection_stops_at_the_deadline(
    mart_connection, settings, connection
):
    events = dict(
        (when, call) for call, when in mart_connection.engine_arguments(settings, "")["pool_events"]
    )
    record = Record()
    events["checkout"](connection, record, None)
    for _ in range(2):  # the second begins after the deadline
        with pytest.raises(duckdb.InterruptException):
            connection.execute(ENDLESS).fetchall()
    events["checkin"](connection, record)
    assert connection.execute("SELECT count(*) FROM marts.trials").fetchone() == (65,)


@pytest.mark.parametrize(
    "uri",
    [
        "duckdb:////etc/passwd",
        "duckdb:///:memory:",
        "duckdb:////mart?access_mode=READ_WRITE",
        "duckdb:///md:mart",
        "sqlite:////tmp/x.db",
    ],
)
def test_other_databases_are_refused(mart_connection, uri):
    with pytest.raises(ValueError, match="published mart only"):
        mart_connection.check_uri(make_url(uri))


def test_the_placeholder_of_the_assets_is_accepted(mart_connection):
    mart_connection.check_uri(make_url("duckdb:////mart"))
