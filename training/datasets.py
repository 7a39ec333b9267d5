"""The data sets that trials learn from, each a version named by the hash of its content."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from mled.store.experiments import DatasetVersion
from mled.store.trials import SplitRecord

NAMES = ("breast_cancer", "digits", "wine")
EVALUATION_SHARE = 0.25


class UnknownDataset(ValueError):
    """There is no data set of this name."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set.

    Attributes:
        x: float64 features, shape (rows, features).
        y: int64 classes from 0, shape (rows,).
        version: what the store keeps of it; its `version` is the SHA-256 of x and y.
    """

    x: np.ndarray
    y: np.ndarray
    version: DatasetVersion


@dataclass(frozen=True, eq=False)
class Data:
    """A data set split into what a trial trains on and what it is evaluated on."""

    train_x: np.ndarray
    train_y: np.ndarray
    evaluation_x: np.ndarray
    evaluation_y: np.ndarray
    classes: int
    record: SplitRecord


@functools.cache
def load(name: str) -> Dataset:
    """Load a data set that ships with scikit-learn.

    Raises:
        UnknownDataset: there is none of this name.
    """
    if name not in NAMES:
        raise UnknownDataset(f"dataset {name!r} is unknown; there are {', '.join(NAMES)}")
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = np.ascontiguousarray(x, dtype=np.float64)
    y = np.ascontiguousarray(y, dtype=np.int64)
    x.setflags(write=False)
    y.setflags(write=False)
    version = DatasetVersion(
        name=name,
        version=_digest(x, y),
        source=f"scikit-learn, load_{name}",
        task="classification",
        rows=x.shape[0],
        features=x.shape[1],
        classes=len(np.unique(y)),
        bytes=x.nbytes + y.nbytes,
    )
    return Dataset(x, y, version)


@functools.cache
def split(name: str, seed: int = 0) -> Data:
    """Split a data set, the same way whenever the seed is the same; classes keep their shares.

    Raises:
        UnknownDataset: there is none of this name.
    """
    from sklearn.model_selection import train_test_split

    dataset = load(name)
    train, evaluation = train_test_split(
        np.arange(len(dataset.y)),
        test_size=EVALUATION_SHARE,
        random_state=seed,
        stratify=dataset.y,
    )
    record = SplitRecord(
        digest=_digest(train, evaluation),
        method=f"stratified holdout, {EVALUATION_SHARE:.0%} for evaluation, seed {seed}",
        train_rows=len(train),
        evaluation_rows=len(evaluation),
        shared_rows=len(np.intersect1d(train, evaluation)),
    )
    return Data(
        train_x=dataset.x[train],
        train_y=dataset.y[train],
        evaluation_x=dataset.x[evaluation],
        evaluation_y=dataset.y[evaluation],
        classes=dataset.version.classes,
        record=record,
    )


def _digest(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
