"""Every path, address and limit of MLED, read from the environment in one place.

Only the standard library is imported here, so the installer (which runs before
anything is installed) and Superset (which has an environment of its own) read
the same settings as everyone else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mled.secrets import filled

ROOT = Path(__file__).resolve().parents[2]
LOCAL, CELERY, EDGE = EXECUTORS = ("local", "celery", "edge")


class SettingsError(ValueError):
    """An environment variable has a value that cannot be used."""


def _setting(default, help: str, minimum: float | None = None, form: str = ""):
    return field(default=default, metadata={"help": help, "minimum": minimum, "form": form})


@dataclass(frozen=True)
class Settings:
    """The settings of one installation; the variable of field `x` is `MLED_X`.

    In a URL, `{name}` stands for the content of the secret `name`.
    """

    home: Path = _setting(ROOT / ".mled", "folder that holds all state")
    host: str = _setting("127.0.0.1", "address the web servers bind to")
    airflow_port: int = _setting(8080, "port of the Airflow UI and API", 1)
    superset_port: int = _setting(8088, "port of Superset", 1)
    store_url: str = _setting("", "SQLAlchemy URL of the store; empty: SQLite in the home folder")
    object_store: str = _setting(
        "",
        "s3://BUCKET/PREFIX for staging, mart and artifacts; empty: the home folder",
        form=r"s3://[a-z0-9][a-z0-9.-]+(/[\w.=-]+)*",
    )
    workers: int = _setting(os.cpu_count() or 1, "trials that train at the same time", 1)
    max_trials: int = _setting(100_000, "most trials one grid may have", 1)
    busy_timeout_s: float = _setting(60.0, "seconds a writer waits for another one's lock", 0)
    flush_points: int = _setting(5_000, "metric points held in memory before they are written", 1)
    flush_seconds: float = _setting(2.0, "seconds a metric point may stay in memory", 0)
    heartbeat_seconds: float = _setting(10.0, "seconds between a running trial's heartbeats", 0.1)
    orphan_seconds: float = _setting(
        120.0, "silence after which a running trial counts as orphaned", 0.1
    )
    keep_marts: int = _setting(3, "published versions of the mart that are kept", 1)
    dbt_threads: int = _setting(1, "threads of dbt", 1)
    duckdb_memory: str = _setting("4GB", "memory limit of one DuckDB process")
    query_timeout_s: float = _setting(60.0, "seconds after which Superset stops a query", 1)
    anonymous_dashboards: int = _setting(
        0, "1: people who have not logged in to Superset may look at its dashboards", 0
    )
    alert_url: str = _setting("", "where alerts are posted as JSON; empty: into the log only")
    min_free_mb: int = _setting(2_000, "free megabytes below which nothing is started", 0)
    executor: str = _setting(
        LOCAL,
        "where tasks run: local (this machine only), or in the workers of celery or edge",
        form="|".join(EXECUTORS),
    )
    queues: str = _setting("default,training", "queues that this machine's worker serves")
    worker_name: str = _setting("", "name of this machine's worker; empty: the host's name")
    cluster_workers: int = _setting(
        0, "trials that train at the same time on all machines; 0: as many as on this one", 0
    )
    broker_url: str = _setting("", "URL of the Redis that hands tasks to the workers of celery")
    airflow_server: str = _setting(
        "", "URL at which the other programs reach Airflow's API server; empty: on this machine"
    )
    airflow_public_url: str = _setting("", "URL at which browsers reach Airflow; empty: the same")
    superset_public_url: str = _setting("", "URL at which browsers reach Superset; empty: the same")
    airflow_database_url: str = _setting(
        "", "SQLAlchemy URL of Airflow's own database; empty: SQLite in the home folder"
    )
    superset_database_url: str = _setting(
        "", "SQLAlchemy URL of Superset's own database; empty: SQLite in the home folder"
    )
    secrets_dir: str = _setting("", "folder of passwords and keys; empty: in the home folder")

    @property
    def store(self) -> str:
        """URL of the store, with the default filled in."""
        return self._filled(self.store_url) or f"sqlite:///{self.home / 'store' / 'mled.db'}"

    @property
    def airflow_database(self) -> str:
        """URL of Airflow's own database, with the default filled in."""
        url = self._filled(self.airflow_database_url)
        return url or f"sqlite:///{self.airflow_home / 'airflow.db'}"

    @property
    def superset_database(self) -> str:
        """URL of Superset's own database, with the default filled in."""
        url = self._filled(self.superset_database_url)
        return url or f"sqlite:///{self.superset_home / 'metadata.db'}"

    @property
    def broker(self) -> str:
        """URL of the broker of Celery's tasks."""
        return self._filled(self.broker_url)

    def _filled(self, url: str) -> str:
        return filled(url, self.secrets)

    @property
    def all_workers(self) -> int:
        """Trials that train at the same time on all machines."""
        return self.cluster_workers or self.workers

    @property
    def artifacts(self) -> Path:
        """Files that trials keep, by content hash."""
        return self.home / "store" / "artifacts"

    @property
    def backups(self) -> Path:
        return self.home / "store" / "backups"

    @property
    def data(self) -> Path:
        """The folder of staging and warehouse; each object store has a cache of its own."""
        if not self.object_store:
            return self.home
        digest = hashlib.sha256(self.object_store.encode()).hexdigest()
        return self.home / "cache" / digest[:16]

    @property
    def staging(self) -> Path:
        """Batches of extracted rows: `committed/LOW-HIGH/` and `tmp/`."""
        return self.data / "staging"

    @property
    def warehouse(self) -> Path:
        return self.data / "warehouse"

    @property
    def build_file(self) -> Path:
        """The DuckDB file that dbt builds in; nobody else opens it."""
        return self.warehouse / "build" / "mart.duckdb"

    @property
    def mart(self) -> Path:
        """The symbolic link to the published version of the mart; readers open its real path."""
        return self.warehouse / "current" / "mart.duckdb"

    @property
    def dbt_project(self) -> Path:
        return ROOT / "dbt_project"

    @property
    def dbt_target(self) -> Path:
        return self.home / "dbt" / "target"

    @property
    def airflow_home(self) -> Path:
        return self.home / "airflow"

    @property
    def superset_home(self) -> Path:
        return self.home / "superset"

    @property
    def secrets(self) -> Path:
        """Generated passwords and keys, one file each, mode 0600."""
        return Path(self.secrets_dir) if self.secrets_dir else self.home / "secrets"

    @property
    def run(self) -> Path:
        """The process manager's configuration, socket and pid file."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def airflow_url(self) -> str:
        """Where our own programs reach Airflow's API server."""
        return self.airflow_server.rstrip("/") or f"http://{self.host}:{self.airflow_port}"

    @property
    def superset_url(self) -> str:
        """Where Superset listens."""
        return f"http://{self.host}:{self.superset_port}"

    @property
    def airflow_page(self) -> str:
        """Where browsers reach Airflow."""
        return self.airflow_public_url.rstrip("/") or self.airflow_url

    @property
    def superset_page(self) -> str:
        """Where browsers reach Superset."""
        return self.superset_public_url.rstrip("/") or self.superset_url

    def environ(self) -> dict[str, str]:
        """These settings as environment variables, for a child process."""
        return {variable(f): str(getattr(self, f.name)) for f in dataclasses.fields(self)}


