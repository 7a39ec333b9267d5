"""The warehouse: what a run costs by the size of the mart and of the change, and what asking does.

A default run takes marts of 1 and 10 million points, `SIZE=full` one of 100 million as well. Where
`BENCH_FOLDER` is set, what is done is kept there, so that a run that was stopped goes on.

The alternatives are what a first version of such a system does: building everything anew, `merge`,
a pandas join with de-duplication, and a folder of JSON files; and MLflow's client on the same
trials.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import sqlalchemy as sa

from bench import peers, report
from mled import settings as mled_settings
from mled.settings import Settings
from mled.store import connect, values
from mled.store.schema import (
    Attempt,
    Author,
    Dataset,
    Experiment,
    Hyperparameter,
    Model,
    Trial,
)

MLFLOW = "mlflow==3.17.2"
PEER = Path(__file__).with_name("warehouse_mlflow.py")
STEPS, METRICS = 200, ("accuracy", "loss", "val_accuracy", "val_loss")
CURVES = 1_000
POINTS = STEPS * len(METRICS)  # of a trial
EXPERIMENTS = 20
DELTAS = (0, 10_000, 1_000_000)
ASKED_TRIALS = 10_000
REPEATS = 5


class Pieces:
    """The parts of the benchmark that are done, in a file: one that was stopped goes on there."""

    def __init__(self, folder: Path):
        self._path = folder / "pieces.json"
        self._done = json.loads(self._path.read_text()) if self._path.exists() else {}

    def __call__(self, name: str, do: Callable, *arguments):
        """What `do` returned, now or in an earlier run; it has to fit into JSON."""
        if name not in self._done:
            print(f"{name} …", end=" ", flush=True)
            began = time.perf_counter()
            self._done[name] = do(*arguments)
            print(f"{time.perf_counter() - began:,.0f} s", flush=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._done))
            new.replace(self._path)
        return self._done[name]


def main() -> None:
    with _folder() as folder:
        results = measure(folder, full=os.environ.get("SIZE") == "full")
    _summarise(results)
    _show(results)
    report.write("warehouse", results)


@contextmanager
def _folder() -> Iterator[Path]:
    """Where the benchmark works: `BENCH_FOLDER`, which it leaves for the next run, or a new one."""
    kept = os.environ.get("BENCH_FOLDER")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="mled-bench-") as name:
        yield Path(name)


def measure(folder: Path, full: bool) -> dict:
    """All pieces; with `full`, on large marts too."""
    piece = Pieces(folder)
    runs: dict[str, dict] = {}
    results: dict = {"runs": runs, "bytes_per_point": {}}
    for size, points in (("1M", 1_000_000), ("10M", 10_000_000)):
        settings = _settings(folder / size)
        trials = points // POINTS
        piece(f"{size}: filling the store", _fill, settings, trials)
        runs[size] = {"first load": piece(f"{size}: first load", _first_load, settings)}
        results["bytes_per_point"][size] = piece(
            f"{size}: bytes a point", _bytes_per_point, settings
        )
        if size == "10M":
            for name, ask in QUESTIONS_OF.items():
                results[f"query_ms{name}"] = dict(piece(f"questions{name}", ask, settings, folder))
            results["json_bytes_per_point"] = results["query_ms_json"].pop("bytes")
            if full:
                piece("100M: copying the mart", _copy, settings, folder / "100M")
        runs[size] |= _deltas(piece, size, settings, trials)
        if size == "1M":
            results["pandas"] = piece("pandas", _in_process, _pandas, settings, folder)
    results["strategies"] = piece("strategies", _strategies, settings)
    if full:
        settings = _settings(folder / "100M")
        trials = piece("100M: multiplying the mart", _in_process, _multiply, settings, trials, 10)
        piece("100M: settling", timed_etl, settings)
        runs["100M"] = _deltas(piece, "100M", settings, trials)
        settings = _settings(folder / "50M")
        piece("50M: filling the store", _fill, settings, 50_000_000 // POINTS)
        results["extract_50m"] = piece("50M: extraction", _in_process, _extract, settings)
    return results


def _settings(home: Path) -> Settings:
    os.environ["MLED_HOME"] = str(home)
    return mled_settings.load({"MLED_HOME": str(home)})


def _deltas(piece: Pieces, size: str, settings: Settings, trials: int) -> dict[str, dict]:
    """Runs of the pipeline over one change after the other, on a mart of so many trials."""
    runs = {}
    for delta in DELTAS:
        name = f"delta {delta:,}"
        trials += piece(f"{size}: writing {name}", change, settings, trials, delta)
        runs[name] = piece(f"{size}: {name}", timed_etl, settings)
    return runs


def _copy(settings: Settings, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(settings.home, home, symlinks=True)


def _multiply(settings: Settings, trials: int, times: int) -> int:
    """Make a mart of `trials` trials so many times as large; the number of its trials then.

    To load a tenfold store would take the better part of an hour, and what is measured on it are
    changes: the rows of the mart are copied under other numbers of trials, and the store gets
    the newest trials only, which the next run of the pipeline brings in the ordinary way.
    """
    with duckdb.connect(str(settings.build_file)) as connection:
        connection.execute("SET enable_progress_bar = false")
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.columns JOIN "
            "information_schema.tables USING (table_schema, table_name) "
            "WHERE column_name = 'trial_id' AND table_type = 'BASE TABLE'"
        ).fetchall()
        for schema, table in tables:
            for n in range(1, times):
                connection.execute(
                    f"INSERT INTO {schema}.{table} "
                    f"SELECT * REPLACE (trial_id + {n * trials} AS trial_id) "
                    f"FROM {schema}.{table} WHERE trial_id <= {trials}"
                )
            connection.execute("CHECKPOINT")
    newest = max(DELTAS) // POINTS
    write_trials(settings, times * trials - newest, newest)
    return times * trials


def _extract(settings: Settings) -> dict:
    """The first extraction of a store: rows, seconds, peak megabytes."""
    from mled.warehouse.extract import extract

    shutil.rmtree(settings.staging, ignore_errors=True)
    began, cpu = time.perf_counter(), time.process_time()
    batch = extract(settings)
    return {
        "rows": batch.rows,
        "s": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb": _peak_mb(),
    }


def _params(number: int) -> dict[str, object]:
    rng = random.Random(number)
    return {
        "lr": rng.choice([1e-4, 3e-4, 1e-3, 3e-3, 1e-2]),
        "batch_size": rng.choice([16, 32, 64, 128]),
        "dropout": rng.choice([0.0, 0.1, 0.3, 0.5]),
        "depth": rng.randrange(2, 10),
        "optimizer": rng.choice(["adam", "sgd", "rmsprop"]),
        "augment": rng.random() < 0.5,
    }


def _series(number: int) -> list[tuple[str, int, float]]:
    """The points of a trial, sorted: four noisy curves, those of every `CURVES`-th trial alike."""
    return _curves(number % CURVES)


@functools.lru_cache(maxsize=CURVES)
def _curves(number: int) -> list[tuple[str, int, float]]:
    rng = random.Random(-number - 1)
    level, speed = rng.random(), 20 + 100 * rng.random()
    rises = [level * step / (step + speed) for step in range(STEPS)]
    noises = [rng.random() / 50 for _ in range(STEPS)]
    return [
        (metric, step, (rise if "accuracy" in metric else 1 - rise) + noise)
        for metric in METRICS
        for step, (rise, noise) in enumerate(zip(rises, noises, strict=True))
    ]


def _fill(settings: Settings, trials: int) -> None:
    """Fill the store up to so many trials, from where an earlier run was stopped."""
    with connect(settings).read() as connection:
        first = connection.execute(sa.select(sa.func.count()).select_from(Trial)).scalar()
    write_trials(settings, first, trials - first)


def write_trials(settings: Settings, first: int, count: int) -> None:
    """Write finished trials, numbered from `first`, as so many finished grids would."""
    database = connect(settings)
    with database.write() as connection:
        if first == 0:
            connection.execute(sa.insert(Author).values(name="Ada"))
            connection.execute(sa.insert(Dataset).values(name="digits", version="v1"))
            connection.execute(sa.insert(Model).values(name="mlp"))
            for n in range(EXPERIMENTS):
                connection.execute(
                    sa.insert(Experiment).values(
                        name=f"grid {n}", author_id=1, dataset_id=1, model_id=1,
                        objective="val_accuracy",
                    )
                )  # fmt: skip
    for begin in range(first, first + count, 500):
        numbers = range(begin, min(begin + 500, first + count))
        trials, hyperparameters, attempts, points = [], [], [], []
        for n in numbers:
            encoded = values.encode_hyperparameters(_params(n))
            times = {"started_at": 10**15 + n, "ended_at": 10**15 + n + 60_000_000}
            trials.append(
                {
                    "id": n + 1,
                    "experiment_id": n % EXPERIMENTS + 1,
                    "identity": values.identity(encoded),
                    "seed": n,
                    "hyperparameters": values.as_json(encoded),
                    "state": "finished",
                    "attempt": 1,
                    **times,
                }
            )
            hyperparameters += [
                {"trial_id": n + 1, "name": name, **value._asdict()}
                for name, value in encoded.items()
            ]
            attempts.append(
                {"trial_id": n + 1, "number": 1, "state": "finished", "heartbeat_at": 10**15,
                 "duration_s": 60.0, "host": "here", "pid": 1, **times}
            )  # fmt: skip
            points += [(n + 1, metric, step, value, None) for metric, step, value in _series(n)]
        with database.write() as connection, database.ticket(connection) as stamp:
            stamps = {"created_at": stamp, "updated_at": stamp}
            connection.execute(sa.insert(Trial), [row | stamps for row in trials])
            connection.execute(sa.insert(Hyperparameter), [r | stamps for r in hyperparameters])
            connection.execute(sa.insert(Attempt), [row | stamps for row in attempts])
            database.dialect.write_points(connection, points, stamp)


def change(settings: Settings, trials: int, points: int) -> int:
    """Write a delta: 90% in new trials, 10% again in the latest old ones; the trials it adds."""
    if not points:
        return 0
    added = max(round(points * 0.9 / POINTS), 1)
    again = max(points // 10 // POINTS, 1)
    write_trials(settings, trials, added)
    database = connect(settings)
    with database.write() as connection, database.ticket(connection) as stamp:
        for n in range(trials - again, trials):
            rows = [(n + 1, metric, step, value / 2, None) for metric, step, value in _series(n)]
            database.dialect.write_points(connection, rows, stamp)
    return added


def _in_process(function: Callable, *arguments):
    """Call a function in a new process, whose memory is only its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _first_load(settings: Settings) -> dict:
    for folder in (settings.staging, settings.warehouse):
        shutil.rmtree(folder, ignore_errors=True)
    return timed_etl(settings)


