"""A small client of Airflow's REST API, for the start-up, the command line and the tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from mled import services
from mled.secrets import secret
from mled.settings import Settings

PAGE = 100
TRIES, RETRY_SECONDS = 4, 2.0
FINISHED = ("success", "failed")


class AirflowError(RuntimeError):
    """Airflow refused a request (then `status` is the HTTP status), or cannot be reached."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Airflow:
    """Airflow's REST API as its administrator; use it as a context manager."""

    def __init__(self, settings: Settings):
        self._settings = settings
        # Our own server never lies behind the environment's proxy.
        self._http = httpx.Client(base_url=settings.airflow_url, timeout=30, trust_env=False)
        self._token = ""

    def __enter__(self) -> Airflow:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def health(self) -> dict[str, dict]:
        """Component → `status` and time of the last heartbeat; needs no login."""
        return self._send("GET", "/api/v2/monitor/health", {}).json()

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create the pool, or give an existing one this size."""
        body = {"slots": slots, "description": description, "include_deferred": False}
        try:
            self._call("POST", "/pools", json=body | {"name": name})
        except AirflowError as error:
            if error.status != httpx.codes.CONFLICT:
                raise
            self._call("PATCH", f"/pools/{name}", json=body | {"pool": name})

    def has_dag(self, dag_id: str) -> bool:
        """True once the DAG was parsed and can be triggered."""
        return bool(
            self._call("GET", "/dags", params={"dag_id_pattern": dag_id, "limit": PAGE})["dags"]
        )

    def import_errors(self) -> dict[str, str]:
        """DAG file → traceback, for the files that cannot be imported."""
        errors = self._call("GET", "/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run with these parameters and return its id."""
        # An id of ours: a request that was answered too late may be sent again.
        now = datetime.now(UTC).isoformat()
        body = {"logical_date": None, "conf": conf or {}, "dag_run_id": f"manual__{now}"}
        try:
            self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)
        except AirflowError as error:
            if error.status != httpx.codes.CONFLICT:
                raise
        return body["dag_run_id"]

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """The run as the API gives it: `state`, `start_date`, `end_date`, …"""
        return self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")

    def latest_run(self, dag_id: str) -> str:
        """Id of the run that was triggered last.

        Raises:
            AirflowError: there is none.
        """
        parameters = {"order_by": "-run_after", "limit": 1}
        runs = self._call("GET", f"/dags/{dag_id}/dagRuns", params=parameters)["dag_runs"]
        if not runs:
            raise AirflowError(f"{dag_id} was never run")
        return runs[0]["dag_run_id"]

    def active_runs(self, dag_id: str) -> list[str]:
        """Ids of the runs that wait for their turn or are at work."""
        parameters = {"state": ["queued", "running"], "limit": PAGE}
        runs = self._call("GET", f"/dags/{dag_id}/dagRuns", params=parameters)["dag_runs"]
        return [run["dag_run_id"] for run in runs]

    def wait(
        self, dag_id: str, run_id: str, timeout: float, interval: float = 0.5
    ) -> dict[str, Any]:
        """Wait until the run has ended, well or badly, and return it.

        Raises:
            TimeoutError: it still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (run := self.run(dag_id, run_id))["state"] not in FINISHED:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{dag_id} {run_id} is {run['state']} after {timeout:g} s")
            time.sleep(interval)
        return run

    def task_instances(self, dag_id: str, run_id: str) -> Iterator[dict[str, Any]]:
        """Every task instance of the run, mapped ones one by one."""
        offset = 0
        while True:
            page = self._call(
                "GET",
                f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances",
                params={"limit": PAGE, "offset": offset},
            )
            yield from page["task_instances"]
            offset += PAGE
            if offset >= page["total_entries"]:
                return

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What the task returned (its XCom `return_value`)."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self._call("GET", path, params={"deserialize": False})["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """The log of one try of an unmapped task, as the UI shows it."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        lines = []
        for entry in self._call("GET", path, params={"full_content": True})["content"]:
            if isinstance(entry, str):
                lines.append(entry)
                continue
            errors = entry.get("error_detail") or []
            lines += [entry["event"], *(f"{e['exc_type']}: {e['exc_value']}" for e in errors)]
        return "\n".join(lines)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        if not self._token:
            self._log_in()
        response = self._send(method, f"/api/v2{path}", arguments)
        return response.json() if response.content else None

    def _log_in(self) -> None:
        login = {
            "username": services.AIRFLOW_USER,
            "password": secret(self._settings, services.AIRFLOW_PASSWORD, 16),
        }
        self._token = self._send("POST", "/auth/token", {"json": login}).json()["access_token"]

    def _send(self, method: str, path: str, arguments: dict) -> httpx.Response:
        """Send a request, again when the server has no answer: every one of ours may be repeated.

        Airflow's own database in SQLite can be locked for longer than the server waits.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        for tries_left in reversed(range(TRIES)):
            try:
                response = self._http.request(method, path, headers=headers, **arguments)
            except httpx.ConnectError as error:
                raise self._unreachable(error) from error
            except httpx.HTTPError as error:
                if not tries_left:
                    raise self._unreachable(error) from error
                continue
            if not response.is_server_error or not tries_left:
                break
            time.sleep(RETRY_SECONDS)
        if response.is_error:
            message = f"{method} {path}: {response.status_code} {response.text[:500]}"
            raise AirflowError(message, response.status_code)
        return response

    def _unreachable(self, error: httpx.HTTPError) -> AirflowError:
        url = self._settings.airflow_url
        return AirflowError(f"Airflow does not answer at {url} ({error}): make up")
