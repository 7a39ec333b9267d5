"""Experiments as they are asked for: typed into a form, or kept as a YAML file in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from training import datasets, models
from training.grid import InvalidGrid, expand

FOLDER = Path(__file__).parent

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class InvalidExperiment(ValueError):
    """An experiment cannot be run; the message has a line for each field that is wrong."""


class Experiment(BaseModel):
    """A question with a dataset, a model and a grid.

    The parameter form of the grid DAG is made from this schema.
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
        description="What the trials learn from.", json_schema_extra={"enum": list(datasets.NAMES)}
    )
    model: str = Field(
        description="What the trials train.", json_schema_extra={"enum": models.names()}
    )
    grid: dict[str, list[Any]] = Field(
        description="Name of a hyperparameter → list of values. A trial is run for each "
        "combination; what is left out takes its default."
    )
    seeds: list[Seed] = Field(
        [0], min_length=1, description="Each combination is run once with each seed."
    )
    objective: str = Field(
        "accuracy", min_length=1, max_length=200, description="The metric that ranks the trials."
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

    def points(self, max_trials: int) -> list[tuple[dict[str, Any], int]]:
        """Hyperparameters and seed of every trial, defaults filled in.

        Raises:
            InvalidExperiment: the dataset or model is unknown, or the grid cannot be run.
        """
        problems = []
        if self.dataset not in datasets.NAMES:
            problems.append(_unknown("dataset", self.dataset, datasets.NAMES))
        if self.model not in models.names():
            problems.append(_unknown("model", self.model, models.names()))
        else:
            try:
                grid = expand(self.model, self.grid, max_trials // len(self.seeds))
            except InvalidGrid as error:
                problems.append(str(error))
        if problems:
            raise InvalidExperiment("\n".join(problems))
        return [(params, seed) for seed in self.seeds for params in grid]


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