def variable(f: dataclasses.Field) -> str:
    """The name of the environment variable of a field."""
    return f"MLED_{f.name.upper()}"


def _parse(f: dataclasses.Field, text: str):
    kind = type(f.default) if not isinstance(f.default, Path) else Path
    try:
        value = Path(text).expanduser().absolute() if kind is Path else kind(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise SettingsError(
            f"{variable(f)}={text!r} is not {wanted} ({f.metadata['help']}); "
            f"unset it to use the default, {f.default}"
        ) from None
    form = f.metadata["form"]
    if form and not re.fullmatch(form, text):
        shown = re.sub("//.*@", "//…@", text)
        raise SettingsError(
            f"{variable(f)}={shown!r} is not of the right form ({f.metadata['help']}); "
            "correct or unset it"
        )
    minimum = f.metadata["minimum"]
    if minimum is not None and not value >= minimum:
        raise SettingsError(
            f"{variable(f)}={text!r} is below {minimum} ({f.metadata['help']}); "
            f"unset it to use the default, {f.default}"
        )
    return value


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (the process's environment by default).

    An empty variable counts as unset.

    Raises:
        SettingsError: a variable's value is of the wrong type or out of range.
    """
    environ = os.environ if environ is None else environ
    given = {
        f.name: _parse(f, environ[variable(f)])
        for f in dataclasses.fields(Settings)
        if environ.get(variable(f))
    }
    return Settings(**given)
