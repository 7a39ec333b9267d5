"""How a value keeps its type in the store: number, integer, boolean, text, null or JSON.

A value is kept as `(kind, number, text)`. `number` is NULL for what is no number and for NaN,
which SQLite cannot hold; ±infinity are ordinary doubles in SQLite and PostgreSQL. `text` holds
text and JSON, and the digits of an integer that a double cannot represent.
"""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_NAME = 200
MAX_TEXT = 65_536
EXACT_INTEGER = 2**53

NUMBER, INTEGER, BOOLEAN, TEXT, NULL, JSON = "number", "integer", "boolean", "text", "null", "json"
KINDS = (NUMBER, INTEGER, BOOLEAN, TEXT, NULL, JSON)


class InvalidValue(ValueError):
    """A name or a value that the store does not take; the message names it and the fix."""


class Encoded(NamedTuple):
    kind: str
    number: float | None
    text: str | None


def shorten(value: Any, length: int = 60) -> str:
    """`repr(value)` cut to a length that fits an error message."""
    text = repr(value if not isinstance(value, str) else value[: length + 1])
    return text if len(text) <= length else text[:length] + "…"


def check_name(what: str, name: Any) -> str:
    """Return `name` when it may name a `what` (experiment, metric, tag …).

    Raises:
        InvalidValue: it is no text, empty, longer than `MAX_NAME` characters, padded with
            spaces, or holds a control character such as a newline.
    """
    if not isinstance(name, str):
        raise InvalidValue(f"{what} name {shorten(name)} is {type(name).__name__}, not text")
    if not name or name != name.strip():
        raise InvalidValue(f"{what} name {shorten(name)} is empty or padded; write it without")
    if len(name) > MAX_NAME:
        raise InvalidValue(
            f"{what} name {shorten(name)} has {len(name):,} characters; "
            f"at most {MAX_NAME} are allowed"
        )
    if not name.isprintable():
        raise InvalidValue(f"{what} name {shorten(name)} holds a newline or control character")
    return name


def plain(value: Any) -> Any:
    """A NumPy or torch scalar as the Python value it stands for; anything else unchanged."""
    if type(value).__module__ != "builtins" and hasattr(value, "item"):
        try:
            return value.item()
        except (ValueError, RuntimeError, TypeError):
            return value
    return value


def encode(what: str, value: Any) -> Encoded:
    """Encode `value`; `what` says in error messages what it belongs to.

    Raises:
        InvalidValue: the value is of no type that can be kept, or longer than `MAX_TEXT`.
    """
    value = plain(value)
    if type(value) is float:
        return Encoded(NUMBER, None if math.isnan(value) else value, None)
    if value is None:
        return Encoded(NULL, None, None)
    if isinstance(value, bool):
        return Encoded(BOOLEAN, float(value), None)
    if isinstance(value, numbers.Integral):
        value = int(value)
        if abs(value) <= EXACT_INTEGER:
            return Encoded(INTEGER, float(value), None)
        digits = str(value) if value.bit_length() < 10_000 else None
        if digits is None or abs(value) >= 2**1023:
            raise InvalidValue(f"{what} is an integer of {value.bit_length():,} bits, too large")
        return Encoded(INTEGER, float(value), digits)
    if isinstance(value, numbers.Real):
        return encode(what, float(value))
    if isinstance(value, str):
        kind, text = TEXT, value
    elif isinstance(value, (Mapping, list, tuple)):
        kind, text = JSON, _json(what, value)
    else:
        raise InvalidValue(
            f"{what} is {shorten(value)}, of type {type(value).__name__}; "
            "give a number, text, a boolean, None, or a list or dictionary of these"
        )
    if len(text) > MAX_TEXT:
        raise InvalidValue(
            f"{what} is {len(text):,} characters long; at most {MAX_TEXT:,} are allowed: "
            "keep it as an artifact"
        )
    if "\x00" in text:
        raise InvalidValue(f"{what} holds a NUL character, which no database text can; remove it")
    return Encoded(kind, None, text)


def keepable(text: str) -> str:
    """Free text as every database keeps it: with signs for NUL and for halves of characters."""
    return text.replace("\x00", "\N{SYMBOL FOR NULL}").encode(errors="backslashreplace").decode()


def decode(kind: str, number: float | None, text: str | None) -> Any:
    """The value that `encode` was given."""
    if kind == NUMBER:
        return math.nan if number is None else number
    if kind == INTEGER:
        return int(text) if text is not None else int(number)
    if kind == BOOLEAN:
        return bool(number)
    if kind == TEXT:
        return text
    return json.loads(text) if kind == JSON else None


def _json(what: str, value: Any) -> str:
    try:
        return json.dumps(
            value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=plain_strict
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"{what} cannot be written as JSON: {error}") from None


def plain_strict(value: Any) -> Any:
    """`plain`, for `json.dumps(default=…)`: raises TypeError for what stays unknown."""
    converted = plain(value)
    if converted is value:
        raise TypeError(f"{shorten(value)} is of type {type(value).__name__}")
    return converted


def encode_hyperparameters(params: Mapping[str, Any]) -> dict[str, Encoded]:
    """Encode a trial's hyperparameters, sorted by name.

    Raises:
        InvalidValue: a name or value cannot be kept.
    """
    return {
        check_name("hyperparameter", name): encode(f"hyperparameter {name!r}", params[name])
        for name in sorted(params, key=str)
    }


def identity(encoded: Mapping[str, Encoded]) -> str:
    """SHA-256 (64 hexadecimal digits) of hyperparameters in canonical form.

    1 and 1.0 are the same hyperparameter value; True, "1" and null are others.
    """
    canonical = []
    for name, (kind, number, text) in sorted(encoded.items()):
        if kind in (NUMBER, INTEGER):
            kind, text = NUMBER, text or repr(number)
        canonical.append([name, kind, text if text is not None else number])
    return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()


def as_json(encoded: Mapping[str, Encoded]) -> str:
    """Hyperparameters as standard JSON, for reading: NaN and ±infinity become text."""

    def standard(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {k: standard(v) for k, v in value.items()}
        if isinstance(value, list):
            return [standard(v) for v in value]
        return value

    return json.dumps(
        {name: standard(decode(*value)) for name, value in encoded.items()}, ensure_ascii=False
    )
