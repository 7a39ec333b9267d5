"""Superset's metadata database as a file: its fingerprint, and changing its schema safely.

Nothing but the standard library is needed here: a start with nothing to do costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from users import USERS

_USERS = ", ".join(f"'{user}'" for user in USERS)
# All that the bootstrap writes: schema revision, roles, its users, our assets.
_PREPARED = (
    "SELECT * FROM alembic_version",
    f"SELECT username, password, active FROM ab_user WHERE username IN ({_USERS}) ORDER BY 1",
    "SELECT username, ab_user_role.role_id FROM ab_user_role JOIN ab_user ON ab_user.id = user_id"
    f" WHERE username IN ({_USERS}) ORDER BY 1, 2",
    "SELECT id, name FROM ab_role ORDER BY id",
    "SELECT role_id, permission_view_id FROM ab_permission_view_role ORDER BY 1, 2",
    "SELECT * FROM dbs WHERE is_managed_externally ORDER BY id",
    "SELECT * FROM tables WHERE is_managed_externally ORDER BY id",
    "SELECT * FROM table_columns WHERE table_id IN"
    " (SELECT id FROM tables WHERE is_managed_externally) ORDER BY id",
    "SELECT * FROM sql_metrics WHERE table_id IN"
    " (SELECT id FROM tables WHERE is_managed_externally) ORDER BY id",
    "SELECT * FROM slices WHERE is_managed_externally ORDER BY id",
    # Opening a dashboard makes the browser store the colours that it has dealt.
    "SELECT id, uuid, dashboard_title, slug, description, css, published, position_json,"
    " json_remove(json_metadata,"
    " '$.color_scheme_domain', '$.map_label_colors', '$.shared_label_colors')"
    " FROM dashboards WHERE is_managed_externally ORDER BY id",
    "SELECT dashboard_id, slice_id FROM dashboard_slices WHERE dashboard_id IN"
    " (SELECT id FROM dashboards WHERE is_managed_externally) ORDER BY 1, 2",
)


class MetadataError(RuntimeError):
    """The metadata database cannot be replaced."""


def revision(path: Path) -> str | None:
    """The schema revision of the database at `path`; None if there is no whole database."""
    return next(iter(_rows(path, "SELECT version_num FROM alembic_version")), (None,))[0]


def fingerprint(path: Path) -> str:
    """A hash of what the bootstrap put into the database at `path`.

    It changes with each thing that a bootstrap would repair, and with nothing that people do
    to charts and dashboards of their own.
    """
    digest = hashlib.sha256()
    for query in _PREPARED:
        digest.update(json.dumps(_rows(path, query), default=bytes.hex).encode())
    return digest.hexdigest()


def commit_without_waiting(connection: sqlite3.Connection, _record: object) -> None:
    """Let commits of a server's connection not wait for the disk (SQLAlchemy's event `connect`).

    The process may be killed at any time; a power cut loses the last commits, and no more.
    """
    connection.execute("PRAGMA synchronous = NORMAL")


def _rows(path: Path, query: str) -> list[tuple]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such" in str(error):  # a table or column of another schema revision
                return []
            raise


@contextlib.contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Lend a copy of the database at `path` (an empty place if there is none), then publish it.

    SQLite commits each change of a schema on its own, so a migration that is killed half way
    cannot be taken up again. Whoever is killed in here leaves the database as it was.

    Raises:
        MetadataError: somebody has the database open.
    """
    private = path.with_name("metadata.new.db")
    _remove(private)
    if path.exists():
        with (
            contextlib.closing(sqlite3.connect(path, timeout=30)) as live,
            contextlib.closing(sqlite3.connect(private)) as copy,
        ):
            live.backup(copy)
    yield private
    with contextlib.closing(sqlite3.connect(private)) as connection:
        # Readers and the writer do not wait for each other; the file remembers it.
        connection.execute("PRAGMA journal_mode = WAL")
    if path.with_name(f"{path.name}-wal").exists():
        raise MetadataError(
            f"{path} is in use, so its new schema cannot be put in place; "
            "stop Superset, then start it again"
        )
    _sync(private)
    os.replace(private, path)
    _sync(path.parent)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
