"""Takes the pictures that the README shows, from a platform that is running: make screenshots."""

from __future__ import annotations

from urllib.parse import quote

from mled import settings as settings_module
from mled.airflow_api import Airflow
from mled.secrets import secret
from mled.settings import ROOT, Settings
from tests.e2e import airflow_ui
from tests.superset import browser

IMAGES = ROOT / "docs" / "images"


def airflow(settings: Settings) -> None:
    """The ETL DAG with its models, a grid's trials, and the form."""
    with browser.new_page(width=1440, height=820) as page:
        airflow_ui.login(page, settings)
        page.goto(f"{settings.airflow_url}/dags/experiment_etl")
        page.get_by_text("dbt", exact=True).first.click()
        page.wait_for_timeout(2000)
        page.screenshot(path=IMAGES / "airflow-etl.png")
        with Airflow(settings) as api:
            run = api.latest_run("grid_search")
        page.goto(f"{settings.airflow_url}/dags/grid_search/runs/{quote(run)}")
        page.get_by_text("summarise").first.wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=IMAGES / "airflow-grid.png")
        airflow_ui.open_form(page, settings)
        page.mouse.move(700, 500)
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / "airflow-form.png")


def superset(settings: Settings) -> None:
    """The dashboard."""
    with browser.new_page(width=1440) as page:
        password = secret(settings, "superset_admin_password")
        browser.login(page, settings.superset_url, "admin", password)
        dashboard = browser.open_dashboard(page, settings.superset_url, "experiments")
        dashboard.screenshot(IMAGES / "dashboard.png")


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    running = settings_module.load()
    airflow(running)
    superset(running)
