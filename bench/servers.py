"""Airflow's real servers in a temporary home, without Superset: for benchmarks and slow tests.

With the executor celery or edge there are workers as well: `start("worker")` starts that of the
servers' own machine, `add_worker` that of another one, which is played by a home of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from mled import services, startup
from mled import settings as settings_module
from mled.airflow_api import Airflow, AirflowError
from mled.settings import LOCAL, ROOT, Settings

NAMES = ("api-server", "scheduler", "dag-processor")
START_SECONDS = 120


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Servers:
    """API server, scheduler and DAG processor; use it as a context manager.

    Attributes:
        settings: where they lie; `store` is the store that the trials write to.
        airflow: their REST API.
        machines: the settings of the other machines, by the names of their workers.
        processes: the servers and workers by name.
    """

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None, **changes):
        """`changes` are settings; `environment` comes on top of the servers' own."""
        self.settings: Settings = replace(
            settings_module.load({}), home=home, airflow_port=free_port(), **changes
        )
        self.airflow = Airflow(self.settings)
        self.machines: dict[str, Settings] = {}
        self.processes: dict[str, subprocess.Popen] = {}
        self._sessions: set[int] = set()
        self._extra = dict(environment or {})

    def __enter__(self) -> Servers:
        startup.prepare(self.settings)
        environment = services.airflow_environment(self.settings) | self._extra
        migrate = [str(services.BIN / "airflow"), "db", "migrate"]
        subprocess.run(migrate, env=environment, check=True, capture_output=True)
        try:
            for name in NAMES:
                self.start(name)
            if self.settings.executor != LOCAL:
                self.start(services.WORKER)
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.airflow.__exit__()
        self.stop()

    def start(self, name: str) -> None:
        """Start one of the servers, or a worker that was added before."""
        settings = self.machines.get(name, self.settings)
        program = services.program(settings, services.WORKER if name in self.machines else name)
        environment = services.inherited_environment(settings) | program.environment | self._extra
        if program.name == services.WORKER:
            environment["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] = str(free_port())
        with services.log_file(self.settings, name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                program.command,
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.add(self.processes[name].pid)

    def add_worker(self, name: str, queues: str = "training", **changes) -> Settings:
        """Start the worker of another machine, which shares the databases and secrets only."""
        self.machines[name] = replace(
            self.settings,
            home=self.settings.home / "machines" / name,
            store_url=self.settings.store_url or self.settings.store,
            secrets_dir=str(self.settings.secrets),
            worker_name=name,
            queues=queues,
            **changes,
        )
        startup.prepare(self.machines[name])
        self.start(name)
        return self.machines[name]

    def kill(self, name: str) -> None:
        """Kill a server or worker with all that it has started, as if its machine had died."""
        leader = self.processes[name].pid
        for process in [p for p in psutil.process_iter() if _session(p) == leader]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Stop all of them, and every task that they have started."""
        ours = self.all_processes()
        for process in ours:
            process.send_signal(signal.SIGTERM)
        for process in psutil.wait_procs(ours, timeout=10)[1]:
            process.kill()
        for process in self.processes.values():
            process.wait(10)

    def all_processes(self) -> list[psutil.Process]:
        """The servers and all that they have started, orphans too: each server is a session."""
        return [process for process in psutil.process_iter() if _session(process) in self._sessions]

    def wait_until_ready(self) -> None:
        """Wait until the scheduler is alive and has read the grid DAG.

        Raises:
            TimeoutError: it is not after `START_SECONDS`.
        """
        end = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if time.monotonic() > end:
                logs = self.settings.logs
                raise TimeoutError(f"Airflow does not start within {START_SECONDS} s: see {logs}")
            time.sleep(0.5)
        slots = services.training_slots(self.settings)
        self.airflow.set_pool(services.TRAINING_POOL, slots, "tasks that run trials")

    def _is_ready(self) -> bool:
        try:
            healthy = self.airflow.health()["scheduler"]["status"] == "healthy"
            return healthy and self.airflow.has_dag("grid_search")
        except AirflowError:
            return False


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None
