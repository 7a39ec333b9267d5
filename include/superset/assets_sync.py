"""Makes Superset's databases, datasets, charts and dashboards those of `assets/`.

Our assets carry `is_managed_externally`: Superset lets nobody edit them in place, and those
that are gone from the folder can be told from people's own.
"""

from __future__ import annotations

import logging
from pathlib import Path

import yaml
from superset import db, security_manager
from superset.commands.exceptions import CommandInvalidError
from superset.commands.importers.v1.assets import ImportAssetsCommand
from superset.connectors.sqla.models import SqlaTable
from superset.models.core import Database
from superset.models.dashboard import Dashboard
from superset.models.slice import Slice
from superset.utils.core import override_user
from superset.utils.decorators import transaction

log = logging.getLogger(__name__)

# Each before what it is made of.
MODELS = (Dashboard, Slice, SqlaTable, Database)


class AssetError(ValueError):
    """A file of the assets cannot be imported."""


def read_assets(folder: Path) -> dict[str, str]:
    """The text of each YAML file below `folder` by its path relative to it."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.yaml"))
    }


def sync_assets(contents: dict[str, str], username: str) -> None:
    """Create, overwrite and remove assets as the user called `username`.

    Superset commits some permissions on the way, so a run that is killed may leave a part of the
    work; the next run completes it.

    Raises:
        AssetError: a file is no YAML, or does not follow Superset's format.
    """
    uuids = {_uuid(path, text) for path, text in contents.items()}
    with override_user(security_manager.find_user(username)):
        try:
            _sync(contents, uuids)
        except CommandInvalidError as error:
            raise AssetError(
                f"assets refused by Superset: {error.normalized_messages()}"
            ) from error


def _uuid(path: str, text: str) -> str | None:
    try:
        return yaml.safe_load(text).get("uuid")
    except yaml.YAMLError as error:
        raise AssetError(f"assets/{path} is no YAML: {error}") from error


@transaction(on_error=None)
def _sync(contents: dict[str, str], uuids: set[str | None]) -> None:
    for model in MODELS:
        for asset in db.session.query(model).filter(model.is_managed_externally):
            if str(asset.uuid) not in uuids:
                log.warning("removing %s %r: gone from the assets", model.__name__, str(asset))
                db.session.delete(asset)
        db.session.flush()
    ImportAssetsCommand(contents).run()
