"""Superset's record of what people did, without the steps that it took on the way."""

from __future__ import annotations

from typing import Any

from superset.utils.log import DBEventLogger

# Timings of parts of one request. Each would be a transaction of its own, after which Superset
# loads all that it knows of the user, the chart and the dataset once more.
STEPS = frozenset(
    {
        "_get_data_response",
        "ChartDataRestApi.json_dumps",
        "QueryObject.post_processing",
        "execute_sql",
        "load_into_dataframe",
    }
)


class EventLogger(DBEventLogger):
    """Writes to the table `logs` what a person asked for: a page, a chart, a change."""

    def log_with_context(self, action: str, *args: Any, **kwargs: Any) -> None:
        if action not in STEPS:
            super().log_with_context(action, *args, **kwargs)
