"""Takes the pictures that the README and docs/ show, from what runs: make screenshots."""

from __future__ import annotations

from urllib.parse import quote

from playwright.sync_api import Page

from mled import settings as settings_module
from mled.airflow_api import Airflow
from mled.secrets import secret
from mled.settings import ROOT, Settings
from tests.e2e import airflow_ui
from tests.superset import browser

IMAGES = ROOT / "docs" / "images"
# The dashboards by slug, and the name of the picture; more than the upper part says little.
DASHBOARDS = {
    "overview": "dashboard-overview.png",
    "experiments": "dashboard.png",
    "compare": "dashboard-compare.png",
    "trial": "dashboard-trial.png",
    "datasets": "dashboard-datasets.png",
    "pipeline": "dashboard-pipeline.png",
}
DASHBOARD_HEIGHT = 1700


def airflow(settings: Settings) -> None:
    """The ETL DAG with its models, a grid's trials, and the form."""
    with browser.new_page(width=1440, height=820) as page:
        airflow_ui.login(page, settings)
        _open_run(page, settings, "experiment_etl")
        page.get_by_label("Expand all task groups").click()
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / "airflow-etl.png")
        _open_run(page, settings, "grid_search")
        page.screenshot(path=IMAGES / "airflow-grid.png")
        airflow_ui.open_form(page, settings)
        page.get_by_role("dialog").get_by_text("objective").first.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / "airflow-form.png")


def _open_run(page: Page, settings: Settings, dag_id: str) -> None:
    with Airflow(settings) as api:
        run_id = api.latest_run(dag_id)
    page.goto(f"{settings.airflow_url}/dags/{dag_id}/runs/{quote(run_id)}")
    page.get_by_text("Task Instances", exact=True).wait_for()
    page.wait_for_timeout(2500)


def superset(settings: Settings) -> None:
    """Each dashboard, as somebody who may only look."""
    with browser.new_page(width=1440) as page:
        password = secret(settings, "superset_stakeholder_password")
        browser.login(page, settings.superset_url, "stakeholder", password)
        for slug, name in DASHBOARDS.items():
            dashboard = browser.open_dashboard(page, settings.superset_url, slug)
            dashboard.screenshot(IMAGES / name, height=DASHBOARD_HEIGHT)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    running = settings_module.load()
    airflow(running)
    superset(running)
