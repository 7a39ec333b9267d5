"""The store beside MLflow's SQLite store: rates, bytes, and what a training loop feels.

Every comparison is made side by side, in turns, and the median of the turns is reported.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

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


class Library:
    """Writers of one library, each a process that serves one store after the other.

    Their imports take longer than what is measured: they are made once, and so are the tables of
    MLflow's store, in a file that each new store is a copy of.
    """

    def __init__(self, name: str, python: str, folder: Path):
        self.name, self._python, self._folder = name, python, folder
        self._environment = dict(os.environ, MLED_HOME=str(folder))
        self._environment |= {
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "MLFLOW_ENABLE_TELEMETRY": "false",
            "DO_NOT_TRACK": "true",
        }
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._writers: list[subprocess.Popen] = []
        self._numbers = itertools.count()
        self._empty = folder / f"{name}-empty.db"
        self._make(f"sqlite:///{self._empty}")

    def _make(self, url: str) -> None:
        if self.name == "mlflow":
            make = f"import mlflow; mlflow.MlflowClient({url!r}).create_experiment('bench')"
        else:
            make = "import mled; mled.experiment('bench', dataset='d', model='m')"
        done = subprocess.run(
            [self._python, "-c", make],
            env=self._environment | {"MLED_STORE_URL": url},
            cwd=self._folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr[-2000:]}")

    def store(self, url: str = "") -> Store:
        """A new store: a SQLite file, unless `url` names another database."""
        if url:
            self._make(url)
            return Store(self, url)
        # A name of its own: the writers may still have an earlier one open.
        path = self._folder / f"{self.name}-{next(self._numbers)}.db"
        shutil.copyfile(self._empty, path)
        return Store(self, f"sqlite:///{path}")

    def writers(self, count: int) -> list[subprocess.Popen]:
        """So many writers, started where there are not enough."""
        new = [
            subprocess.Popen(
                [self._python, WRITER, self.name],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count - len(self._writers))
        ]
        self._writers += new
        for writer in new:
            self.expect(writer, "ready")
        return self._writers[:count]

    def expect(self, writer: subprocess.Popen, word: str) -> None:
        if (said := writer.stdout.readline().strip()) != word:
            raise RuntimeError(f"{self.name}: a writer said {said!r} and not {word!r}")

    def close(self) -> None:
        """End the writers."""
        for writer in self._writers:
            writer.communicate()


class Store:
    """A fresh store of one library, and how to count what is in it."""

    def __init__(self, library: Library, url: str):
        self.library, self.url = library, url

    def write(self, mode: str, writers: int, trials: int) -> dict:
        """Let writers loose at once; points a second, errors, and points that are missing.

        `cpu_s` is the writers' processor time.
        """
        processes = self.library.writers(writers)
        for number, process in enumerate(processes):
            job = {"url": self.url, "mode": mode, "number": number, "trials": trials}
            _say(process, json.dumps(job | {"steps": STEPS}))
        for process in processes:
            self.library.expect(process, "open")
        warm = self.points()
        for process in processes:
            _say(process, "go")
        results = [json.loads(process.stdout.readline()) for process in processes]
        written = self.points() - warm
        seconds = max(r["ended"] for r in results) - min(r["began"] for r in results)
        return {
            "rate": written / seconds,
            "cpu_s": sum(r["cpu_s"] for r in results),
            "errors": [error for r in results for error in r["errors"]],
            "lost": writers * trials * STEPS * 3 - written,
        }

    def points(self) -> int:
        table = "metrics" if self.library.name == "mlflow" else "metric"
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()

    def bytes(self) -> int:
        """The size of the database file with its log folded in."""
        path = sa.make_url(self.url).database
        connection = sqlite3.connect(path, timeout=60)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return Path(path).stat().st_size


def _say(writer: subprocess.Popen, line: str) -> None:
    writer.stdin.write(f"{line}\n")
    writer.stdin.flush()


def rates(libraries: dict[str, Library], rounds: int) -> tuple[dict, dict]:
    """Medians of points a second by library, mode and writers; and all errors and losses."""
    measured: dict[tuple, list[float]] = {}
    trouble: dict[tuple, dict] = {}
    for turn in range(rounds):
        for writers in WRITERS:
            for name, modes in (("ours", OURS), ("mlflow", THEIRS)):
                for mode, trials in modes.items():
                    result = libraries[name].store().write(mode, writers, trials)
                    key = (name, mode, writers)
                    measured.setdefault(key, []).append(result["rate"])
                    bad = trouble.setdefault(key, {"errors": 0, "lost": 0})
                    bad["errors"] += len(result["errors"])
                    bad["lost"] += result["lost"]
        print(f"  round {turn + 1} of {rounds} done", flush=True)
    return {key: statistics.median(values) for key, values in measured.items()}, trouble


def bytes_a_point(libraries: dict[str, Library]) -> dict[str, float]:
    """Bytes on disk for a point, everything in the store included, less an empty store."""
    found = {}
    for name, trials in (("ours", 400), ("mlflow", 10)):
        store = libraries[name].store()
        empty = store.bytes()
        store.write("batch", 2, trials)
        found[name] = (store.bytes() - empty) / store.points()
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
    with tempfile.TemporaryDirectory() as folder:
        libraries = {name: Library(name, pythons[name], Path(folder)) for name in pythons}
        medians, trouble = rates(libraries, rounds)
        size = bytes_a_point(libraries)
        for library in libraries.values():
            library.close()
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
