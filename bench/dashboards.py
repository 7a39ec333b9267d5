"""How fast the dashboards draw over 10,000 trials and 8 million points: make bench NAME=dashboards.

The mart is a file of synthetic rows with the schema that dbt promises, put in place as a publish
does; Superset is the real server with the real assets, the browser a real Chromium. *Cold* is the
first visit of a new browser with no result in the server's cache, *warm* the same page again.
Drawn means that every chart of the page is, also those far below the first screen, to which the
browser scrolls.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import httpx
import psutil
import yaml

from bench import report
from bench.servers import free_port
from mled import services
from mled import settings as settings_module
from mled.secrets import secret
from mled.settings import ROOT, Settings
from tests.superset import browser
from tests.superset.client import Client

SIZES = {"default": (10_000, 200), "small": (500, 50)}  # trials, steps of each of 4 metrics
EXPERIMENTS = 20
METRICS = ("accuracy", "loss", "train_accuracy", "train_loss")
DASHBOARDS = ("overview", "experiments", "compare", "trial", "datasets", "pipeline")
WARM_VISITS = 3
CLIENTS = 8
SECONDS = 20
START_SECONDS = 180
MODELS = ROOT / "dbt_project" / "models"


def main() -> None:
    """Measure, print and write the results."""
    trials, steps = SIZES[os.environ.get("SIZE") or "default"]
    home = Path(tempfile.mkdtemp(prefix="mled-bench-"))
    settings = replace(settings_module.load({}), home=home, superset_port=free_port())
    try:
        made = _publish(settings, trials, steps)
        with _superset(settings) as server:
            idle = _resident_mb(server)
            cold, warm, requests = _draw(settings)
            with_cache = _load(settings, requests, force=False)
            without_cache = _load(settings, requests, force=True)
            busy = _resident_mb(server)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    results = {
        "trials": trials,
        "points": trials * steps * len(METRICS),
        "mart": "synthetic rows written into a file with the schema of dbt's contracts",
        "mart_mb": made,
        "drawn_cold_s": cold,
        "drawn_warm_s": warm,
        "clients": CLIENTS,
        "chart_p50_ms": with_cache["p50_ms"],
        "chart_p95_ms": with_cache["p95_ms"],
        "chart_requests_per_s": with_cache["requests_per_s"],
        "chart_uncached_p50_ms": without_cache["p50_ms"],
        "chart_uncached_p95_ms": without_cache["p95_ms"],
        "chart_uncached_requests_per_s": without_cache["requests_per_s"],
        "chart_uncached_slowest_ms": without_cache["slowest_ms"],
        "errors": with_cache["errors"] + without_cache["errors"],
        "resident_mb": busy,
        "resident_idle_mb": idle,
    }
    report.table(
        f"Seconds to a drawn dashboard, {trials:,} trials, {results['points']:,} points",
        ("dashboard", "cold", "warm"),
        [(slug, cold[slug], warm[slug]) for slug in DASHBOARDS],
    )
    report.table(
        f"Chart API with {CLIENTS} clients",
        ("", "p50 ms", "p95 ms", "requests/s", "errors"),
        [
            (name, load["p50_ms"], load["p95_ms"], load["requests_per_s"], load["errors"])
            for name, load in (("cached", with_cache), ("uncached", without_cache))
        ],
    )
    print(f"resident: {idle:,.0f} MB idle, {busy:,.0f} MB after the load")
    report.write("dashboards", results)


def _publish(settings: Settings, trials: int, steps: int) -> float:
    """Write the mart and link to it; its size in MB."""
    path = settings.warehouse / "versions" / "1" / settings.mart.name
    path.parent.mkdir(parents=True)
    names = ", ".join(f"'{name}'" for name in METRICS)
    with duckdb.connect(str(path), config={"memory_limit": settings.duckdb_memory}) as connection:
        for statement in _MART.format(
            trials=trials, steps=steps, experiments=EXPERIMENTS, metrics=names
        ).split(";"):
            connection.execute(statement)
        _check_schema(connection)
    settings.mart.parent.symlink_to(path.parent)
    return round(path.stat().st_size / 1e6, 1)


def _check_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Raises ValueError if a synthetic table lacks a column that dbt promises."""
    for (table,) in connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'marts'"
    ).fetchall():
        (described,) = (
            path
            for folder in ("marts", "analyses")
            for path in (MODELS / folder).glob(f"{table}.yml")
        )
        (model,) = yaml.safe_load(described.read_text())["models"]
        promised = {column["name"] for column in model["columns"]}
        rows = connection.execute(f"DESCRIBE marts.{table}").fetchall()
        if missing := promised - {row[0] for row in rows}:
            raise ValueError(
                f"bench/dashboards.py: marts.{table} lacks {sorted(missing)}; add them"
            )


