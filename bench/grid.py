"""Grids through the real scheduler, beside what people would run them with.

    make bench NAME=grid             about ten minutes
    make bench NAME=grid SIZE=small  a minute, to see that it works
    make bench NAME=grid SIZE=full   every peer for every kind of trial

A trial takes processor time and learns nothing, so all that is left is overhead. Ours is measured
from the call that triggers the grid to the end of its run, with everything recorded; the grid's
experiment is new, so nothing is known about how long its trials take. Where a case is repeated,
everyone runs it in turn, and the least disturbed run of each counts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from bench import report
from bench.peers import python_of
from bench.servers import Servers
from mled.settings import ROOT
from mled.store import Database
from mled.store.schema import FINISHED, Experiment, Metric, Trial

WORKERS = 2
OPTUNA = "optuna==5.0.0"
ONE_TASK = "one task a trial"
EVERYONE = ("joblib", "GridSearchCV", "Optuna", ONE_TASK)


@dataclass(frozen=True)
class Case:
    """Trials of one length, run by us and by `peers`, `repeats` times."""

    name: str
    trials: int
    seconds: float
    peers: tuple[str, ...]
    repeats: int = 1

    @property
    def ideal_s(self) -> float:
        return self.trials * self.seconds / WORKERS


def cases(size: str) -> list[Case]:
    """What is measured at a size: "small", "" (the default) or "full"."""
    if size == "small":
        return [
            Case("no-op", 100, 0.0, ("joblib",)),
            Case("50 ms", 40, 0.05, EVERYONE),
            Case("5 s", 2, 5.0, ("joblib",)),
            Case("no-op, many", 1_000, 0.0, ("joblib",)),
        ]
    full = size == "full"
    return [
        # Optuna's grid sampler reads all trials before each: a thousand take it minutes.
        Case("no-op", 1_000, 0.0, EVERYONE[: 3 if full else 2]),
        Case("50 ms", 500, 0.05, EVERYONE, repeats=3 if full else 1),
        Case("5 s", 40, 5.0, EVERYONE if full else ("joblib",)),
        Case("no-op, many", 10_000, 0.0, EVERYONE[:2] if full else ("joblib",)),
    ]


@dataclass(frozen=True)
class Run:
    """A grid that was run: seconds of wall time, of all processes' CPU time, and of work."""

    wall_s: float
    cpu_s: float
    work_s: float
    tasks: int


def run_ours(servers: Servers, name: str, case: Case, trials_per_task: int = 0) -> Run:
    """Run a case as a person would, and check that every trial was recorded.

    Raises:
        RuntimeError: the run failed, or a trial is missing in the store.
    """
    conf = {
        "experiment": name,
        "dataset": "file",
        "path": str(_new_dataset(servers.settings.home, name)),
        "target": "y",
        "model": "busy",
        "grid": {"number": {"range": [1, case.trials]}, "seconds": [case.seconds]},
        "trials_per_task": trials_per_task,
    }
    cpu, began = _cpu_seconds(servers), time.perf_counter()
    run_id = servers.airflow.trigger("grid_search", conf)
    run = servers.airflow.wait("grid_search", run_id, 3600)
    wall, cpu = time.perf_counter() - began, _cpu_seconds(servers) - cpu
    if run["state"] != "success":
        log = servers.airflow.log("grid_search", run_id, "summarise")
        raise RuntimeError(f"{name}: the run is {run['state']}:\n{log}")
    summary = servers.airflow.result("grid_search", run_id, "summarise")
    if summary["trials"] != {FINISHED: case.trials}:
        raise RuntimeError(f"{name}: its trials are {summary['trials']}")
    tasks = len(servers.airflow.result("grid_search", run_id, "plan"))
    result = Run(wall, cpu, _work_seconds(servers, name), tasks)
    print(f"  {name}: {wall:.1f} s in {tasks} tasks", flush=True)
    return result


def _new_dataset(home: Path, name: str) -> Path:
    """A small file whose content nobody has trained on: nothing is known of its trials' times."""
    path = home / f"{name}.csv"
    path.write_text(
        "x,y\n" + "".join(f"{i}.{zlib.crc32(name.encode())},{i % 2}\n" for i in range(20))
    )
    return path


