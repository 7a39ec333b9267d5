"""Planning: from an experiment to the trials that are still to be run, in shards."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mled import settings as settings_module
from mled import workers
from mled.settings import Settings
from mled.store import Database, connect
from mled.store.experiments import ModelKind, experiment
from mled.store.orphans import mark_orphans
from mled.store.schema import FINISHED, PENDING, Attempt, Experiment, Split, Trial
from training import experiments, models, shards
from training.options import Options

RECENT = 200

log = logging.getLogger(__name__)


def plan(request: Mapping[str, Any], **options: Any) -> list[list[int]]:
    """Register an experiment and its trials; returns those to run, in shards of trial ids.

    `request` has the fields of `experiments.Experiment`, `options` are those of `Options`.
    Trials that finished before are left out, unless `only_missing` is false. Nothing is
    registered when anything is wrong.

    Raises:
        InvalidExperiment: the request cannot be run; the message names each field.
        StoreError: the store cannot be written.
    """
    settings = settings_module.load()
    chosen = Options(**options)
    wanted = experiments.parse(request)
    points = wanted.points(settings.max_trials, chosen.order)
    model = models.get(wanted.model)
    _check_queue(settings, wanted.model, model)
    database = connect(settings)
    _check_splits(database, wanted)
    planned = experiment(
        wanted.experiment,
        dataset=wanted.data.version,
        model=ModelKind(
            wanted.model,
            library=model.library,
            description=models.describe(wanted.model),
            hyperparameter_schema=model.hyperparameters.model_json_schema(),
        ),
        author=wanted.author,
        description=wanted.description,
        objective=wanted.ranks_by,
        direction=wanted.direction,
        grid=wanted.recorded_grid(),
        points=points,
        database=database,
    )
    mark_orphans(database)
    states = _states(database, planned.id)
    trial_ids = list(dict.fromkeys(planned.trial_ids))
    finished = [id for id in trial_ids if states[id] == FINISHED]
    left = [id for id in trial_ids if states[id] != FINISHED] if chosen.only_missing else trial_ids
    # What has failed before may fail again, or kill its task: the others must not wait for it.
    left.sort(key=lambda id: states[id] not in (PENDING, FINISHED))
    postponed = max(0, len(left) - chosen.budget_trials) if chosen.budget_trials else 0
    left = left[: len(left) - postponed]
    seconds = _trial_seconds(database, planned.id)
    result = shards.cut(left, settings.all_workers, seconds, chosen.trials_per_task)
    log.info(
        "%s: %d trials; %d finished before%s; %d to run in %d tasks%s%s",
        wanted.experiment,
        len(trial_ids),
        len(finished),
        " and are not run again" if chosen.only_missing else " and are run again",
        len(left),
        len(result),
        f"; {postponed} stay pending (budget_trials)" if postponed else "",
        f"; a trial has taken {seconds:.3g} s so far" if seconds is not None else "",
    )
    return result


def _check_queue(settings: Settings, name: str, model: models.Model) -> None:
    """Raises InvalidExperiment when no worker could train this model."""
    if model.queue == workers.TRAINING:
        return
    try:
        workers.check_queue(settings, model.queue, name)
    except workers.NoWorker as error:
        raise experiments.InvalidExperiment(f"model: {error}") from None


def _check_splits(database: Database, wanted: experiments.Experiment) -> None:
    """Raises InvalidExperiment when trials of the experiment have seen other splits."""
    digests = {fold: data.record.digest for fold, data in enumerate(wanted.splits())}
    query = (
        sa.select(Trial.repeat, Split.digest, Split.method)
        .join(Split, Split.id == Trial.split_id)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Experiment.name == wanted.experiment)
        .distinct()
    )
    with database.read() as connection:
        for fold, digest, method in connection.execute(query):
            if digests.get(fold) != digest:
                raise experiments.InvalidExperiment(
                    f"folds: {wanted.folds} with split_seed {wanted.split_seed}: trials of "
                    f"{wanted.experiment!r} have seen another split of the rows ({method}), with "
                    "which these could not be compared; give this experiment another name"
                )


def _states(database: Database, experiment_id: int) -> dict[int, str]:
    query = sa.select(Trial.id, Trial.state).where(Trial.experiment_id == experiment_id)
    with database.read() as connection:
        return dict(connection.execute(query).all())


def _trial_seconds(database: Database, experiment_id: int) -> float | None:
    """Mean seconds of the latest trials of this experiment, else of its model on its dataset."""
    ours = sa.select(Experiment.model_id, Experiment.dataset_id).where(
        Experiment.id == experiment_id
    )
    with database.read() as connection:
        model_id, dataset_id = connection.execute(ours).one()
        for alike in (
            Experiment.id == experiment_id,
            sa.and_(Experiment.model_id == model_id, Experiment.dataset_id == dataset_id),
        ):
            latest = (
                sa.select(Attempt.duration_s)
                .join(Trial, Trial.id == Attempt.trial_id)
                .join(Experiment, Experiment.id == Trial.experiment_id)
                .where(alike, Attempt.state == FINISHED)
                .order_by(Attempt.ended_at.desc())
                .limit(RECENT)
                .subquery()
            )
            mean = connection.execute(sa.select(sa.func.avg(latest.c.duration_s))).scalar_one()
            if mean is not None:
                return mean
    return None
