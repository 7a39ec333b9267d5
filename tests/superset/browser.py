"""Drives Superset in headless Chromium as a person would, and reports what the charts got.

with new_page(width=1440) as page:
    login(page, "http://127.0.0.1:8088", "admin", password)
    dashboard = open_dashboard(page, "http://127.0.0.1:8088", "experiments")
    assert dashboard.charts["Trials"].rows == [{"trials": 65}]
    dashboard.set_filter("Experiment", "digits-svm")
    dashboard.screenshot(path)
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Error, Page, Request, Response, TimeoutError, sync_playwright

# Chromium itself calls home unless it is told not to.
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_S = 90.0
LOGINS = 3
# Charts count as drawn when nothing has been loading for so long.
QUIET_S = 1.0

_CHART_DATA = "/api/v1/chart/data"
_LOADING = "[data-test=loading-indicator], .loading"
_FINISHED = """id => {
    const chart = document.querySelector(`[data-test-chart-id="${id}"]`);
    return chart !== null && chart.querySelector(
        `#chart-id-${id} canvas, #chart-id-${id} table, #chart-id-${id} .header-line,
         #chart-id-${id} svg, [role=alert], .ant-empty, [class*="empty"]`
    ) !== null;
}"""


def find_chromium() -> str | None:
    """Path of the system's Chromium; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def new_page(width: int = 1440, height: int = 900) -> Iterator[Page]:
    """Lend a page of `width` x `height` pixels in a browser of its own.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    chromium = find_chromium()
    if chromium is None:
        raise FileNotFoundError("no chromium on the PATH; install it: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(CHROMIUM_ARGUMENTS)
        )
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def login(page: Page, base_url: str, user: str, password: str) -> None:
    """Log in through the form; again when a busy server dropped the answer.

    Raises:
        playwright.sync_api.TimeoutError: the log-in was refused.
        AssertionError: the server answers, but as to nobody it knows.
    """
    for _ in range(LOGINS):
        page.goto(f"{base_url}/login/")
        page.fill("#username", user)
        page.fill("#password", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/login" not in url, timeout=TIMEOUT_S * 1000)
        page.wait_for_load_state()
        answer = page.request.get(f"{base_url}/api/v1/me/")
        if answer.ok:
            return
    raise AssertionError(f"{user} is not logged in at {page.url}: {answer.status} {answer.text()}")


def open_dashboard(
    page: Page, base_url: str, slug: str, click: str | None = None, query: str = ""
) -> Dashboard:
    """Open the dashboard called `slug` and wait until every chart is drawn.

    `query` is what the address has behind its question mark. With `click`, follow the first link
    with this text on the page that is open instead of going to the dashboard's own address.

    Raises:
        AssertionError: the dashboard does not exist, or is not drawn within `TIMEOUT_S`.
    """
    answer = page.request.get(f"{base_url}/api/v1/dashboard/{slug}/charts")
    assert answer.ok, f"dashboard {slug!r}: {answer.status} {answer.text()}"
    charts = {chart["slice_name"]: chart["id"] for chart in answer.json()["result"]}
    dashboard = Dashboard(page, base_url, charts)
    if click is None:
        page.goto(f"{base_url}/superset/dashboard/{slug}/?{query}")
    else:
        page.get_by_role("link", name=click, exact=True).first.click()
    dashboard.wait_until_drawn()
    return dashboard


@dataclass
class Chart:
    """What a chart's last request brought.

    `rows` is what the chart shows: a dictionary (column or metric label → value) per row;
    empty if there is an `error`. `request` is the body of the request, to ask again.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    from_cache: bool = False
    request: str = ""