# A score grows with `width` and the step; the noise is a hash, so that each run makes the same.
_MART = """
CREATE SCHEMA marts;
CREATE TEMP TABLE trial AS
SELECT
    n AS trial_id, n % {experiments} AS e,
    ['mlp', 'svm', 'random_forest'][1 + n % {experiments} % 3] AS model,
    ['digits', 'wine', 'breast_cancer', 'covertype'][1 + n % {experiments} % 4] AS dataset,
    ['Ada', 'Grace', 'Alan', 'Katherine', 'Edsger'][1 + n % {experiments} % 5] AS author,
    CASE WHEN n % 97 = 0 THEN 'failed' ELSE 'finished' END AS state,
    n // {experiments} % 3 AS seed,
    [16, 32, 64, 128, 256][1 + n // {experiments} // 3 % 5] AS width,
    [0.0001, 0.001, 0.01, 0.1][1 + n // {experiments} // 15 % 4] AS rate,
    [0.0, 0.25, 0.5][1 + n // {experiments} // 60 % 3] AS dropout,
    n // {experiments} // 180 AS variant,
    hash(n) % 1000 / 1e4 AS noise,
    TIMESTAMP '2026-10-01' + INTERVAL 5 MINUTE * n AS started_at
FROM range(1, {trials} + 1) AS r(n);
CREATE TEMP TABLE named AS
SELECT *, printf('%s-%s-%d', dataset, model, e) AS experiment,
    printf('width=%d, rate=%g, dropout=%g, variant=%d', width, rate, dropout, variant)
        AS hyperparameters,
    0.6 + width / 1000 + noise - dropout / 20 AS score
FROM trial;
CREATE TABLE marts.trials AS
SELECT trial_id, e AS experiment_id, experiment, author, dataset,
    sha256(dataset) AS dataset_version, model, state, seed, 0::INTEGER AS repeat,
    1::INTEGER AS attempt, hyperparameters,
    printf('#%d %s', trial_id, hyperparameters) AS trial_label,
    'accuracy' AS objective_metric, 'maximize' AS objective_direction,
    score AS objective_value, {steps} - 1 AS objective_step,
    CASE WHEN state = 'finished'
        THEN rank() OVER (PARTITION BY e, state ORDER BY score DESC) END AS experiment_rank,
    started_at, started_at + INTERVAL 1 MINUTE AS ended_at, 60.0 + noise * 100 AS duration_s,
    55.0 AS cpu_s, 500000000 AS peak_memory_bytes,
    60.0 + noise * 100 AS total_duration_s, 55.0 AS total_cpu_s,
    CASE WHEN state = 'failed' THEN 'ValueError' END AS error_type,
    CASE WHEN state = 'failed' THEN 'loss is not finite' END AS error_message,
    CASE WHEN state = 'failed' THEN 'Traceback (most recent call last): …' END AS traceback,
    'bench' AS host, MAP {{'accuracy': {{'last_value': score}}}} AS metrics, 1 AS batch_id
FROM named ORDER BY trial_id;
CREATE TABLE marts.trial_metrics AS
SELECT trial_id, metric, experiment, author, dataset, model, state, seed,
    printf('#%d %s', trial_id, hyperparameters) AS trial_label, metric = 'accuracy' AS is_objective,
    'maximize' AS objective_direction, score / 2 AS first_value, score AS last_value,
    score / 2 AS min_value, 0 AS min_step, score AS max_value, {steps} - 1 AS max_step,
    score * 0.9 AS mean_value, CASE WHEN metric = 'accuracy' THEN score END AS best_value,
    {steps} - 1 AS best_step, {steps} AS steps, 1 AS batch_id
FROM named, unnest([{metrics}]) AS m(metric) ORDER BY trial_id, metric;
CREATE TABLE marts.trial_attempts AS
SELECT trial_id, 1 AS attempt, experiment, trial_label, true AS is_latest, state, started_at,
    ended_at AS heartbeat_at, ended_at, duration_s, cpu_s, peak_memory_bytes, host, 4242 AS pid,
    error_type, error_message, traceback, batch_id
FROM marts.trials ORDER BY trial_id;
CREATE TABLE marts.trial_environments AS
SELECT trial_id, experiment, trial_label, 1 AS attempt, host, 1 AS environment_id,
    '3.11' AS python, 'Linux' AS platform, 'a processor' AS cpu, 2 AS cores,
    8000000000 AS memory_bytes, []::VARCHAR[] AS gpus, 60 AS packages, sha1('code') AS git_commit,
    false AS is_dirty, NULL::VARCHAR AS diff_sha256, batch_id
FROM marts.trials ORDER BY trial_id;
CREATE TABLE marts.environment_packages AS
SELECT 1 AS environment_id, unnest(['numpy', 'torch']) AS package, '2.0' AS version;
CREATE TABLE marts.trial_artifacts AS
SELECT trial_id AS artifact_id, trial_id, 'model.pt' AS name, experiment, trial_label,
    sha256(trial_label) AS path, 100000 AS bytes, sha256(trial_label) AS sha256,
    ended_at AS created_at, batch_id
FROM marts.trials ORDER BY trial_id;
CREATE TABLE marts.trial_tags AS
SELECT trial_id, 'purpose' AS name, experiment, trial_label, 'text' AS kind, 'bench' AS value,
    NULL::DOUBLE AS number, ended_at AS created_at, batch_id
FROM marts.trials ORDER BY trial_id;
CREATE TABLE marts.trial_notes AS
SELECT trial_id AS note_id, trial_id, experiment, trial_label, 'Looks plausible.' AS text,
    ended_at AS created_at, batch_id
FROM marts.trials ORDER BY trial_id;
CREATE TABLE marts.metrics_wide AS
SELECT trial_id, metric, step,
    CASE WHEN contains(metric, 'loss') THEN 1 / (1 + step * rate) + noise
        ELSE score * (1 - 1 / (2 + step)) END AS value,
    NULL::VARCHAR AS value_text, started_at + INTERVAL 1 SECOND * step AS logged_at,
    experiment, author, dataset, sha256(dataset) AS dataset_version, model, state, seed,
    0 AS repeat, hyperparameters, printf('#%d %s', trial_id, hyperparameters) AS trial_label,
    1 AS batch_id, width AS hp_width, rate AS hp_rate, dropout AS hp_dropout,
    variant AS hp_variant, NULL::VARCHAR AS hyperparameters_other
FROM named, unnest([{metrics}]) AS m(metric), range({steps}) AS s(step)
ORDER BY trial_id, metric, step;
CREATE TABLE marts.trial_hyperparameter_metrics AS
SELECT trial_id, pair.name AS hyperparameter, metric, experiment, author, dataset, model, state,
    seed, 'number' AS hyperparameter_kind, printf('%g', pair.value) AS hyperparameter_value,
    pair.value AS hyperparameter_number, true AS is_varied, score / 2 AS first_value,
    score AS last_value, score / 2 AS min_value, score AS max_value, score * 0.9 AS mean_value,
    metric = 'accuracy' AS is_objective,
    CASE WHEN metric = 'accuracy' THEN score END AS best_value, {steps} AS steps, 1 AS batch_id
FROM named, unnest([{metrics}]) AS m(metric), unnest([
    {{'name': 'width', 'value': width::DOUBLE}}, {{'name': 'rate', 'value': rate::DOUBLE}},
    {{'name': 'dropout', 'value': dropout::DOUBLE}},
    {{'name': 'variant', 'value': variant::DOUBLE}}
]) AS h(pair);
CREATE TABLE marts.etl_runs AS
SELECT n AS etl_run_id, printf('scheduled-%d', n) AS run_id,
    TIMESTAMP '2026-10-01' + INTERVAL 1 HOUR * n AS started_at,
    started_at + INTERVAL 30 SECOND AS ended_at,
    CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END AS state, 10000 AS rows_read,
    1000000 AS bytes, 30.0 AS duration_s, 45.0 AS lag_s, n AS mart_version,
    CASE WHEN n % 50 = 0 THEN 'disk full' END AS error, 0 AS read_from, n AS read_until,
    9000 AS rows_inserted, 1000 AS rows_updated, 0 AS rows_deleted, 5.0 AS extract_s,
    20.0 AS dbt_s, 4.0 AS publish_s, 1.0 AS compact_s, n AS batch_id
FROM range(1, 1201) AS r(n);
CREATE TABLE marts.etl_run_tables AS
SELECT etl_run_id, run_id, table_name, 900 AS rows_inserted, 100 AS rows_updated,
    0 AS rows_deleted
FROM marts.etl_runs, unnest(['trial', 'metric', 'attempt', 'hyperparameter']) AS t(table_name);
CREATE TABLE marts.maintenance_runs AS
SELECT n AS maintenance_run_id, TIMESTAMP '2026-10-01 03:30' + INTERVAL 1 DAY * n AS started_at,
    started_at + INTERVAL 1 MINUTE AS ended_at, 'succeeded' AS state, 60.0 AS duration_s,
    0 AS orphans, 0 AS problems, NULL::VARCHAR AS first_problem, 'mled.db' AS backup_path,
    400000000 AS backup_bytes, 1 AS backups_deleted, NULL::VARCHAR AS error, n AS batch_id
FROM range(1, 51) AS r(n);
CREATE TABLE marts.dataset_audit AS
SELECT dense_rank() OVER (ORDER BY dataset) AS dataset_id, dataset,
    sha256(dataset) AS dataset_version, 1 AS version_number, 'scikit-learn' AS source,
    'classification' AS task, 1797 AS rows, 64 AS features, 10 AS classes, 920000 AS bytes,
    min(started_at) AS first_seen_at, count(DISTINCT e) AS experiments, count(*) AS trials,
    list_sort(list(DISTINCT author)) AS authors, min(started_at) AS first_used_at,
    max(started_at) AS last_used_at, 1 AS splits, 0 AS most_shared_rows,
    0.0 AS most_shared_share, false AS has_overlap
FROM named GROUP BY dataset
"""


