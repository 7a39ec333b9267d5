"""Prepares Superset in one process: schema, roles, users, assets.

Run it before each start of the server. It may be killed at any moment: the next run mends what
is missing. When nothing has changed since the last run, it ends without loading Superset.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import io
import json
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import dbt_docs  # noqa: E402
import metadata_db  # noqa: E402
from asset_source import AssetError, as_text, read_assets  # noqa: E402
from users import ADMIN, USERS, password_name  # noqa: E402

from mled.secrets import SecretError, secret  # noqa: E402
from mled.settings import Settings, SettingsError, load  # noqa: E402

ASSETS = HERE / "assets"


def main() -> None:
    """Prepare Superset, reporting each step; exit with a message if that is impossible."""
    settings = load()
    settings.superset_home.mkdir(parents=True, exist_ok=True)
    # The metadata database holds password hashes and sessions, the cache holds results.
    settings.superset_home.chmod(0o700)
    if settings.superset_database_url:
        with _only_one(settings.superset_database):
            _prepare(settings, settings.superset_database, new_schema=True)
        return
    with _alone(settings.superset_home / "bootstrap.lock"):
        _bootstrap(settings, settings.superset_home / "metadata.db")


def _bootstrap(settings: Settings, database: Path) -> None:
    stamp = settings.superset_home / "bootstrap.json"
    last = json.loads(stamp.read_text()) if stamp.exists() else {}
    current = _stamp(settings, database)
    if last == current:
        _say("nothing has changed")
        return
    if last.get("schema") == current["schema"]:
        _prepare(settings, f"sqlite:///{database}")
    else:
        with metadata_db.private_copy(database) as private:
            _prepare(settings, f"sqlite:///{private}", new_schema=True)
        _say("new metadata database put in place")
    _write(stamp, json.dumps(_stamp(settings, database)))


def _stamp(settings: Settings, database: Path) -> dict[str, str]:
    """What this run would prepare, and what `database` holds of it."""
    # Keyed, since passwords that people chose are among the inputs.
    digest = hmac.new(secret(settings, "superset_secret_key").encode(), digestmod="sha256")
    digest.update(f"{settings.anonymous_dashboards}\0".encode())
    for user in USERS:
        digest.update(f"{secret(settings, password_name(user))}\0".encode())
    files = [path for path in HERE.rglob("*") if path.suffix in (".py", ".yaml", ".txt")]
    for path in sorted([*files, *dbt_docs.source_files(settings.dbt_project)]):
        digest.update(f"{path.name}\0{path.read_text(encoding='utf-8')}\0".encode())
    digest.update(metadata_db.fingerprint(database).encode())
    return {
        "schema": f"{version('apache-superset')} {metadata_db.revision(database)}",
        "fingerprint": digest.hexdigest(),
    }


def _prepare(settings: Settings, url: str, new_schema: bool = False) -> None:
    assets = read_assets(ASSETS, dbt_docs.read_models(settings.dbt_project))
    os.environ["SUPERSET_CONFIG_PATH"] = str(HERE / "superset_config.py")
    os.environ["SUPERSET__SQLALCHEMY_DATABASE_URI"] = url
    from superset.app import create_app

    app = create_app()
    _say("Superset loaded")
    with app.app_context():
        if new_schema:
            _migrate()
            _say("metadata schema migrated")
        import access
        from assets_sync import sync_assets

        access.sync_builtin_roles()
        access.repair_user(ADMIN, secret(settings, password_name(ADMIN)))
        _say(f"user {ADMIN} ready")
        # Before the first publish there is no table to look at, and none is needed.
        logging.getLogger("superset.commands").setLevel(logging.ERROR)
        sync_assets(as_text(assets), ADMIN)
        _say(f"{len(assets)} assets imported")
        access.sync_roles(bool(settings.anonymous_dashboards))
        for user in USERS:
            access.repair_user(user, secret(settings, password_name(user)))
        _say(f"roles and users ready: {', '.join(USERS)}")


def _migrate() -> None:
    import flask_migrate
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def no_sync(connection, _record) -> None:
        # The copy is private, thrown away if this process dies, and synchronised at the end.
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    # The migrations report each step, and warn of what they leave out on SQLite.
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        flask_migrate.upgrade()


@contextlib.contextmanager
def _only_one(url: str) -> Iterator[None]:
    """Let no other server prepare the same database of PostgreSQL in the meantime."""
    import sqlalchemy as sa

    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        # It ends with the connection.
        connection.execute(sa.text("SELECT pg_advisory_lock(hashtext('mled superset'))"))
        yield


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


_STARTED = time.monotonic()


def _say(step: str) -> None:
    print(f"superset  {time.monotonic() - _STARTED:5.1f} s  {step}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (SettingsError, SecretError, AssetError, metadata_db.MetadataError) as error:
        sys.exit(f"superset: {error}")
