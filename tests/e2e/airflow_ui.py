"""Drives Airflow's pages as a person would."""

from __future__ import annotations

from playwright.sync_api import Page

from mled.secrets import secret
from mled.services import AIRFLOW_PASSWORD, AIRFLOW_USER
from mled.settings import Settings


def login(page: Page, settings: Settings) -> None:
    """Log in through the form, as the administrator."""
    page.goto(settings.airflow_url)
    page.fill("input[name=username]", AIRFLOW_USER)
    page.fill("input[name=password]", secret(settings, AIRFLOW_PASSWORD))
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "login" not in url)


def open_form(page: Page, settings: Settings) -> None:
    """Open the form with which a grid is triggered, and wait until it is there."""
    page.goto(f"{settings.airflow_url}/dags/grid_search")
    page.get_by_text("run_trials").first.wait_for()
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_role("dialog").get_by_text("trials_per_task").wait_for()
