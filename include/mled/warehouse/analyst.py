"""An analyst's own copy of the mart: models are tried there, and the live mart never knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from mled.settings import Settings
from mled.warehouse import dbt
from mled.warehouse.files import WarehouseError, locked
from mled.warehouse.publish import BOOKKEEPING, BOOKS


def copy_of(settings: Settings) -> Path:
    """Where the private copy lies; it bears the name of the mart, as queries may spell it out."""
    return settings.warehouse / "analyst" / settings.mart.name


def prepare(settings: Settings) -> Path:
    """Make the copy, unless it is of the published version already; return its path.

    What dbt has recorded of its models comes with it, so that dbt builds only what is new or has
    changed in the project.

    Raises:
        WarehouseError: nothing has been published yet.
    """
    if settings.object_store:
        from mled.warehouse import remote_mart

        remote_mart.fetch(settings)
    if not settings.mart.exists():
        raise WarehouseError(f"{settings.mart} does not exist: build it first, with `mled etl`")
    copy = copy_of(settings)
    version = settings.mart.resolve().parent
    mark = copy.with_name("version")
    with locked(copy.with_name("lock")):
        if mark.exists() and mark.read_text() == version.name:
            return copy
        mark.unlink(missing_ok=True)
        copy.with_name(f"{copy.name}.wal").unlink(missing_ok=True)
        shutil.copyfile(version / settings.mart.name, copy)
        with duckdb.connect(str(copy)) as connection:
            connection.execute(f"CREATE SCHEMA {BOOKKEEPING}")
            for table in BOOKS:
                connection.execute(
                    f"CREATE TABLE {BOOKKEEPING}.{table} AS FROM '{version / table}.parquet'"
                )
            connection.execute(f"ALTER TABLE {BOOKKEEPING}.applied ADD PRIMARY KEY (model)")
        mark.write_text(version.name)
    return copy


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables with which dbt builds into the copy, and tests all its rows."""
    return dbt.environment(settings) | {
        "MLED_BUILD_FILE": str(copy_of(settings)),
        "MLED_TEST_ALL_ROWS": "true",
        "DBT_TARGET_PATH": str(settings.home / "dbt" / "analyst"),
    }
