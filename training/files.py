"""Data sets from local CSV and Parquet files: one column is the target, the others are features."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd

from training.datasets import CLASSIFICATION, REGRESSION, Dataset, from_arrays

READERS = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
MAX_CLASSES = 1_000


class InvalidFile(ValueError):
    """A file cannot be used as a data set; the message names the field, the value and the fix."""


def read(path: str | None, target: str | None) -> Dataset:
    """Read a file with a header row (CSV) or column names (Parquet).

    A target of text, booleans or whole numbers is a classification; one with fractions is a
    regression. The classes are numbered in the order of their sorted names.

    Raises:
        InvalidFile: no such file or column, features that are no numbers, missing values.
    """
    if not path or not target:
        raise InvalidFile("dataset 'file': give its 'path' and the name of the column 'target'")
    file = Path(path)
    if not file.is_absolute():
        raise InvalidFile(f"path: {path!r} is relative; give the full path, which begins with /")
    if file.suffix.lower() not in READERS:
        raise InvalidFile(f"path: {path!r} ends in none of {', '.join(READERS)}")
    try:
        changed = file.stat().st_mtime_ns
    except OSError as error:
        raise InvalidFile(f"path: {path!r} cannot be read: {error.strerror}") from None
    return _read(file, target, changed)


@functools.lru_cache(maxsize=4)
def _read(file: Path, target: str, changed: int) -> Dataset:
    """`changed` is the file's time: a file that was written again is read again."""
    try:
        frame = READERS[file.suffix.lower()](file)
    except Exception as error:  # each reader has errors of its own
        raise InvalidFile(f"path: {str(file)!r} cannot be read: {error}") from error
    if target not in frame.columns:
        columns = ", ".join(map(str, frame.columns))
        raise InvalidFile(f"target: {str(file)!r} has no column {target!r}; it has {columns}")
    features = frame.drop(columns=target)
    if frame.empty or features.columns.empty:
        raise InvalidFile(f"path: {str(file)!r} has no rows, or no column besides {target!r}")
    _check_features(file, features)
    if missing := int(frame[target].isna().sum()):
        raise InvalidFile(_missing(file, target, missing))
    y, task = _targets(file, frame[target])
    source = f"{file}, target {target}"
    return from_arrays(file.name, source, features.to_numpy(np.float64), y, task)


def _check_features(file: Path, features: pd.DataFrame) -> None:
    for column in features:
        values = features[column]
        if not pd.api.types.is_numeric_dtype(values):
            example = next((v for v in values if not isinstance(v, int | float)), values.iloc[0])
            raise InvalidFile(
                f"path: column {column!r} of {str(file)!r} holds {example!r}, which is no number; "
                "encode it as numbers, or leave the column out of the file"
            )
        if unusable := int((~np.isfinite(values.to_numpy(np.float64, na_value=math.nan))).sum()):
            raise InvalidFile(_missing(file, column, unusable))


def _missing(file: Path, column: str, count: int) -> str:
    return (
        f"path: column {column!r} of {str(file)!r} is missing or infinite in {count:,} rows; "
        "fill them in, or leave these rows out of the file"
    )


def _targets(file: Path, values: pd.Series) -> tuple[np.ndarray, str]:
    if pd.api.types.is_float_dtype(values) and not (values == values.round()).all():
        y = values.to_numpy(np.float64)
        if not np.isfinite(y).all():
            raise InvalidFile(_missing(file, values.name, int((~np.isfinite(y)).sum())))
        return y, REGRESSION
    names, y = np.unique(values.to_numpy(), return_inverse=True)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise InvalidFile(
            f"target: column {values.name!r} of {str(file)!r} has {len(names):,} different "
            f"values; a classification needs 2 to {MAX_CLASSES:,}, and a regression a column "
            "with fractions"
        )
    return y, CLASSIFICATION