@contextmanager
def _superset(settings: Settings) -> Iterator[psutil.Process]:
    """Run Superset as the process manager does."""
    (program,) = (p for p in services.programs(settings) if p.name == "superset")
    environment = {**services.inherited_environment(settings), **program.environment}
    settings.logs.mkdir(parents=True)
    with services.log_file(settings, "superset").open("ab") as log:
        process = subprocess.Popen(
            program.command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(settings):
            if process.poll() is not None or time.monotonic() > end:
                text = services.log_file(settings, "superset").read_text()
                raise RuntimeError(f"Superset does not start: {text[-2000:]}")
            time.sleep(0.5)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(settings: Settings) -> bool:
    try:
        return httpx.get(f"{settings.superset_url}/health", trust_env=False).text == "OK"
    except httpx.HTTPError:
        return False


def _resident_mb(server: psutil.Process) -> float:
    """Memory of the server and its workers; what they share counts once."""
    processes = [server, *server.children(recursive=True)]
    return round(sum(process.memory_full_info().pss for process in processes) / 1e6, 1)


def _draw(settings: Settings) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """Seconds to each drawn dashboard, cold and warm, and what the charts asked the server."""
    cold: dict[str, float] = {}
    warm: dict[str, float] = {}
    requests: list[str] = []
    base = settings.superset_url
    password = secret(settings, "superset_stakeholder_password")
    for slug in DASHBOARDS:
        # The folder stays: the server would not make it again.
        for result in (settings.superset_home / "cache").glob("*"):
            result.unlink(missing_ok=True)
        with browser.new_page(width=1440) as page:
            browser.login(page, base, "stakeholder", password)
            seconds = []
            for _ in range(1 + WARM_VISITS):
                page.goto("about:blank")
                began = time.monotonic()
                dashboard = browser.open_dashboard(page, base, slug)
                seconds.append(time.monotonic() - began - browser.QUIET_S)
        errors = {name: chart.error for name, chart in dashboard.charts.items() if chart.error}
        if errors:
            raise RuntimeError(f"dashboard {slug}: {errors}")
        cold[slug] = round(seconds[0], 2)
        warm[slug] = round(statistics.median(seconds[1:]), 2)
        requests += [chart.request for chart in dashboard.charts.values()]
    return cold, warm, requests


def _load(settings: Settings, requests: list[str], force: bool) -> dict[str, float]:
    """Ask what the charts asked, from several sessions at a time, for `SECONDS`."""
    if force:
        requests = [json.dumps({**json.loads(request), "force": True}) for request in requests]
    # One session each would run into the limit on log-ins.
    session = Client(settings).login("analyst")
    times: list[float] = []
    statuses: list[int] = []
    end = time.monotonic() + SECONDS

    def client(number: int) -> None:
        place = number * len(requests) // CLIENTS
        while time.monotonic() < end:
            began = time.monotonic()
            statuses.append(session.chart_data(requests[place % len(requests)]).status_code)
            times.append(time.monotonic() - began)
            place += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - began
    percentiles = statistics.quantiles(times, n=100)
    return {
        "p50_ms": round(percentiles[49] * 1000),
        "p95_ms": round(percentiles[94] * 1000),
        "slowest_ms": round(max(times) * 1000),
        "requests_per_s": round(len(times) / elapsed, 1),
        "errors": sum(status != 200 for status in statuses),
    }


if __name__ == "__main__":
    main()
