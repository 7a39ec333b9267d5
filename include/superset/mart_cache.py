"""A cache of query results that a publish invalidates by itself."""

from __future__ import annotations

import os
from typing import Any

from flask import g, has_request_context
from flask_caching.backends import FileSystemCache
from flask_caching.backends.base import BaseCache
from mart_connection import published

from mled.settings import Settings


def mart_version(settings: Settings) -> str:
    """The real path of the published mart, which names its version.

    It stays the same during one web request, for cache keys and connections alike: no answer
    gets into the cache under another version than its own, and all answers to one request are
    of one version.
    """
    if not has_request_context():
        return published(settings)
    if "mart_version" not in g:
        g.mart_version = published(settings)
    return g.mart_version


class MartCache(BaseCache):
    """Files in `CACHE_DIR`, whose keys carry the mart's version (flask-caching's interface)."""

    def __init__(self, files: FileSystemCache, settings: Settings) -> None:
        super().__init__(default_timeout=files.default_timeout)
        self.files = files
        self.settings = settings

    @classmethod
    def factory(cls, app: Any, config: dict, args: list, kwargs: dict) -> MartCache:
        """Build the cache; `CACHE_OPTIONS` holds the `settings`."""
        settings = kwargs.pop("settings")
        return cls(FileSystemCache.factory(app, config, args, kwargs), settings)

    def get(self, key: str) -> Any:
        return self.files.get(self._versioned(key))

    def set(self, key: str, value: Any, timeout: int | None = None) -> bool | None:
        return self.files.set(self._versioned(key), value, timeout)

    def add(self, key: str, value: Any, timeout: int | None = None) -> bool:
        return self.files.add(self._versioned(key), value, timeout)

    def has(self, key: str) -> bool:
        return self.files.has(self._versioned(key))

    def delete(self, key: str) -> bool:
        return self.files.delete(self._versioned(key))

    def clear(self) -> bool:
        return self.files.clear()

    def _versioned(self, key: str) -> str:
        path = mart_version(self.settings)
        # The path alone would do, were it not for people who delete the warehouse folder.
        modified = os.stat(path).st_mtime_ns if os.path.exists(path) else None
        return f"{path} {modified} {key}"
