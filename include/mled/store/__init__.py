"""The OLTP store: the system of record for everything that trials report."""

from mled.store.database import Database, connect, migrate
from mled.store.dialects import StoreError
from mled.store.values import InvalidValue

__all__ = ["Database", "InvalidValue", "StoreError", "connect", "migrate"]
