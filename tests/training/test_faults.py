"""Grids on Airflow's real servers while processes are killed, stopped, and cleared."""

from __future__ import annotations

import json
import signal
import time

import psutil
import pytest
import sqlalchemy as sa

from bench.servers import Servers
from mled.settings import ROOT
from mled.store import Database, migrate
from mled.store.schema import FINISHED, ORPHANED, RUNNING, Attempt, Experiment, Metric, Trial

pytestmark = pytest.mark.long

HEARTBEAT_SECONDS = 10
TRIAL_SECONDS = 2.0
EPOCHS = 4000  # for half a minute, and the first ones are saved after 10 seconds


class Grids(Servers):
    """Servers with what the tests ask of them."""

    def trigger(self, name: str, trials: int = 6, **conf) -> str:
        grid = {"number": list(range(trials)), "seconds": [TRIAL_SECONDS]}
        fields = {"experiment": name, "dataset": "iris", "model": "busy", "grid": grid, **conf}
        return self.airflow.trigger("grid_search", fields)

    def wait(self, run_id: str) -> str:
        return self.airflow.wait("grid_search", run_id, 240)["state"]

    def ask(self, query) -> list:
        with Database(self.settings.store).read() as connection:
            return connection.execute(query).all()

    def attempts(self, name: str) -> dict[int, list[str]]:
        """The states of each trial's attempts, in their order."""
        query = (
            sa.select(Attempt.trial_id, Attempt.state)
            .join(Trial, Trial.id == Attempt.trial_id)
            .join(Experiment, Experiment.id == Trial.experiment_id)
            .where(Experiment.name == name)
            .order_by(Attempt.trial_id, Attempt.number)
        )
        found: dict[int, list[str]] = {}
        for id, state in self.ask(query):
            found.setdefault(id, []).append(state)
        return found

    def running(self, name: str) -> psutil.Process:
        """The process of a trial that runs; waits until there is one."""
        query = (
            sa.select(Attempt.pid)
            .join(Trial, Trial.id == Attempt.trial_id)
            .join(Experiment, Experiment.id == Trial.experiment_id)
            .where(Experiment.name == name, Attempt.state == RUNNING)
        )
        end = time.monotonic() + 60
        while not (rows := self.ask(query)):
            assert time.monotonic() < end, f"no trial of {name} begins"
            time.sleep(0.05)
        return psutil.Process(rows[0].pid)

    def log(self, run_id: str) -> str:
        folder = self.settings.logs / "airflow"
        texts = [path.read_text() for path in folder.glob(f"**/run_id={run_id}/**/*.log")]
        lines = [line for text in texts for line in text.splitlines()]
        return "\n".join(json.loads(x).get("event", "") if x[:1] == "{" else x for x in lines)


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    environment = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "bench" / "grid_dags"),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_SECONDS),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        # How soon a new scheduler takes over the tasks of a killed one: 5 minutes by default.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": str(HEARTBEAT_SECONDS),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(2 * HEARTBEAT_SECONDS),
        "MLED_ORPHAN_SECONDS": "15",
        "MLED_HEARTBEAT_SECONDS": "1",
    }
    with Grids(tmp_path_factory.mktemp("grids"), environment, workers=2) as servers:
        migrate(servers.settings)
        yield servers


def assert_each_finished_once(attempts: dict[int, list[str]], trials: int) -> None:
    """Every trial is finished, once; at most the two that ran were interrupted before."""
    assert len(attempts) == trials
    for states in attempts.values():
        assert states[-1] == FINISHED
        assert set(states[:-1]) <= {ORPHANED}
    assert sum(map(len, attempts.values())) <= trials + 2


def test_a_killed_task_runs_only_its_unfinished_trials_again(grids):
    run_id = grids.trigger("task", trials_per_task=6)
    grids.running("task").kill()
    assert grids.wait(run_id) == "success"
    attempts = sorted(grids.attempts("task").values())
    assert attempts == [[FINISHED]] * 5 + [[ORPHANED, FINISHED]]


def test_the_trial_of_a_killed_supervisor_is_run_once(grids):
    run_id = grids.trigger("supervisor", trials_per_task=3)
    child = grids.running("supervisor")
    child.parent().kill()
    assert grids.wait(run_id) == "success"
    assert list(grids.attempts("supervisor").values()) == [[FINISHED]] * 6
    assert not child.is_running()


