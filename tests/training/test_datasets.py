"""Data sets: their versions, how they are split, which files are refused."""

import numpy as np
import pandas as pd
import pytest

from training import datasets, files, splits
from training.datasets import CLASSIFICATION, REGRESSION
from training.files import InvalidFile
from training.splits import InvalidSplit, LeakySplit, split

WITH_ROWS = tuple(datasets.SHIPPED)


@pytest.mark.parametrize("name", WITH_ROWS)
def test_a_dataset_is_split_the_same_way_and_every_row_is_used(name):
    dataset = datasets.load(name)
    data = split(dataset)
    split.cache_clear()
    again = split(dataset)
    assert data.record == again.record
    assert data.record.shared_rows == 0
    assert data.record.train_rows + data.record.evaluation_rows == dataset.version.rows
    assert split(dataset, seed=1).record.digest != data.record.digest
    if dataset.task == CLASSIFICATION:
        assert set(data.evaluation_y) == set(range(data.classes))


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_folds_evaluate_every_row_once(name):
    dataset = datasets.load(name)
    folds = [split(dataset, folds=4, fold=fold) for fold in range(4)]
    evaluated = np.concatenate([fold.evaluation_x for fold in folds])
    assert len(evaluated) == len(dataset.x)
    assert sorted(map(tuple, evaluated)) == sorted(map(tuple, dataset.x))
    assert len({fold.record.digest for fold in folds}) == 4


def toy(x, y, task=CLASSIFICATION):
    return datasets.from_arrays("toy", "a test", np.array(x), np.array(y), task)


def test_equal_rows_stay_on_one_side():
    x = np.repeat(np.arange(40.0), 3).reshape(-1, 1)
    x[x == 7] = -0.0  # equal to 0.0
    dataset = toy(x, np.repeat(np.arange(40) % 2, 3))
    for fold in range(5):
        data = split(dataset, folds=5, fold=fold)
        assert not set(data.train_x.ravel()) & set(data.evaluation_x.ravel())
        assert data.record.train_rows + data.record.evaluation_rows == 120


def test_training_on_what_is_evaluated_is_refused():
    dataset = toy([[1], [2], [3], [1]], [0, 1, 0, 0])
    with pytest.raises(LeakySplit, match="1 rows, of them number 2, are both"):
        splits.take(dataset, [1, 2], [2, 3], "by hand")
    with pytest.raises(LeakySplit, match="1 of 2 rows of the evaluation, of them number 3, equal"):
        splits.take(dataset, [0, 1], [2, 3], "by hand")
    assert splits.take(dataset, [0, 3], [1, 2], "by hand").record.method == "by hand"


def test_too_few_rows_are_refused():
    with pytest.raises(InvalidSplit, match="its rarest class has 1 different rows, and 2 are"):
        split(toy([[1], [1], [2], [3]], [0, 0, 1, 1]))
    with pytest.raises(InvalidSplit, match="it has 3 different rows, and 5 are needed"):
        split(toy([[1], [2], [3]], [0.5, 1.5, 2.5], REGRESSION), folds=5)
    with pytest.raises(InvalidSplit, match="number of classes"):
        split(toy(np.arange(8).reshape(-1, 1), [0, 0, 1, 1, 2, 2, 3, 3]))


FRAME = pd.DataFrame(
    {"a": [1, 2, 3, 4], "b": [0.5, 0.25, 0.5, 1], "kind": ["no", "yes", "no", "yes"]}
)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_a_dataset_named_by_its_content(tmp_path, suffix):
    def write(frame, name):
        path = tmp_path / f"{name}.{suffix}"
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
        return str(path)

    first = files.read(write(FRAME, "first"), "kind")
    assert (first.task, first.version.classes, first.version.name) == (
        CLASSIFICATION,
        2,
        f"first.{suffix}",
    )
    assert first.x.tolist() == [[1, 0.5], [2, 0.25], [3, 0.5], [4, 1]]
    assert first.y.tolist() == [0, 1, 0, 1]
    same = files.read(write(FRAME, "second"), "kind")
    assert same.version.version == first.version.version
    other = files.read(write(FRAME.assign(a=FRAME["a"] + 1), "first"), "kind")
    assert other.version.version != first.version.version
    numbers = FRAME.drop(columns="kind")
    assert files.read(write(numbers, "numbers"), "b").task == REGRESSION
    assert files.read(write(numbers, "numbers"), "a").task == CLASSIFICATION


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        ({}, "sort", "target: '.*data.csv' has no column 'sort'; it has a, b, kind"),
        ({}, "a", "column 'kind' .* holds 'no', which is no number; encode it"),
        ({"a": [1, None, 3, None]}, "kind", "column 'a' .* is missing or infinite in 2 rows"),
        ({"b": [1, np.inf, 3, 4]}, "kind", "column 'b' .* is missing or infinite in 1 rows"),
        ({"kind": ["x", None, "x", "y"]}, "kind", "column 'kind' .* is missing .* in 1 rows"),
        ({"kind": ["x"] * 4}, "kind", "has 1 different values; a classification needs 2"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, change, target, message):
    path = tmp_path / "data.csv"
    FRAME.assign(**change).to_csv(path, index=False)
    with pytest.raises(InvalidFile, match=message):
        files.read(str(path), target)


def test_a_path_that_cannot_be_read_says_why(tmp_path):
    for path, message in (
        ("data.csv", "is relative; give the full path"),
        (str(tmp_path / "data.xlsx"), "ends in none of .csv, .parquet"),
        (str(tmp_path / "data.csv"), "cannot be read: No such file"),
    ):
        with pytest.raises(InvalidFile, match=message):
            files.read(path, "kind")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InvalidFile, match="cannot be read: No columns"):
        files.read(str(tmp_path / "empty.csv"), "kind")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(InvalidFile, match="cannot be read"):
        files.read(str(tmp_path / "bad.parquet"), "kind")
