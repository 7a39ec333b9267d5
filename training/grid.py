"""Grids: from values, ranges and conditions to the points of a search.

A grid maps the name of a hyperparameter to its values, which are one of

- a list: `[0.1, 1, 10]`;
- a range: `{"logspace": [first, last, count]}` or `{"linspace": [first, last, count]}`, with both
  ends, or `{"range": [first, last]}`, whole numbers with both ends, or `[first, last, step]`;
- either of them under a condition: `{"values": [2, 3], "when": {"kernel": ["poly"]}}`. Where the
  condition does not hold, the hyperparameter takes its default and adds no points.

The last hyperparameter varies fastest; those that conditions ask for vary slowest.
"""

from __future__ import annotations

import bisect
import graphlib
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mled.store.values import shorten
from training import models

MAX_VALUES = 100_000
DIGITS = 12  # of a range's values: 0.30000000000000004 helps nobody


class InvalidGrid(ValueError):
    """A grid cannot be run; the message has a line for each field that is wrong."""


@dataclass(frozen=True)
class Axis:
    """One hyperparameter of a grid: its values, and when it varies."""

    name: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]]

    def varies(self, point: Mapping[str, Any]) -> bool:
        """Whether the condition holds at a point that has what the condition asks for."""
        return all(name in point and point[name] in wanted for name, wanted in self.when.items())


