"""Criteria for picking trials: `params.lr < 0.01 and params.kernel == "rbf"`.

A criterion is written like a Python expression, is parsed into a tree, and becomes bound
parameters of a query: no part of it is ever executed or pasted into SQL.

What it may hold: `params.<name>`, `tags.<name>` (or `params["any name"]`), parts of a JSON value
(`tags.plot.axes[0]`), `state`, `seed`, `repeat`, `attempt`, `id`; numbers, text, True, False,
None, lists; `<`, `<=`, `>`, `>=`, `==`, `!=`, `in`, `not in`, `is`, `is not`; `and`, `or`, `not`
and brackets. A comparison with a hyperparameter that a trial does not have, or has as another
type, is not met.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from mled.store.dialects import ParsedJson
from mled.store.schema import Hyperparameter, Tag, Trial
from mled.store.values import BOOLEAN, INTEGER, JSON, NULL, NUMBER, TEXT, InvalidValue, encode

_VALUES = {"params": Hyperparameter, "tags": Tag}
_COLUMNS = {
    "id": Trial.id,
    "state": Trial.state,
    "seed": Trial.seed,
    "repeat": Trial.repeat,
    "attempt": Trial.attempt,
}
_ORDERS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MIRRORED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_HELP = 'write it like: params.lr < 0.01 and params.kernel == "rbf" and state == "finished"'


def where(criteria: str) -> sa.ColumnElement[bool]:
    """The condition on `Trial` that a criterion stands for.

    Raises:
        InvalidValue: it cannot be read; the message shows which part of it.
    """
    if len(criteria) > 10_000:
        raise InvalidValue(f"criteria of {len(criteria):,} characters are too long; at most 10,000")
    try:
        tree = ast.parse(criteria.strip(), mode="eval")
        return _Reader(criteria).condition(tree.body)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"criteria {criteria!r} cannot be read: {error}; {_HELP}") from None
    except (RecursionError, MemoryError):
        raise InvalidValue(f"criteria {criteria[:40]!r}… are nested too deeply") from None


@dataclass(frozen=True)
class _Value:
    """A hyperparameter or tag of a trial, or a part of one that is JSON."""

    table: type[Hyperparameter] | type[Tag]
    name: str
    path: tuple[str | int, ...] = ()

    def part(self):
        """The part of the JSON at the path; its comparisons are met by JSON values only."""
        part = ParsedJson(self.table.text)
        for step in self.path:
            part = part[step]
        return part

    def exists(self, *conditions) -> sa.ColumnElement[bool]:
        """Whether the trial has it, and the conditions on it are met."""
        table = self.table
        if self.path:
            present = sa.case((table.kind == JSON, self.part().as_string()))
            conditions = (table.kind == JSON, present.is_not(None), *conditions)
        return (
            sa.select(table.trial_id)
            .where(table.trial_id == Trial.id, table.name == self.name, *conditions)
            .correlate(Trial)
            .exists()
        )

    def equals(self, value: Any) -> sa.ColumnElement[bool]:
        table = self.table
        kind, number, text = encode("the value", value)
        if self.path:
            return self.exists(self._compared(operator.eq, value))
        if kind in (NUMBER, INTEGER):
            return self.exists(table.kind.in_([NUMBER, INTEGER]), table.number == number)
        if kind == BOOLEAN:
            return self.exists(table.kind == BOOLEAN, table.number == number)
        if kind == NULL:
            return self.exists(table.kind == NULL)
        return self.exists(table.kind == kind, table.text == text)

    def ordered(self, compare, scalar: float | str) -> sa.ColumnElement[bool]:
        table = self.table
        if self.path:
            return self.exists(self._compared(compare, scalar))
        if isinstance(scalar, str):
            return self.exists(table.kind == TEXT, compare(table.text, scalar))
        kinds = table.kind.in_([NUMBER, INTEGER])
        return self.exists(kinds, compare(table.number, float(scalar)))

    def _compared(self, compare, value: Any) -> sa.ColumnElement[bool]:
        if isinstance(value, bool):
            typed = self.part().as_boolean()
        elif isinstance(value, str):
            typed = self.part().as_string()
        else:
            typed, value = self.part().as_float(), float(value)
        return compare(sa.case((self.table.kind == JSON, typed)), value)


class _Reader:
    def __init__(self, criteria: str):
        self.criteria = criteria

    def condition(self, node: ast.AST) -> sa.ColumnElement[bool]:
        if isinstance(node, ast.BoolOp):
            join = sa.and_ if isinstance(node.op, ast.And) else sa.or_
            return join(*(self.condition(part) for part in node.values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return sa.not_(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            return sa.and_(
                *(
                    self._comparison(left, op, right)
                    for left, op, right in zip(sides, node.ops, sides[1:], strict=False)
                )
            )
        raise self._error(node, "is no comparison")

    def _comparison(self, left: ast.AST, op: ast.cmpop, right: ast.AST) -> sa.ColumnElement[bool]:
        kind = type(op)
        if self._field(left) is None and self._field(right) is not None:
            if kind in (ast.In, ast.NotIn):
                raise self._error(right, "cannot stand right of 'in'")
            left, right, kind = right, left, _MIRRORED.get(kind, kind)
        field = self._field(left)
        if field is None:
            raise self._error(left, "is no field")
        value = self._literal(right)
        if kind in (ast.In, ast.NotIn):
            if not isinstance(value, list):
                raise self._error(right, "is no list")
            tests = [self._equals(field, element, right) for element in value]
            met = sa.or_(sa.false(), *tests)
            return sa.and_(self._present(field), sa.not_(met)) if kind is ast.NotIn else met
        if kind in (ast.Eq, ast.Is):
            return self._equals(field, value, right)
        if kind in (ast.NotEq, ast.IsNot):
            return sa.and_(self._present(field), sa.not_(self._equals(field, value, right)))
        return self._ordered(field, _ORDERS[kind], value, right)

    def _field(self, node: ast.AST) -> _Value | sa.ColumnElement | None:
        """A column of `Trial`, or one of its values; None for what is no field."""
        if isinstance(node, ast.Name):
            if node.id not in _COLUMNS:
                known = ", ".join([*(f"{name}.<name>" for name in _VALUES), *_COLUMNS])
                raise self._error(node, f"is no field; there are {known}")
            return _COLUMNS[node.id]
        if isinstance(node, ast.Attribute):
            base, step = node.value, node.attr
        elif isinstance(node, ast.Subscript):
            base, step = node.value, self._literal(node.slice)
        else:
            return None
        if isinstance(base, ast.Name) and base.id in _VALUES and isinstance(step, str):
            return _Value(_VALUES[base.id], step)
        inner = self._field(base) if isinstance(base, (ast.Attribute, ast.Subscript)) else None
        if not isinstance(inner, _Value) or type(step) not in (str, int):
            raise self._error(node, f"is no field; write {' or '.join(_VALUES)}.<name>")
        return replace(inner, path=(*inner.path, step))

    def _literal(self, node: ast.AST) -> Any:
        if isinstance(node, (ast.Attribute, ast.Subscript, ast.Name, ast.Call)):
            raise self._error(node, "is no value; compare a field with a number, text or list")
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            raise self._error(node, "is no number, text, boolean, None or list") from None
        return list(value) if isinstance(value, (tuple, set)) else value

    def _present(self, field) -> sa.ColumnElement[bool]:
        return field.exists() if isinstance(field, _Value) else field.is_not(None)

    def _equals(self, field, value: Any, node: ast.AST) -> sa.ColumnElement[bool]:
        if not isinstance(field, _Value):
            return field == self._scalar(value, node)
        if field.path:
            self._comparable(value, node)
        return field.equals(value)

    def _ordered(self, field, compare, value: Any, node: ast.AST) -> sa.ColumnElement[bool]:
        scalar = self._comparable(value, node)
        if isinstance(scalar, bool):
            raise self._error(node, "has no order; compare with a number or text")
        if not isinstance(field, _Value):
            return compare(field, scalar)
        return field.ordered(compare, scalar)

    def _comparable(self, value: Any, node: ast.AST) -> Any:
        if value is None:
            raise self._error(node, "has no order; compare with a number or text")
        return self._scalar(value, node)

    def _scalar(self, value: Any, node: ast.AST) -> Any:
        if not isinstance(value, (int, float, str, bool, type(None))):
            raise self._error(node, "is no number or text")
        return value

    def _error(self, node: ast.AST, problem: str) -> InvalidValue:
        part = ast.get_source_segment(self.criteria.strip(), node) or type(node).__name__
        return InvalidValue(f"criteria {self.criteria!r}: {part!r} {problem}; {_HELP}")
