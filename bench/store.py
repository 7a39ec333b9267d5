"""The store beside MLflow's SQLite store: rates, bytes, and what a training loop feels.

Every comparison is made side by side, in turns, and the median of the turns is reported.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import peers, report

WRITER = Path(__file__).with_name("store_writers.py")
MLFLOW = "mlflow==3.17.2"
WRITERS = (1, 2, 4, 8)
STEPS = 333  # three metrics a step: 999 points a trial
LOOP_STEPS, LOOP_STEP_S = 3000, 0.001
# Mode -> trials a writer; MLflow's are fewer, since it would take hours otherwise.
OURS = {"step": 60, "step, durable": 4, "batch": 60}
THEIRS = {"step": 1, "batch": 4}
ROUNDS = {"default": 3, "full": 7}


class Store:
    """A fresh store of one library, and how to count what is in it."""

    def __init__(self, library: str, python: str, folder: str):
        self.library, self.python = library, python
        self.path = Path(folder) / f"{library}.db"
        self.environment = dict(os.environ, MLED_STORE_URL=f"sqlite:///{self.path}")
        self.environment |= {
            "MLED_HOME": folder,
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.path}",
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "MLFLOW_ENABLE_TELEMETRY": "false",
            "DO_NOT_TRACK": "true",
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if library == "mlflow":
            make = "import mlflow; mlflow.MlflowClient().create_experiment('bench')"
        else:
            make = "import mled; mled.experiment('bench', dataset='d', model='m')"
        done = subprocess.run(
            [python, "-c", make], env=self.environment, cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{library}: {done.stderr[-2000:]}")

    def write(self, mode: str, writers: int, trials: int) -> dict:
        """Let writers loose at once; points a second, errors, and points that are missing."""
        before = self.points()
        processes = [
            subprocess.Popen(
                [self.python, WRITER, self.library, mode, str(n), str(trials), str(STEPS)],
                env=self.environment | {"WRITER": str(n)},
                cwd=self.path.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(writers)
        ]
        for process in processes:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{self.library}: a writer did not start")
        warm = self.points()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [json.loads(process.communicate()[0]) for process in processes]
        written = self.points() - warm
        wanted = writers * trials * STEPS * 3
        seconds = max(r["ended"] for r in results) - min(r["began"] for r in results)
        return {
            "rate": written / seconds,
            "errors": [error for r in results for error in r["errors"]],
            "lost": wanted - written if before <= warm else -1,
        }

    def points(self) -> int:
        table = "metrics" if self.library == "mlflow" else "metric"
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        finally:
            connection.close()

    def bytes(self) -> int:
        """The size of the database file with its log folded in."""
        connection = sqlite3.connect(self.path, timeout=60)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return self.path.stat().st_size


def rates(pythons: dict[str, str], rounds: int) -> tuple[dict, dict]:
    """Medians of points a second by library, mode and writers; and all errors and losses."""
    measured: dict[tuple, list[float]] = {}
    trouble: dict[tuple, dict] = {}
    for turn in range(rounds):
        for writers in WRITERS:
            for library, modes in (("ours", OURS), ("mlflow", THEIRS)):
                for mode, trials in modes.items():
                    with tempfile.TemporaryDirectory() as folder:
                        store = Store(library, pythons[library], folder)
                        result = store.write(mode, writers, trials)
                    key = (library, mode, writers)
                    measured.setdefault(key, []).append(result["rate"])
                    bad = trouble.setdefault(key, {"errors": 0, "lost": 0})
                    bad["errors"] += len(result["errors"])
                    bad["lost"] += result["lost"]
        print(f"  round {turn + 1} of {rounds} done", flush=True)
    return {key: statistics.median(values) for key, values in measured.items()}, trouble


def bytes_a_point(pythons: dict[str, str]) -> dict[str, float]:
    """Bytes on disk for a point, everything in the store included, less an empty store."""
    found = {}
    for library, trials in (("ours", 400), ("mlflow", 10)):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(library, pythons[library], folder)
            empty = store.bytes()
            store.write("batch", 2, trials)
            found[library] = (store.bytes() - empty) / store.points()
    return found


def loop_slowdown(rounds: int) -> float:
    """Wall time of a loop of 1 ms steps that logs three metrics, over that of one that does not.

    The step burns processor time, as training does; a sleeping one would hide the cost.
    """
    import mled

    study = mled.experiment("loop", dataset="d", model="m")
    metrics = {"loss": 0.5, "accuracy": 0.25, "f1": 0.125}

    def loop(log) -> float:
        began = time.perf_counter()
        for step in range(LOOP_STEPS):
            until = time.thread_time() + LOOP_STEP_S
            while time.thread_time() < until:
                pass
            if log is not None:
                log(metrics, step=step)
        return time.perf_counter() - began

    ratios = []
    for turn in range(rounds):
        plain = loop(None)
        with study.trial({"turn": turn}) as trial:
            logged = loop(trial.log)
        ratios.append(logged / plain)
    return statistics.median(ratios)


def main() -> None:
    rounds = ROUNDS["full" if os.environ.get("SIZE") == "full" else "default"]
    pythons = {"ours": sys.executable, "mlflow": peers.python_of("mlflow", MLFLOW)}
    medians, trouble = rates(pythons, rounds)
    size = bytes_a_point(pythons)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MLED_HOME": folder, "MLED_STORE_URL": f"sqlite:///{folder}/loop.db"}
        slowdown = loop_slowdown(rounds)
    modes = [("ours", mode) for mode in OURS] + [("mlflow", mode) for mode in THEIRS]
    report.table(
        f"Points a second (medians of {rounds})",
        ["", *(f"{n} writers" for n in WRITERS), "errors", "lost"],
        [
            [
                f"{'MLED' if library == 'ours' else 'MLflow'}, {mode}",
                *(medians[library, mode, n] for n in WRITERS),
                sum(trouble[library, mode, n]["errors"] for n in WRITERS),
                sum(trouble[library, mode, n]["lost"] for n in WRITERS),
            ]
            for library, mode in modes
        ],
    )

    def against(mode: str, theirs: str) -> dict[str, float]:
        return {
            str(n): round(medians["ours", mode, n] / medians["mlflow", theirs, n], 1)
            for n in WRITERS
        }

    step, durable = against("step", "step"), against("step, durable", "step")
    batch = against("batch", "batch")
    report.table(
        "Times MLflow's rate",
        ["", *(f"{n} writers" for n in WRITERS)],
        [
            ["a call per step (buffered for up to 2 s)", *step.values()],
            ["a call per step, each durable", *durable.values()],
            ["a batch of 999 points, durable", *batch.values()],
        ],
    )
    report.table(
        "Else",
        ["", "MLED", "MLflow"],
        [
            ["bytes a point", size["ours"], size["mlflow"]],
            ["loop of 1 ms steps, with logging over without", slowdown, "-"],
        ],
    )
    report.write(
        "store",
        {
            "points_per_s_step_vs_mlflow": step,
            "points_per_s_step_durable_vs_mlflow": durable,
            "points_per_s_batch_vs_mlflow": batch,
            "points_per_s": {
                f"{library}, {mode}": {str(n): round(medians[library, mode, n]) for n in WRITERS}
                for library, mode in modes
            },
            "loop_slowdown": round(slowdown - 1, 4),
            "bytes_per_point": {name: round(value, 1) for name, value in size.items()},
            "errors_8_writers": sum(trouble["ours", mode, 8]["errors"] for mode in OURS),
            "lost_8_writers": sum(trouble["ours", mode, 8]["lost"] for mode in OURS),
            "mlflow_errors_8_writers": sum(trouble["mlflow", m, 8]["errors"] for m in THEIRS),
            "mlflow_lost_8_writers": sum(trouble["mlflow", m, 8]["lost"] for m in THEIRS),
        },
        packages={"mlflow": MLFLOW.split("==")[1]},
    )


if __name__ == "__main__":
    main()
