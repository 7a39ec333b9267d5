"""From a triggered grid to the numbers on a dashboard, on the real servers, in order.

Each test goes on where the one before has left the platform.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from urllib.parse import unquote, urlsplit

import pytest

from mled.secrets import secret
from tests.e2e import airflow_ui
from tests.e2e.conftest import ARTIFACTS, Platform
from tests.superset import browser

pytestmark = pytest.mark.e2e

SVM = {
    "experiment": "wine-svm",
    "author": "Ada",
    "dataset": "wine",
    "model": "svm",
    "grid": {"C": [0.1, 1, 10], "kernel": ["rbf", "linear"]},
}
MLP = {
    "experiment": "wine-mlp",
    "author": "Grace",
    "dataset": "wine",
    "model": "mlp",
    "grid": {"hidden": [4, 16], "epochs": [12]},
    "seeds": [0, 1],
    "objective": "loss",
    "direction": "minimize",
}

# The wide mart as it must be, asked of the store in one statement of its own.
TRUTH = """
    SELECT metric.trial_id, metric.name, metric.step, metric.number,
           experiment.name, author.name, dataset.name, dataset.version, model.name,
           trial.state, trial.seed, trial.repeat,
           (SELECT number FROM hyperparameter h WHERE h.trial_id = trial.id AND h.name = 'C'),
           (SELECT text FROM hyperparameter h WHERE h.trial_id = trial.id AND h.name = 'kernel'),
           (SELECT number FROM hyperparameter h WHERE h.trial_id = trial.id AND h.name = 'hidden')
    FROM metric
    JOIN trial ON trial.id = metric.trial_id
    JOIN experiment ON experiment.id = trial.experiment_id
    JOIN author ON author.id = experiment.author_id
    JOIN dataset ON dataset.id = experiment.dataset_id
    JOIN model ON model.id = experiment.model_id
    ORDER BY 1, 2, 3
"""
WIDE = """
    SELECT trial_id, metric, step, value, experiment, author, dataset, dataset_version, model,
           state, seed, repeat, "hp_C", hp_kernel, hp_hidden
    FROM marts.metrics_wide ORDER BY 1, 2, 3
