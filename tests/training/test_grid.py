"""Grids and experiments: what they expand to, and what is refused in which words."""

import pytest

from training import datasets, experiments, models
from training.experiments import InvalidExperiment
from training.grid import InvalidGrid, expand

GOOD = {"experiment": "e", "dataset": "digits", "model": "svm", "grid": {"C": [1, 10]}}


def test_a_grid_is_every_combination_with_defaults_filled_in():
    points = expand("svm", {"C": [1, 10], "kernel": ["rbf", "linear"]}, limit=4)
    assert points[0] == {"C": 1.0, "kernel": "rbf", "gamma": "scale", "degree": 3}
    assert [(p["C"], p["kernel"]) for p in points] == [
        (1.0, "rbf"),
        (1.0, "linear"),
        (10.0, "rbf"),
        (10.0, "linear"),
    ]
    assert expand("svm", {}, limit=1) == [models.check("svm", {})]


def test_every_problem_of_a_grid_is_named_at_once():
    grid = {"C": [-1, "x"], "depth": [1], "kernel": [], "gamma": [0.1, 0.1], "degree": 3}
    with pytest.raises(InvalidGrid) as error:
        expand("svm", grid, limit=10)
    lines = str(error.value).split("\n")
    assert len(lines) == 6
    for expected in (
        "grid.C: -1 is not allowed: input should be greater than 0",
        "grid.C: 'x' is not allowed: input should be a valid number",
        "grid.depth: svm has no such hyperparameter; it has C, kernel, gamma, degree",
        "grid.kernel: the list is empty",
        "grid.gamma: 0.1 stands there twice",
        "grid.degree: 3 is not a list; write [3]",
    ):
        assert any(line.startswith(expected) for line in lines), expected


def test_a_grid_that_is_too_large_shows_its_arithmetic():
    grid = {"C": list(range(1, 101)), "gamma": [i / 100 for i in range(1, 101)]}
    with pytest.raises(InvalidGrid, match=r"10,000 points \(C 100 x gamma 100\).*9,999"):
        expand("svm", grid, limit=9_999)


def test_seeds_count_towards_the_limit():
    request = experiments.parse({**GOOD, "seeds": [0, 1, 2]})
    assert len(request.points(6)) == 6
    with pytest.raises(InvalidExperiment, match="2 points"):
        request.points(5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "mnist"}, "dataset: 'mnist' is unknown; there are breast_cancer, digits"),
        ({"model": "gpt"}, "model: 'gpt' is unknown; there are mlp, svm"),
        ({"experiment": ""}, "experiment: '': string should have at least 1 character"),
        ({"experiment": None}, "experiment: None: input should be a valid string"),
        ({"grid": "C"}, "grid: 'C': input should be a valid dictionary"),
        ({"grid": {"C": 1}}, "grid.C: 1: input should be a valid list"),
        ({"seeds": []}, "seeds: []: list should have at least 1 item"),
        ({"seeds": [-1]}, "seeds.0: -1: input should be greater than or equal to 0"),
        ({"seeds": [1, 1]}, "seeds: [1, 1]: value error, a seed stands there twice"),
        ({"direction": "up"}, "direction: 'up': input should be 'maximize' or 'minimize'"),
        ({"colour": "red"}, "colour: unknown; the fields are experiment, author"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_what_is_allowed(changes, message):
    with pytest.raises(InvalidExperiment) as error:
        experiments.parse({**GOOD, **changes}).points(100)
    assert str(error.value).startswith(message)


def test_a_missing_field_is_named():
    with pytest.raises(InvalidExperiment, match="grid: missing"):
        experiments.parse({k: v for k, v in GOOD.items() if k != "grid"}).points(1)


@pytest.mark.parametrize("name", experiments.presets())
def test_every_preset_can_be_run(name):
    assert experiments.parse(experiments.preset(name)).points(100_000)


def test_an_unknown_preset_is_refused():
    with pytest.raises(InvalidExperiment, match="preset: 'x' is unknown; there are demo_"):
        experiments.preset("x")


@pytest.mark.parametrize("name", datasets.NAMES)
def test_a_dataset_is_split_the_same_way_and_shares_no_row(name):
    data = datasets.split(name)
    datasets.split.cache_clear()
    again = datasets.split(name)
    assert data.record == again.record
    assert data.record.shared_rows == 0
    assert data.record.train_rows + data.record.evaluation_rows == datasets.load(name).version.rows
    assert datasets.split(name, seed=1).record.digest != data.record.digest
    assert set(data.evaluation_y) == set(range(data.classes))


def test_every_model_describes_itself():
    for name in models.names():
        assert models.describe(name)
        for field, schema in models.get(name).hyperparameters.model_fields.items():
            assert schema.description, f"{name}.{field}"
