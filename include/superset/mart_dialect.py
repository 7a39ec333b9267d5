"""Spares two questions that Superset puts to DuckDB in each request, with the same answer."""

from __future__ import annotations

# Where DuckDB looks for a table that is named without a schema.
DEFAULT_SCHEMA = "main"


def know_default_schema() -> None:
    """Let Superset know the default schema, for which it would open a connection."""
    from superset.db_engine_specs.duckdb import DuckDBEngineSpec

    DuckDBEngineSpec.get_default_schema = classmethod(
        lambda _spec, _database, _catalog: DEFAULT_SCHEMA
    )


def know_reserved_words() -> None:
    """Ask DuckDB for SQL's reserved words once instead of for each engine.

    Call it in a process that will not fork any more, for it loads DuckDB.
    """
    from duckdb_engine import Dialect, DuckDBIdentifierPreparer

    # The words go into a set that all preparers share.
    Dialect()
    del DuckDBIdentifierPreparer.__init__
