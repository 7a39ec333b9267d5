"""What trials learn from: data sets that ship with scikit-learn, files, and environments.

Each is a version: rows are named by the hash of their content, an environment by its package's
version.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import numpy as np

from mled.store.experiments import DatasetVersion

Task = Literal["classification", "regression", "reinforcement-learning"]
CLASSIFICATION: Task = "classification"
REGRESSION: Task = "regression"
REINFORCEMENT: Task = "reinforcement-learning"

SHIPPED: Mapping[str, Task] = {
    "breast_cancer": CLASSIFICATION,
    "diabetes": REGRESSION,
    "digits": CLASSIFICATION,
    "iris": CLASSIFICATION,
    "wine": CLASSIFICATION,
}
ENVIRONMENTS = {"cartpole": "CartPole-v1"}
IMAGES = {"digits": (8, 8)}
FILE = "file"
NAMES = (*SHIPPED, *ENVIRONMENTS, FILE)


class UnknownDataset(ValueError):
    """There is no data set of this name."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows with a target.

    Attributes:
        x: float64 features, shape (rows, features).
        y: shape (rows,); int64 classes from 0, or float64 values for a regression.
        task: "classification" or "regression".
        version: what the store keeps of it; its `version` is the SHA-256 of x and y.
        image: (height, width) of the picture that a row of x holds, row by row.
    """

    x: np.ndarray
    y: np.ndarray
    task: Task
    version: DatasetVersion
    image: tuple[int, int] | None = None


@dataclass(frozen=True)
class Environment:
    """What a reinforcement-learning agent acts in; `id` is gymnasium's name of it."""

    id: str
    version: DatasetVersion
    task: Task = REINFORCEMENT
    image: None = None


def load(name: str, path: str | None = None, target: str | None = None) -> Dataset | Environment:
    """Load a data set by its name; "file" reads the CSV or Parquet file at `path`.

    Raises:
        UnknownDataset: there is none of this name.
        InvalidFile: the file cannot be used; the message says which row or column.
    """
    if name == FILE:
        from training.files import read

        return read(path, target)
    if name in ENVIRONMENTS:
        return _environment(name)
    if name in SHIPPED:
        return _shipped(name)
    raise UnknownDataset(f"dataset {name!r} is unknown; there are {', '.join(NAMES)}")


@functools.cache
def _shipped(name: str) -> Dataset:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    source = f"scikit-learn, load_{name}"
    return from_arrays(name, source, x, y, SHIPPED[name], IMAGES.get(name))


def _environment(name: str) -> Environment:
    id = ENVIRONMENTS[name]
    version = f"gymnasium {metadata.version('gymnasium')} {id}"
    return Environment(
        id, DatasetVersion(name, version=version, source="gymnasium", task=REINFORCEMENT)
    )


def from_arrays(
    name: str,
    source: str,
    x: np.ndarray,
    y: np.ndarray,
    task: Task,
    image: tuple[int, int] | None = None,
) -> Dataset:
    """A data set of features, shape (rows, features), and targets, shape (rows,)."""
    x = np.ascontiguousarray(x, dtype=np.float64)
    y = np.ascontiguousarray(y, dtype=np.int64 if task == CLASSIFICATION else np.float64)
    # Trials share the arrays: what one did to them, the next would learn from.
    x.setflags(write=False)
    y.setflags(write=False)
    version = DatasetVersion(
        name=name,
        version=digest(x, y),
        source=source,
        task=task,
        rows=x.shape[0],
        features=x.shape[1],
        classes=len(np.unique(y)) if task == CLASSIFICATION else None,
        bytes=x.nbytes + y.nbytes,
    )
    return Dataset(x, y, task, version, image)


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays: their types, shapes and bytes."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(f"{array.dtype.str}{array.shape}".encode())
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()
