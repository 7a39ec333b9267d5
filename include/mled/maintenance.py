"""The daily maintenance: orphaned trials, checks of the store, a backup, its retention."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mled.settings import Settings
from mled.store import StoreError, connect
from mled.store import backup as backups
from mled.store.database import Database
from mled.store.orphans import mark_orphans
from mled.store.schema import MaintenanceRun
from mled.store.trials import now


def run(settings: Settings) -> dict[str, Any]:
    """Do the maintenance and record it in the store; returns what was recorded.

    A damaged store is not backed up, so its older backups are all kept.

    Raises:
        StoreError: the store is damaged, or the backup failed; that is recorded first, as far as
            the store can still be written.
    """
    database = connect(settings)
    with database.write() as connection:
        id = connection.execute(
            sa.insert(MaintenanceRun)
            .values(state="running", started_at=now())
            .returning(MaintenanceRun.id)
        ).scalar_one()
    done: dict[str, Any] = {}
    try:
        done["orphans"] = len(mark_orphans(database))
        done["problems"] = backups.check(database)
        if done["problems"]:
            raise StoreError(
                f"the store is damaged ({done['problems'][0]}): stop everything with `make down` "
                "and put a backup back with `mled store restore`"
            )
        backup = backups.take(settings)
        done |= {"backup_path": str(backup.path), "backup_bytes": backup.size}
        done["backups_deleted"] = len(backups.prune(settings))
    except Exception as error:
        _record(database, id, done | {"state": "failed", "error": str(error)})
        raise
    _record(database, id, done | {"state": "succeeded"})
    return done


def _record(database: Database, id: int, facts: dict[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(
            sa.update(MaintenanceRun).where(MaintenanceRun.id == id).values(ended_at=now(), **facts)
        )
