"""Superset's HTTP interface as a browser uses it: a session of cookies and a CSRF token."""

from __future__ import annotations

import re
from typing import Any

import httpx

from mled.secrets import secret
from mled.settings import Settings

CHART_DATA = "/api/v1/chart/data"


class Client(httpx.Client):
    """A session at Superset; as nobody until `login`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(base_url=settings.superset_url, timeout=120, trust_env=False)
        self.settings = settings

    def login(self, user: str) -> Client:
        """Log in through the form with the generated password of `user`.

        Raises:
            PermissionError: Superset does not know the password.
        """
        password = secret(self.settings, f"superset_{user}_password")
        form = {"username": user, "password": password, "csrf_token": self._token("/login/")}
        self.post("/login/", data=form)
        if self.get("/api/v1/me/").status_code != 200:
            raise PermissionError(f"Superset refuses the user {user!r}")
        self.headers["X-CSRFToken"] = self._token("/superset/dashboard/overview/")
        self.headers["Referer"] = self.settings.superset_url
        return self

    def _token(self, page: str) -> str:
        found = re.search(r"csrf_token&#34;: &#34;([^&]+)&#34;", self.get(page).text) or re.search(
            r'id="csrf_token"[^>]*value="([^"]+)"', self.get(page).text
        )
        assert found, f"the page {page} holds no CSRF token"
        return found[1]

    def sql(self, statement: str) -> httpx.Response:
        """Run a statement in SQL Lab."""
        # The one database is the first that Superset ever knew.
        query = {"database_id": 1, "sql": statement, "runAsync": False, "schema": "marts"}
        return self.post("/api/v1/sqllab/execute/", json=query)

    def chart_data(self, request: str) -> httpx.Response:
        """Ask for a chart's data with the body that a browser sent."""
        return self.post(CHART_DATA, content=request, headers={"Content-Type": "application/json"})

    def dashboards(self) -> dict[str, dict[str, Any]]:
        """The dashboards that the user sees, by slug."""
        result = self.get("/api/v1/dashboard/").json()["result"]
        return {dashboard["slug"]: dashboard for dashboard in result}
