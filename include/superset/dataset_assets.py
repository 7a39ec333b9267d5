"""A dataset for Superset from a short file and what dbt says of the columns.

models: [trials]                  # dbt models that describe the columns, the first one first
sql: SELECT …                     # for a dataset that is no table of its own
columns: [trial_id, metric]       # by default all of the first model
labels: {objective_value: Score}  # where a column's name is no good title
calculated:                       # columns that dbt does not know
- {column_name: …, verbose_name: …, description: …, type: …, expression: …}
links:                            # columns that lead to a dashboard with filters set
- {column_name: trial_link, text: trial_label, to: trial, filters: [experiment, trial]}
metrics: [{metric_name: …, verbose_name: …, expression: …, description: …, d3format: …}]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from asset_ids import uuid_of
from dbt_docs import Column, Models

# The column that each native filter of the dashboards sets.
FILTER_COLUMNS = {
    "experiment": "experiment",
    "trial": "trial_label",
    "dataset": "dataset",
    "model": "model",
    "author": "author",
    "state": "state",
    "objective": "objective",
    "pair": "pair",
}
# How dbt's batches are counted means nothing to people who look at charts, and the map of metrics
# is for SQL: trial_metrics has the same in rows.
HIDDEN = {"batch_id", "metrics"}
_UNITS = {"_s": " (s)", "_bytes": " (bytes)", "_at": "", "_id": " number"}


def dataset_asset(name: str, source: dict[str, Any], models: Models) -> dict[str, Any]:
    """The dataset `name` in Superset's import format.

    Raises:
        KeyError: a column or model is not described by dbt.
    """
    described = [_of(models, model, "dbt model") for model in source["models"]]
    types = {
        column.name: column.type
        for model in models.values()
        for column in model.columns.values()
        if column.type
    } | source.get("types", {})
    wanted = source.get("columns") or [
        column for column in described[0].columns if column not in HIDDEN
    ]
    labels = source.get("labels", {})
    unknown = set(labels) - set(wanted)
    if unknown:
        raise KeyError(f"labels of columns that are not there: {sorted(unknown)}")
    columns = [
        _column(
            _described(column, described, types),
            labels.get(column) or label(column),
        )
        for column in wanted
    ]
    for link in source.get("links", []):
        columns.append(_link(link))
    for own in source.get("calculated", []):
        columns.append(_flags(dict(own)))
    return {
        "table_name": name,
        "schema": "marts",
        "description": source.get("description") or described[0].description,
        "main_dttm_col": source.get("main_dttm_col"),
        **({"sql": source["sql"]} if "sql" in source else {}),
        "filter_select_enabled": True,
        "columns": columns,
        "metrics": source["metrics"],
        "database_uuid": uuid_of("databases/mart"),
    }


def label(column: str) -> str:
    """A title for a column: `peak_memory_bytes` → `Peak memory (bytes)`."""
    unit = next((suffix for suffix in _UNITS if column.endswith(suffix)), "")
    words = column.removesuffix(unit).replace("_", " ")
    return words[:1].upper() + words[1:] + _UNITS.get(unit, "")


def link_sql(text: str, dashboard: str, filters: Sequence[str]) -> str:
    """SQL for an HTML link that opens a dashboard with filters set to the row's values.

    Values are quoted for the address (Rison, then percent signs) and the text for HTML.
    """
    masks = []
    for name in filters:
        column = FILTER_COLUMNS[name]
        value = f"'||replace(replace({column}, '!', '!!'), '''', '!''')||'"
        masks.append(
            f"NATIVE_FILTER-{name}:(id:NATIVE_FILTER-{name},"
            f"extraFormData:(filters:!((col:{column},op:IN,val:!(''{value}'')))),"
            f"filterState:(label:''{value}'',value:!(''{value}'')),ownState:())"
        )
    address = f"url_encode('({','.join(masks)})')"
    shown = text
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = f"replace({shown}, '{character}', '{entity}')"
    path = f"/superset/dashboard/{dashboard}/?native_filters="
    return f"""'<a href="{path}'||{address}||'">'||{shown}||'</a>'"""


def _link(link: dict[str, Any]) -> dict[str, Any]:
    return _flags(
        {
            "column_name": link["column_name"],
            "verbose_name": link["verbose_name"],
            "description": f"{link['verbose_name']}, as a link to the dashboard {link['to']}",
            "type": "VARCHAR",
            "expression": link_sql(link["text"], link["to"], link["filters"]),
        }
    )


def _described(name: str, models: list, types: dict[str, str]) -> Column:
    for model in models:
        if name in model.columns:
            column = model.columns[name]
            return Column(name, column.type or _of(types, name, "type of column"),
                          column.description)  # fmt: skip
    raise KeyError(f"column {name!r} is described by none of {[model.name for model in models]}")


def _column(column: Column, verbose_name: str) -> dict[str, Any]:
    return _flags(
        {
            "column_name": column.name,
            "verbose_name": verbose_name,
            "description": re.sub(r"[.]$", "", column.description),
            "type": column.type,
        }
    )


def _flags(column: dict[str, Any]) -> dict[str, Any]:
    return column | {
        "is_dttm": column["type"] == "TIMESTAMP",
        "groupby": column["type"] != "DOUBLE",
        "filterable": True,
    }


def _of(mapping: dict, name: str, kind: str) -> Any:
    if name not in mapping:
        raise KeyError(f"there is no {kind} {name!r}")
    return mapping[name]
