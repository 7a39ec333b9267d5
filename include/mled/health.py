"""Is there room to start, and do the servers answer?"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from datetime import datetime

import httpx
import psutil

from mled import processes, services, workers
from mled.airflow_api import Airflow, AirflowError
from mled.settings import Settings

# Airflow's components, as its health check calls them, by the program that runs each.
HEARTBEATS = {
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
LOG_LINES = 15


class HealthError(RuntimeError):
    """Something stands in the way of starting, or a program does not answer."""


def check_disk(settings: Settings) -> None:
    """Raises HealthError when less than `min_free_mb` is free on the disk of the home folder."""
    free_mb = shutil.disk_usage(settings.home).free // 1_000_000
    if free_mb < settings.min_free_mb:
        raise HealthError(
            f"{free_mb} MB are free on the disk of {settings.home}, and MLED_MIN_FREE_MB asks for "
            f"{settings.min_free_mb}: free some space, or move the state with MLED_HOME"
        )


def check_ports(settings: Settings) -> None:
    """Raises HealthError when a port that a server needs is taken."""
    ports = {
        "MLED_AIRFLOW_PORT": settings.airflow_port,
        "MLED_SUPERSET_PORT": settings.superset_port,
    }
    for variable, port in ports.items():
        with socket.socket() as probe:
            # As servers do: a connection of the last run that is still closing is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise HealthError(
                    f"{settings.host}:{port} cannot be used ({error.strerror.lower()}"
                    f"{_holder(port)}): stop what holds it, or choose another port with {variable}"
                ) from None


def _holder(port: int) -> str:
    """Who listens on the port, where the system lets us know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return ", by another user"
            return f", by process {connection.pid}, {psutil.Process(connection.pid).name()}"
    return ""


def problems(settings: Settings, states: dict[str, processes.State]) -> dict[str, str]:
    """Program → why it cannot be used yet; a healthy program is left out."""
    if not states:
        return dict.fromkeys(services.names(settings), "stopped")
    found = {name: state.state.lower() for name, state in states.items() if not state.running}
    for name, problem in (
        _airflow_problems(settings, states) | _superset_problem(settings)
    ).items():
        found.setdefault(name, problem)
    return found


def _airflow_problems(settings: Settings, states: dict[str, processes.State]) -> dict[str, str]:
    try:
        with Airflow(settings) as airflow:
            health = airflow.health()
    except AirflowError as error:
        unknown = dict.fromkeys(HEARTBEATS, "unknown: the api-server does not answer")
        return {"api-server": str(error), **unknown}
    return {
        program: "no heartbeat"
        for program, component in HEARTBEATS.items()
        if not _beats(health[component], states[program])
    }


def _superset_problem(settings: Settings) -> dict[str, str]:
    try:
        url = f"{settings.superset_url}/health"
        httpx.get(url, timeout=5, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        return {"superset": f"no answer ({error})"}
    return {}


def _beats(component: dict, state: processes.State) -> bool:
    """Healthy, and not by the word of a process that ran before this one."""
    beat = next((v for k, v in component.items() if k.startswith("latest_")), None)
    if component["status"] != "healthy" or beat is None:
        return False
    return datetime.fromisoformat(beat).timestamp() >= state.started


def check_program(settings: Settings, name: str) -> None:
    """Raises HealthError unless this program is at work, on whatever machine; a worker: on this."""
    if name == services.WORKER:
        ours = workers.own_name(settings)
        if ours not in (there := workers.queues_served(settings)):
            raise HealthError(
                f"the worker {ours} does not answer; there are {', '.join(there) or 'none'}"
            )
        return
    if name not in (services.API_SERVER, *HEARTBEATS):
        known = ", ".join((services.API_SERVER, *HEARTBEATS, services.WORKER))
        raise HealthError(f"there is no program {name!r} to look at; there are {known}")
    with Airflow(settings) as airflow:
        health = airflow.health()
    if name in HEARTBEATS and health[HEARTBEATS[name]]["status"] != "healthy":
        raise HealthError(f"{name} has no heartbeat: {health[HEARTBEATS[name]]}")


def wait(settings: Settings, timeout: float, on_healthy: Callable[[str, float], None]) -> None:
    """Wait until every program answers, calling `on_healthy(program, seconds)` as each does.

    Raises:
        HealthError: a program died, or does not answer within `timeout` seconds.
    """
    began = time.monotonic()
    names = services.names(settings)
    waiting = set(names)
    while True:
        states = processes.states(settings)
        for name in names:
            if name not in states or states[name].died:
                raise HealthError(_last_words(settings, f"{name} does not stay up", name))
        unhealthy = problems(settings, states)
        for name in [name for name in names if name in waiting - unhealthy.keys()]:
            waiting.remove(name)
            on_healthy(name, time.monotonic() - began)
        if not unhealthy:
            return
        if time.monotonic() - began > timeout:
            name, problem = next(iter(unhealthy.items()))
            summary = f"{name} is not healthy after {timeout:g} s ({problem})"
            raise HealthError(_last_words(settings, summary, name))
        time.sleep(0.5)


def _last_words(settings: Settings, summary: str, name: str) -> str:
    log = services.log_file(settings, name)
    return f"{summary}; the end of {log}:\n{processes.tail(log, LOG_LINES)}"