def timed_etl(settings: Settings) -> dict:
    """One run of the pipeline in a process of its own: seconds and peak megabytes by stage."""
    return _in_process(_etl_here, settings)


def _etl_here(settings: Settings) -> dict:
    from mled.warehouse.files import exclusive
    from mled.warehouse.pipeline import Run

    stages = {}
    load = round(os.getloadavg()[0], 1)
    run = Run(settings, f"bench {time.time_ns()}")
    began = time.perf_counter()
    with exclusive(settings):
        run.begin()
        for name, stage in (("extract", run.extract), ("dbt", run.build), ("publish", run.publish)):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            start, cpu = time.perf_counter(), time.process_time()
            stage()
            stages[name] = {
                "s": round(time.perf_counter() - start, 2),
                "cpu_s": round(time.process_time() - cpu, 2),
                "peak_mb": _peak_mb(),
            }
        rows = run.end().rows_changed
    total = time.perf_counter() - began
    ran = json.loads((settings.dbt_target / "run_results.json").read_text())["results"]
    models = {
        r["unique_id"].split(".")[2]: round(r["execution_time"], 2)
        for r in ran
        if r["unique_id"].startswith("model.")
    }
    tests = sum(r["execution_time"] for r in ran if r["unique_id"].startswith("test."))
    rest = stages["dbt"]["s"] - sum(models.values()) - tests
    return {
        "rows": rows,
        "load_before": load,
        "s": round(total, 2),
        "s_without_publish": round(total - stages["publish"]["s"], 2),
        "cpu_s": round(time.process_time(), 2),
        "peak_mb": max(stage["peak_mb"] for stage in stages.values()),
        "stages": stages,
        "dbt_start_s": round(rest, 2),
        "dbt_tests_s": round(tests, 2),
        "models_s": dict(sorted(models.items(), key=lambda item: -item[1])),
    }


