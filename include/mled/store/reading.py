"""Reading back: the trials of an experiment, their curves, and leaderboards.

Each function gives a pandas frame; `to_arrow` makes an Arrow table of one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from mled import settings as settings_module
from mled.store import criteria, values
from mled.store.artifacts import find_file
from mled.store.database import Database, connect
from mled.store.dialects import StoreError
from mled.store.schema import (
    Artifact,
    Attempt,
    Dataset,
    Experiment,
    Hyperparameter,
    Metric,
    Model,
    Trial,
)
from mled.store.values import InvalidValue


def find_experiment(database: Database, name: str) -> sa.Row:
    """The row of an experiment, with the names of its model and dataset.

    Raises:
        StoreError: there is none of this name.
    """
    query = (
        sa.select(Experiment, Model.name.label("model"), Dataset.name.label("dataset"))
        .join(Model, Model.id == Experiment.model_id)
        .join(Dataset, Dataset.id == Experiment.dataset_id)
        .where(Experiment.name == name)
    )
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
        if row is None:
            known = connection.execute(
                sa.select(Experiment.name).order_by(Experiment.updated_at.desc()).limit(10)
            ).scalars()
            raise StoreError(
                f"there is no experiment {name!r}; the latest are {', '.join(known) or 'none'}"
            )
    return row


def trials(
    experiment: str, where: str | None = None, *, database: Database | None = None
) -> pd.DataFrame:
    """The trials of an experiment, one row each, indexed by `trial_id`.

    `where` keeps those that meet criteria, such as `params.lr < 0.01 and state == "finished"`
    (see `criteria.py`).

    Columns: `state`, `seed`, `repeat`, `attempt`, `started_at` and `ended_at` (UTC),
    `duration_s`, `error_message`, and `params.<name>` for each hyperparameter.

    Raises:
        StoreError: there is no such experiment.
        InvalidValue: the criteria cannot be read.
    """
    database = database or connect()
    picked = [Trial.experiment_id == find_experiment(database, experiment).id]
    if where is not None:
        picked.append(criteria.where(where))
    query = (
        sa.select(
            Trial.id.label("trial_id"),
            Trial.state,
            Trial.seed,
            Trial.repeat,
            Trial.attempt,
            Trial.started_at,
            Trial.ended_at,
            Attempt.duration_s,
            Attempt.error_message,
        )
        .outerjoin(Attempt, sa.and_(Attempt.trial_id == Trial.id, Attempt.number == Trial.attempt))
        .where(*picked)
        .order_by(Trial.id)
    )
    params = (
        sa.select(
            Hyperparameter.trial_id,
            Hyperparameter.name,
            Hyperparameter.kind,
            Hyperparameter.number,
            Hyperparameter.text,
        )
        .join(Trial)
        .where(*picked)
    )
    with database.read() as connection:
        frame = pd.DataFrame(connection.execute(query).mappings().all()).convert_dtypes()
        rows = connection.execute(params).all()
    if frame.empty:
        return pd.DataFrame(columns=[c.name for c in query.selected_columns]).set_index("trial_id")
    for column in ("started_at", "ended_at"):
        frame[column] = pd.to_datetime(frame[column], unit="us", utc=True)
    frame = frame.set_index("trial_id")
    wide: dict[str, dict[int, object]] = {}
    for trial_id, name, *value in rows:
        wide.setdefault(name, {})[trial_id] = values.decode(*value)
    columns = {f"params.{name}": pd.Series(wide[name]) for name in sorted(wide)}
    return frame.assign(**{name: series.infer_objects() for name, series in columns.items()})


def curves(
    trial_ids: Sequence[int], metrics: Sequence[str] = (), *, database: Database | None = None
) -> pd.DataFrame:
    """The points of trials: columns `trial_id`, `metric`, `step`, `value`, in that order.

    `metrics` keeps some of them; all by default. Values that are no number are left out.
    """
    database = database or connect()
    query = (
        sa.select(Metric.trial_id, Metric.name, Metric.step, Metric.number)
        .where(Metric.trial_id.in_([int(id) for id in trial_ids]), Metric.text.is_(None))
        .order_by(Metric.trial_id, Metric.name, Metric.step)
    )
    if metrics:
        query = query.where(Metric.name.in_(list(metrics)))
    with database.read() as connection:
        rows = connection.execute(query).all()
    frame = pd.DataFrame(rows, columns=["trial_id", "metric", "step", "value"])
    return frame.astype({"trial_id": "int64", "step": "int64", "value": "float64"})


def artifact(trial_id: int, name: str, *, database: Database | None = None) -> Path:
    """A file that a trial kept: its copy on this machine, fetched from an object store if need be.

    Raises:
        StoreError: the trial has no artifact of this name, or its file cannot be had.
    """
    settings = settings_module.load()
    query = sa.select(Artifact.sha256).where(Artifact.trial_id == trial_id, Artifact.name == name)
    with (database or connect(settings)).read() as connection:
        digest = connection.execute(query).scalar()
    if digest is None:
        raise StoreError(f"trial {trial_id} has no artifact {name!r}")
    try:
        return find_file(digest, settings)
    except OSError as error:
        raise StoreError(f"artifact {name!r} of trial {trial_id}: {error}") from error


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """An Arrow table with the frame's index as its first column.

    A hyperparameter that is a number in one trial and text in another becomes text.
    """
    frame = frame.reset_index() if frame.index.name else frame
    mixed = {
        name: frame[name].map(lambda v: v if v is None or isinstance(v, str) else json.dumps(v))
        for name in frame
        if frame[name].dtype == object and frame[name].map(type).nunique() > 1
    }
    return pa.Table.from_pandas(frame.assign(**mixed), preserve_index=False)


def leaderboard(
    experiment: str,
    metric: str | None = None,
    *,
    by: str | int = "best",
    n: int = 10,
    where: str | None = None,
    database: Database | None = None,
) -> pd.DataFrame:
    """The `n` best finished trials of an experiment, best first, with their hyperparameters.

    `metric` is the experiment's objective by default. `by` says which of a trial's points
    counts: "best" (by the experiment's direction), "last", or the number of a step. `where` keeps
    the trials that meet criteria, as in `trials`.

    Columns: `value`, `step`, and those of `trials`; indexed by `trial_id`.

    Raises:
        StoreError: there is no such experiment, or it has no objective and none is given.
        InvalidValue: `by` is none of these, or the criteria cannot be read.
    """
    database = database or connect()
    row = find_experiment(database, experiment)
    metric = metric or row.objective
    if metric is None:
        raise StoreError(f"experiment {experiment!r} has no objective; name a metric")
    descending = row.direction == "maximize"
    order = {"best": Metric.number, "last": Metric.step}
    if by not in order and (not isinstance(by, int) or isinstance(by, bool)):
        raise InvalidValue(f"by={by!r}: give 'best', 'last' or the number of a step")
    ranked = (
        sa.select(
            Metric.trial_id,
            Metric.number.label("value"),
            Metric.step,
            sa.func.row_number()
            .over(
                partition_by=Metric.trial_id,
                order_by=(
                    Metric.step.desc()
                    if by == "last"
                    else (Metric.number.desc() if descending else Metric.number),
                    Metric.step,
                ),
            )
            .label("place"),
        )
        .join(Trial)
        .where(
            Trial.experiment_id == row.id,
            Trial.state == "finished",
            Metric.name == metric,
            Metric.number.is_not(None),
        )
    )
    if where is not None:
        ranked = ranked.where(criteria.where(where))
    if isinstance(by, int):
        ranked = ranked.where(Metric.step == by)
    ranked = ranked.subquery()
    best = (
        sa.select(ranked.c.trial_id, ranked.c.value, ranked.c.step)
        .where(ranked.c.place == 1)
        .order_by(ranked.c.value.desc() if descending else ranked.c.value, ranked.c.trial_id)
        .limit(n)
    )
    with database.read() as connection:
        rows = connection.execute(best).all()
    frame = pd.DataFrame(rows, columns=["trial_id", "value", "step"]).set_index("trial_id")
    return frame.join(trials(experiment, where, database=database))
