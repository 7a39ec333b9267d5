"""What a cluster needs beside Airflow, on free ports: PostgreSQL (tests/postgres.py) and Redis."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.servers import Servers
from mled.settings import CELERY
from tests import postgres

START_SECONDS = 20


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis while the block lasts; gives its URL.

    Raises:
        FileNotFoundError: it is not installed.
        TimeoutError: it does not start.
    """
    port = postgres.free_port()
    options = ("--save", "", "--bind", "127.0.0.1", "--port", str(port), "--loglevel", "warning")
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        ping = ["redis-cli", "-p", str(port), "ping"]
        while subprocess.run(ping, capture_output=True).stdout != b"PONG\n":
            if time.monotonic() > end:
                raise TimeoutError(f"Redis does not answer on port {port}")
            time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def missing(executor: str) -> str | None:
    """What must be installed for a cluster with this executor; None when nothing is missing."""
    if postgres.binaries() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if executor == CELERY and shutil.which("redis-server") is None:
        return "Redis is not installed: apt-get install redis-server"
    return None


@contextlib.contextmanager
def cluster(
    home: Path, executor: str, machines: int = 2, workers: int = 1, **settings
) -> Iterator[Servers]:
    """Airflow with its database and the store in PostgreSQL, and a worker on each machine.

    The first machine is that of the servers, whose worker is called "worker"; the others are called
    "machine-2" and so on, and only train. `executor` is "celery", "edge", or "local" for tasks
    under the scheduler on one machine. Each machine trains `workers` trials at a time. `settings`
    are further settings of all machines, and `environment` variables of all programs.
    """
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres.server())
        if executor == CELERY:
            settings["broker_url"] = stack.enter_context(redis())
        servers = stack.enter_context(
            Servers(
                home,
                executor=executor,
                airflow_database_url=postgres.new_database(url),
                store_url=postgres.new_database(url),
                workers=workers,
                cluster_workers=machines * workers,
                **settings,
            )
        )
        for number in range(2, machines + 1):
            servers.add_worker(f"machine-{number}")
        yield servers
