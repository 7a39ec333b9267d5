"""Experiments as they are asked for: typed into a form, or kept as a YAML file in this folder."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mled.store.experiments import Point
from training import datasets, models
from training.files import InvalidFile
from training.grid import InvalidGrid, expand
from training.metrics import OBJECTIVES
from training.options import Order
from training.splits import Data, InvalidSplit, split

FOLDER = Path(__file__).parent

Seed = Annotated[int, Field(ge=0, lt=2**31)]
SAMPLE = "$sample"  # no hyperparameter can have this name


class InvalidExperiment(ValueError):
    """An experiment cannot be run; the message has a line for each field that is wrong."""


class Experiment(BaseModel):
    """A question with a dataset, a model and a grid.

    The first part of the grid DAG's form is made from this schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    experiment: str = Field(
        min_length=1,
        max_length=200,
        description="Name of the experiment. Triggering it again adds to it.",
    )
    author: str = Field("anonymous", min_length=1, max_length=200, description="Who asks.")
    description: str | None = Field(
        None, max_length=10_000, description="The question, in a sentence."
    )
    dataset: str = Field(
        description="What the trials learn from. 'file' reads the CSV or Parquet file at 'path'.",
        json_schema_extra={"enum": list(datasets.NAMES)},
    )
    path: str | None = Field(
        None, description="For the dataset 'file': its full path on the machine that trains."
    )
    target: str | None = Field(
        None, description="For the dataset 'file': the name of the column to predict."
    )
    model: str = Field(
        description="What the trials train.", json_schema_extra={"enum": models.names()}
    )
    grid: dict[str, Any] = Field(
        description="Name of a hyperparameter → list of values, or a range such as "
        '{"logspace": [0.001, 1, 4]}. A trial is run for each combination; what is left out '
        "takes its default."
    )
    sample: int | None = Field(
        None, ge=1, description="Run only so many combinations, picked at random. Empty: all."
    )
    sample_seed: Seed = Field(0, description="Another seed picks other combinations.")
    seeds: list[Seed] = Field(
        [0], min_length=1, description="Each combination is run once with each seed."
    )
    folds: int = Field(
        1,
        ge=1,
        le=100,
        description="1: a quarter of the rows is held out for evaluation. More: "
        "cross-validation; each combination and seed is run once for each fold.",
    )
    split_seed: Seed = Field(
        0, description="Another seed divides the rows in another way; the trials' seeds never do."
    )
    objective: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The metric that ranks the trials. Empty: accuracy for a classification, "
        "r2 for a regression, evaluation_return for reinforcement learning.",
    )
    direction: Literal["maximize", "minimize"] = Field(
        "maximize", description="Whether more of the objective is better."
    )

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice; remove one")
        return seeds

    @functools.cached_property
    def data(self) -> datasets.Dataset | datasets.Environment:
        """What the trials learn from.

        Raises:
            InvalidExperiment: there is no such dataset, or its file cannot be used.
        """
        if self.dataset not in datasets.NAMES:
            raise InvalidExperiment(_unknown("dataset", self.dataset, datasets.NAMES))
        try:
            return datasets.load(self.dataset, self.path, self.target)
        except InvalidFile as error:
            raise InvalidExperiment(str(error)) from error

    @property
    def ranks_by(self) -> str:
        """The metric that ranks the trials."""
        return self.objective or OBJECTIVES[self.data.task]

    def splits(self) -> list[Data]:
        """The split of each fold; none for an environment, which has no rows.

        Raises:
            InvalidExperiment: the dataset cannot be split this way.
        """
        if not isinstance(self.data, datasets.Dataset):
            if self.folds > 1:
                raise InvalidExperiment(
                    f"folds: {self.folds}: {self.dataset!r} has no rows to split; give 1"
                )
            return []
        try:
            return [
                split(self.data, self.folds, self.split_seed, fold) for fold in range(self.folds)
            ]
        except InvalidSplit as error:
            raise InvalidExperiment(str(error)) from error

    def points(self, max_trials: int, order: Order = "by_seed") -> list[Point]:
        """Every trial of the experiment, defaults filled in, in the order to run them.

        Raises:
            InvalidExperiment: the dataset or model is unknown, or one cannot learn from the
                other; the rows cannot be split; or the grid cannot be run.
        """
        problems, grid = [], []
        try:
            self.splits()
        except InvalidExperiment as error:
            problems.append(str(error))
        if self.model not in models.names():
            problems.append(_unknown("model", self.model, models.names()))
        else:
            if not problems and (reason := models.why_not(self.model, self.data)):
                problems.append(f"model: {reason}")
            limit = max_trials // (len(self.seeds) * self.folds)
            try:
                grid = expand(self.model, self.grid, limit, self.sample, self.sample_seed)
            except InvalidGrid as error:
                problems.append(str(error))
        if problems:
            raise InvalidExperiment("\n".join(problems))
        folds = range(self.folds)
        if order == "by_seed":
            return [Point(p, seed, fold) for seed in self.seeds for p in grid for fold in folds]
        points = [Point(p, seed, fold) for p in grid for seed in self.seeds for fold in folds]
        if order == "random":
            random.Random(self.sample_seed).shuffle(points)
        return points

    def recorded_grid(self) -> dict[str, Any]:
        """The grid as the store keeps it, with what was sampled from it."""
        if self.sample is None:
            return self.grid
        return {**self.grid, SAMPLE: {"points": self.sample, "seed": self.sample_seed}}


def parse(request: Mapping[str, Any]) -> Experiment:
    """An experiment from the values of a form or a file.

    Raises:
        InvalidExperiment: a field is missing, unknown, or of the wrong type.
    """
    try:
        return Experiment.model_validate(dict(request))
    except ValidationError as error:
        raise InvalidExperiment(
            "\n".join(_problem(part, request) for part in error.errors())
        ) from None


def presets() -> list[str]:
    """Names of the experiments kept in this folder."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset(name: str) -> dict[str, Any]:
    """The fields of an experiment kept in this folder.

    Raises:
        InvalidExperiment: there is none of this name, or its file is no YAML mapping.
    """
    if name not in presets():
        raise InvalidExperiment(_unknown("preset", name, presets()))
    try:
        fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    except yaml.YAMLError as error:
        raise InvalidExperiment(f"preset {name!r} is no YAML: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidExperiment(f"preset {name!r} is no mapping of field names to values")
    return fields


def _unknown(field: str, value: str, allowed) -> str:
    return f"{field}: {value!r} is unknown; there are {', '.join(allowed)}"


def _problem(part: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    field = ".".join(str(step) for step in part["loc"])
    if part["type"] == "missing":
        return f"{field}: missing; give {Experiment.model_fields[field].description}"
    if part["type"] == "extra_forbidden":
        return f"{field}: unknown; the fields are {', '.join(Experiment.model_fields)}"
    return f"{field}: {part['input']!r}: {part['msg'][0].lower()}{part['msg'][1:]}"