def _cpu_seconds(servers: Servers) -> float:
    """CPU time of the servers and of all that they have started, ended processes included."""
    total = 0.0
    for process in servers.all_processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _work_seconds(servers: Servers, experiment: str) -> float:
    query = (
        sa.select(sa.func.sum(Metric.number))
        .join(Trial, Trial.id == Metric.trial_id)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Metric.name == "work_s", Experiment.name == experiment)
    )
    with Database(servers.settings.store).read() as connection:
        return connection.execute(query).scalar_one()


def run_peer(name: str, case: Case) -> float:
    """Wall seconds of a peer for a case, from the call to its end."""
    python = python_of("optuna", OPTUNA) if name == "Optuna" else sys.executable
    command = [python, "-m", "bench.grid_peers", name, str(case.trials), str(case.seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-500:]}")
    wall = json.loads(done.stdout.splitlines()[-1])["wall_s"]
    print(f"  {name}, {case.name}: {wall:.1f} s", flush=True)
    return wall


def measure(size: str) -> dict:
    """Run every case; the results as they are written."""
    walls: dict[str, dict[str, float]] = {}
    ours: dict[str, Run] = {}
    home = Path(tempfile.mkdtemp(prefix="mled-bench-"))
    dags = {"AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "bench" / "grid_dags")}
    try:
        with Servers(home, dags, workers=WORKERS) as servers:
            one = Case("one", 1, 0.0, ())
            run_ours(servers, "warm-up", one)
            start_s = min(run_ours(servers, f"start {i}", one).wall_s for i in range(3))
            for case in cases(size):
                for repeat in range(case.repeats):
                    name = f"{case.name} ({repeat + 1})"
                    run = run_ours(servers, name, case)
                    ours[case.name] = min(ours.get(case.name, run), run, key=lambda r: r.wall_s)
                    found = walls.setdefault(case.name, {})
                    _keep_least(found, "ours", run.wall_s)
                    for peer in case.peers:
                        if peer == ONE_TASK:
                            wall = run_ours(servers, f"{name}, one a task", case, 1).wall_s
                        else:
                            wall = run_peer(peer, case)
                        _keep_least(found, peer, wall)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    _show(cases(size), walls, ours, start_s)
    short, long, many = (walls[name] for name in ("50 ms", "5 s", "no-op, many"))
    return {
        "workers": WORKERS,
        "start_s": start_s,
        "wall_vs_joblib_50ms": (short["ours"] - start_s) / short["joblib"],
        "wall_vs_joblib_50ms_with_start": short["ours"] / short["joblib"],
        "wall_vs_joblib_5s": (long["ours"] - start_s) / long["joblib"],
        "wall_vs_joblib_5s_with_start": long["ours"] / long["joblib"],
        "noop_1000_s": walls["no-op"]["ours"],
        "noop_10000_s": many["ours"],
        "noop_growth": many["ours"] / walls["no-op"]["ours"],
        "train_share_5s": ours["5 s"].work_s / ours["5 s"].cpu_s,
        "core_use_5s": ours["5 s"].work_s / (ours["5 s"].wall_s * WORKERS),
        "one_task_per_trial_vs_ours_50ms": short[ONE_TASK] / short["ours"],
        "wall_s": walls,
    }


def _keep_least(found: dict[str, float], who: str, wall: float) -> None:
    found[who] = min(wall, found.get(who, wall))


def _show(measured: list[Case], walls: dict, ours: dict[str, Run], start_s: float) -> None:
    rows = []
    for case in measured:
        rows.append([f"{case.trials:,} x {case.name}", "ideal", case.ideal_s, "", "", ""])
        run = ours[case.name]
        for who, wall in walls[case.name].items():
            over = wall / case.ideal_s if case.ideal_s else ""
            each = (wall - case.ideal_s) / case.trials * 1000
            share = f"{run.work_s / run.cpu_s:.0%}" if who == "ours" and case.ideal_s else ""
            rows.append(["", who, wall, over, each, share])
    header = ["trials", "who", "wall s", "x ideal", "overhead ms/trial", "CPU in training"]
    report.table(f"A grid of one no-op trial takes {start_s:.1f} s", header, rows)


if __name__ == "__main__":
    # Stopped, it stops its servers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    size = os.environ.get("SIZE", "")
    results = measure(size)
    if size != "small":
        report.write("grid", results, {"optuna": OPTUNA.partition("==")[2]})
