"""What many machines cost and bring: executors, PostgreSQL beside SQLite, and moving there.

    make bench NAME=scale             under ten minutes
    make bench NAME=scale SIZE=small  two minutes, to see that it works

Everything runs on this one machine, with as many trials at a time as it has cores, however the
workers are called: so the rates say what the executors themselves cost, not what more machines
would bring. A worker of another machine is a process with a home of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import sqlalchemy as sa

from bench import report
from bench.grid import Case, Run, run_ours
from bench.servers import Servers
from bench.store import STEPS, Library
from bench.warehouse import POINTS, change, timed_etl, write_trials
from mled import settings as mled_settings
from mled.airflow_api import Airflow
from mled.settings import CELERY, EDGE, LOCAL, ROOT, Settings
from mled.store import connect
from mled.store.move import move
from tests import postgres
from tests.cluster import cluster, missing

CORES = 2
CLIENTS = 16
DATABASES = ("sqlite", "postgresql")
ENVIRONMENT = {"AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "bench" / "grid_dags")}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    cases: tuple[Case, Case]
    trials_per_client: int
    points: int
    delta: int


SIZES = {
    "small": Size((Case("50 ms", 20, 0.05, ()), Case("1 s", 4, 1.0, ())), 2, 80_000, 8_000),
    "": Size((Case("50 ms", 200, 0.05, ()), Case("1 s", 16, 1.0, ())), 20, 500_000, 50_000),
}


@dataclass(frozen=True)
class Installation:
    """Servers with the databases that they use, in which CPU time goes as well."""

    servers: Servers

    @property
    def settings(self) -> Settings:
        return self.servers.settings

    @property
    def airflow(self) -> Airflow:
        return self.servers.airflow

    def all_processes(self) -> list[psutil.Process]:
        started = psutil.Process().children()
        redis = [process for process in started if process.name() == "redis-server"]
        return [*self.servers.all_processes(), *redis, *_postgres(self.settings.store_url)]


def _postgres(url: str) -> list[psutil.Process]:
    """The processes of the PostgreSQL server of a URL; none for SQLite."""
    port = str(sa.make_url(url).port) if url else None
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and port in process.info["cmdline"]:
            return [process, *process.children(recursive=True)]
    return []


# Name -> how it is started: executor, machines, and trials at a time on each.
EXECUTORS = {
    "LocalExecutor, SQLite": None,
    "LocalExecutor, PostgreSQL": (LOCAL, 1, CORES),
    "Celery, 1 worker": (CELERY, 1, CORES),
    "Celery, 2 workers": (CELERY, 2, CORES // 2),
    "Edge, 2 workers": (EDGE, 2, CORES // 2),
}


def executors(size: Size) -> dict[str, dict[str, Run]]:
    """Executor → case → its run."""
    found: dict[str, dict[str, Run]] = {}
    for name, arguments in EXECUTORS.items():
        home = Path(tempfile.mkdtemp(prefix="mled-bench-"))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            if arguments is None:
                started = Servers(home, ENVIRONMENT, workers=CORES)
            else:
                executor, machines, workers = arguments
                started = cluster(home, executor, machines, workers, environment=ENVIRONMENT)
            print(f"\n{name}", flush=True)
            installation = Installation(stack.enter_context(started))
            run_ours(installation, "warm-up", Case("one", CORES, 0.0, ()))
            found[name] = {
                case.name: run_ours(installation, case.name, case) for case in size.cases
            }
    return found


def _postgres_cpu_seconds(url: str) -> float:
    """CPU time of a PostgreSQL server and of all that has ended in it; 0 for SQLite."""
    total = 0.0
    for process in _postgres(url):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def store_rates(size: Size) -> dict[str, dict[str, dict]]:
    """Database → way of writing → points a second, errors, and points that are missing."""
    found: dict[str, dict[str, dict]] = {database: {} for database in DATABASES}
    with postgres.server(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        library = Library("ours", sys.executable, Path(folder))
        for mode, clients, trials in (
            ("batch", 1, size.trials_per_client),
            ("batch", CLIENTS, size.trials_per_client),
            ("step, durable", CLIENTS, 1),
        ):
            for database in DATABASES:
                url = postgres.new_database(server) if database == "postgresql" else ""
                store = library.store(url)
                cpu = _postgres_cpu_seconds(url)
                result = store.write(mode, clients, trials)
                cpu = result["cpu_s"] + _postgres_cpu_seconds(url) - cpu
                way = f"{mode}, {clients} clients"
                points = clients * trials * STEPS * 3
                print(f"  {database}, {way}: {result['rate']:,.0f} points/s", flush=True)
                found[database][way] = {
                    "points_per_s": round(result["rate"]),
                    "cpu_us_per_point": round(cpu / points * 1e6, 1),
                    "load_after": round(os.getloadavg()[0], 1),
                    "errors": len(result["errors"]),
                    "lost": result["lost"],
                }
        library.close()
    return found


def pipelines(size: Size) -> tuple[dict[str, dict], dict[str, float]]:
    """Database → the pipeline's first run and its run for a delta; and what the move took."""
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as name, postgres.server(durable=True) as server:
        os.environ["MLED_HOME"] = name
        settings = mled_settings.load({"MLED_HOME": name})
        trials = size.points // POINTS
        write_trials(settings, 0, trials)
        connect(settings).engine.dispose()
        url = postgres.new_database(server)
        stores = {
            "sqlite": settings,
            "postgresql": replace(settings, home=Path(name) / "postgresql", store_url=url),
        }
        moved = _timed_move(replace(settings, home=Path(name) / "moving"), settings, url, size)
        for database, settings in stores.items():
            first = timed_etl(settings)
            change(settings, trials, size.delta)
            found[database] = {"first load": first, f"delta {size.delta:,}": timed_etl(settings)}
            for run, result in found[database].items():
                print(f"  {database}, {run}: {result['s']:.1f} s", flush=True)
    return found, moved


