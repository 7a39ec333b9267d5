"""The dashboards as code agree with themselves and with the columns that the mart promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
import yaml

SUPERSET = Path(__file__).parents[2] / "include" / "superset"
ASSETS = SUPERSET / "assets"
GRID_COLUMNS = 12
BIG_NUMBER_COLUMNS = 2

FILES = {
    path.relative_to(ASSETS).with_suffix("").as_posix(): yaml.safe_load(path.read_text("utf-8"))
    for path in sorted(ASSETS.rglob("*.yaml"))
}
ASSET_FILES = {name: content for name, content in FILES.items() if name != "metadata"}


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {name: content for name, content in FILES.items() if name.startswith(f"{kind}/")}


def by_uuid(kind: str) -> dict[str, dict[str, Any]]:
    return {content["uuid"]: content for content in of_kind(kind).values()}


def column_names(dataset: dict[str, Any]) -> set[str]:
    return {column["column_name"] for column in dataset["columns"]}


def metric_names(dataset: dict[str, Any]) -> set[str]:
    return {metric["metric_name"] for metric in dataset["metrics"]}


def names_in(params: dict[str, Any], *keys: str) -> set[str]:
    """The columns or metrics that the controls called `keys` name."""
    found: set[str] = set()
    for key in keys:
        value = params.get(key) or []
        found |= {v for v in ([value] if isinstance(value, str) else value) if isinstance(v, str)}
    return found


@pytest.mark.parametrize("name", ASSET_FILES)
def test_uuid_follows_from_the_path(name):
    expected = str(uuid5(NAMESPACE_URL, f"mled:{name}"))
    assert ASSET_FILES[name]["uuid"] == expected, f"{name}.yaml needs the line uuid: {expected}"


@pytest.mark.parametrize("name", ASSET_FILES)
def test_asset_is_ours_to_overwrite_and_to_remove(name):
    assert ASSET_FILES[name]["is_managed_externally"] is True
    assert ASSET_FILES[name]["version"] == "1.0.0"


def test_metadata_names_the_kind_of_export():
    assert FILES["metadata"] == {"version": "1.0.0", "type": "assets"}


def test_there_is_one_database_without_a_place_and_without_writing():
    (database,) = of_kind("databases").values()
    assert database["sqlalchemy_uri"] == "duckdb:////mart"
    assert not any(
        database[right]
        for right in (
            "allow_dml",
            "allow_ctas",
            "allow_cvas",
            "allow_csv_upload",
            "allow_run_async",
        )
    )


@pytest.mark.parametrize("name", of_kind("datasets"))
def test_dataset_reads_the_published_schema_and_describes_each_column(name):
    dataset = FILES[name]
    assert dataset["schema"] == "marts"
    assert dataset["database_uuid"] in by_uuid("databases")
    read = set(re.findall(r"(?:FROM|JOIN)\s+([\w.]+)", dataset.get("sql") or ""))
    assert all(table.startswith("marts.") for table in read), read
    for item in dataset["columns"] + dataset["metrics"]:
        assert item["verbose_name"] and item["description"], item
    assert len(column_names(dataset)) == len(dataset["columns"])
    assert len(metric_names(dataset)) == len(dataset["metrics"])
    # Superset refuses a query in which a column and a metric have one name.
    assert not column_names(dataset) & metric_names(dataset)
    assert dataset["main_dttm_col"] in {None, *column_names(dataset)}


@pytest.mark.parametrize("name", of_kind("charts"))
def test_chart_uses_what_its_dataset_has(name):
    chart = FILES[name]
    params = chart["params"]
    dataset = by_uuid("datasets")[chart["dataset_uuid"]]
    assert params["viz_type"] == chart["viz_type"]
    columns = names_in(params, "x_axis", "groupby", "all_columns")
    columns |= {f["subject"] for f in params["adhoc_filters"] if f["expressionType"] == "SIMPLE"}
    columns |= set(params.get("column_config", {}))
    columns |= {yaml.safe_load(order)[0] for order in params.get("order_by_cols", [])}
    assert columns <= column_names(dataset), columns - column_names(dataset)
    metrics = names_in(params, "metric", "metrics", "timeseries_limit_metric")
    assert metrics <= metric_names(dataset), metrics - metric_names(dataset)
    for condition in params["adhoc_filters"]:
        if condition["expressionType"] == "SQL":
            words = set(re.findall(r"[a-z_]+", re.sub(r"'[^']*'", "", condition["sqlExpression"])))
            assert words & column_names(dataset), f"{condition} names no column"


@pytest.mark.parametrize("name", of_kind("charts"))
def test_chart_says_what_it_shows_and_bounds_its_rows(name):
    chart = FILES[name]
    assert chart["slice_name"] and chart["description"]
    if chart["viz_type"] != "big_number_total":
        assert 0 < chart["params"]["row_limit"] <= 10_000


def test_no_chart_depends_on_a_hyperparameter_that_may_go():
    assert not [name for name, content in FILES.items() if re.search(r"\bhp_\w+", str(content))]


@pytest.mark.parametrize("name", of_kind("dashboards"))
def test_dashboard_fits_its_grid(name):
    position = FILES[name]["position"]
    rows = [part for part in position.values() if isinstance(part, dict) and part["type"] == "ROW"]
    assert rows
    for row in rows:
        widths = [position[child]["meta"]["width"] for child in row["children"]]
        assert sum(widths) == GRID_COLUMNS, f"{row['id']} is {sum(widths)} columns wide"
        assert min(widths) >= BIG_NUMBER_COLUMNS


@pytest.mark.parametrize("name", of_kind("dashboards"))
def test_dashboard_is_one_tree_of_existing_charts(name):
    dashboard = FILES[name]
    parts = {k: v for k, v in dashboard["position"].items() if isinstance(v, dict)}
    assert all(part["id"] == key for key, part in parts.items())
    children = [child for part in parts.values() for child in part.get("children", [])]
    assert sorted(children) == sorted(set(parts) - {"ROOT_ID", "HEADER_ID"})
    for key, part in parts.items():
        for child in part.get("children", []):
            if key != "ROOT_ID":
                assert parts[child]["parents"][-1] == key
    charts = [part["meta"] for part in parts.values() if part["type"] == "CHART"]
    assert len({chart["chartId"] for chart in charts}) == len(charts)
    assert all(
        chart["sliceName"] == by_uuid("charts")[chart["uuid"]]["slice_name"] for chart in charts
    )


def test_each_chart_is_on_a_dashboard():
    placed = {
        part["meta"]["uuid"]
        for dashboard in of_kind("dashboards").values()
        for part in dashboard["position"].values()
        if isinstance(part, dict) and part["type"] == "CHART"
    }
    assert placed == set(by_uuid("charts"))


@pytest.mark.parametrize("name", of_kind("dashboards"))
def test_filters_aim_at_existing_columns(name):
    filters = FILES[name]["metadata"]["native_filter_configuration"]
    assert [f["name"] for f in filters] == ["Experiment", "Dataset", "Model"]
    for native in filters:
        for target in native["targets"]:
            dataset = by_uuid("datasets")[target["datasetUuid"]]
            assert target["column"]["name"] in column_names(dataset)


def test_nothing_names_another_host():
    texts = [path for path in SUPERSET.rglob("*") if path.suffix in (".py", ".yaml")]
    assert texts
    for path in texts:
        assert not re.search(r"(https?|wss?):?//", path.read_text("utf-8")), path
