"""The demo: the experiments of `training/experiments/demo_*.yaml`, as a person would run them.

It triggers DAG runs through Airflow's REST API, waits for them, then runs one ETL.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import time
from datetime import datetime

import click

from mled.airflow_api import FINISHED, Airflow, AirflowError
from mled.settings import ROOT, Settings
from mled.steps import Steps

GRID_DAG = "grid_search"
ETL_DAG = "experiment_etl"
SUMMARY_TASK = "summarise"
PRESETS = ROOT / "training" / "experiments"
DAG_SECONDS = 120
RUN_SECONDS = 1800
POLL_SECONDS = 2
MARK = ".demo-done"


class DemoError(RuntimeError):
    """The demo did not come to its end; the servers are not affected."""


def is_done(settings: Settings) -> bool:
    """True once the demo succeeded in this home folder."""
    return (settings.home / MARK).exists()


def first_run(settings: Settings, steps: Steps) -> None:
    """Run the demo as part of the first start: what fails is shown, and can be repeated."""
    with contextlib.ExitStack() as stack:
        handle = os.open(settings.run, os.O_RDONLY)
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo("  the demo is running in another `make up`")
            return
        try:
            run(settings, steps)
        except (DemoError, AirflowError) as error:
            click.echo(f"  the demo failed: {error}\n  the servers run; repeat it with: mled demo")


def run(settings: Settings, steps: Steps) -> None:
    """Trigger the demo's grids and then an ETL, and wait for each.

    Raises:
        DemoError: a DAG is missing, or a run failed or took too long.
        AirflowError: Airflow refused a request.
    """
    presets = sorted(path.stem for path in PRESETS.glob("demo_*.yaml"))
    if not presets:
        raise DemoError(f"there is no demo_*.yaml in {PRESETS}")
    with Airflow(settings) as airflow:
        for dag_id in (GRID_DAG, ETL_DAG):
            _wait_for_dag(airflow, dag_id)
        with steps.step(f"demo: {len(presets)} grids"):
            grids = {preset: airflow.trigger(GRID_DAG, {"preset": preset}) for preset in presets}
            _wait(airflow, GRID_DAG, grids)
        for preset, run_id in grids.items():
            _show_grid(airflow, preset, run_id)
        # A finished grid triggers an ETL as well; ours queues behind it and takes what is left.
        with steps.step("demo: ETL"):
            _wait(airflow, ETL_DAG, {"ETL": airflow.trigger(ETL_DAG)})
    (settings.home / MARK).touch()


def _wait_for_dag(airflow: Airflow, dag_id: str) -> None:
    deadline = time.monotonic() + DAG_SECONDS
    while not airflow.has_dag(dag_id):
        if errors := airflow.import_errors():
            file, trace = next(iter(errors.items()))
            raise DemoError(f"{file} cannot be imported: {trace.strip().splitlines()[-1]}")
        if time.monotonic() > deadline:
            raise DemoError(f"Airflow shows no DAG {dag_id} after {DAG_SECONDS} s")
        time.sleep(POLL_SECONDS)


def _wait(airflow: Airflow, dag_id: str, runs: dict[str, str]) -> None:
    """Wait for runs (label → run id), showing how their tasks proceed."""
    began = time.monotonic()
    shown = ""
    while True:
        states = {label: airflow.run(dag_id, run_id)["state"] for label, run_id in runs.items()}
        tasks = collections.Counter(
            task["state"] or "waiting"
            for run_id in runs.values()
            for task in airflow.task_instances(dag_id, run_id)
        )
        progress = ", ".join(f"{count} {state}" for state, count in sorted(tasks.items()))
        if progress != shown:
            click.echo(f"    {time.monotonic() - began:5.0f} s  tasks: {progress}")
            shown = progress
        if all(state in FINISHED for state in states.values()):
            break
        if time.monotonic() - began > RUN_SECONDS:
            raise DemoError(f"{dag_id} still runs after {RUN_SECONDS} s: {states}")
        time.sleep(POLL_SECONDS)
    failed = [label for label, state in states.items() if state != "success"]
    if failed:
        raise DemoError(f"{dag_id} failed for {', '.join(failed)}: see its log in Airflow")


def _show_grid(airflow: Airflow, preset: str, run_id: str) -> None:
    """One line with the run's wall time beside the sum of its trials' times."""
    run = airflow.run(GRID_DAG, run_id)
    start, end = (datetime.fromisoformat(run[key]) for key in ("start_date", "end_date"))
    line = f"    {preset}: {(end - start).total_seconds():.1f} s"
    summary = airflow.result(GRID_DAG, run_id, SUMMARY_TASK)
    trials = ", ".join(f"{count} {state}" for state, count in summary["trials"].items())
    click.echo(f"{line} for trials of {summary['trial_seconds']:.1f} s in all; {trials}")
