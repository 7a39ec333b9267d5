"""The ids of our assets in Superset."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5


def uuid_of(name: str) -> str:
    """The id for ever of an asset such as `charts/leaderboard`."""
    return str(uuid5(NAMESPACE_URL, f"mled:{name}"))
