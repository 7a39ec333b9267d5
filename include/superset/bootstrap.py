"""Prepares Superset in one process: schema, roles, the administrator, assets.

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

import metadata_db  # noqa: E402

from mled.secrets import SecretError, secret  # noqa: E402
from mled.settings import Settings, SettingsError, load  # noqa: E402

ADMIN = "admin"
ASSETS = HERE / "assets"


def main() -> None:
    """Prepare Superset, reporting each step; exit with a message if that is impossible."""
    settings = load()
    settings.superset_home.mkdir(parents=True, exist_ok=True)
    # The metadata database holds password hashes and sessions, the cache holds results.
    settings.superset_home.chmod(0o700)
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
        _prepare(settings, database)
    else:
        with metadata_db.private_copy(database) as private:
            _prepare(settings, private, new_schema=True)
        _say("new metadata database put in place")
    _write(stamp, json.dumps(_stamp(settings, database)))


def _stamp(settings: Settings, database: Path) -> dict[str, str]:
    """What this run would prepare, and what `database` holds of it."""
    # Keyed, since a password that a person chose is among the inputs.
    digest = hmac.new(secret(settings, "superset_secret_key").encode(), digestmod="sha256")
    digest.update(secret(settings, "superset_admin_password").encode())
    for path in sorted(HERE.rglob("*")):
        if path.suffix in (".py", ".yaml", ".txt"):
            digest.update(
                f"{path.relative_to(HERE)}\0{path.read_text(encoding='utf-8')}\0".encode()
            )
    digest.update(metadata_db.fingerprint(database).encode())
    return {
        "schema": f"{version('apache-superset')} {metadata_db.revision(database)}",
        "fingerprint": digest.hexdigest(),
    }


def _prepare(settings: Settings, database: Path, new_schema: bool = False) -> None:
    os.environ["SUPERSET_CONFIG_PATH"] = str(HERE / "superset_config.py")
    os.environ["SUPERSET__SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{database}"
    from superset.app import create_app

    app = create_app()
    _say("Superset loaded")
    with app.app_context():
        if new_schema:
            _migrate()
            _say("metadata schema migrated")
        _sync_roles()
        _say("roles synchronised")
        _repair_admin(secret(settings, "superset_admin_password"))
        _say(f"user {ADMIN} ready")
        from assets_sync import read_assets, sync_assets

        # Before the first publish there is no table to look at, and none is needed.
        logging.getLogger("superset.commands").setLevel(logging.ERROR)
        contents = read_assets(ASSETS)
        sync_assets(contents, ADMIN)
        _say(f"{len(contents)} asset files imported")


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


def _sync_roles() -> None:
    from superset import appbuilder, security_manager

    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()


def _repair_admin(password: str) -> None:
    from superset import db, security_manager
    from werkzeug.security import check_password_hash, generate_password_hash

    role = security_manager.find_role("Admin")
    user = security_manager.find_user(ADMIN)
    if user is None:
        created = security_manager.add_user(
            ADMIN, "MLED", "Admin", f"{ADMIN}@localhost", role, password
        )
        if not created:
            raise RuntimeError(f"Superset could not create the user {ADMIN!r}; its log says why")
        return
    if not check_password_hash(user.password, password):
        user.password = generate_password_hash(password)
    if role not in user.roles:
        user.roles.append(role)
    user.active = True
    db.session.commit()


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
    except (SettingsError, SecretError, metadata_db.MetadataError) as error:
        sys.exit(f"superset: {error}")