def _peak_mb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def _bytes_per_point(settings: Settings) -> dict[str, float]:
    """Bytes that each table takes on the disk when it is alone in a file."""
    result = {}
    for table in ("intermediate.int_metrics", "marts.metrics_wide"):
        alone = settings.home / "alone.duckdb"
        with duckdb.connect(str(alone)) as connection:
            connection.execute(f"ATTACH '{settings.build_file}' AS mart (READ_ONLY)")
            connection.execute(f"CREATE TABLE alone AS SELECT * FROM mart.{table}")
            rows = connection.execute("SELECT count(*) FROM alone").fetchone()[0]
        result[table] = round(alone.stat().st_size / rows, 1)
        alone.unlink()
    return result


def _strategies(settings: Settings) -> dict[str, float]:
    """CPU seconds to bring the newest delta into copies of the wide mart, by strategy."""
    result = {}
    copy = settings.home / "copy.duckdb"
    key = "trial_id, metric, step"
    for name, statements in (
        ("delete+insert", (
            f"DELETE FROM wide WHERE ({key}) IN (SELECT ({key}) FROM delta)",
            "INSERT INTO wide SELECT * FROM delta",
        )),
        ("merge", (
            f"MERGE INTO wide USING delta USING ({key}) "
            "WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT",
        )),
    ):  # fmt: skip
        with duckdb.connect(str(copy), config={"threads": 1}) as connection:
            connection.execute(f"ATTACH '{settings.build_file}' AS mart (READ_ONLY)")
            connection.execute("CREATE TABLE wide AS SELECT * FROM mart.marts.metrics_wide")
            connection.execute(
                "CREATE TEMP TABLE delta AS SELECT * FROM wide "
                "WHERE batch_id = (SELECT max(batch_id) FROM wide)"
            )
            connection.execute("CHECKPOINT")
            began = time.process_time()
            for statement in statements:
                connection.execute(statement)
            connection.execute("CHECKPOINT")
            result[name] = round(time.process_time() - began, 2)
        copy.unlink()
    return result