def test_a_zombie_cannot_write_into_a_newer_attempt(grids):
    run_id = grids.trigger("zombie", trials=2, trials_per_task=2)
    zombie = grids.running("zombie")
    supervisor = zombie.parent()
    supervisor.kill()
    while zombie.ppid() == supervisor.pid:
        time.sleep(0.01)
    # Stopped, it is as silent as a machine that sleeps. (Were it stopped before, the kernel would
    # end it together with its parent.)
    zombie.send_signal(signal.SIGSTOP)
    try:
        assert grids.wait(run_id) == "success"
        attempts = grids.attempts("zombie")
        assert list(attempts.values()) == [[ORPHANED, FINISHED], [FINISHED]]
        columns = (Metric.trial_id, Metric.name, Metric.step, Metric.number, Metric.updated_at)
        points = sa.select(*columns).where(Metric.trial_id.in_(attempts)).order_by(*columns[:3])
        before = grids.ask(points)
        assert len(before) == 4
    finally:
        zombie.send_signal(signal.SIGCONT)
    psutil.wait_procs([zombie], timeout=30)
    assert not zombie.is_running()
    assert grids.attempts("zombie") == attempts
    assert grids.ask(points) == before


def test_a_killed_scheduler_loses_nothing(grids):
    run_id = grids.trigger("scheduler", trials=12)
    grids.running("scheduler")
    scheduler = grids.processes["scheduler"]
    scheduler.kill()
    scheduler.wait()
    grids.start("scheduler")
    assert grids.wait(run_id) == "success"
    assert_each_finished_once(grids.attempts("scheduler"), 12)


def test_after_everything_was_killed_a_rerun_finishes_the_job(grids):
    grids.trigger("reboot", trials=8)
    grids.running("reboot")
    for process in grids.all_processes():
        process.kill()
    for name in grids.processes:
        grids.processes[name].wait()
        grids.start(name)
    grids.wait_until_ready()
    assert grids.wait(grids.trigger("reboot", trials=8)) == "success"
    attempts = grids.attempts("reboot")
    assert_each_finished_once(attempts, 8)
    assert any(ORPHANED in states for states in attempts.values())


def test_a_task_marked_failed_and_cleared_ends_with_every_trial_finished(grids):
    run_id = grids.trigger("cleared", trials=4, trials_per_task=2)
    grids.running("cleared")
    task = f"/dags/grid_search/dagRuns/{run_id}/taskInstances/run_trials"
    grids.airflow._call("PATCH", f"{task}/0", json={"new_state": "failed"})
    assert grids.wait(run_id) == "failed"
    body = {
        "dry_run": False,
        "dag_run_id": run_id,
        "only_failed": True,
        "task_ids": ["run_trials", "summarise"],
    }
    grids.airflow._call("POST", "/dags/grid_search/clearTaskInstances", json=body)
    assert grids.wait(run_id) == "success"
    assert all(states[-1] == FINISHED for states in grids.attempts("cleared").values())
    assert len(grids.attempts("cleared")) == 4


def test_a_paused_grid_begins_no_task_until_it_goes_on(grids):
    run_id = grids.trigger("paused", trials=8, trials_per_task=1)
    grids.running("paused")
    grids.airflow._call("PATCH", "/dags/grid_search", json={"is_paused": True})
    time.sleep(3 * TRIAL_SECONDS)
    begun = len(grids.attempts("paused"))
    assert begun < 8
    time.sleep(TRIAL_SECONDS)
    assert len(grids.attempts("paused")) == begun
    grids.airflow._call("PATCH", "/dags/grid_search", json={"is_paused": False})
    assert grids.wait(run_id) == "success"
    assert list(grids.attempts("paused").values()) == [[FINISHED]] * 8


def test_a_long_trial_goes_on_from_its_last_saved_epoch(grids):
    grid = {"epochs": [EPOCHS], "hidden": [32]}
    run_id = grids.trigger("long", dataset="digits", model="mlp", grid=grid)
    victim = grids.running("long")
    end = time.monotonic() + 60
    while not list(grids.settings.home.glob("checkpoints/*.state")):
        assert time.monotonic() < end, "nothing is saved"
        time.sleep(0.1)
    victim.kill()
    assert grids.wait(run_id) == "success"
    ((id, states),) = grids.attempts("long").items()
    assert states == [ORPHANED, FINISHED]
    assert "goes on from epoch" in grids.log(run_id)
    steps = sa.select(sa.func.count()).where(Metric.trial_id == id, Metric.name == "loss")
    assert grids.ask(steps) == [(EPOCHS,)]


def test_more_trials_than_airflow_maps_tasks(grids):
    grid = {"number": {"range": [1, 1500]}}
    run_id = grids.trigger("many", grid=grid)
    assert grids.wait(run_id) == "success"
    assert list(grids.attempts("many").values()) == [[FINISHED]] * 1500
