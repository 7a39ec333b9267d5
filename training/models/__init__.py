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
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from training.datasets import Data


class Hyperparameters(BaseModel):
    """Base of every model's hyperparameters: typed, with defaults, nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Log(Protocol):
    """Where a model reports its metrics: `log({"loss": 0.3}, step=epoch)`."""

    def __call__(self, metrics: Mapping[str, Any], step: int | None = None) -> None: ...


@dataclass(frozen=True)
class Model:
    """What a model file defines.

    Attributes:
        library: the package it is built on, as "scikit-learn" or "torch".
        hyperparameters: their types, bounds and defaults.
        train: called as `train(hyperparameters, data, seed, log)`; reports metrics to `log`.
    """

    library: str
    hyperparameters: type[Hyperparameters]
    train: Callable[[Any, Data, int, Log], None]


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
