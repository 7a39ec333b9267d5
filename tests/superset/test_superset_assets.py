"""The dashboards as code agree with themselves and with the columns that the mart promises."""

from __future__ import annotations

import re
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5

import duckdb
import pytest
import yaml

from mled.settings import ROOT

SUPERSET = ROOT / "include" / "superset"
# At the end: that folder is called superset, like a package.
sys.path.append(str(SUPERSET))

import dataset_assets  # noqa: E402
import dbt_docs  # noqa: E402
from asset_source import AssetError, read_assets  # noqa: E402

ASSETS = SUPERSET / "assets"
GRID_COLUMNS = 12
BIG_NUMBER_COLUMNS = 2

MODELS = dbt_docs.read_models(ROOT / "dbt_project")
FILES = {path.removesuffix(".yaml"): asset for path, asset in read_assets(ASSETS, MODELS).items()}
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
    read -= set(re.findall(r"(\w+) AS \(", dataset.get("sql") or ""))
    assert all(table.startswith("marts.") for table in read), read
    assert {table.removeprefix("marts.") for table in read} <= set(MODELS)
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
    columns = names_in(params, "x_axis", "groupby", "all_columns", "columns")
    columns |= names_in(params, "groupbyRows", "groupbyColumns")
    columns |= {yaml.safe_load(order)[0] for order in params.get("order_by_cols", [])}
    assert columns <= column_names(dataset), columns - column_names(dataset)
    configured = set(params.get("column_config", {})) - metric_names(dataset)
    assert configured <= columns, configured - columns
    metrics = names_in(params, "metric", "metrics", "timeseries_limit_metric")
    assert metrics <= metric_names(dataset), metrics - metric_names(dataset)
    for condition in params["adhoc_filters"]:
        if condition["expressionType"] == "SQL":
            words = set(re.findall(r"[a-z_]+", re.sub(r"'[^']*'", "", condition["sqlExpression"])))
            assert words & column_names(dataset), f"{condition} names no column"
        else:
            assert condition["subject"] in column_names(dataset)


@pytest.mark.parametrize("name", of_kind("charts"))
def test_chart_says_what_it_shows_and_bounds_its_rows(name):
    chart = FILES[name]
    assert chart["slice_name"] and chart["description"]
    assert "'" not in chart["slice_name"], "the style sheet quotes it"
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
def test_filters_aim_at_existing_columns_and_metrics(name):
    filters = FILES[name]["metadata"]["native_filter_configuration"]
    assert filters
    for native in filters:
        assert native["name"] and native["description"]
        for target in filter(None, native["targets"]):
            dataset = by_uuid("datasets")[target["datasetUuid"]]
            assert target["column"]["name"] in column_names(dataset)
            assert native["sortMetric"] in {None, *metric_names(dataset)}


@pytest.mark.parametrize("name", of_kind("dashboards"))
def test_each_dashboard_leads_to_all_others(name):
    code = FILES[name]["position"]["MARKDOWN-navigation"]["meta"]["code"]
    others = {other.removeprefix("dashboards/") for other in of_kind("dashboards")} - {
        name.removeprefix("dashboards/")
    }
    assert set(re.findall(r"/superset/dashboard/(\w+)/", code)) == others


@pytest.mark.parametrize("name", ["experiments", "compare", "trial"])
def test_scores_of_different_objectives_are_not_mixed(name):
    """Where scores are shown together, a filter keeps to one experiment, trial or objective."""
    filters = FILES[f"dashboards/{name}"]["metadata"]["native_filter_configuration"]
    assert [
        f["name"] for f in filters if f["requiredFirst"] and not f["controlValues"]["multiSelect"]
    ]


def test_columns_follow_dbt_s_own_files():
    """One source of truth: a description changed in dbt changes here, without another step."""
    trials = {column["column_name"]: column for column in FILES["datasets/trials"]["columns"]}
    described = MODELS["trials"].columns
    assert set(described) - set(trials) == dataset_assets.HIDDEN
    for name in described.keys() - dataset_assets.HIDDEN:
        assert described[name].description.rstrip(".") == trials[name]["description"]
        assert described[name].type == trials[name]["type"]


def test_texts_that_dbt_s_files_share_are_filled_in():
    texts = [c.description for model in MODELS.values() for c in model.columns.values()]
    assert all(texts)
    assert not [text for text in texts if "{{" in text]


def test_a_column_that_dbt_does_not_know_is_refused():
    source = {"models": ["trials"], "columns": ["trial_id", "colour"], "metrics": []}
    with pytest.raises(KeyError, match="'colour' is described by none of"):
        dataset_assets.dataset_asset("trials", source, MODELS)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "style.yaml").write_text("a: [")
    with pytest.raises(AssetError, match=r"style\.yaml is no YAML"):
        read_assets(tmp_path, MODELS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("peak_memory_bytes", "Peak memory (bytes)"),
        ("duration_s", "Duration (s)"),
        ("started_at", "Started"),
        ("experiment", "Experiment"),
    ],
)
def test_titles_of_columns(name, expected):
    assert dataset_assets.label(name) == expected


def test_a_link_survives_any_name():
    """The address decodes to the name, whatever is in it, and the text is no HTML."""
    name = "it's <b>50% & a+b!</b> (*)"
    sql = dataset_assets.link_sql("experiment", "experiments", ["experiment"])
    quoted = name.replace("'", "''")
    (link,) = duckdb.sql(f"SELECT {sql} FROM (SELECT '{quoted}' AS experiment)").fetchone()
    address, text = re.fullmatch(r'<a href="([^"<>]+)">(.*)</a>', link).groups()
    assert text == name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    (rison,) = parse_qs(urlsplit(address).query)["native_filters"]
    value = re.search(r"op:IN,val:!\('(.*?[^!])'\)\)", rison)[1]
    assert re.sub(r"!(.)", r"\1", value) == name


def test_nothing_names_another_host():
    texts = [path for path in SUPERSET.rglob("*") if path.suffix in (".py", ".yaml")]
    assert texts
    for path in texts:
        assert not re.search(r"(https?|wss?):?//", path.read_text("utf-8")), path
