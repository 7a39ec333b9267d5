"""Backups are taken in use, kept by age, and put back; damage is found."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

import mled
from mled import maintenance
from mled.store import StoreError, backup, connect
from mled.store.database import Database
from mled.store.schema import Author, MaintenanceRun, Metric


def log_points(name, points=500):
    with mled.experiment(name, dataset="d", model="m").trial({"a": 1}) as trial:
        for step in range(points):
            trial.log({"loss": float(step)}, step=step)
    return trial


def count(settings, table=Metric):
    with Database(settings.store).read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()


def close(database):
    """What `make down` does: nobody has the store open any more."""
    database.engine.dispose()
    connect().engine.dispose()


def test_a_backup_taken_in_use_is_put_back_with_a_new_identity(database, settings):
    log_points("first")
    identity = database.identity()
    stop = threading.Event()

    def write_on():
        number = 0
        while not stop.is_set():
            with database.write() as connection:
                connection.execute(sa.insert(Author).values(name=f"author-{number}"))
            number += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    taken = backup.take(settings)
    stop.set()
    writer.join()
    log_points("second")
    assert count(settings) == 1000
    close(database)
    restored, _ = backup.restore(settings)
    assert restored == taken
    assert count(settings) == 500
    after = Database(settings.store)
    assert after.identity() != identity
    assert backup.check(after) == []
    with mled.experiment("third", dataset="d", model="m").trial({}) as trial:
        trial.log({"loss": 1.0})
    assert count(settings) == 501


def test_a_damaged_file_is_found_and_restored(database, settings, sqlite_only):
    log_points("study", points=20_000)
    backup.take(settings)
    close(database)
    path = Path(settings.store.removeprefix("sqlite:///"))
    with path.open("r+b") as file:
        for page in range(20, 200):
            file.seek(page * 4096)
            file.write(b"\xde\xad" * 2048)
    with pytest.raises(StoreError, match="damaged"):
        backup.take(settings)
    assert len(backup.backups(settings)) == 1
    with pytest.raises(StoreError, match=r"damaged.*mled store restore"):
        maintenance.run(settings)
    close(database)
    _, old = backup.restore(settings)
    assert old.exists()
    assert old.parent == path.parent
    assert backup.check(Database(settings.store)) == []
    assert count(settings) == 20_000


def test_a_damaged_or_absent_backup_is_refused_and_the_store_stays(
    database, settings, sqlite_only, tmp_path
):
    log_points("study")
    with pytest.raises(StoreError, match="there is no backup in"):
        backup.restore(settings)
    with pytest.raises(StoreError, match="there is no backup"):
        backup.restore(settings, tmp_path / "absent.db")
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"SQLite format 3\x00" + b"\x00" * 5000)
    close(database)
    with pytest.raises(StoreError, match="is damaged"):
        backup.restore(settings, bad)
    assert count(settings) == 500


def test_a_store_in_use_is_not_replaced(database, settings, sqlite_only):
    backup.take(settings)
    path = settings.store.removeprefix("sqlite:///")
    holder = subprocess.Popen(
        [sys.executable, "-c", f"f = open({path!r}); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    with pytest.raises(StoreError, match=rf"in use by .*\({holder.pid}\)"):
        backup.restore(settings)
    holder.communicate(b"\n")


def test_retention_keeps_hours_days_and_weeks():
    start = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
    taken = [
        backup.Backup(Path(f"store-{n}"), start - timedelta(minutes=20 * n)) for n in range(10_000)
    ]
    gone = {b.path for b in backup.expired(taken)}
    kept = [b for b in taken if b.path not in gone]
    ages = [start - b.taken_at for b in kept]
    assert ages[0] == timedelta(0)
    assert sum(age < timedelta(days=1) for age in ages) in (24, 25)
    assert sum(timedelta(days=1) <= age < timedelta(days=7) for age in ages) in (5, 6)
    assert max(ages) > timedelta(weeks=6)
    assert len(kept) < 40
    assert backup.expired([b for b in taken if b.path not in gone]) == []


def test_maintenance_records_what_it_did(database, settings):
    log_points("study")
    done = maintenance.run(settings)
    with database.read() as connection:
        row = connection.execute(sa.select(MaintenanceRun.__table__)).one()
    assert (row.state, row.problems, row.orphans, row.backups_deleted) == ("succeeded", [], 0, 0)
    assert Path(row.backup_path).stat().st_size == row.backup_bytes == done["backup_bytes"]
    assert row.ended_at >= row.started_at


def test_a_failed_maintenance_is_recorded(database, settings):
    settings.backups.parent.mkdir(parents=True, exist_ok=True)
    settings.backups.write_text("a file where a folder should be")
    with pytest.raises(OSError):
        maintenance.run(settings)
    with database.read() as connection:
        row = connection.execute(sa.select(MaintenanceRun.__table__)).one()
    assert row.state == "failed"
    assert "File exists" in row.error
