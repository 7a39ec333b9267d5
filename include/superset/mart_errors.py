"""What people read when the time limit has stopped their query, in charts and in SQL Lab alike."""

from __future__ import annotations

from collections.abc import Callable

from superset.exceptions import SupersetGenericErrorException


class QueryStoppedError(SupersetGenericErrorException):
    """A query ran into the time limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The query was stopped after {seconds:g} seconds, the limit set by "
            "MLED_QUERY_TIMEOUT_S. Ask for fewer rows, columns or experiments.",
            status=408,
        )


def explain_interrupts(seconds: float) -> None:
    """Let DuckDB's interrupts reach people as a `QueryStoppedError` that names the limit."""
    from superset.db_engine_specs.duckdb import DuckDBEngineSpec

    def mapping(_spec: type) -> dict[type[Exception], Callable[[str], Exception]]:
        from duckdb import InterruptException

        return {InterruptException: lambda _message: QueryStoppedError(seconds)}

    # Superset's place for such a translation; its setting CUSTOM_DATABASE_ERRORS leaves out charts.
    DuckDBEngineSpec.get_dbapi_exception_mapping = classmethod(mapping)
