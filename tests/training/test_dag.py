"""The grid DAG: its form, its tasks, and how it keeps the state of unfinished trials."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mled.settings import ROOT
from training import models
from training.experiments import Experiment
from training.options import Options

DESCRIBE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import grid_search
dag = grid_search.grid_search()

class Store(dict):
    set = dict.__setitem__
    delete = dict.__delitem__

def kept(state):
    store, folder = Store(), Path(sys.argv[2]).parent / "states"
    checkpoints = grid_search.TaskStateCheckpoints(folder, store)
    assert checkpoints.read(7) is None
    checkpoints.write(7, state)
    here = checkpoints.read(7) == state
    elsewhere = grid_search.TaskStateCheckpoints(folder / "other-host", store).read(7) == state
    next_run = grid_search.TaskStateCheckpoints(folder, Store()).read(7) == state
    if "trial-7" in store:
        checkpoints.delete(7)
        assert not store and not list(folder.iterdir())
    return here, elsewhere, next_run

json.dump({
    "params": {name: param.schema for name, param in grid_search.PARAMS.items()},
    "defaults": dag.params.validate(),
    "tasks": {t.task_id: [t.pool, t.retries, t.trigger_rule] for t in dag.tasks},
    "order": [sorted(t.downstream_task_ids) for t in dag.tasks],
    "small": kept(b"\\x00" * 1000),
    "large": kept(b"\\x00" * 100_000),
}, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def dag(tmp_path_factory):
    """What the DAG file says, read by an Airflow of its own."""
    folder = tmp_path_factory.mktemp("dag")
    result = folder / "dag.json"
    environ = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(folder), "MLED_HOME": str(folder)}
    command = [sys.executable, "-c", DESCRIBE, str(ROOT / "dags"), str(result)]
    subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    return json.loads(result.read_text())


def test_the_form_has_a_field_for_each_of_an_experiments_and_is_valid_as_it_opens(dag):
    fields = ["preset", *Experiment.model_fields, *Options.model_fields]
    assert list(dag["params"]) == list(dag["defaults"]) == fields
    assert dag["params"]["model"]["enum"] == models.names()
    for name in models.names():
        for field in models.get(name).hyperparameters.model_fields:
            assert field in dag["params"]["grid"]["description_md"]


def test_trials_run_in_their_pool_and_are_retried(dag):
    assert dag["tasks"]["plan"][0] == "default_pool"
    assert dag["tasks"]["run_trials"] == ["training", 4, "all_success"]
    assert dag["tasks"]["summarise"][2] == "all_done"
    assert dag["order"] == [["run_trials", "summarise"], ["summarise"], []]


def test_a_small_state_reaches_every_host_and_a_large_one_lies_in_a_file(dag):
    here, elsewhere, next_run = True, True, True
    assert dag["small"] == [here, elsewhere, next_run]
    assert dag["large"] == [here, not elsewhere, next_run]