def _pandas(settings: Settings, folder: Path) -> dict:
    """What a first version does each hour: join all, de-duplicate on a composite key, write."""
    import sqlite3

    import pandas as pd

    began = time.perf_counter()
    with sqlite3.connect(settings.store.removeprefix("sqlite:///")) as connection:

        def read(table: str) -> pd.DataFrame:
            return pd.read_sql(f"SELECT * FROM {table}", connection)

        wide = (
            read("metric")
            .merge(read("trial"), how="left", left_on="trial_id", right_on="id",
                   suffixes=("", "_trial"))
            .merge(read("experiment"), how="left", left_on="experiment_id", right_on="id",
                   suffixes=("", "_experiment"))
            .merge(read("hyperparameter").pivot(index="trial_id", columns="name", values="number"),
                   how="left", left_on="trial_id", right_index=True)
        )  # fmt: skip
    wide = wide.drop_duplicates(["trial_id", "name", "step"], keep="last")
    wide.to_parquet(folder / "pandas.parquet")
    return {"rows": len(wide), "s": round(time.perf_counter() - began, 2), "peak_mb": _peak_mb()}


QUESTIONS = {
    "leaderboard": "SELECT trial_id, experiment, objective_value FROM marts.trials SEMI JOIN ("
    "SELECT trial_id FROM marts.trial_hyperparameter_metrics WHERE hyperparameter = 'lr' "
    "AND hyperparameter_number <= 0.001 INTERSECT "
    "SELECT trial_id FROM marts.trial_hyperparameter_metrics WHERE hyperparameter = 'optimizer' "
    "AND hyperparameter_value = 'adam') USING (trial_id) ORDER BY objective_value DESC LIMIT 20",
    "mean by value": "SELECT hyperparameter_value, avg(last_value) "
    "FROM marts.trial_hyperparameter_metrics "
    "WHERE hyperparameter = 'optimizer' AND metric = 'loss' GROUP BY 1",
    "correlations": "SELECT hyperparameter, corr(hyperparameter_number, last_value) "
    "FROM marts.trial_hyperparameter_metrics WHERE metric = 'val_accuracy' "
    "AND hyperparameter_kind IN ('number', 'integer') GROUP BY 1",
    "one curve": "SELECT step, value FROM marts.metrics_wide "
    "WHERE trial_id = 777 AND metric = 'loss' ORDER BY step",
    "200 curves": "SELECT trial_id, step, value FROM marts.metrics_wide "
    "WHERE trial_id BETWEEN 1001 AND 1200 AND metric = 'loss' ORDER BY ALL",
}


