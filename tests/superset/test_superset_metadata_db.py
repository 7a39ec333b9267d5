"""Superset's metadata database is replaced whole or not at all, and its changes are noticed."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

SUPERSET = Path(__file__).parents[2] / "include" / "superset"


@pytest.fixture
def metadata_db(monkeypatch):
    monkeypatch.syspath_prepend(str(SUPERSET))
    import metadata_db

    return metadata_db


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metadata.db"
    execute(
        path,
        "CREATE TABLE alembic_version (version_num)",
        "INSERT INTO alembic_version VALUES ('a1')",
        "CREATE TABLE slices (id, slice_name, is_managed_externally)",
        "INSERT INTO slices VALUES (1, 'Ours', 1), (2, 'Theirs', 0)",
        "CREATE TABLE dashboards (id, uuid, dashboard_title, slug, description, css, published,"
        " position_json, json_metadata, is_managed_externally)",
        "INSERT INTO dashboards VALUES (1, x'ab', 'D', 'd', '', '', 1, '{}', '{\"a\": 1}', 1)",
    )
    return path


def execute(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def names(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT slice_name FROM slices ORDER BY id")]


def test_revision(metadata_db, path, tmp_path):
    assert metadata_db.revision(path) == "a1"
    assert metadata_db.revision(tmp_path / "none.db") is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE slices SET slice_name = 'Changed' WHERE id = 1",
        "DELETE FROM slices WHERE id = 1",
        "UPDATE alembic_version SET version_num = 'b2'",
        "UPDATE dashboards SET json_metadata = '{\"a\": 2}'",
        "UPDATE dashboards SET position_json = '[]'",
    ],
)
def test_fingerprint_changes_with_what_is_ours(metadata_db, path, change):
    before = metadata_db.fingerprint(path)
    execute(path, change)
    assert metadata_db.fingerprint(path) != before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE slices SET slice_name = 'Changed' WHERE id = 2",
        "INSERT INTO slices VALUES (3, 'Theirs too', 0)",
        'UPDATE dashboards SET json_metadata = \'{"a": 1, "map_label_colors": {"x": "y"}}\'',
    ],
)
def test_fingerprint_ignores_peoples_work(metadata_db, path, change):
    before = metadata_db.fingerprint(path)
    execute(path, change)
    assert metadata_db.fingerprint(path) == before


def test_private_copy_is_published_whole(metadata_db, path):
    with metadata_db.private_copy(path) as private:
        execute(private, "UPDATE slices SET slice_name = 'New'")
        assert names(path) == ["Ours", "Theirs"]
    assert names(path) == ["New", "New"]
    assert not private.exists()


def test_a_failure_leaves_the_database_as_it_was(metadata_db, path):
    with pytest.raises(ZeroDivisionError), metadata_db.private_copy(path) as private:
        execute(private, "DROP TABLE slices")
        raise ZeroDivisionError
    assert names(path) == ["Ours", "Theirs"]
    with metadata_db.private_copy(path) as private:  # what was left over does not matter
        assert names(private) == ["Ours", "Theirs"]


def test_a_database_can_be_made_from_nothing(metadata_db, tmp_path):
    path = tmp_path / "metadata.db"
    with metadata_db.private_copy(path) as private:
        execute(private, "CREATE TABLE slices (id, slice_name)")
    assert names(path) == []


def test_a_database_in_use_is_not_replaced(metadata_db, path):
    execute(path, "PRAGMA journal_mode = WAL")
    with contextlib.closing(sqlite3.connect(path)) as server:
        server.execute("UPDATE slices SET slice_name = 'Written'")
        server.commit()
        with (
            pytest.raises(metadata_db.MetadataError, match="stop Superset"),
            metadata_db.private_copy(path),
        ):
            pass
    assert names(path) == ["Written", "Written"]
