"""Makes Superset's databases, datasets, charts and dashboards those of `assets/`.

Our assets carry `is_managed_externally`: Superset lets nobody edit them in place, and those
that are gone from the folder can be told from people's own.
"""

from __future__ import annotations

import logging

import yaml
from asset_source import AssetError
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


def sync_assets(contents: dict[str, str], username: str) -> None:
    """Create, overwrite and remove assets as the user called `username`.

    Superset commits some permissions on the way, so a run that is killed may leave a part of the
    work; the next run completes it.

    Raises:
        AssetError: a file does not follow Superset's format.
    """
    uuids = {yaml.safe_load(text).get("uuid") for text in contents.values()}
    with override_user(security_manager.find_user(username)):
        try:
            _sync(contents, uuids)
        except CommandInvalidError as error:
            raise AssetError(
                f"assets refused by Superset: {error.normalized_messages()}"
            ) from error


@transaction(on_error=None)
def _sync(contents: dict[str, str], uuids: set[str | None]) -> None:
    for model in MODELS:
        for asset in db.session.query(model).filter(model.is_managed_externally):
            if str(asset.uuid) not in uuids:
                log.warning("removing %s %r: gone from the assets", model.__name__, str(asset))
                db.session.delete(asset)
        db.session.flush()
    ImportAssetsCommand(contents).run()
