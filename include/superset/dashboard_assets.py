"""Dashboards and their charts for Superset from files that list them row by row.

    title: Overview
    description: …
    filters: [experiment, {key: state}]
    rows:
    - height: 22                 # in units of 8 pixels
      charts:
      - {key: trials, width: 2, name: Trials, description: …, dataset: trials,
         viz: big_number_total, where: a condition in SQL on the table's own columns,
         only: a calculated column that must be true, params: {metric: trials},
         empty: what to do when there is nothing to show}

A chart's key is its name for ever: its id in Superset follows from it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from asset_ids import uuid_of
from dataset_assets import FILTER_COLUMNS

GRID_COLUMNS = 12
NAVIGATION_HEIGHT = 9


def dashboard_assets(
    sources: Mapping[str, dict[str, Any]], style: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """All charts and dashboards in Superset's import format, by name.

    `sources` are the dashboards by slug; `style` holds the defaults of each chart type, the
    colours, the filters and the order of the dashboards.

    Raises:
        KeyError: a chart type or filter has no entry in `style`, or a key stands there twice.
    """
    assets: dict[str, dict[str, Any]] = {}
    missing = set(style["order"]) ^ set(sources)
    if missing:
        raise KeyError(f"style.yaml's order and the files differ by {sorted(missing)}")
    for slug in style["order"]:
        source = sources[slug]
        for row in source["rows"]:
            for chart in row["charts"]:
                name = f"charts/{chart['key']}"
                if name in assets:
                    raise KeyError(f"{slug}: the key {chart['key']!r} stands there twice")
                assets[name] = _chart(chart, style)
        assets[f"dashboards/{slug}"] = _dashboard(slug, source, sources, style)
    return assets


def _chart(chart: dict[str, Any], style: dict[str, Any]) -> dict[str, Any]:
    kind = chart["viz"]
    if kind not in style["charts"]:
        raise KeyError(f"chart {chart['key']!r}: style.yaml has no chart type {kind!r}")
    params = {"viz_type": kind, **copy.deepcopy(style["charts"][kind]), **chart.get("params", {})}
    params["adhoc_filters"] = _conditions(chart)
    if "groupbyRows" in params:
        # A pivot table ignores this list; Superset sends a page the titles of the columns in it.
        params["series"] = params["groupbyRows"] + params["groupbyColumns"]
    return {
        "slice_name": chart["name"],
        "description": chart["description"],
        "viz_type": params["viz_type"],
        "params": params,
        "cache_timeout": chart.get("cache_timeout"),
        "dataset_uuid": uuid_of(f"datasets/{chart['dataset']}"),
    }


def _conditions(chart: dict[str, Any]) -> list[dict[str, Any]]:
    conditions: list[dict[str, Any]] = []
    if "where" in chart:
        conditions.append({"expressionType": "SQL", "sqlExpression": chart["where"]})
    if "only" in chart:
        conditions.append(
            {"expressionType": "SIMPLE", "subject": chart["only"], "operator": "IS TRUE"}
        )
    return [{"clause": "WHERE", **condition} for condition in conditions]


def _dashboard(
    slug: str, source: dict[str, Any], sources: Mapping[str, dict[str, Any]], style: dict[str, Any]
) -> dict[str, Any]:
    return {
        "dashboard_title": source["title"],
        "description": source["description"],
        "slug": slug,
        "published": True,
        "css": _css(source, style),
        "position": _position(slug, source, sources, style["order"]),
        "metadata": {
            **copy.deepcopy(style["metadata"]),
            "native_filter_configuration": [
                _filter(entry, style["filters"]) for entry in source["filters"]
            ],
        },
    }


def _css(source: dict[str, Any], style: dict[str, Any]) -> str:
    charts = [chart for row in source["rows"] for chart in row["charts"]]
    selectors = {chart["key"]: f"[data-test-chart-name='{chart['name']}']" for chart in charts}
    figures = [selectors[chart["key"]] for chart in charts if chart["viz"] == "figures"]
    rules = [style["css"].replace("FIGURES", f":is({', '.join(figures)})")]
    for chart in charts:
        text = json.dumps(chart.get("empty", style["empty"]), ensure_ascii=False)
        empty = "[aria-label=empty] + div > p:first-child::after"
        rules.append(f"{selectors[chart['key']]} {empty} {{ content: {text}; }}")
    return "\n".join(rules)


def _position(
    slug: str, source: dict[str, Any], sources: Mapping[str, dict[str, Any]], order: list[str]
) -> dict[str, Any]:
    position: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"id": "ROOT_ID", "type": "ROOT", "children": ["GRID_ID"]},
        "GRID_ID": {"id": "GRID_ID", "type": "GRID", "parents": ["ROOT_ID"], "children": []},
        "HEADER_ID": {"id": "HEADER_ID", "type": "HEADER", "meta": {"text": source["title"]}},
    }

    def add_row(row_id: str, components: list[dict[str, Any]]) -> None:
        parents = ["ROOT_ID", "GRID_ID"]
        position["GRID_ID"]["children"].append(row_id)
        position[row_id] = {
            "id": row_id,
            "type": "ROW",
            "parents": parents,
            "children": [component["id"] for component in components],
            "meta": {"background": "BACKGROUND_TRANSPARENT"},
        }
        for component in components:
            component |= {"parents": [*parents, row_id], "children": []}
            position[component["id"]] = component

    add_row("ROW-navigation", [_navigation(slug, source, sources, order)])
    chart_id = 0
    for number, row in enumerate(source["rows"], start=1):
        charts = []
        for chart in row["charts"]:
            chart_id += 1
            charts.append(
                {
                    "id": f"CHART-{chart['key']}",
                    "type": "CHART",
                    "meta": {
                        "chartId": chart_id,
                        "uuid": uuid_of(f"charts/{chart['key']}"),
                        "sliceName": chart["name"],
                        "width": chart["width"],
                        "height": row["height"],
                    },
                }
            )
        add_row(f"ROW-{number}", charts)
    return position


def _navigation(
    slug: str, source: dict[str, Any], sources: Mapping[str, dict[str, Any]], order: list[str]
) -> dict[str, Any]:
    pages = [
        f"**{sources[other]['title']}**"
        if other == slug
        else f"[{sources[other]['title']}](/superset/dashboard/{other}/)"
        for other in order
    ]
    return {
        "id": "MARKDOWN-navigation",
        "type": "MARKDOWN",
        "meta": {
            "code": f"{' · '.join(pages)}\n\n{source['description']}",
            "width": GRID_COLUMNS,
            "height": NAVIGATION_HEIGHT,
        },
    }


def _filter(entry: str | dict[str, Any], filters: dict[str, Any]) -> dict[str, Any]:
    entry = {"key": entry} if isinstance(entry, str) else entry
    key = entry["key"]
    if key not in filters:
        raise KeyError(f"style.yaml has no filter {key!r}")
    known = {**filters[key], **entry}
    base = {
        "id": f"NATIVE_FILTER-{key}",
        "type": "NATIVE_FILTER",
        "name": known["name"],
        "description": known["description"],
        "scope": {"rootPath": ["ROOT_ID"], "excluded": []},
        "cascadeParentIds": [f"NATIVE_FILTER-{parent}" for parent in known.get("within", [])],
        "defaultDataMask": {"extraFormData": {}, "filterState": {}, "ownState": {}},
    }
    if key == "date":
        return base | {
            "filterType": "filter_time",
            "targets": [{}],
            "controlValues": {},
            "requiredFirst": False,
        }
    # The first in the order of a metric: the latest experiment, the best trial.
    first = known.get("first_by")
    return base | {
        "filterType": "filter_select",
        "targets": [
            {
                "column": {"name": FILTER_COLUMNS[key]},
                "datasetUuid": uuid_of(f"datasets/{known['dataset']}"),
            }
        ],
        "sortMetric": first,
        "requiredFirst": first is not None,
        "controlValues": {
            "multiSelect": first is None,
            "enableEmptyFilter": first is not None,
            "defaultToFirstItem": first is not None,
            "inverseSelection": False,
            "searchAllOptions": True,
            "sortAscending": not known.get("descending", False),
        },
    }
