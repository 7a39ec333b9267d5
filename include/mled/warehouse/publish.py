"""Publishing: a copy of the build file that never changes again, and a link to the newest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb

from mled.settings import Settings
from mled.warehouse import versions
from mled.warehouse.files import WarehouseError, empty_folder, sync

BOOKKEEPING = "bookkeeping"
"""The schema in which dbt keeps what each model has applied; readers do not see it."""

BOOKS = ("frozen", "applied", "published")
"""Its tables; a version keeps them beside the mart, for those who build on a copy of it."""


def publish(settings: Settings) -> int:
    """Make what dbt has built the current mart; return its version. Call under `files.exclusive`.

    A reader of `settings.mart` sees the old version or the new one, whole: the link is swapped in
    one step, and a version's path is never used for another file. The file's name stays the
    same, since it is the name of the catalog that readers see. With an object store the version
    is there for readers on other machines as well.

    Raises:
        WarehouseError: nothing has been built yet, or another machine has published meanwhile.
        OSError: the disk is full, for example; the current version stays.
    """
    if not settings.build_file.exists():
        raise WarehouseError(
            f"{settings.build_file} does not exist: build it first, with `mled etl`"
        )
    with duckdb.connect(str(settings.build_file)) as connection:
        # The tests of the data look at what has changed since.
        connection.execute(
            f"UPDATE {BOOKKEEPING}.published "
            f"SET batch_id = (SELECT batch_id FROM {BOOKKEEPING}.frozen)"
        )
        connection.execute("CHECKPOINT")
    aside = empty_folder(settings.warehouse / "tmp")
    copy = aside / "version" / settings.mart.name
    copy.parent.mkdir()
    shutil.copyfile(settings.build_file, copy)
    with duckdb.connect(str(copy)) as connection:
        for table in BOOKS:
            connection.execute(
                f"COPY {BOOKKEEPING}.{table} TO '{copy.with_name(table)}.parquet' (FORMAT parquet)"
            )
        connection.execute(f"DROP SCHEMA IF EXISTS {BOOKKEEPING} CASCADE")
        connection.execute("CHECKPOINT")
    if settings.object_store:
        from mled.warehouse import remote_mart

        name = remote_mart.publish(settings, copy.parent, *frozen(copy.parent))
    else:
        name = str(max(map(versions.number_of, versions.names(settings)), default=0) + 1)
        versions.add(settings, copy.parent, name)
        versions.show(settings, name)
    return versions.number_of(name)


def frozen(version: Path) -> tuple[str, int]:
    """The series that a version was built from, and the newest batch in it."""
    books = version / "frozen.parquet"
    return duckdb.sql(f"SELECT series, batch_id FROM '{books}'").fetchone()


def restore(settings: Settings) -> None:
    """Put the published marts where dbt builds, if the build file is not there.

    dbt builds them anew, for nothing tells what they contain; what it keeps for good, as the
    columns of hyperparameters, it finds again. Call it under `files.exclusive`.
    """
    settings.build_file.parent.mkdir(parents=True, exist_ok=True)
    if settings.build_file.exists():
        return
    if settings.object_store:
        from mled.warehouse import remote_mart

        remote_mart.fetch(settings)
    if not settings.mart.exists():
        return
    # What was not yet written into the file that is gone belongs to no other.
    settings.build_file.with_name(f"{settings.build_file.name}.wal").unlink(missing_ok=True)
    aside = empty_folder(settings.warehouse / "tmp") / settings.build_file.name
    shutil.copyfile(settings.mart, aside)
    sync(aside)
    os.rename(aside, settings.build_file)