class Dashboard:
    """An open dashboard.

    Attributes:
        charts: the last answer to each chart, by the chart's name.
        outside_requests: addresses of other hosts that the browser contacted; those that the
            content security policy stopped are not among them.
        console_errors: errors in the browser's console, less those of the content security policy.
    """

    def __init__(self, page: Page, base_url: str, chart_ids: dict[str, int]) -> None:
        self.page = page
        self.chart_ids = chart_ids
        self.charts: dict[str, Chart] = {}
        self.outside_requests: list[str] = []
        self.console_errors: list[str] = []
        self._host = urlsplit(base_url).netloc
        self._names = {id_: name for name, id_ in chart_ids.items()}
        self._pending: set[Request] = set()
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("requestfailed", self._on_failure)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.console_errors.append(str(error)))

    def set_filter(self, name: str, *values: str) -> None:
        """Choose `values` in the filter labelled `name` (none: clear it), apply, and wait."""
        page = self.page
        label = page.locator(
            "[data-test=filter-control-name]", has_text=re.compile(f"^{re.escape(name)}$")
        )
        select = page.locator("form", has=label).locator(".ant-select").first
        select.hover()
        if select.locator(".ant-select-clear").count():
            select.locator(".ant-select-clear").click()
        if values:
            select.click()
        for value in values:
            page.keyboard.type(value)
            page.locator(f'.ant-select-item-option[title="{value}"]').click()
        page.keyboard.press("Escape")
        self.charts.clear()
        page.locator("[data-test=filter-bar__apply-button]").click()
        self.wait_until_drawn()

    def reload(self) -> None:
        """Load the page again and wait."""
        self.charts.clear()
        self.page.reload()
        self.wait_until_drawn()

    def wait_until_drawn(self) -> None:
        """Wait until each chart has its answer and nothing is loading any more.

        Raises:
            AssertionError: that takes longer than `TIMEOUT_S`.
        """
        deadline = time.monotonic() + TIMEOUT_S
        quiet_since = None
        while quiet_since is None or time.monotonic() - quiet_since < QUIET_S:
            missing = self._undrawn()
            if missing:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.monotonic()
            assert time.monotonic() < deadline, (
                f"not drawn within {TIMEOUT_S:g} s: {', '.join(missing) or 'still loading'}; "
                f"console: {self.console_errors}"
            )
            self.page.wait_for_timeout(100)

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """Write the page, or its upper `height` pixels, to `path` as PNG, when it stands still."""
        # Superset scrolls the window, so the full page is what a person gets to see.
        self.page.evaluate("window.scrollTo(0, 0)")
        clip = None
        if height is not None:
            width = self.page.viewport_size["width"]
            full = self.page.evaluate("document.documentElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": width, "height": min(height, full)}
        image = None
        for _ in range(20):
            last, image = image, self.page.screenshot(full_page=True, clip=clip)
            if last == image:
                break
            self.page.wait_for_timeout(250)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)

    def _undrawn(self) -> list[str]:
        missing = [name for name in self.chart_ids if name not in self.charts]
        if missing or self._pending:
            return missing or ["answers under way"]
        for name, id_ in self.chart_ids.items():
            if not self.page.evaluate(_FINISHED, id_):
                # Superset draws a chart when it comes near the window.
                with contextlib.suppress(TimeoutError):
                    self.page.locator(f'[data-test-chart-id="{id_}"]').scroll_into_view_if_needed(
                        timeout=1000
                    )
                missing.append(name)
        if not missing and self.page.locator(_LOADING).count():
            return ["loading indicator"]
        return missing

    def _chart_name(self, url: str) -> str | None:
        parts = urlsplit(url)
        if parts.path != _CHART_DATA:
            return None
        form = parse_qs(parts.query).get("form_data", ["{}"])[0]
        return self._names.get(json.loads(form).get("slice_id"))

    def _on_request(self, request: Request) -> None:
        if self._chart_name(request.url):
            self._pending.add(request)

    def _on_response(self, response: Response) -> None:
        self._note_host(response.url)
        name = self._chart_name(response.url)
        if name is None:
            return
        self._pending.discard(response.request)
        # An answer to a page that the browser has left meanwhile cannot be read.
        with contextlib.suppress(Error):
            self.charts[name] = _read(response)

    def _on_failure(self, request: Request) -> None:
        self._pending.discard(request)
        if request.failure != "csp":
            self._note_host(request.url)

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and "Content Security Policy" not in message.text:
            self.console_errors.append(message.text)

    def _note_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self._host:
            self.outside_requests.append(url)


def _read(response: Response) -> Chart:
    answer = response.json()
    if not response.ok:
        errors = [error["message"] for error in answer.get("errors", [])]
        return Chart(error="; ".join(errors) or answer.get("message") or str(answer))
    result = answer["result"][0]
    return Chart(
        rows=result["data"] or [],
        error=result.get("error"),
        from_cache=bool(result.get("is_cached")),
        request=response.request.post_data or "",
    )
