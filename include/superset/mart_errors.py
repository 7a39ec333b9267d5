"""What people read when the mart cannot answer, in charts and in SQL Lab alike."""

from __future__ import annotations

from duckdb import InterruptException
from superset.exceptions import SupersetGenericErrorException


class NothingPublishedError(SupersetGenericErrorException):
    """No version of the mart has been published."""

    def __init__(self) -> None:
        super().__init__(
            "Nothing has been published yet. Run an experiment, then the DAG experiment_etl, in "
            "Airflow; this page fills at its next refresh.",
            status=404,
        )


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

    # Superset's place for such a translation; its setting CUSTOM_DATABASE_ERRORS leaves out charts.
    DuckDBEngineSpec.get_dbapi_exception_mapping = classmethod(
        lambda _cls: {InterruptException: lambda _message: QueryStoppedError(seconds)}
    )