def _ask_mart(settings: Settings, folder: Path) -> dict[str, float]:
    """Milliseconds for each question to the published mart."""
    with duckdb.connect(str(settings.mart.resolve()), read_only=True) as connection:
        return {
            name: _median_ms(lambda sql=sql: connection.execute(sql).fetchall(), REPEATS)
            for name, sql in QUESTIONS.items()
        }


def _ask_json(settings: Settings, folder: Path) -> dict[str, float]:
    """Milliseconds for each question to JSON files, one for each trial; and bytes a point."""
    files = folder / "json"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    for n in range(ASKED_TRIALS):
        metrics: dict[str, list] = {metric: [] for metric in METRICS}
        for metric, _step, value in _series(n):
            metrics[metric].append(value)
        (files / f"{n + 1}.json").write_text(json.dumps({"params": _params(n), "metrics": metrics}))
    size = sum(path.stat().st_size for path in files.iterdir()) / (ASKED_TRIALS * POINTS)
    taken = {name: _median_ms(ask, 1) for name, ask in _json_questions(files).items()}
    shutil.rmtree(files)
    return taken | {"bytes": round(size, 1)}


def _median_ms(ask: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(taken), 2)


def _json_questions(files: Path) -> dict[str, Callable[[], object]]:
    def every() -> Iterator[tuple[int, dict]]:
        for path in files.iterdir():
            yield int(path.stem), json.loads(path.read_text())

    def leaderboard() -> list:
        fit = (
            (max(t["metrics"]["val_accuracy"]), n)
            for n, t in every()
            if t["params"]["lr"] <= 0.001 and t["params"]["optimizer"] == "adam"
        )
        return sorted(fit, reverse=True)[:20]

    def mean() -> dict:
        found: dict[str, list[float]] = {}
        for _, trial in every():
            found.setdefault(trial["params"]["optimizer"], []).append(trial["metrics"]["loss"][-1])
        return {value: statistics.fmean(losses) for value, losses in found.items()}

    def correlations() -> dict:
        rows = [(t["params"], t["metrics"]["val_accuracy"][-1]) for _, t in every()]
        results = [result for _, result in rows]
        return {
            name: statistics.correlation([params[name] for params, _ in rows], results)
            for name in ("lr", "batch_size", "dropout", "depth")
        }

    def curves(numbers: range) -> list:
        return [json.loads((files / f"{n}.json").read_text())["metrics"]["loss"] for n in numbers]

    return {
        "leaderboard": leaderboard,
        "mean by value": mean,
        "correlations": correlations,
        "one curve": lambda: curves(range(777, 778)),
        "200 curves": lambda: curves(range(1001, 1201)),
    }


