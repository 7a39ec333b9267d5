"""The models that trials can train, one file each.

A file of this folder is a model when it defines `MODEL`; its name is the file's. Files import
their libraries inside `train`, so that listing the models costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mled.workers import TRAINING
from training.datasets import CLASSIFICATION, Dataset, Environment, Task
from training.session import Session


class Hyperparameters(BaseModel):
    """Base of every model's hyperparameters: typed, with defaults, nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EarlyStopping(Hyperparameters):
    """What every model that trains in epochs has as well; `monitor` is the metric that counts."""

    patience: int = Field(
        0, ge=0, le=10_000, description="epochs without improvement that end training; 0: never"
    )
    min_delta: float = Field(0.0, ge=0, description="smallest change that is an improvement")
    monitor: str = Field(description="metric that has to improve")


@dataclass(frozen=True)
class Model:
    """What a model file defines.

    Attributes:
        library: the package it is built on, as "scikit-learn" or "torch".
        hyperparameters: their types, bounds and defaults.
        train: called as `train(hyperparameters, data, seed, session)`; reports its metrics to
            `session`. `data` is a `training.splits.Data`, or an `Environment`.
        tasks: what it can learn: "classification", "regression", "reinforcement-learning".
        images: whether the rows must be pictures.
        queue: which workers train it, where there are several: "gpu" for those with a GPU.
    """

    library: str
    hyperparameters: type[Hyperparameters]
    train: Callable[[Any, Any, int, Session], None]
    tasks: tuple[Task, ...] = (CLASSIFICATION,)
    images: bool = False
    queue: str = TRAINING


class UnknownModel(ValueError):
    """There is no model of this name."""


def names() -> list[str]:
    """The names of all models; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@functools.cache
def get(name: str) -> Model:
    """The model of this name.

    Raises:
        UnknownModel: there is none.
    """
    if name not in names():
        raise UnknownModel(f"model {name!r} is unknown; there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").MODEL


def describe(name: str) -> str:
    """First paragraph of a model file's docstring."""
    get(name)
    text = importlib.import_module(f"{__name__}.{name}").__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())


def check(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a model with types made right and defaults filled in.

    Raises:
        UnknownModel: there is no such model.
        pydantic.ValidationError: a hyperparameter is unknown, of the wrong type, or out of bounds.
    """
    return get(name).hyperparameters.model_validate(dict(params)).model_dump()


def why_not(name: str, dataset: Dataset | Environment) -> str | None:
    """Why a model cannot learn from this data set, in words; None when it can."""
    model = get(name)
    if dataset.task not in model.tasks:
        able = [other for other in names() if dataset.task in get(other).tasks]
        return (
            f"{name} is for {' and '.join(model.tasks)}, and {dataset.version.name!r} is for "
            f"{dataset.task}; choose {' or '.join(able)}"
        )
    if model.images and dataset.image is None:
        return f"{name} needs pictures, and the rows of {dataset.version.name!r} are none"
    return None
