"""From an installed repository to running servers, and back."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from mled import demo, health, install, processes, services
from mled.airflow_api import Airflow
from mled.secrets import secret
from mled.settings import ROOT, Settings
from mled.steps import Steps, run_logged
from mled.store import migrate
from mled.warehouse import dbt

HOME_MARK = ".mled-home"
HEALTH_SECONDS = 180


class StartupError(RuntimeError):
    """A start, stop or reset is refused; the message says what to do."""


def up(settings: Settings, with_demo: bool = True, began: float | None = None) -> None:
    """Start what is not running; on the first start also run the demo.

    `began` is when the whole command started (seconds since 1970), to count the installation.

    Raises:
        StartupError, HealthError, StepError, ProcessError: with the cause and what to do.
    """
    began = time.time() if began is None else began
    steps = Steps()
    if (installation := time.time() - began) >= 1:
        steps.done("Python environments", installation)
    prepare(settings)
    with _one_at_a_time(settings):
        health.check_disk(settings)
        if settings.object_store:
            from mled.objects import Objects

            Objects(settings).check()
        _start(settings, steps)
    if with_demo and not demo.is_done(settings):
        demo.first_run(settings, steps)
    steps.show_breakdown(time.time() - began)
    _show_entrances(settings)


def down(settings: Settings) -> None:
    """Stop everything and wait for it."""
    if not settings.home.is_dir():
        click.echo("nothing is running")
        return
    with _one_at_a_time(settings):
        stopped = processes.stop(settings)
    click.echo(f"stopped ({stopped} processes)" if stopped else "nothing is running")


def reset(settings: Settings) -> None:
    """Stop everything and delete the home folder.

    Raises:
        StartupError: the folder is not one that `up` made.
    """
    check_resettable(settings.home)
    down(settings)
    shutil.rmtree(settings.home)
    click.echo(f"{settings.home} is deleted")


def check_resettable(home: Path) -> None:
    """Raises StartupError unless `home` is a folder that `up` made and nothing else."""
    real = home.resolve()
    for precious in (Path("/"), Path.home(), ROOT):
        if precious.resolve().is_relative_to(real):
            raise StartupError(f"MLED_HOME={home} is not deleted: it holds {precious}")
    if not (home / HOME_MARK).is_file():
        raise StartupError(
            f"MLED_HOME={home} is not deleted: it has no file {HOME_MARK}, so mled did not make it"
        )


def prepare(settings: Settings) -> None:
    """Make the folders and files that every program expects; what is there stays."""
    _make_folders(settings)
    _write_passwords(settings)


def initialise(settings: Settings) -> None:
    """Bring the databases of Airflow and the store, Airflow's pools and dbt's manifest up to date.

    For a cluster, before its programs start; Superset's server does the same for its own database.

    Raises:
        StepError: with the cause and where the output lies.
    """
    prepare(settings)
    steps = Steps()
    steps.parallel(
        {
            "experiment store": lambda: migrate(settings),
            "dbt manifest": lambda: dbt.manifest(settings),
            "Airflow database": lambda: _migrate_airflow(settings),
        }
    )
    with steps.step("Airflow pools"), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        pools = {
            name: {"slots": slots, "description": description, "include_deferred": False}
            for name, slots, description in services.pools(settings)
        }
        json.dump(pools, file)
        file.flush()
        _run_airflow(settings, "pools", "import", file.name)


def _run_airflow(settings: Settings, *arguments: str) -> None:
    run_logged(
        [str(services.BIN / "airflow"), *arguments],
        services.airflow_environment(settings),
        services.log_file(settings, f"initialise-airflow-{arguments[0]}"),
    )


def _migrate_airflow(settings: Settings) -> None:
    _run_airflow(settings, "db", "migrate")


def _start(settings: Settings, steps: Steps) -> None:
    if processes.states(settings) and not processes.configuration_changed(settings):
        _initialise(settings, steps)
    else:
        # Another configuration, or processes whose manager was killed: begin from nothing.
        stopping = time.monotonic()
        if processes.stop(settings):
            steps.done("stopping what is outdated", time.monotonic() - stopping)
        health.check_ports(settings)
        _initialise(settings, steps)
        processes.launch(settings)
    if processes.start(settings):
        click.echo("  starting the servers …")
    health.wait(
        settings, HEALTH_SECONDS, lambda name, seconds: steps.done(f"{name} answers", seconds)
    )
    with Airflow(settings) as airflow:
        for pool in services.pools(settings):
            airflow.set_pool(*pool)


def _make_folders(settings: Settings) -> None:
    for folder in (
        *(settings.home, settings.logs, settings.run, settings.artifacts, settings.staging),
        *(settings.build_file.parent, settings.dbt_target),
        *(settings.airflow_home, settings.superset_home),
    ):
        folder.mkdir(parents=True, exist_ok=True)
    settings.run.chmod(0o700)
    (settings.home / HOME_MARK).write_text("The state of MLED; `make reset` deletes this folder.\n")


def _write_passwords(settings: Settings) -> None:
    """Give Airflow's login the generated password; it would otherwise make one of its own."""
    password = secret(settings, services.AIRFLOW_PASSWORD, 16)
    path = services.airflow_passwords(settings)
    path.touch(mode=0o600)
    text = json.dumps({services.AIRFLOW_USER: password}) + "\n"
    if path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _initialise(settings: Settings, steps: Steps) -> None:
    """Bring every database to what the code expects; what already is so takes no time."""
    tasks: dict[str, Callable[[], object]] = {
        "experiment store": lambda: migrate(settings),
        "dbt manifest": lambda: dbt.manifest(settings),
    }
    stamps = {}

    def add(name: str, inputs: Iterable[Path], output: Path, task: Callable[[], None]) -> None:
        digest = _digest(settings, inputs)
        stamp = settings.run / f"initialised-{name.lower().replace(' ', '-')}"
        if output.exists() and stamp.exists() and stamp.read_text() == digest:
            return
        tasks[name] = task
        stamps[name] = (stamp, digest)

    superset = ROOT / "include" / "superset"
    add(
        "Airflow database",
        [install.LOCKS[install.MAIN]],
        settings.airflow_home / "airflow.db",
        lambda: _migrate_airflow(settings),
    )
    add(
        "Superset database",
        # Superset shows the descriptions that dbt's models carry.
        [superset, settings.dbt_project / "models"],
        settings.superset_home / "metadata.db",
        lambda: run_logged(
            [str(services.SUPERSET_BIN / "python"), str(superset / "bootstrap.py")],
            services.superset_environment(settings),
            services.log_file(settings, "initialise-superset"),
        ),
    )
    steps.parallel(tasks)
    for stamp, digest in stamps.values():
        stamp.write_text(digest)
    if "Superset database" in stamps:
        # It read its configuration and its roles when it started.
        processes.restart(settings, "superset")


def _digest(settings: Settings, inputs: Iterable[Path]) -> str:
    """A fingerprint of the settings and of the content of files and folders."""
    digest = hashlib.sha256(repr(sorted(settings.environ().items())).encode())
    for path in inputs:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[None]:
    """Hold the home folder locked against other starts and stops; wait for one that runs."""
    handle = os.open(settings.home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo("  another mled is starting or stopping the servers; waiting for it …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _show_entrances(settings: Settings) -> None:
    click.echo(
        f"""
  Airflow    {settings.airflow_page}   user {services.AIRFLOW_USER}, password in
             {settings.secrets / services.AIRFLOW_PASSWORD}
  Superset   {settings.superset_page}   user {services.SUPERSET_USER}, password in
             {settings.secrets / services.SUPERSET_PASSWORD}
             users analyst, researcher, stakeholder: superset_<user>_password beside it
"""
    )