"""


def everything(platform: Platform) -> dict[str, set[tuple]]:
    """Every row of every mart but the one about the ETL itself."""
    tables = ("metrics_wide", "trials", "trial_hyperparameter_metrics")
    return {
        table: {str(row) for row in platform.mart(f"SELECT * FROM marts.{table}")}
        for table in tables
    }


def test_grids_run_from_the_form_to_the_summary(platform):
    for request, trials in ((SVM, 6), (MLP, 4)):
        run = platform.grid(**request)
        assert run["state"] == "success", platform.failures("grid_search", run["dag_run_id"])
        summary = platform.airflow.result("grid_search", run["dag_run_id"], "summarise")
        assert summary["trials"] == {"finished": trials}
        assert len(summary["best"]) == trials
        log = platform.airflow.log("grid_search", run["dag_run_id"], "summarise")
        assert f"{trials} finished" in log
        assert f"best by {summary['objective']}" in log
    assert platform.store("SELECT count(*), count(DISTINCT identity) FROM trial") == [(10, 8)]
    epochs = platform.store(
        "SELECT count(*) FROM metric JOIN trial ON trial.id = trial_id WHERE experiment_id = 2 "
        "AND metric.name = 'loss'"
    )
    assert epochs == [(4 * 12,)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"C": [1], "depth": [3]}}, "grid.depth: svm has no such hyperparameter"),
        ({"grid": {"C": []}}, "grid.C: the list is empty"),
        ({"grid": {"C": ["much"]}}, "grid.C: 'much' is not allowed: input should be a valid num"),
        ({"grid": {"C": [i + 1 for i in range(400)], "gamma": [i + 1 for i in range(400)]}},
         "160,000 points (C 400 x gamma 400) are more than the 100,000"),
        ({"colour": "red"}, "colour: unknown; the fields are experiment"),
    ],
    ids=["unknown hyperparameter", "empty list", "wrong type", "too large", "unknown field"],
)  # fmt: skip
def test_a_bad_grid_fails_in_plan_and_leaves_nothing(platform, changes, message):
    before = platform.store("SELECT last_us FROM clock")
    run = platform.grid(**{**SVM, "experiment": "bad", **changes})
    assert run["state"] == "failed"
    assert message in platform.airflow.log("grid_search", run["dag_run_id"], "plan")
    states = {
        task["task_id"]: task["state"]
        for task in platform.airflow.task_instances("grid_search", run["dag_run_id"])
    }
    assert states["plan"] == "failed"
    assert states["run_trials"] == "upstream_failed"
    assert platform.store("SELECT count(*) FROM experiment") == [(2,)]
    written = "SELECT count(*) FROM {} WHERE updated_at > " + str(before[0][0])
    for table in ("experiment", "trial", "dataset", "model", "author"):
        assert platform.store(written.format(table)) == [(0,)]


def test_an_unknown_dataset_is_refused_by_the_form_itself(platform):
    with pytest.raises(RuntimeError, match=r"400.*'mnist' is not one of"):
        platform.grid(**{**SVM, "dataset": "mnist"})


def test_the_etl_makes_the_mart_equal_to_the_store(platform):
    platform.etl()
    truth, wide = platform.store(TRUTH), platform.mart(WIDE)
    assert len(truth) == len(wide) > 4 * 12
    assert [tuple(map(_comparable, row)) for row in wide] == [
        tuple(map(_comparable, row)) for row in truth
    ]
    trials = platform.mart("SELECT trial_id, state, experiment FROM marts.trials ORDER BY 1")
    assert trials == platform.store(
        "SELECT trial.id, state, experiment.name FROM trial JOIN experiment "
        "ON experiment.id = experiment_id ORDER BY 1"
    )


def _comparable(value):
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def test_an_etl_with_nothing_new_changes_no_row(platform):
    before = everything(platform)
    assert platform.etl()["rows_changed"] == 0
    assert everything(platform) == before


def test_one_changed_trial_is_all_that_changes(platform):
    before = everything(platform)
    path = platform.settings.store.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE metric SET number = 0.125 WHERE trial_id = 2 AND step = 0")
    assert platform.etl()["rows_changed"] == len(
        platform.store("SELECT name FROM metric WHERE trial_id = 2")
    )
    after = everything(platform)
    wide = {row for row in before["metrics_wide"] ^ after["metrics_wide"]}
    assert wide
    assert all(row.startswith("(2, ") for row in wide)
    assert platform.mart(
        "SELECT DISTINCT value FROM marts.metrics_wide WHERE trial_id = 2 AND step = 0"
    ) == [(0.125,)]
    # The ranks of its experiment may move; the other experiment's trials may not.
    changed = {row.split(",")[0] for row in before["trials"] ^ after["trials"]}
    assert changed
    assert changed <= {f"({trial_id}" for trial_id in range(1, 7)}


def test_a_grid_triggered_again_runs_only_what_is_missing(platform):
    larger = {**SVM, "grid": {**SVM["grid"], "C": [0.1, 1, 10, 100]}}
    run = platform.grid(**larger)
    assert run["state"] == "success", platform.failures("grid_search", run["dag_run_id"])
    attempts = platform.store(
        "SELECT number, count(*) FROM attempt JOIN trial ON trial.id = trial_id "
        "WHERE experiment_id = 1 GROUP BY number"
    )
    assert attempts == [(1, 8)]


def test_the_nightly_maintenance_checks_and_backs_up(platform):
    run_id = platform.airflow.trigger("maintenance")
    run = platform.airflow.wait("maintenance", run_id, 120)
    assert run["state"] == "success", platform.failures("maintenance", run_id)
    ((state, problems, backup),) = platform.store(
        "SELECT state, problems, backup_path FROM maintenance_run"
    )
    assert (state, problems) == ("succeeded", "[]")
    with contextlib.closing(sqlite3.connect(backup)) as connection:
        counted = connection.execute("SELECT count(*) FROM metric").fetchall()
    assert counted == platform.store("SELECT count(*) FROM metric")


@pytest.mark.skipif(
    browser.find_chromium() is None,
    reason="NO BROWSER: what people see is not tested; apt-get install chromium",
)
def test_the_dashboard_shows_what_the_store_holds(platform):
    platform.etl()
    with browser.new_page(width=1440) as page:
        password = secret(platform.settings, "superset_admin_password")
        browser.login(page, platform.settings.superset_url, "admin", password)
        base = platform.settings.superset_url
        overview = browser.open_dashboard(page, base, "overview")
        overview.screenshot(ARTIFACTS / "overview.png")
        charts = overview.charts
        assert {name: chart.error for name, chart in charts.items() if chart.error} == {}
        assert overview.outside_requests == []
        count = "SELECT count(*) FROM "
        (figures,) = charts["Key figures"].rows
        assert figures["trials"] == platform.store(count + "trial")[0][0]
        assert figures["experiments"] == platform.store(count + "experiment")[0][0]
        assert {(row["state"], row["trials"]) for row in charts["Trials by state"].rows} == set(
            platform.store("SELECT state, count(*) FROM trial GROUP BY state")
        )
        dashboard = browser.open_dashboard(page, base, "experiments")
        dashboard.screenshot(ARTIFACTS / "dashboard.png")
        charts = dashboard.charts
        assert {name: chart.error for name, chart in charts.items() if chart.error} == {}
        assert dashboard.outside_requests == []
        best = platform.store(
            "SELECT max(number) FROM metric JOIN trial ON trial.id = trial_id "
            "WHERE experiment_id = 1 AND name = 'accuracy'"
        )
        # The experiment of the newest trial is shown first.
        leaders = charts["Leaderboard"].rows
        assert {row["experiment"] for row in leaders} == {"wine-svm"}
        assert max(row["objective_value"] for row in leaders) == best[0][0]
        assert len(leaders) == 8
        dashboard.set_filter("Experiment", "wine-mlp")
        assert dashboard.charts["Key figures"].rows[0]["trials"] == 4
        assert len(dashboard.charts["Leaderboard"].rows) == 4
        dashboard.screenshot(ARTIFACTS / "dashboard-filtered.png")


@pytest.mark.skipif(
    browser.find_chromium() is None,
    reason="NO BROWSER: what people see is not tested; apt-get install chromium",
)
def test_airflow_shows_the_grid_and_its_form(platform):
    settings = platform.settings
    with browser.new_page(width=1440, height=1000) as page:
        airflow_ui.login(page, settings)
        page.goto(f"{settings.airflow_url}/dags/experiment_etl")
        page.get_by_text("publish", exact=True).first.wait_for()
        page.screenshot(path=ARTIFACTS / "airflow-etl.png")
        page.goto(f"{settings.airflow_url}/dags/grid_search")
        page.get_by_text("run_trials").first.wait_for()
        page.wait_for_timeout(1500)
        page.screenshot(path=ARTIFACTS / "airflow-grid.png")
        airflow_ui.open_form(page, settings)
        form = page.get_by_role("dialog")
        page.screenshot(path=ARTIFACTS / "airflow-form.png")
        for field in ("preset", "experiment", "author", "dataset", "model", "grid", "seeds"):
            assert form.get_by_text(field).count()
        form.locator("input[value=my-first-grid]").fill("from-the-form")
        form.get_by_role("button", name="Trigger").click()
        page.wait_for_url("**/runs/manual__*")
        run_id = unquote(urlsplit(page.url).path.rsplit("/", 1)[1])
    run = platform.airflow.wait("grid_search", run_id, 300)
    assert run["state"] == "success", platform.failures("grid_search", run_id)
    assert platform.store("SELECT count(*) FROM experiment WHERE name = 'from-the-form'") == [(1,)]


@pytest.mark.skipif(
    browser.find_chromium() is None,
    reason="NO BROWSER: what people see is not tested; apt-get install chromium",
)
def test_a_grids_page_leads_to_the_dashboard_of_its_experiment(platform):
    run_id = platform.grid(**MLP)["dag_run_id"]
    settings = platform.settings
    with browser.new_page(width=1440, height=1000) as page:
        airflow_ui.login(page, settings)
        task = f"{settings.airflow_url}/dags/grid_search/runs/{run_id}/tasks/summarise"
        page.goto(f"{task}/details")
        link = page.get_by_role("link", name="Dashboard", exact=True)
        link.wait_for()
        page.screenshot(path=ARTIFACTS / "airflow-link.png")
        address = urlsplit(link.get_attribute("href"))
        assert address.path == "/superset/dashboard/experiments/"
        password = secret(settings, "superset_admin_password")
        browser.login(page, settings.superset_url, "admin", password)
        dashboard = browser.open_dashboard(
            page, settings.superset_url, "experiments", query=address.query
        )
        leaders = dashboard.charts["Leaderboard"].rows
        assert {row["experiment"] for row in leaders} == {"wine-mlp"}
