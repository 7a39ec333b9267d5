"""docker-compose.yml, run without a container engine, while its containers are killed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import duckdb
import pytest
import sqlalchemy as sa

from mled import settings as settings_module
from mled.airflow_api import Airflow
from mled.store import Database
from mled.store.schema import FINISHED
from tests.deploy import engine

pytestmark = pytest.mark.long

WORKERS = 1  # trials at a time in one container
RUN_SECONDS = 900
GRID = {
    "experiment": "killed",
    "dataset": "digits",
    "model": "mlp",
    "grid": {"hidden": [8, 16, 32, 64], "epochs": [60]},
    "seeds": list(range(4)),
    "trials_per_task": 2,
}
TRIALS = 16

ATTEMPTS = """
    SELECT attempt.trial_id, attempt.state, attempt.host, attempt.started_at, attempt.ended_at
    FROM attempt JOIN trial ON trial.id = attempt.trial_id
    JOIN experiment ON experiment.id = trial.experiment_id
    WHERE experiment.name = 'killed' ORDER BY 1, attempt.number
"""
# The mart as it must be, asked of the store in statements of its own.
TRIALS_IN_STORE = """
    SELECT trial.id, trial.state, experiment.name FROM trial
    JOIN experiment ON experiment.id = trial.experiment_id ORDER BY 1
"""
POINTS_IN_STORE = """
    SELECT metric.trial_id, metric.name, metric.step, metric.number FROM metric
    JOIN trial ON trial.id = metric.trial_id ORDER BY 1, 2, 3
"""
TRIALS_IN_MART = "SELECT trial_id, state, experiment FROM marts.trials ORDER BY 1"
POINTS_IN_MART = "SELECT trial_id, metric, step, value FROM marts.metrics_wide ORDER BY 1, 2, 3"


class Deployment(engine.Engine):
    """The running containers, and how the tests reach what is in them."""

    def __init__(self, folder):
        variables = {"MLED_WORKERS": str(WORKERS), "MLED_CLUSTER_WORKERS": str(2 * WORKERS)}
        super().__init__(folder, variables, scale={"worker": 2})
        (api_server,), (database,) = self.containers["api-server"], self.containers["postgres"]
        self.settings = settings_module.load(
            {
                "MLED_HOME": str(folder / "volumes" / "state"),
                "MLED_SECRETS_DIR": str(folder / "secrets"),
                "MLED_AIRFLOW_SERVER": f"http://{api_server.address}:8080",
                "MLED_STORE_URL": "postgresql://mled:{mled_database_password}"
                f"@{database.address}/mled",
            }
        )
        self.airflow = Airflow(self.settings)

    def store(self, query: str) -> list[tuple]:
        """Ask the store."""
        with Database(self.settings.store).read() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    def mart(self, query: str) -> list[tuple]:
        """Ask the published mart, as its readers do."""
        with duckdb.connect(str(self.settings.mart.resolve()), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def run(self, dag_id: str, conf: dict | None = None) -> dict:
        """Trigger a run and wait for its end."""
        run_id = self.airflow.trigger(dag_id, conf)
        return self.airflow.wait(dag_id, run_id, RUN_SECONDS)

    def wait_until(self, condition, what: str) -> None:
        end = time.monotonic() + RUN_SECONDS
        while not condition():
            assert time.monotonic() < end, f"{what} does not happen"
            time.sleep(0.2)

    def finished_on(self, worker: engine.Container) -> int:
        return sum(
            (state, host) == (FINISHED, worker.name) for _, state, host, *_ in self.store(ATTEMPTS)
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory) -> Iterator[Deployment]:
    if reason := engine.unavailable():
        pytest.skip(reason)
    with Deployment(tmp_path_factory.mktemp("compose") / "engine") as found:
        found.up()
        yield found


def test_up_ends_where_make_up_ends(deployment):
    (demo,) = deployment.containers["demo"]
    assert demo.process.wait(RUN_SECONDS) == 0, demo.log.read_text()
    assert len(deployment.mart(TRIALS_IN_MART)) > 40
    assert deployment.mart(TRIALS_IN_MART) == deployment.store(TRIALS_IN_STORE)
    for name in ("api-server", "scheduler", "dag-processor", "triggerer", "superset"):
        assert deployment.containers[name][0].healthy
    workers = deployment.containers["worker"]
    assert all(
        deployment.execute(worker, "mled", "healthy", "worker").returncode == 0
        for worker in workers
    )


def test_superset_reads_the_mart_and_its_own_database(deployment):
    (superset,) = deployment.containers["superset"]
    script = """
from superset.app import create_app
app = create_app()
with app.app_context():
    from superset import db
    from superset.models.dashboard import Dashboard
    print(db.engine.url.host, db.session.query(Dashboard).count())
"""
    done = deployment.execute(superset, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["postgres", "6"]


def test_nothing_is_lost_or_doubled_while_containers_are_killed(deployment):
    first, second = deployment.containers["worker"]
    run_id = deployment.airflow.trigger("grid_search", GRID)
    for worker in (first, second):
        deployment.wait_until(
            lambda worker=worker: deployment.finished_on(worker), f"a trial on {worker.name}"
        )
    deployment.kill(second)
    killed = time.monotonic()
    (scheduler,), (database,) = (
        deployment.containers["scheduler"],
        deployment.containers["postgres"],
    )
    deployment.kill(scheduler)
    deployment.start(scheduler)
    deployment.kill(database)
    deployment.start(database)
    run = deployment.airflow.wait("grid_search", run_id, RUN_SECONDS)
    print(f"the run ended {time.monotonic() - killed:.0f} s after a worker was killed")
    assert run["state"] == "success"
    attempts = deployment.store(ATTEMPTS)
    finished = [id for id, state, *_ in attempts if state == FINISHED]
    assert len(finished) == len(set(finished)) == TRIALS
    assert {host for _, state, host, *_ in attempts} == {first.name, second.name}
    for host in (first.name, second.name):
        assert _at_a_time(deployment.store(ATTEMPTS), host) <= WORKERS
    assert deployment.run("experiment_etl")["state"] == "success"
    assert deployment.mart(TRIALS_IN_MART) == deployment.store(TRIALS_IN_STORE)
    assert deployment.mart(POINTS_IN_MART) == deployment.store(POINTS_IN_STORE)


def _at_a_time(attempts: list[tuple], host: str) -> int:
    """How many finished attempts of a host overlapped at most."""
    times = [(b, e) for _, state, where, b, e in attempts if (state, where) == (FINISHED, host)]
    changes = sorted([(e, -1) for _, e in times] + [(b, 1) for b, _ in times])
    return max(itertools.accumulate(change for _, change in changes))
