"""Grids: from lists of values to the points of a search, checked against the model's schema."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mled.store.values import shorten
from training import models


class InvalidGrid(ValueError):
    """A grid cannot be run; the message has a line for each field that is wrong."""


def size(grid: Mapping[str, Sequence[Any]]) -> int:
    """How many points a grid has."""
    return math.prod(len(choices) for choices in grid.values())


def expand(model: str, grid: Mapping[str, Sequence[Any]], limit: int) -> list[dict[str, Any]]:
    """Every combination of a grid's values, each with the model's defaults filled in.

    Raises:
        InvalidGrid: a value list is empty or repeats a value, a hyperparameter is unknown, a
            value is of the wrong type or out of bounds, or there are more than `limit` points.
    """
    problems = [*_list_problems(grid), *_value_problems(model, grid)]
    if problems:
        raise InvalidGrid("\n".join(problems))
    if size(grid) > limit:
        factors = " x ".join(f"{name} {len(choices)}" for name, choices in grid.items())
        raise InvalidGrid(
            f"grid: {size(grid):,} points ({factors}) are more than the {limit:,} that are left "
            "to one grid (MLED_MAX_TRIALS, divided by the seeds): shorten a list or split the grid"
        )
    return [
        models.check(model, dict(zip(grid, point, strict=True)))
        for point in itertools.product(*grid.values())
    ]


def _list_problems(grid: Mapping[str, Sequence[Any]]) -> list[str]:
    problems = []
    for name, choices in grid.items():
        if isinstance(choices, str) or not isinstance(choices, Sequence):
            problems.append(
                f"grid.{name}: {shorten(choices)} is not a list; write [{shorten(choices)}]"
            )
        elif not choices:
            problems.append(f"grid.{name}: the list is empty; give at least one value or leave "
                            f"{name} out to use its default")  # fmt: skip
        elif repeated := [v for i, v in enumerate(choices) if v in choices[:i]]:
            problems.append(f"grid.{name}: {shorten(repeated[0])} stands there twice; remove one")
    return problems


def _value_problems(model: str, grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """Each value of the grid checked by itself, with the other hyperparameters at defaults."""
    problems = []
    fields = models.get(model).hyperparameters.model_fields
    for name, choices in grid.items():
        if name not in fields:
            problems.append(
                f"grid.{name}: {model} has no such hyperparameter; it has {', '.join(fields)}"
            )
        elif isinstance(choices, Sequence) and not isinstance(choices, str):
            for value in choices:
                try:
                    models.check(model, {name: value})
                except ValidationError as error:
                    problems.append(f"grid.{name}: {shorten(value)} {explain(error)}")
    return problems


def explain(error: ValidationError) -> str:
    """What is wrong with one value and what is allowed instead, in one line."""
    reasons = dict.fromkeys(part["msg"][0].lower() + part["msg"][1:] for part in error.errors())
    return f"is not allowed: {', or '.join(reasons)}"