class Grid(Sequence[dict[str, Any]]):
    """The points of a grid, made when they are asked for: a large one costs nothing to sample."""

    def __init__(self, model: str, grid: Mapping[str, Any]):
        """Read a grid and check it against the model's hyperparameters.

        Raises:
            InvalidGrid: values cannot be read, are none, repeated, of the wrong type or out of
                bounds; a hyperparameter is unknown; a condition can never hold.
        """
        self._model = model
        self.axes = _read(model, grid)
        asked = {name for axis in self.axes for name in axis.when}
        drivers = [axis for axis in _in_order(self.axes) if axis.name in asked]
        self._rest = [axis for axis in self.axes if axis.name not in asked]
        self._branches: list[dict[str, Any]] = [{}]
        for axis in drivers:
            self._branches = [
                {**branch, **chosen}
                for branch in self._branches
                for chosen in (
                    [{axis.name: value} for value in axis.values] if axis.varies(branch) else [{}]
                )
            ]
            if len(self._branches) > MAX_VALUES:
                raise InvalidGrid(
                    f"grid: the hyperparameters in conditions ({', '.join(sorted(asked))}) have "
                    f"more than {MAX_VALUES:,} combinations: shorten their lists"
                )
        self._ends = list(itertools.accumulate(map(self._size, self._branches)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Hyperparameters of one point, defaults filled in.

        Raises:
            InvalidGrid: the model does not allow this combination of values.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        branch = bisect.bisect_right(self._ends, index)
        point = dict(self._branches[branch])
        index -= self._ends[branch - 1] if branch else 0
        for axis in reversed([axis for axis in self._rest if axis.varies(point)]):
            index, place = divmod(index, len(axis.values))
            point[axis.name] = axis.values[place]
        try:
            return models.check(self._model, point)
        except ValidationError as error:
            raise InvalidGrid(f"grid: {shorten(point)} {explain(error)}") from None

    def sample(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """`count` different points at random, in the grid's order; all when there are no more."""
        if count >= len(self):
            return iter(self)
        picked = random.Random(seed).sample(range(len(self)), count)
        return (self[index] for index in sorted(picked))

    def arithmetic(self) -> str:
        """Where the number of points comes from, as "C 4 x gamma 3"."""
        factors = " x ".join(f"{axis.name} {len(axis.values)}" for axis in self.axes)
        return factors + ", where they vary" * any(axis.when for axis in self.axes)

    def _size(self, branch: Mapping[str, Any]) -> int:
        return math.prod(len(axis.values) for axis in self._rest if axis.varies(branch))


def expand(
    model: str,
    grid: Mapping[str, Any],
    limit: int,
    sample: int | None = None,
    sample_seed: int = 0,
) -> list[dict[str, Any]]:
    """The points of a grid, or `sample` of them at random, with the model's defaults filled in.

    Raises:
        InvalidGrid: the grid cannot be read, or there are more than `limit` points.
    """
    points = Grid(model, grid)
    count = min(len(points), sample or len(points))
    if count > limit:
        raise InvalidGrid(
            f"grid: {count:,} points ({points.arithmetic()}) are more than the {limit:,} that are "
            "left to one grid (MLED_MAX_TRIALS, divided by the seeds and folds): shorten a list, "
            "split the grid, or give a smaller sample"
        )
    return list(points.sample(count, sample_seed))


def _read(model: str, grid: Mapping[str, Any]) -> list[Axis]:
    fields = models.get(model).hyperparameters.model_fields
    problems: list[str] = []
    axes: dict[str, Axis] = {}
    for name, spec in grid.items():
        if name not in fields:
            problems.append(
                f"grid.{name}: {model} has no such hyperparameter; it has {', '.join(fields)}"
            )
            continue
        try:
            values, when = _parse(name, spec)
        except InvalidGrid as error:
            problems.append(str(error))
            continue
        checked, found = _check_values(model, name, values)
        problems += found
        axes[name] = Axis(name, tuple(checked), when)
    for axis in axes.values():
        conditions = {}
        for other, wanted in axis.when.items():
            conditions[other], found = _check_condition(model, axis.name, other, wanted, axes)
            problems += found
        axes[axis.name] = Axis(axis.name, axis.values, conditions)
    if problems:
        raise InvalidGrid("\n".join(problems))
    _in_order(list(axes.values()))
    return list(axes.values())


def _parse(name: str, spec: Any) -> tuple[list[Any], dict[str, Any]]:
    """The values that a grid gives for a hyperparameter, and their condition as it is written."""
    when: dict[str, Any] = {}
    if isinstance(spec, Mapping) and "when" in spec:
        if set(spec) != {"values", "when"} or not isinstance(spec["when"], Mapping):
            raise InvalidGrid(
                f'grid.{name}: {shorten(spec)} cannot be read; write {{"values": [2, 3], '
                '"when": {"kernel": ["poly"]}}'
            )
        spec, when = spec["values"], dict(spec["when"])
    if isinstance(spec, Mapping):
        return _span(name, spec), when
    if isinstance(spec, str) or not isinstance(spec, Sequence):
        raise InvalidGrid(f"grid.{name}: {shorten(spec)} is not a list; write [{shorten(spec)}]")
    if not spec:
        raise InvalidGrid(
            f"grid.{name}: the list is empty; give at least one value or leave {name} out to use "
            "its default"
        )
    return list(spec), when


def _span(name: str, spec: Mapping[str, Any]) -> list[float]:
    """The values of a range such as `{"linspace": [0, 1, 5]}`."""
    kind, numbers = next(iter(spec.items()), (None, None))
    if len(spec) != 1 or kind not in SPANS:
        raise InvalidGrid(
            f"grid.{name}: {shorten(dict(spec))} is neither a list nor a range; the ranges are "
            '{"logspace": [0.001, 1, 4]}, {"linspace": [0, 1, 5]} and {"range": [1, 10]}'
        )
    span, usage = SPANS[kind]
    if not isinstance(numbers, list) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers
    ):
        raise InvalidGrid(f"grid.{name}: {shorten(numbers)} is no list of numbers; {usage}")
    try:
        values = span(*numbers)
    except (TypeError, ValueError):
        raise InvalidGrid(f"grid.{name}: {shorten(numbers)} is no {kind}; {usage}") from None
    return [int(v) if float(v).is_integer() else float(f"{v:.{DIGITS}g}") for v in values]


def _linspace(first: float, last: float, count: int) -> list[float]:
    _check_count(count)
    return [first + (last - first) * i / (count - 1) for i in range(count)]


def _logspace(first: float, last: float, count: int) -> list[float]:
    _check_count(count)
    if first <= 0 or last <= 0:
        raise ValueError
    return [first * (last / first) ** (i / (count - 1)) for i in range(count)]


def _range(first: int, last: int, step: int = 1) -> Sequence[int]:
    if not all(isinstance(n, int) for n in (first, last, step)):
        raise ValueError
    values = range(first, last + (1 if step > 0 else -1), step)
    if not 0 < len(values) <= MAX_VALUES:
        raise ValueError
    return values


def _check_count(count: int) -> None:
    if not isinstance(count, int) or not 2 <= count <= MAX_VALUES:
        raise ValueError


SPANS = {
    "linspace": (
        _linspace,
        f"give first, last and how many (2 to {MAX_VALUES:,}), as in [0, 1, 5]",
    ),
    "logspace": (
        _logspace,
        "give the first and last value themselves, above 0, and how many "
        f"(2 to {MAX_VALUES:,}), as in [0.001, 1, 4]",
    ),
    "range": (
        _range,
        "give first and last, both included, and a step if it is not 1, in whole numbers, as in "
        f"[1, 10] or [10, 100, 10]; at most {MAX_VALUES:,} values",
    ),
}


def _check_values(model: str, name: str, values: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Values as the model reads them, each checked by itself with the others at their defaults."""
    checked: dict[Any, Any] = {}
    problems = []
    for value in values:
        try:
            read = models.check(model, {name: value})[name]
        except ValidationError as error:
            problems.append(f"grid.{name}: {shorten(value)} {explain(error)}")
            continue
        key = (type(read), repr(read))
        if key in checked:
            problems.append(f"grid.{name}: {shorten(value)} stands there twice; remove one")
        checked[key] = read
    return list(checked.values()), problems


def _check_condition(
    model: str, name: str, other: str, wanted: Any, axes: Mapping[str, Axis]
) -> tuple[tuple[Any, ...], list[str]]:
    """The values of `other` for which `name` varies, as the model reads them."""
    if other not in axes:
        where = f"grid.{name}: the condition asks for {other!r}"
        return (), [f"{where}, which is not in the grid; it has {', '.join(axes)}"]
    wanted = wanted if isinstance(wanted, list) else [wanted]
    read, problems = _check_values(model, other, wanted)
    problems = [f"grid.{name}: in its condition: {p.partition(': ')[2]}" for p in problems]
    never = [value for value in read if value not in axes[other].values]
    if never and not problems:
        problems.append(
            f"grid.{name}: the condition {other} = {shorten(never[0])} never holds; the grid "
            f"has {shorten(list(axes[other].values))}"
        )
    return tuple(read), problems


def _in_order(axes: Sequence[Axis]) -> list[Axis]:
    """The axes, each behind those that its condition asks for."""
    by_name = {axis.name: axis for axis in axes}
    sorter = graphlib.TopologicalSorter({axis.name: sorted(axis.when) for axis in axes})
    try:
        return [by_name[name] for name in sorter.static_order()]
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InvalidGrid(f"grid: the conditions go round in a circle: {circle}") from None


def explain(error: ValidationError) -> str:
    """What is wrong with one value and what is allowed instead, in one line."""
    reasons = dict.fromkeys(part["msg"][0].lower() + part["msg"][1:] for part in error.errors())
    return f"is not allowed: {', or '.join(reasons)}"
