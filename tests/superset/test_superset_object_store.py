"""Superset on a machine of its own: each version of the mart is fetched before it is shown."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import duckdb
import pytest

from mled.objects import Objects
from mled.settings import load
from mled.warehouse import remote_mart
from tests.object_store import Refusal

SUPERSET = Path(__file__).parents[2] / "include" / "superset"


@pytest.fixture
def mart_connection(monkeypatch):
    monkeypatch.syspath_prepend(str(SUPERSET))
    # Superset's environment has this package; its wrapper only passes calls on.
    driver = types.SimpleNamespace(ConnectionWrapper=lambda connection: connection)
    monkeypatch.setitem(sys.modules, "duckdb_engine", driver)
    monkeypatch.setattr(remote_mart.Follower, "EVERY_SECONDS", 0)
    import mart_connection

    return mart_connection


@pytest.fixture
def publish(object_store, tmp_path):
    """Publishes, from another machine, a mart that holds a number."""

    def run(number):
        folder = tmp_path / f"built-{number}"
        folder.mkdir()
        with duckdb.connect(str(folder / "mart.duckdb")) as connection:
            connection.execute(f"create table shown as select {number} as number")
        version = remote_mart.version_of(folder, "mart.duckdb", number, "series", number)
        objects = Objects(load())
        for name in version.files:
            objects.upload(folder / name, f"{version.folder}/{name}")
        found = objects.read(remote_mart.VERSIONS)
        listed = [*remote_mart.listed(found), version]
        assert objects.swap(remote_mart.VERSIONS, remote_mart.as_list(listed), found)

    return run


def shown(path):
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute("from shown").fetchone()[0]


def test_each_new_version_is_shown(mart_connection, publish):
    for number in (1, 2):
        publish(number)
        assert shown(mart_connection.published(load())) == number


def test_what_was_fetched_is_shown_while_the_object_store_is_away(
    mart_connection, publish, object_store
):
    publish(1)
    path = mart_connection.published(load())
    publish(2)
    with object_store.failing(lambda *_: Refusal(503, "SlowDown")):
        assert mart_connection.published(load()) == path
    assert shown(mart_connection.published(load())) == 2


def test_a_look_is_taken_every_few_seconds(mart_connection, publish, object_store, monkeypatch):
    publish(1)
    mart_connection.published(load())
    monkeypatch.setattr(remote_mart.Follower, "EVERY_SECONDS", 3600)
    with object_store.counted() as counts:
        for _ in range(5):
            mart_connection.published(load())
    assert not counts


def test_a_large_version_is_awaited_for_a_while_only(mart_connection, publish, monkeypatch):
    publish(1)
    path = mart_connection.published(load())
    publish(2)
    arriving, bring = threading.Event(), remote_mart._bring

    def slow(*arguments):
        arriving.wait()
        bring(*arguments)

    monkeypatch.setattr(remote_mart, "_bring", slow)
    monkeypatch.setattr(remote_mart.Follower, "PATIENCE_SECONDS", 0.05)
    assert mart_connection.published(load()) == path
    arriving.set()
    mart_connection._follower(load())._look.join()
    monkeypatch.setattr(remote_mart.Follower, "PATIENCE_SECONDS", 10)
    assert shown(mart_connection.published(load())) == 2


def test_why_nothing_is_shown(mart_connection, object_store):
    settings = load()

    def connect():
        path = mart_connection.published(settings)
        mart_connection.engine_arguments(settings, path)["creator"]()

    with pytest.raises(mart_connection.NothingPublishedError):
        connect()
    with (
        object_store.failing(lambda *_: Refusal(503, "SlowDown")),
        pytest.raises(OSError, match=r"MLED_OBJECT_STORE=s3://.* answered 503"),
    ):
        connect()
