"""Experiments: getting or creating one, and registering its trials."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled.store import values
from mled.store.database import Database, connect
from mled.store.rows import find_or_insert
from mled.store.schema import DIRECTIONS, PENDING, Author, Dataset, Hyperparameter, Model
from mled.store.schema import Experiment as ExperimentRow
from mled.store.schema import Trial as TrialRow
from mled.store.trials import Trial
from mled.store.values import InvalidValue, check_name

UNVERSIONED = "unversioned"


@dataclass(frozen=True)
class DatasetVersion:
    """A data set as trials saw it; `version` is the hash of its content."""

    name: str
    version: str = UNVERSIONED
    source: str | None = None
    task: str | None = None
    rows: int | None = None
    features: int | None = None
    classes: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class ModelKind:
    """A kind of model, and the JSON schema of its hyperparameters."""

    name: str
    library: str | None = None
    description: str | None = None
    hyperparameter_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Point:
    """One trial to be: hyperparameters, seed, repeat."""

    params: Mapping[str, Any]
    seed: int = 0
    repeat: int = 0


def experiment(
    name: str,
    *,
    dataset: str | DatasetVersion,
    model: str | ModelKind,
    author: str | None = None,
    description: str | None = None,
    objective: str | None = None,
    direction: str | None = None,
    grid: Mapping[str, Any] | None = None,
    points: Iterable[Point] = (),
    database: Database | None = None,
) -> Experiment:
    """Get or create an experiment; trials for `points` are registered in the same transaction.

    `objective` names the metric that ranks the trials, `direction` is "maximize" or "minimize".
    What is given replaces what an existing experiment has; what is left out stays.

    Raises:
        InvalidValue: a name or value cannot be kept, or the experiment exists with another
            model, dataset, or version of the dataset.
        StoreError: the store cannot be written.
    """
    check_name("experiment", name)
    author = check_name("author", author or getpass.getuser())
    dataset = DatasetVersion(dataset) if isinstance(dataset, str) else dataset
    model = ModelKind(model) if isinstance(model, str) else model
    check_name("dataset", dataset.name)
    check_name("model", model.name)
    if objective is not None:
        check_name("metric", objective)
    if direction not in (None, *DIRECTIONS):
        raise InvalidValue(f"direction {direction!r} is not one of {', '.join(DIRECTIONS)}")
    encoded = [_encode(point) for point in points]
    database = database or connect()
    with database.write() as connection:
        find = partial(find_or_insert, database, connection)
        dataset_id = find(Dataset, asdict(dataset), ("name", "version"))
        model_id = find(Model, asdict(model), ("name",))
        row = connection.execute(
            sa.select(
                ExperimentRow.model_id,
                ExperimentRow.dataset_id,
                Model.name.label("model"),
                Dataset.name.label("dataset"),
                Dataset.version,
            )
            .join(Model)
            .join(Dataset)
            .where(ExperimentRow.name == name)
        ).one_or_none()
        if row is not None and (row.model_id, row.dataset_id) != (model_id, dataset_id):
            raise InvalidValue(
                f"experiment {name!r} is about model {row.model!r} on dataset {row.dataset!r} "
                f"(version {row.version[:12]}), not {model.name!r} on {dataset.name!r} (version "
                f"{dataset.version[:12]}): give this one another name"
            )
        facts = {
            "author_id": find(Author, {"name": author}, ("name",)),
            "description": description,
            "objective": objective,
            "direction": direction,
            "grid": None if grid is None else dict(grid),
        }
        id = find(
            ExperimentRow,
            {"name": name, "model_id": model_id, "dataset_id": dataset_id, **facts},
            ("name",),
        )
        trial_ids = _register(database, connection, id, encoded)
    return Experiment(database, id, name, trial_ids)


class Experiment:
    """An experiment of the store.

    Attributes:
        id, name: its key and its name.
        trial_ids: the trials of the `points` it was made with, in their order.
    """

    def __init__(self, database: Database, id: int, name: str, trial_ids: Sequence[int] = ()):
        self.database, self.id, self.name = database, id, name
        self.trial_ids = list(trial_ids)

    def register(self, points: Iterable[Point]) -> list[int]:
        """Make sure there is a pending trial for each point; returns their ids, in order.

        A point that was registered before keeps its trial, whatever state that is in.

        Raises:
            InvalidValue: a hyperparameter cannot be kept; then none is registered.
        """
        encoded = [_encode(point) for point in points]
        with self.database.write() as connection:
            return _register(self.database, connection, self.id, encoded)

    def trial(
        self,
        params: Mapping[str, Any],
        *,
        seed: int = 0,
        repeat: int = 0,
        resume: bool = False,
        code: str | Path | None = None,
    ) -> Trial:
        """A trial to be run as a context manager; its identity is (params, seed, repeat).

        Running it again is a new attempt of the same trial, which starts without the points of
        the attempts before, or keeps them with `resume`. `code` is the folder whose git commit
        is recorded (the main script's by default).
        """
        (trial_id,) = self.register([Point(params, seed, repeat)])
        return Trial(self.database, trial_id, resume=resume, code=code)


def _encode(point: Point) -> tuple[Point, dict[str, values.Encoded]]:
    for what, number in (("seed", point.seed), ("repeat", point.repeat)):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
            raise InvalidValue(f"{what} {number!r}: give a whole number from 0 to {2**31 - 1:,}")
    return point, values.encode_hyperparameters(point.params)


def _register(
    database: Database,
    connection: Connection,
    experiment_id: int,
    encoded: Sequence[tuple[Point, dict[str, values.Encoded]]],
) -> list[int]:
    if not encoded:
        return []
    keys = [(values.identity(params), point.seed, point.repeat) for point, params in encoded]
    known = _known_trials(connection, experiment_id, keys)
    new = {
        key: (point, params)
        for key, (point, params) in zip(keys, encoded, strict=True)
        if key not in known
    }
    if new:
        with database.ticket(connection) as stamp:
            stamps = {"created_at": stamp, "updated_at": stamp}
            insert = database.dialect.insert
            connection.execute(
                insert(TrialRow).on_conflict_do_nothing(),
                [
                    {
                        "experiment_id": experiment_id,
                        "identity": key[0],
                        "seed": key[1],
                        "repeat": key[2],
                        "hyperparameters": values.as_json(params),
                        "state": PENDING,
                        **stamps,
                    }
                    for key, (_, params) in new.items()
                ],
            )
            known |= _known_trials(connection, experiment_id, list(new))
            rows = [
                {"trial_id": known[key], "name": name, **value._asdict(), **stamps}
                for key, (_, params) in new.items()
                for name, value in params.items()
            ]
            if rows:
                connection.execute(insert(Hyperparameter).on_conflict_do_nothing(), rows)
    return [known[key] for key in keys]


def _known_trials(
    connection: Connection, experiment_id: int, keys: Sequence[tuple[str, int, int]]
) -> dict[tuple[str, int, int], int]:
    """The ids of the experiment's trials that have one of these (identity, seed, repeat)."""
    columns = (TrialRow.identity, TrialRow.seed, TrialRow.repeat, TrialRow.id)
    query = sa.select(*columns).where(TrialRow.experiment_id == experiment_id)
    if len(keys) <= 100:
        query = query.where(TrialRow.identity.in_({key[0] for key in keys}))
    return {(i, seed, repeat): id for i, seed, repeat, id in connection.execute(query)}
