"""How a query reaches the published mart: one locked, read-only connection with a deadline.

Nothing of Superset is imported here, so the tests run it without Superset's environment. DuckDB
is imported where it is used: its import starts a thread, which the workers that gunicorn forks
would not have, and they would abort when they stop.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

from sqlalchemy.engine.url import URL
from sqlalchemy.pool import NullPool

from mled.settings import Settings

# The URI in assets/databases/mart.yaml.
DATABASE_URI = "duckdb:////mart"

# Seconds between two interrupts of a connection whose time is up.
INTERRUPT_INTERVAL_S = 0.5


def check_uri(uri: URL) -> None:
    """Accept the mart's placeholder and nothing else.

    Raises:
        ValueError: `uri` names another database.
    """
    if str(uri) != DATABASE_URI:
        raise ValueError(
            f"database URI {uri!r} is refused: this Superset reads the published mart only; "
            f"use {DATABASE_URI}"
        )


def published(settings: Settings) -> str:
    """The real path of the published mart, which names its version.

    When it lies in an object store, a new version is fetched first.
    """
    if settings.object_store:
        _follower(settings).refresh()
    return os.path.realpath(settings.mart)


@functools.cache
def _follower(settings: Settings) -> Any:
    from mled.warehouse.remote_mart import Follower

    return Follower(settings)


def engine_arguments(settings: Settings, path: str) -> dict[str, Any]:
    """Keyword arguments of `sqlalchemy.create_engine` to read the version of the mart at `path`.

    DuckDB keeps one instance per file and process and refuses a second configuration of it, so
    nothing here may depend on the user or the query.
    """
    # Superset's workers would overwrite each other's files in a shared folder.
    spill = settings.superset_home / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    config = {
        # Read-only does not stop SQL from reading and writing other files.
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "lock_configuration": "true",
        "memory_limit": settings.duckdb_memory,
        "temp_directory": str(spill / str(os.getpid())),
        "max_temp_directory_size": settings.duckdb_memory,
    }
    deadline = _Deadline(settings.query_timeout_s)
    return {
        # A pooled connection would go on serving the version that it was opened on.
        "poolclass": NullPool,
        "pool_events": [(deadline.start, "checkout"), (deadline.stop, "checkin")],
        "creator": lambda: _connect(settings, path, config),
    }


class NothingPublishedError(RuntimeError):
    """No version of the mart has been published."""

    def __init__(self) -> None:
        super().__init__(
            "Nothing has been published yet. Run an experiment, then the DAG experiment_etl, in "
            "Airflow; this page fills at its next refresh."
        )


class _OpenMart:
    """The version of the mart that this process reads, held open between queries.

    Opening the file costs more than a small query, and what a query has read stays in memory for
    the next one: the instance goes when another version is asked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._version: tuple[str, int, int] | None = None

    def connect(self, path: str, config: dict[str, str]) -> Any:
        """A new connection of DuckDB's to the file at `path`.

        Raises:
            NothingPublishedError: there is no file.
        """
        import duckdb

        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise NothingPublishedError from None
        # The path names the version, but people may delete the warehouse and begin anew.
        version = (path, status.st_ino, status.st_mtime_ns)
        with self._lock:
            if self._version != version:
                if self._connection is not None:
                    self._version = None
                    self._connection.close()
                self._connection = duckdb.connect(path, read_only=True, config=config)
                self._version = version
        # Not a cursor of the connection above, which would close together with it.
        return duckdb.connect(path, read_only=True, config=config)


_open_mart = _OpenMart()


def _connect(settings: Settings, path: str, config: dict[str, str]) -> Any:
    from duckdb_engine import ConnectionWrapper

    try:
        return ConnectionWrapper(_open_mart.connect(path, config))
    except NothingPublishedError:
        if settings.object_store and (problem := _follower(settings).problem):
            raise problem from None
        raise


class _Deadline:
    """Interrupts the connections that are in use for longer than `seconds`.

    Superset's own limit needs the main thread's alarm signal, and a query runs in another one.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def start(self, connection: Any, record: Any, _proxy: Any) -> None:
        record.info["done"] = done = threading.Event()
        threading.Thread(
            target=self._watch, args=(connection, done), name="mart-deadline", daemon=True
        ).start()

    def stop(self, _connection: Any, record: Any) -> None:
        record.info.pop("done").set()

    def _watch(self, connection: Any, done: threading.Event) -> None:
        from duckdb import ConnectionException

        wait = self.seconds
        # An interrupt stops the statement that runs now; a script's next one needs another.
        while not done.wait(wait):
            try:
                connection.interrupt()
            except ConnectionException:  # closed in this instant
                return
            wait = INTERRUPT_INTERVAL_S
