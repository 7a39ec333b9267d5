"""The questions of `bench.warehouse`, asked of MLflow; runs in MLflow's own environment.

Usage: warehouse_mlflow.py TRIALS.jsonl STORE.db. The trials are inserted into MLflow's tables,
since its client would take hours; the questions go through its client. Prints milliseconds as
JSON.
"""

import json
import sqlite3
import statistics
import sys
import time

import mlflow

ALL = 50_000


def fill(source, path):
    client = mlflow.MlflowClient()
    experiments = {}
    with open(source) as lines, sqlite3.connect(path) as connection:
        for line in lines:
            number, experiment, params, points = json.loads(line)
            if experiment not in experiments:
                connection.commit()
                experiments[experiment] = client.create_experiment(f"grid {experiment}")
            run = f"{number:032x}"
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, "
                "user_id, status, start_time, end_time, source_version, lifecycle_stage, "
                "artifact_uri, experiment_id) VALUES (?, ?, 'LOCAL', '', '', 'ada', 'FINISHED', "
                "?, ?, '', 'active', '', ?)",
                (run, str(number), number, number + 60_000, experiments[experiment]),
            )
            connection.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [(name, str(value), run) for name, value in params.items()],
            )
            connection.executemany(
                "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
                "VALUES (?, ?, ?, ?, ?, 0)",
                [(name, value, step, run, step) for name, step, value in points],
            )
            last = {name: (value, step) for name, step, value in points}
            connection.executemany(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
                "VALUES (?, ?, ?, ?, 0, ?)",
                [(name, value, step, step, run) for name, (value, step) in last.items()],
            )
        connection.commit()
        connection.execute("ANALYZE")
    return client, list(experiments.values())


def every(client, experiments, where="", **options):
    runs, token = [], None
    while True:
        page = client.search_runs(experiments, where, max_results=ALL, page_token=token, **options)
        runs += page
        token = page.token
        if not token:
            return runs


def questions(client, experiments):
    def leaderboard():
        # Parameters are text there: what is at most 0.001 has to be picked here.
        runs = every(client, experiments, "params.optimizer = 'adam'",
                     order_by=["metrics.val_accuracy DESC"])  # fmt: skip
        return [r.info.run_id for r in runs if float(r.data.params["lr"]) <= 0.001][:20]

    def mean():
        found = {}
        for run in every(client, experiments):
            found.setdefault(run.data.params["optimizer"], []).append(run.data.metrics["loss"])
        return {value: statistics.fmean(losses) for value, losses in found.items()}

    def correlations():
        runs = every(client, experiments)
        results = [run.data.metrics["val_accuracy"] for run in runs]
        return {
            name: statistics.correlation([float(r.data.params[name]) for r in runs], results)
            for name in ("lr", "batch_size", "dropout", "depth")
        }

    def curves(numbers):
        return [client.get_metric_history(f"{n:032x}", "loss") for n in numbers]

    return {
        "leaderboard": leaderboard,
        "mean by value": mean,
        "correlations": correlations,
        "one curve": lambda: curves([777]),
        "200 curves": lambda: curves(range(1001, 1201)),
    }


def main():
    source, path = sys.argv[1:]
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    client, experiments = fill(source, path)
    taken = {}
    for name, ask in questions(client, experiments).items():
        ask()
        began = time.perf_counter()
        ask()
        taken[name] = round((time.perf_counter() - began) * 1000, 2)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
