"""The audit: who asked what, and for how long that is kept."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

SUPERSET = Path(__file__).parents[2] / "include" / "superset"
NOW = datetime.now(UTC)


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.syspath_prepend(str(SUPERSET))
    import audit

    return audit


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "metadata.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE ab_user (id, username);
            CREATE TABLE slices (id, slice_name);
            CREATE TABLE dashboards (id, dashboard_title);
            CREATE TABLE logs (user_id, action, dttm, slice_id, dashboard_id);
            CREATE TABLE query (user_id, status, sql, start_time);
            INSERT INTO ab_user VALUES (1, 'ada'), (2, 'grace');
            INSERT INTO slices VALUES (7, 'Leaderboard');
            """
        )
        for days in (0, 5, 100):
            when = NOW - timedelta(days=days, minutes=1)
            stamp = when.strftime("%Y-%m-%d %H:%M:%S.%f")
            connection.execute("INSERT INTO logs VALUES (1, 'chart', ?, 7, NULL)", (stamp,))
            connection.execute("INSERT INTO logs VALUES (1, 'log', ?, 7, NULL)", (stamp,))
            connection.execute(
                "INSERT INTO query VALUES (2, 'success', 'SELECT 1', ?)",
                (when.timestamp() * 1000,),
            )
    return f"sqlite:///{path}"


def test_events_name_the_user_and_the_subject(audit, database):
    assert [event[1:] for event in audit.events(database, days=1)] == [
        ("ada", "chart", "Leaderboard"),
        ("grace", "SQL, success", "SELECT 1"),
    ]


def test_events_of_one_user(audit, database):
    assert {event[1] for event in audit.events(database, days=30, user="grace")} == {"grace"}
    assert len(audit.events(database, days=30, user="grace")) == 2


def test_old_records_go(audit, database):
    audit.prune(database, days=90)
    assert len(audit.events(database, days=1000)) == 4
    audit.prune(database, days=0)
    assert audit.events(database, days=1000) == []


def test_before_the_first_start_there_is_nothing_to_prune(audit, tmp_path):
    audit.prune(f"sqlite:///{tmp_path}/none.db")
    assert sa.inspect(sa.create_engine(f"sqlite:///{tmp_path}/none.db")).get_table_names() == []


def test_the_command_prunes_and_prints(audit, database, home, monkeypatch, capsys):
    folder = home / "superset"
    folder.mkdir(parents=True)
    Path(database.removeprefix("sqlite:///")).rename(folder / "metadata.db")
    monkeypatch.setattr("sys.argv", ["audit.py", "--prune"])
    audit.main()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sys.argv", ["audit.py", "--days", "1000"])
    audit.main()
    assert len(capsys.readouterr().out.splitlines()) == 4