def _ask_mlflow(settings: Settings, folder: Path) -> dict[str, float]:
    """The same trials in MLflow's own SQLite tables, asked through its client; milliseconds."""
    source = folder / "mlflow.jsonl"
    with source.open("w") as file:
        for n in range(ASKED_TRIALS):
            file.write(json.dumps([n + 1, n % EXPERIMENTS, _params(n), _series(n)]) + "\n")
    environment = dict(os.environ, MLFLOW_LOGGING_LEVEL="ERROR", MLFLOW_ENABLE_TELEMETRY="false")
    done = subprocess.run(
        [peers.python_of("mlflow", MLFLOW), PEER, source, folder / "mlflow.db"],
        env=environment, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    source.unlink()
    if done.returncode:
        raise RuntimeError(f"MLflow failed: {done.stderr[-2000:]}")
    (folder / "mlflow.db").unlink()
    return json.loads(done.stdout.splitlines()[-1])


QUESTIONS_OF = {"": _ask_mart, "_json": _ask_json, "_mlflow": _ask_mlflow}


def _summarise(results: dict) -> None:
    """Add the figures that the aims are stated in."""
    runs = results["runs"]
    by_size = {size: run["delta 1,000,000"] for size, run in runs.items()}
    results["empty_delta_s"] = {
        size: run["delta 0"]["s_without_publish"] for size, run in runs.items()
    }
    results["delta_1m_s"] = {size: run["s_without_publish"] for size, run in by_size.items()}
    results["publish_s"] = {size: run["stages"]["publish"]["s"] for size, run in by_size.items()}
    results["delta_1m_peak_mb"] = {size: run["peak_mb"] for size, run in by_size.items()}
    # Processor time tells the growth where others use the machine as well.
    cpu_s = {
        size: round(sum(run["stages"][stage]["cpu_s"] for stage in ("extract", "dbt")), 2)
        for size, run in by_size.items()
    }
    results["delta_1m_cpu_s"] = cpu_s
    for small, large in itertools.pairwise(runs):
        name = f"growth_{small.lower()}_to_{large.lower()}"
        results[name] = round(results["delta_1m_s"][large] / results["delta_1m_s"][small], 2)
        results[f"{name}_cpu"] = round(cpu_s[large] / cpu_s[small], 2)
    results["vs_pandas"] = round(results["pandas"]["s"] / runs["1M"]["delta 10,000"]["s"], 2)
    # The first load builds every model from staging, as a full refresh does.
    anew = sum(runs["10M"]["first load"]["stages"][stage]["s"] for stage in ("dbt", "publish"))
    results["vs_full_refresh"] = round(anew / runs["10M"]["delta 10,000"]["s"], 2)
    wide = {size: b["marts.metrics_wide"] for size, b in results["bytes_per_point"].items()}
    results["bytes_per_point_wide"] = wide
    results["bytes_vs_json"] = round(results["json_bytes_per_point"] / wide["10M"], 1)
    for peer in ("json", "mlflow"):
        results[f"query_vs_{peer}"] = {
            name: round(results[f"query_ms_{peer}"][name] / ms, 1)
            for name, ms in results["query_ms"].items()
        }


def _show(results: dict) -> None:
    stages = ("extract", "dbt", "publish")
    report.table(
        "Runs of the pipeline, seconds",
        ["mart", "change", "rows", "all", "CPU", *stages, "dbt start", "tests", "peak MB"],
        [
            [
                *(size, name, r["rows"], r["s"], r["cpu_s"]),
                *(r["stages"][stage]["s"] for stage in stages),
                *(r["dbt_start_s"], r["dbt_tests_s"], r["peak_mb"]),
            ]
            for size, by_name in results["runs"].items()
            for name, r in by_name.items()
        ],
    )
    report.table(
        "Alternatives",
        ["what", "seconds"],
        [
            ["pandas join of 1M points and its changes", results["pandas"]["s"]],
            *([f"{n} of the 1M delta into 10M (CPU)", s] for n, s in results["strategies"].items()),
        ],
    )
    report.table(
        f"Questions over {ASKED_TRIALS:,} trials x {STEPS} steps x {len(METRICS)} metrics, ms",
        ["question", "mart", "JSON files", "MLflow's client"],
        [
            [name, ms, results["query_ms_json"][name], results["query_ms_mlflow"][name]]
            for name, ms in results["query_ms"].items()
        ],
    )
    report.table("Bytes a point", ["table", *results["bytes_per_point"]], [
        [table, *(sizes[table] for sizes in results["bytes_per_point"].values())]
        for table in ("intermediate.int_metrics", "marts.metrics_wide")
    ])  # fmt: skip


if __name__ == "__main__":
    main()
