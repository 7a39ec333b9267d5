"""Turns the folder `assets/` into what Superset imports.

The files there say only what a person decides: a dataset names the dbt model that describes its
columns, a dashboard lists its filters and its charts row by row. Everything that follows (ids,
positions, parents, defaults of a chart type) is filled in here. Only PyYAML is needed, so the
tests look at the outcome without Superset.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from asset_ids import uuid_of
from dashboard_assets import dashboard_assets
from dataset_assets import dataset_asset
from dbt_docs import Models

VERSION = "1.0.0"


class AssetError(ValueError):
    """A file of the assets cannot be used."""


def read_assets(folder: Path, models: Models) -> dict[str, dict[str, Any]]:
    """Superset's import format: the content of each file by its path.

    Raises:
        AssetError: a file is no YAML, or names what is not there.
    """
    assets: dict[str, dict[str, Any]] = {}
    sources = {
        kind: {path.stem: _load(path) for path in sorted((folder / kind).glob("*.yaml"))}
        for kind in ("databases", "datasets", "dashboards")
    }
    style = _load(folder / "style.yaml")
    for name, source in sources["databases"].items():
        assets[f"databases/{name}"] = source
    for name, source in sources["datasets"].items():
        try:
            assets[f"datasets/{name}"] = dataset_asset(name, source, models)
        except KeyError as error:
            raise AssetError(f"assets/datasets/{name}.yaml: {error.args[0]}") from None
    try:
        assets |= dashboard_assets(sources["dashboards"], style)
    except KeyError as error:
        raise AssetError(f"assets/dashboards: {error.args[0]}") from None
    for name, content in assets.items():
        content |= {
            "uuid": uuid_of(name),
            "version": VERSION,
            "is_managed_externally": True,
        }
    files = {f"{name}.yaml": content for name, content in assets.items()}
    return {"metadata.yaml": {"version": VERSION, "type": "assets"}, **files}


def as_text(assets: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """The files as YAML text."""
    return {path: yaml.safe_dump(content, sort_keys=False) for path, content in assets.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise AssetError(f"{path} is no YAML: {error}") from error
