"""Which rows a trial trains on and which it is evaluated on.

A split depends on the data set, the seed of the split and the fold, never on the trial, so that
trials of an experiment can be compared. Rows with equal features stay on one side: a model would
else be evaluated on what it has learned by heart.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mled.store.trials import SplitRecord
from training.datasets import CLASSIFICATION, Dataset, Task, digest

EVALUATION_SHARE = 0.25


class InvalidSplit(ValueError):
    """A data set cannot be split this way."""


class LeakySplit(ValueError):
    """Rows that are trained on would be evaluated on too."""


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, split.

    Attributes:
        train_x, evaluation_x: float64, shape (rows, features).
        train_y, evaluation_y: int64 classes from 0, or float64; shape (rows,).
        task: "classification" or "regression".
        classes: their number; None for a regression.
        image: (height, width) of the picture in a row, if it is one.
        record: what the store keeps of the split.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    evaluation_x: np.ndarray
    evaluation_y: np.ndarray
    task: Task
    classes: int | None
    image: tuple[int, int] | None
    record: SplitRecord


@functools.lru_cache(maxsize=32)
def split(dataset: Dataset, folds: int = 1, seed: int = 0, fold: int = 0) -> Data:
    """Split a data set, always in the same way for the same arguments.

    With one fold, a quarter of the rows is held out for evaluation; with k, each row is evaluated
    on in one of the k folds. Classes keep their shares.

    Raises:
        InvalidSplit: there are too few different rows, of one class or in all.
    """
    if not 0 <= fold < folds:
        raise InvalidSplit(f"fold {fold}: give one from 0 to {folds - 1}")
    firsts, groups = _different(dataset.x)
    y = dataset.y[firsts]
    classified = dataset.task == CLASSIFICATION
    smallest = int(np.unique(y, return_counts=True)[1].min()) if classified else len(y)
    needed = max(folds, 2)
    if smallest < needed:
        what = "its rarest class" if classified else "it"
        raise InvalidSplit(
            f"folds: dataset {dataset.version.name!r} cannot be split for {folds} folds: {what} "
            f"has {smallest} different rows, and {needed} are needed"
        )
    from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

    everything = np.arange(len(y))
    if folds == 1:
        try:
            parts = train_test_split(
                everything,
                test_size=EVALUATION_SHARE,
                random_state=seed,
                stratify=y if classified else None,
            )
        except ValueError as error:  # fewer rows to evaluate on than there are classes
            raise InvalidSplit(f"dataset {dataset.version.name!r}: {error}") from None
        method = f"holdout, {EVALUATION_SHARE:.0%} for evaluation, seed {seed}"
    else:
        kind = StratifiedKFold if classified else KFold
        cutter = kind(n_splits=folds, shuffle=True, random_state=seed)
        parts = list(cutter.split(everything, y))[fold]
        method = f"fold {fold} of {folds}, seed {seed}"
    train, evaluation = (np.flatnonzero(np.isin(groups, part)) for part in parts)
    return take(dataset, train, evaluation, ("stratified " if classified else "") + method)


def take(dataset: Dataset, train: Sequence[int], evaluation: Sequence[int], method: str) -> Data:
    """The rows of a split of one's own; `method` says in words how it was made.

    Raises:
        LeakySplit: a row, or one with the same features, is on both sides.
    """
    train, evaluation = np.asarray(train, dtype=np.int64), np.asarray(evaluation, dtype=np.int64)
    shared = np.intersect1d(train, evaluation)
    if len(shared):
        raise LeakySplit(
            f"dataset {dataset.version.name!r}: {len(shared)} rows, of them number {shared[0]}, "
            "are both trained on and evaluated on; leave them on one side"
        )
    groups = _different(dataset.x)[1]
    equal = np.isin(groups[evaluation], groups[train])
    if equal.any():
        raise LeakySplit(
            f"dataset {dataset.version.name!r}: {int(equal.sum())} of {len(evaluation)} rows of "
            f"the evaluation, of them number {evaluation[equal][0]}, equal a row of the training "
            "in every feature; keep equal rows on one side"
        )
    record = SplitRecord(
        digest=digest(train, evaluation),
        method=method,
        train_rows=len(train),
        evaluation_rows=len(evaluation),
    )
    return Data(
        train_x=dataset.x[train],
        train_y=dataset.y[train],
        evaluation_x=dataset.x[evaluation],
        evaluation_y=dataset.y[evaluation],
        task=dataset.task,
        classes=dataset.version.classes,
        image=dataset.image,
        record=record,
    )


def _different(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of features, shape (n, f): the first row of each kind, and each row's kind, shape (n,)."""
    # Adding zero makes one zero of 0.0 and -0.0, whose bytes differ.
    rows = np.ascontiguousarray(x + 0.0)
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, firsts, groups = np.unique(whole, return_index=True, return_inverse=True)
    # Numbered by first appearance, so that the order of bytes in memory plays no part.
    order = np.argsort(firsts)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return firsts[order], number[groups]
