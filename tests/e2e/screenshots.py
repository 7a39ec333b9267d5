"""Takes the pictures that the README shows, from a platform that is running: make screenshots."""

from __future__ import annotations

from mled import settings as settings_module
from mled.secrets import secret
from mled.settings import ROOT, Settings
from tests.superset import browser

IMAGES = ROOT / "docs" / "images"


def airflow(settings: Settings) -> None:
    """The grid DAG with its runs, the form, and the ETL DAG with its models."""
    base = settings.airflow_url
    with browser.new_page(width=1440, height=820) as page:
        page.goto(base)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", secret(settings, "airflow_admin_password"))
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "login" not in url)
        page.goto(f"{base}/dags/experiment_etl")
        page.get_by_text("publish", exact=True).first.wait_for()
        page.get_by_text("dbt", exact=True).first.click()
        page.wait_for_timeout(2000)
        page.screenshot(path=IMAGES / "airflow-etl.png")
        page.goto(f"{base}/dags/grid_search/runs")
        page.get_by_text("run_trials").first.wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=IMAGES / "airflow-grid.png")
        page.get_by_role("button", name="Trigger").first.click()
        page.get_by_role("dialog").get_by_text("trials_per_task").wait_for()
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
