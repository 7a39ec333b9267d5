"""Grids on two machines, with the executors that can: each machine is a worker with its own home.

They share PostgreSQL, the secrets, and Celery's Redis; nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from bench.servers import Servers
from mled import workers
from mled.settings import CELERY, EDGE, ROOT, Settings
from mled.store import Database, migrate
from mled.store.schema import FINISHED, ORPHANED, RUNNING, Attempt, Experiment, Trial
from tests import cluster

pytestmark = pytest.mark.e2e

RUN_SECONDS = 180
ENVIRONMENT = {
    # How soon the tasks of a machine that died are run again: 60 seconds by default.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}
# The product's grid DAG, with two models of the tests' own.
DAG = """
# Airflow reads a file only when it finds the words "airflow" and "dag" in it.
from training import models

models.__path__.append({models!r})
exec(compile(open({dag!r}).read(), __file__, "exec"))
"""
SLEEPER = """
import time

from training.models import Hyperparameters, Model

class Sleep(Hyperparameters):
    number: int = 0
    seconds: float = 0

def train(params, data, seed, session):
    time.sleep(params.seconds)
    session.log({"accuracy": 1.0})

MODEL = Model(library="none", hyperparameters=Sleep, train=train)
"""
SLEEPER_ON_GPU = """
import dataclasses

from training.models import sleeper

MODEL = dataclasses.replace(sleeper.MODEL, queue="gpu")
"""


def grid(servers: Servers, name: str, trials: int, seconds: float, **conf) -> str:
    """Trigger a grid of trials that take so long, each in a task of its own; the run's id."""
    fields = {
        "experiment": name,
        "dataset": "iris",
        "model": "sleeper",
        "grid": {"number": list(range(trials)), "seconds": [seconds]},
        "trials_per_task": 1,
    }
    return servers.airflow.trigger("grid_search", {**fields, **conf})


def outcome(servers: Servers, run_id: str) -> str:
    return servers.airflow.wait("grid_search", run_id, RUN_SECONDS)["state"]


def attempts(servers: Servers, name: str) -> dict[int, list[str]]:
    """The states of each trial's attempts, in their order."""
    query = (
        sa.select(Attempt.trial_id, Attempt.state)
        .join(Trial, Trial.id == Attempt.trial_id)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Experiment.name == name)
        .order_by(Attempt.trial_id, Attempt.number)
    )
    found: dict[int, list[str]] = {}
    with Database(servers.settings.store).read() as connection:
        for id, state in connection.execute(query):
            found.setdefault(id, []).append(state)
    return found


def tasks_begun(machine: Settings, run_id: str) -> int:
    """How many tasks with trials of a run were begun on a machine: each leaves its log there.

    The first machine gets the logs of Edge's other workers as well.
    """
    return len(
        list(machine.logs.glob(f"airflow/**/run_id={run_id}/task_id=run_trials/map_index=*"))
    )


@pytest.fixture(scope="module", params=[CELERY, pytest.param(EDGE, marks=pytest.mark.long)])
def servers(request, tmp_path_factory) -> Iterator[Servers]:
    if reason := cluster.missing(request.param):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(request.param)
    dags, models = folder / "dags", folder / "models"
    for path in (dags, models):
        path.mkdir()
    product = str(ROOT / "dags" / "grid_search.py")
    (dags / "grid_search.py").write_text(DAG.format(models=str(models), dag=product))
    (models / "sleeper.py").write_text(SLEEPER)
    (models / "sleeper_on_gpu.py").write_text(SLEEPER_ON_GPU)
    environment = {**ENVIRONMENT, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    with cluster.cluster(folder / "home", request.param, environment=environment) as found:
        migrate(found.settings)
        yield found


def test_a_grid_is_spread_over_the_machines(servers):
    run_id = grid(servers, "spread", trials=8, seconds=0.5)
    assert outcome(servers, run_id) == "success"
    assert list(attempts(servers, "spread").values()) == [[FINISHED]] * 8
    assert 0 < tasks_begun(servers.machines["machine-2"], run_id) < 8


def test_the_trials_of_a_machine_that_died_are_run_by_the_others(servers):
    run_id = grid(servers, "death", trials=6, seconds=2.0)
    wait_until(lambda: tasks_begun(servers.machines["machine-2"], run_id), "a task")
    wait_until(lambda: [RUNNING] in attempts(servers, "death").values(), "a trial")
    servers.kill("machine-2")
    assert outcome(servers, run_id) == "success"
    states = attempts(servers, "death")
    assert len(states) == 6
    assert all(s[-1] == FINISHED and s.count(FINISHED) == 1 for s in states.values())
    assert sum(s.count(ORPHANED) for s in states.values()) <= 2


def test_a_model_that_asks_for_a_gpu_waits_for_no_worker_in_vain(servers):
    run_id = grid(servers, "gpu", trials=2, seconds=0.1, model="sleeper_on_gpu")
    assert outcome(servers, run_id) == "failed"
    log = servers.airflow.log("grid_search", run_id, "plan")
    assert "sleeper_on_gpu asks for the queue 'gpu', which no worker serves" in log
    assert "MLED_QUEUES=gpu mled run worker" in log
    machine = servers.add_worker("gpu-machine", queues="gpu")
    wait_until(lambda: "gpu-machine" in workers.queues_served(servers.settings), "the worker")
    run_id = grid(servers, "gpu", trials=2, seconds=0.1, model="sleeper_on_gpu")
    assert outcome(servers, run_id) == "success"
    assert tasks_begun(machine, run_id) == 2
    assert list(attempts(servers, "gpu").values()) == [[FINISHED]] * 2


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"{what} does not begin"
        time.sleep(0.1)
