"""Models that ask for workers of their own, as for those with a GPU."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from mled import settings, workers
from mled.settings import ROOT
from training import experiments, models, search

REQUEST = {
    "experiment": "large",
    "dataset": "wine",
    "model": "svm",
    "grid": {"C": [1.0]},
}
QUEUES = {"model": {"large": "gpu"}, "preset": {"night": "gpu"}}


@pytest.fixture
def gpu_model(monkeypatch):
    """The model svm, as if it asked for a GPU."""
    import dataclasses

    asking = dataclasses.replace(models.get("svm"), queue="gpu")
    monkeypatch.setattr(models, "get", lambda name: asking)


def _with(monkeypatch, executor: str, served: dict[str, set[str]]) -> None:
    monkeypatch.setenv("MLED_EXECUTOR", executor)
    monkeypatch.setattr(workers, "queues_served", lambda settings: served)


def test_most_models_go_to_every_worker_that_trains():
    assert {models.get(name).queue for name in models.names()} == {workers.TRAINING}
    assert workers.TRAINING in settings.Settings().queues.split(",")


@pytest.mark.parametrize("executor", ["celery", "edge"])
def test_without_a_worker_that_serves_it_a_plan_says_how_to_start_one(
    home, monkeypatch, gpu_model, executor
):
    _with(monkeypatch, executor, {"one": {"default", "training"}})
    with pytest.raises(experiments.InvalidExperiment) as caught:
        search.plan(REQUEST)
    message = str(caught.value)
    assert "svm asks for the queue 'gpu', which no worker serves" in message
    assert "one (default, training)" in message
    assert "MLED_QUEUES=gpu mled run worker" in message


def test_with_a_worker_that_serves_it_the_trials_are_planned(home, monkeypatch, gpu_model):
    _with(monkeypatch, "celery", {"one": {"training"}, "two": {"gpu"}})
    assert search.plan(REQUEST) == [[1]]


def test_on_one_machine_a_gpu_is_looked_for(home, monkeypatch, gpu_model):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(experiments.InvalidExperiment, match="torch finds no GPU on this machine"):
        search.plan(REQUEST)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert search.plan(REQUEST) == [[1]]


@pytest.fixture
def hook(monkeypatch):
    """The hook that Airflow calls for each task it makes."""
    monkeypatch.setenv("MLED_EXECUTOR", "celery")
    path = ROOT / "include" / "airflow" / "airflow_local_settings.py"
    spec = importlib.util.spec_from_file_location("airflow_local_settings_of_a_cluster", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.task_instance_mutation_hook


@pytest.mark.parametrize(
    ("queues", "conf", "queue"),
    [
        (QUEUES, {"model": "large"}, "gpu"),
        (QUEUES, {"preset": "night", "model": "small"}, "gpu"),
        (QUEUES, {"preset": "as filled in below", "model": "small"}, "training"),
        (QUEUES, {}, "training"),
        (QUEUES, None, "training"),
        ({}, {"model": "large"}, "training"),
        (None, {"model": "large"}, "training"),
    ],
)
def test_trials_go_to_the_queue_of_their_model(hook, queues, conf, queue):
    config = None if queues is None else {"queues": queues}
    task = SimpleNamespace(queue="training", executor_config=config)
    hook(task, dag_run=SimpleNamespace(conf=conf))
    assert task.queue == queue


def test_a_task_of_no_run_keeps_its_queue(hook):
    task = SimpleNamespace(queue="training", executor_config={"queues": QUEUES})
    hook(task, dag_run=None)
    assert task.queue == "training"


def test_one_machine_has_no_hook(monkeypatch):
    monkeypatch.delenv("MLED_EXECUTOR", raising=False)
    monkeypatch.delitem(sys.modules, "airflow_local_settings", raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "include" / "airflow"))
    import airflow_local_settings

    assert not hasattr(airflow_local_settings, "task_instance_mutation_hook")
