"""A grid search from end to end: planning its trials, running a shard of them, summing up."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mled import settings as settings_module
from mled.store import connect
from mled.store.experiments import ModelKind, Point, experiment
from mled.store.orphans import mark_orphans
from mled.store.reading import leaderboard
from mled.store.schema import FAILED, FINISHED, STATES, Attempt, Dataset, Experiment, Model, Trial
from mled.store.trials import Superseded
from training import datasets, experiments, models, trial

SHARDS_PER_WORKER = 4
LEADERS = 10

log = logging.getLogger(__name__)


def plan(request: Mapping[str, Any], trials_per_task: int = 0) -> list[list[int]]:
    """Register an experiment and its trials; returns those to run, in shards of trial ids.

    Trials that finished before are not run again. Nothing is registered when anything is wrong.
    `trials_per_task` is the size of a shard; 0 makes a few shards for each worker.

    Raises:
        InvalidExperiment: the request cannot be run; the message names each field.
        StoreError: the store cannot be written.
    """
    settings = settings_module.load()
    wanted = experiments.parse(request)
    points = wanted.points(settings.max_trials)
    model = models.get(wanted.model)
    database = connect(settings)
    planned = experiment(
        wanted.experiment,
        dataset=datasets.load(wanted.dataset).version,
        model=ModelKind(
            wanted.model,
            library=model.library,
            description=models.describe(wanted.model),
            hyperparameter_schema=model.hyperparameters.model_json_schema(),
        ),
        author=wanted.author,
        description=wanted.description,
        objective=wanted.objective,
        direction=wanted.direction,
        grid=wanted.grid,
        points=[Point(params, seed) for params, seed in points],
        database=database,
    )
    with database.read() as connection:
        finished = set(
            connection.execute(
                sa.select(Trial.id).where(
                    Trial.experiment_id == planned.id, Trial.state == FINISHED
                )
            ).scalars()
        )
    left = [id for id in planned.trial_ids if id not in finished]
    size = trials_per_task or max(1, math.ceil(len(left) / (settings.workers * SHARDS_PER_WORKER)))
    log.info(
        "%s: %d trials, %d of them finished before, %d to run in shards of %d",
        wanted.experiment,
        len(planned.trial_ids),
        len(planned.trial_ids) - len(left),
        len(left),
        size,
    )
    return [left[i : i + size] for i in range(0, len(left), size)]


def run(trial_ids: Sequence[int]) -> dict[str, int]:
    """Run trials one after the other; returns how many ended in which way.

    A trial that raises is recorded as failed and the next one is run; a trial that finished
    before (this is a retry) is left as it is.

    Raises:
        StoreError: the store cannot be written; trials that have ended are safe.
    """
    database = connect()
    with database.read() as connection:
        rows = connection.execute(
            sa.select(Trial.id, Trial.state, Model.name, Dataset.name)
            .join(Experiment, Experiment.id == Trial.experiment_id)
            .join(Model, Model.id == Experiment.model_id)
            .join(Dataset, Dataset.id == Experiment.dataset_id)
            .where(Trial.id.in_(list(trial_ids)))
        ).all()
    began = time.perf_counter()
    ended = {"finished": 0, "failed": 0, "reused": 0, "superseded": 0}
    for done, (id, state, model, dataset) in enumerate(rows, start=1):
        if state == FINISHED:
            ended["reused"] += 1
            continue
        try:
            trial.run(database, id, model, dataset)
            ended["finished"] += 1
        except Superseded as error:
            log.warning("%s", error)
            ended["superseded"] += 1
        except Exception:
            if not _has_failed(database, id):
                raise
            log.exception("trial %d failed", id)
            ended["failed"] += 1
        seconds = time.perf_counter() - began
        log.info(
            "trial %d: %d of %d done, %d failed, %.1f a second, about %.0f s left",
            id,
            done,
            len(rows),
            ended["failed"],
            done / seconds,
            seconds / done * (len(rows) - done),
        )
    return ended


def summarise(name: str, trial_ids: Sequence[int] = ()) -> dict[str, Any]:
    """Counts by state, the best trials, and the seconds of training of an experiment.

    Returns a dictionary that JSON can hold: `experiment`, `trials` (state → number),
    `trial_seconds`, `objective`, `best` (a list of rows), `failures` (error → number); and of
    `trial_ids`, how many `failed` and how many are `left` to run.
    """
    database = connect()
    mark_orphans(database)
    belongs = (Experiment.name == name, Trial.experiment_id == Experiment.id)
    latest = sa.and_(Attempt.trial_id == Trial.id, Attempt.number == Trial.attempt)
    with database.read() as connection:
        counts = dict(
            connection.execute(
                sa.select(Trial.state, sa.func.count()).where(*belongs).group_by(Trial.state)
            ).all()
        )
        seconds = connection.execute(
            sa.select(sa.func.sum(Attempt.duration_s)).where(*belongs, latest)
        ).scalar_one()
        failures = connection.execute(
            sa.select(Attempt.error_message, sa.func.count())
            .where(*belongs, latest, Attempt.error_message.is_not(None))
            .group_by(Attempt.error_message)
            .order_by(sa.func.count().desc())
            .limit(LEADERS)
        ).all()
        states = connection.execute(
            sa.select(Trial.id, Trial.state).where(*belongs, Trial.state != FINISHED)
        ).all()
        objective = connection.execute(
            sa.select(Experiment.objective).where(Experiment.name == name)
        ).scalar_one()
    ours = set(trial_ids)
    unfinished = [state for id, state in states if id in ours]
    best = leaderboard(name, n=LEADERS, database=database)
    # A hyperparameter that is the same everywhere says nothing about what is best.
    varying = (c for c in best if c.startswith("params.") and best[c].nunique(dropna=False) > 1)
    shown = ["value", "step", "seed", *varying]
    summary = {
        "experiment": name,
        "trials": {state: counts[state] for state in STATES if state in counts},
        "failed": unfinished.count(FAILED),
        "left": len(unfinished) - unfinished.count(FAILED),
        "trial_seconds": round(seconds or 0.0, 3),
        "objective": objective,
        "best": [
            {key: value if isinstance(value, str) else _finite(value) for key, value in row.items()}
            for row in best[shown].reset_index().to_dict("records")
        ],
        "failures": {message[:200]: count for message, count in failures},
    }
    log.info(
        "%s\ntrials: %s\nbest by %s:\n%s",
        name,
        ", ".join(f"{count} {state}" for state, count in summary["trials"].items()),
        objective,
        best[shown].to_string() if len(best) else "(none has finished with this metric)",
    )
    for message, count in summary["failures"].items():
        log.warning("%d failed: %s", count, message)
    return summary


def _has_failed(database, trial_id: int) -> bool:
    """Whether a trial's failure reached the store (if not, the store is what failed)."""
    with database.read() as connection:
        state = connection.execute(sa.select(Trial.state).where(Trial.id == trial_id)).scalar_one()
    return state == FAILED


def _finite(value: Any) -> Any:
    """NaN and infinity as text: Airflow's XCom cannot hold them."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