def _timed_move(copy: Settings, original: Settings, url: str, size: Size) -> dict[str, float]:
    file = Path(copy.store.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True)
    shutil.copyfile(original.store.removeprefix("sqlite:///"), file)
    began = time.perf_counter()
    moved = move(copy, url)
    seconds = time.perf_counter() - began
    print(f"  moving {size.points:,} points: {seconds:.1f} s", flush=True)
    with connect(replace(copy, store_url=url)).read() as connection:
        total = "SELECT pg_total_relation_size('metric')"
        metric_bytes = connection.exec_driver_sql(total).scalar_one()
    return {
        "s": round(seconds, 1),
        "points_per_s": round(size.points / seconds),
        "writers_waited_s": round(moved.stop_s, 2),
        "bytes_per_point_sqlite": round(file.stat().st_size / size.points, 1),
        "bytes_per_point_postgresql": round(metric_bytes / size.points, 1),
    }


def measure(size: Size) -> dict:
    """Run everything; the results as they are written."""
    print("The store's write rate", flush=True)
    rates = store_rates(size)
    print("\nThe pipeline", flush=True)
    etl, moved = pipelines(size)
    runs = executors(size)
    short, long = size.cases
    results = {
        "cores": CORES,
        "trials_per_s": {
            name: round(short.trials / run[short.name].wall_s, 1) for name, run in runs.items()
        },
        "train_share": {
            name: round(run[long.name].work_s / run[long.name].cpu_s, 3)
            for name, run in runs.items()
        },
        "store_points_per_s_16_clients": rates["postgresql"][f"batch, {CLIENTS} clients"][
            "points_per_s"
        ],
        "etl_s_postgres_vs_sqlite": {
            run: {database: etl[database][run]["s"] for database in DATABASES}
            for run in etl["sqlite"]
        },
        "store": rates,
        "pipeline": etl,
        "move": moved,
        "cpu_s_per_trial_beside_training": {
            name: {
                case.name: round((run[case.name].cpu_s - run[case.name].work_s) / case.trials, 3)
                for case in size.cases
            }
            for name, run in runs.items()
        },
        "runs": {
            name: {case: asdict(run) for case, run in by_case.items()}
            for name, by_case in runs.items()
        },
    }
    _show(size, results, runs)
    return results


def _show(size: Size, results: dict, runs: dict[str, dict[str, Run]]) -> None:
    short, long = size.cases
    report.table(
        f"Grids on {CORES} cores: {short.trials} trials of {short.name}, {long.trials} of "
        f"{long.name}",
        [
            "executor",
            f"{short.name}: trials/s",
            "wall s",
            f"{long.name}: x ideal",
            "CPU in training",
        ],
        [
            [
                name,
                results["trials_per_s"][name],
                run[short.name].wall_s,
                run[long.name].wall_s / long.ideal_s,
                f"{results['train_share'][name]:.0%}",
            ]
            for name, run in runs.items()
        ],
    )
    report.table(
        "Points a second into the store, in batches of 999 points or of the 3 of a step",
        ["database", *results["store"]["sqlite"], "CPU us/point, batch", "errors", "lost"],
        [
            [
                database,
                *(result["points_per_s"] for result in rates.values()),
                rates[f"batch, {CLIENTS} clients"]["cpu_us_per_point"],
                sum(result["errors"] for result in rates.values()),
                sum(result["lost"] for result in rates.values()),
            ]
            for database, rates in results["store"].items()
        ],
    )
    report.table(
        f"The pipeline from {size.points:,} points, seconds",
        ["run", *DATABASES, *(f"extract, {database}" for database in DATABASES)],
        [
            [
                run,
                *seconds.values(),
                *(results["pipeline"][d][run]["stages"]["extract"]["s"] for d in DATABASES),
            ]
            for run, seconds in results["etl_s_postgres_vs_sqlite"].items()
        ],
    )


if __name__ == "__main__":
    # Stopped, it stops its servers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = os.environ.get("SIZE", "")
    if reason := missing(CELERY):
        sys.exit(reason)
    measured = measure(SIZES[chosen])
    if chosen != "small":
        report.write("scale", measured)
