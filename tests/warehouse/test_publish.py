"""Readers see one whole version of the mart, whatever the publisher is doing."""

from __future__ import annotations

import os
import threading

import duckdb
import pytest

from mled.warehouse import versions
from mled.warehouse.files import WarehouseError
from mled.warehouse.publish import publish


def read(settings, sql="select distinct number from marts.a union select number from marts.b"):
    with duckdb.connect(str(settings.mart.resolve()), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_version_shows_the_marts_and_hides_the_bookkeeping(settings, build):
    build(settings, 1)
    assert publish(settings) == 1
    assert read(settings) == [(1,)]
    schemas = {s for (s,) in read(settings, "select schema_name from duckdb_schemas()")}
    assert "marts" in schemas
    assert "bookkeeping" not in schemas
    # The catalog bears the name of the file, which queries may spell out.
    assert read(settings, "select count(*) from mart.marts.a") == [(10_000,)]


def test_nothing_built_yet(settings):
    with pytest.raises(WarehouseError, match=r"mart.duckdb does not exist.*mled etl"):
        publish(settings)


def test_readers_never_see_an_error_or_a_mixture(settings, build):
    build(settings, 0)
    publish(settings)
    seen, errors, done = set(), [], threading.Event()

    def keep_reading():
        while not done.is_set():
            try:
                found = read(settings)
            except duckdb.Error as error:
                errors.append(error)
            else:
                seen.add(tuple(found))

    readers = [threading.Thread(target=keep_reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 8):
        build(settings, number)
        publish(settings)
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert all(len(numbers) == 1 for numbers in seen)
    assert len(seen) > 1
    assert read(settings) == [(7,)]


def test_old_versions_go_but_not_while_they_are_young(settings, build, monkeypatch):
    versions = settings.warehouse / "versions"
    for number in range(5):
        build(settings, number)
        publish(settings)
    assert len(list(versions.iterdir())) == 5

    for folder in versions.iterdir():
        os.utime(folder, (0, 0))
    build(settings, 5)
    assert publish(settings) == 6
    kept = sorted(int(p.name) for p in versions.iterdir())
    assert kept == [4, 5, 6]
    assert settings.keep_marts == len(kept)


@pytest.mark.parametrize("step", ["commit_folder", "_point"])
def test_a_publisher_that_dies_leaves_the_old_version(settings, build, monkeypatch, step):
    build(settings, 1)
    publish(settings)
    build(settings, 2)
    with monkeypatch.context() as dying:
        dying.setattr(versions, step, lambda *_: os._exit(1))
        child = os.fork()
        if not child:
            publish(settings)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert read(settings) == [(1,)]

    # A folder that was never shown keeps its number all the same.
    number = publish(settings)
    assert number == (2 if step == "commit_folder" else 3)
    assert read(settings) == [(2,)]
