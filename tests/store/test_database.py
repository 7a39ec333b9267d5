"""Opening a store: a new one, a newer one, a damaged one, one that cannot be written."""

import os
import shutil
import sqlite3
import subprocess

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import mled
from mled import settings as settings_module
from mled.store import StoreError, connect, migrate
from mled.store.database import Database, _alembic, head, upgrade
from mled.store.schema import Author, Base


def test_the_migrations_make_what_the_models_say(database):
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrating_again_changes_nothing(database, settings):
    identity = database.identity()
    assert migrate(settings).identity() == identity


def test_a_migration_that_is_killed_leaves_no_half_schema(settings, monkeypatch):
    database = Database(settings.store)
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        monkeypatch.setattr(database, "write", lambda: _Lend(connection))
        upgrade(database)
        raise ZeroDivisionError
    monkeypatch.undo()
    with database.read() as connection:
        assert sa.inspect(connection).get_table_names() == []


class _Lend:
    """Hands out an open connection as if it were a transaction of its own."""

    def __init__(self, connection):
        self.connection = connection

    def __enter__(self):
        return self.connection

    def __exit__(self, *details):
        return None


def test_a_store_of_a_newer_schema_is_refused(database, settings):
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    other = settings_module.load({"MLED_STORE_URL": settings.store, "MLED_BUSY_TIMEOUT_S": "1"})
    for opening in (connect, migrate):
        with pytest.raises(StoreError, match=f"9999, which this code does not know.*{head()}"):
            opening(other)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "mysql is not supported"),
        ("nonsense", "is no URL"),
        ("sqlite:////proc/mled.db", "cannot be opened"),
    ],
)
def test_a_url_that_cannot_be_used_says_so(url, message):
    with pytest.raises(StoreError, match=message):
        connect(settings_module.load({"MLED_STORE_URL": url}))


def test_a_file_that_is_no_database_says_so(tmp_path):
    path = tmp_path / "mled.db"
    path.write_text("This is a text file, and a rather long one at that. " * 100)
    with pytest.raises(StoreError, match="not a SQLite database"):
        connect(settings_module.load({"MLED_STORE_URL": f"sqlite:///{path}"}))


def test_a_locked_store_says_so_after_the_wait(database, settings, sqlite_only):
    impatient = Database(settings.store, busy_timeout_s=0.1)
    with (
        database.write(),
        pytest.raises(StoreError, match="held the write lock"),
        impatient.write(),
    ):
        pass


def test_a_reader_is_not_blocked_by_a_writer(database, settings):
    impatient = Database(settings.store, busy_timeout_s=0.1)
    with database.write() as connection:
        connection.execute(sa.insert(Author).values(name="a"))
        with impatient.read() as reader:
            assert reader.execute(sa.select(sa.func.count(Author.id))).scalar() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_clear_error_and_loses_nothing_acknowledged(
    tmp_path, monkeypatch, sqlite_only
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not allow to mount a small disk")
    try:
        monkeypatch.setenv("MLED_STORE_URL", f"sqlite:///{disk}/mled.db")
        trial = mled.experiment("full", dataset="d", model="m").trial({})
        flushed = 0
        with pytest.raises(StoreError, match="the disk is full: free some space"), trial:
            for step in range(10**6):
                trial.log({"loss": 1.0}, step=step)
                if step % 500 == 499:
                    trial.flush()
                    flushed = step
        kept = sqlite3.connect(f"{disk}/mled.db").execute("SELECT count(*) FROM metric").fetchone()
        assert kept[0] > flushed > 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_read_only_store_is_a_clear_error(database, settings, sqlite_only):
    path = settings.store.removeprefix("sqlite:///")
    database.engine.dispose()
    read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StoreError, match="read-only"), read_only.write() as connection:
        connection.execute(sa.insert(Author).values(name="a"))


def test_every_earlier_revision_is_upgraded_with_its_rows(settings):
    """A store of the first release, filled by its own means, is brought to the newest schema."""
    database = Database(settings.store)
    with database.write() as connection:
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in FIRST_RELEASE:
            connection.exec_driver_sql(statement)
    with pytest.raises(StoreError, match="run `mled store upgrade`"):
        connect(settings)
    upgrade(database)
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.exec_driver_sql("SELECT number FROM metric").scalars().all() == [0.5]
        assert connection.exec_driver_sql("SELECT name FROM author").scalars().all() == ["Ada"]
    with database.write() as connection:
        connection.execute(sa.update(Author).values(name="Grace"))
    with database.read() as connection:
        assert connection.execute(sa.select(Author.updated_at)).scalar() > 5
    assert len(database.identity()) == 36


FIRST_RELEASE = (
    "INSERT INTO clock (id, store_id, last_us, is_open) VALUES "
    "(1, '00000000-0000-0000-0000-000000000001', 5, false)",
    "INSERT INTO author (id, name, created_at, updated_at) VALUES (1, 'Ada', 1, 1)",
    "INSERT INTO dataset (id, name, version, updated_at) VALUES (1, 'digits', 'v1', 2)",
    "INSERT INTO model (id, name, updated_at) VALUES (1, 'svm', 3)",
    "INSERT INTO experiment (id, name, author_id, dataset_id, model_id, updated_at) "
    "VALUES (1, 'study', 1, 1, 1, 4)",
    "INSERT INTO trial (id, experiment_id, identity, seed, hyperparameters, updated_at) "
    "VALUES (1, 1, 'abc', 0, '{}', 5)",
    "INSERT INTO metric (trial_id, name, step, number, updated_at) VALUES (1, 'loss', 0, 0.5, 5)",
)
