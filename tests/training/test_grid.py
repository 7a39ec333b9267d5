"""Grids and experiments: what they expand to, and what is refused in which words."""

import pytest

from training import experiments, models
from training.experiments import InvalidExperiment
from training.grid import Grid, InvalidGrid, expand

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
        ({"dataset": "mnist"}, "dataset: 'mnist' is unknown; there are breast_cancer, diabetes"),
        ({"model": "gpt"}, "model: 'gpt' is unknown; there are actor_critic, cnn"),
        ({"dataset": "diabetes"}, "model: svm is for classification, and 'diabetes' is for regr"),
        ({"dataset": "cartpole"}, "model: svm is for classification, and 'cartpole' is for rein"),
        ({"dataset": "wine", "model": "cnn", "grid": {}}, "model: cnn needs pictures, and the"),
        ({"dataset": "cartpole", "folds": 2}, "folds: 2: 'cartpole' has no rows to split"),
        ({"folds": 0}, "folds: 0: input should be greater than or equal to 1"),
        ({"folds": 60, "dataset": "wine"}, "folds: dataset 'wine' cannot be split for 60 folds"),
        ({"sample": 0}, "sample: 0: input should be greater than or equal to 1"),
        ({"dataset": "file"}, "dataset 'file': give its 'path' and the name of the column"),
        ({"experiment": ""}, "experiment: '': string should have at least 1 character"),
        ({"experiment": None}, "experiment: None: input should be a valid string"),
        ({"grid": "C"}, "grid: 'C': input should be a valid dictionary"),
        ({"grid": {"C": 1}}, "grid.C: 1 is not a list; write [1]"),
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
    with pytest.raises(InvalidExperiment, match="preset: 'x' is unknown; there are cartpole_actor"):
        experiments.preset("x")


def values(spec, model="svm", name="gamma"):
    return [point[name] for point in expand(model, {name: spec}, limit=100)]


def test_ranges_have_both_ends_and_readable_values():
    assert values({"linspace": [0.1, 0.5, 5]}) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert values({"logspace": [0.0001, 1, 5]}) == [0.0001, 0.001, 0.01, 0.1, 1]
    assert values({"logspace": [16, 256, 5]}, "mlp", "hidden") == [16, 32, 64, 128, 256]
    assert values({"range": [1, 4]}, "mlp", "layers") == [1, 2, 3, 4]
    assert values({"range": [10, 45, 10]}, "mlp", "epochs") == [10, 20, 30, 40]
    assert values({"range": [3, 1, -1]}, "mlp", "layers") == [3, 2, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"logspace": [-3, 0, 4]}, "is no logspace; give the first and last value themselves"),
        ({"linspace": [0, 1]}, "is no linspace; give first, last and how many"),
        ({"linspace": [0, 1, 1]}, "is no linspace"),
        ({"linspace": [0, "1", 3]}, "is no list of numbers"),
        ({"range": [5, 1]}, "is no range; give first and last, both included"),
        ({"range": [0.5, 2]}, "is no range"),
        ({"geometric": [1, 2, 3]}, "neither a list nor a range; the ranges are"),
        ({}, "neither a list nor a range"),
        ({"when": {"kernel": ["rbf"]}}, 'cannot be read; write {"values": [2, 3], "when"'),
        ({"values": [1], "when": {"degree": [1]}}, "asks for 'degree', which is not in the grid"),
        ({"values": [1], "when": {"kernel": "poly"}}, "kernel = 'poly' never holds; the grid has"),
        ({"values": [1], "when": {"kernel": "x"}}, "in its condition: 'x' is not allowed"),
    ],
)
def test_a_range_or_condition_that_cannot_be_read_is_explained(spec, message):
    with pytest.raises(InvalidGrid) as error:
        expand("svm", {"kernel": ["rbf", "linear"], "gamma": spec}, limit=100)
    assert str(error.value).startswith("grid.gamma: ")
    assert message in str(error.value)


def test_a_conditional_hyperparameter_varies_only_where_its_condition_holds():
    grid = {
        "degree": {"values": {"range": [2, 4]}, "when": {"kernel": "poly"}},
        "gamma": {"values": [0.1, 0.2], "when": {"kernel": ["rbf", "poly"]}},
        "kernel": ["rbf", "linear", "poly"],
    }
    points = expand("svm", grid, limit=9)
    assert [(p["kernel"], p["gamma"], p["degree"]) for p in points] == [
        ("rbf", 0.1, 3),
        ("rbf", 0.2, 3),
        ("linear", "scale", 3),
        *[("poly", gamma, degree) for degree in (2, 3, 4) for gamma in (0.1, 0.2)],
    ]
    chain = {
        "kernel": ["rbf", "poly"],
        "degree": {"values": [2, 5], "when": {"kernel": "poly"}},
        "gamma": {"values": [0.1, 0.2, 0.3], "when": {"degree": 5}},
    }
    assert len(expand("svm", chain, limit=100)) == 1 + 1 + 3
    circle = {
        "gamma": {"values": [0.1], "when": {"degree": 2}},
        "degree": {"values": [2], "when": {"gamma": 0.1}},
    }
    with pytest.raises(InvalidGrid, match="round in a circle: "):
        expand("svm", circle, limit=100)


def test_a_sample_of_a_grid_too_large_to_expand_is_the_same_again():
    grid = {name: {"linspace": [0.001, 0.9, 1000]} for name in ("C", "gamma")}
    grid |= {"degree": {"range": [1, 10]}, "kernel": ["rbf", "poly"]}
    assert len(Grid("svm", grid)) == 20_000_000
    points = expand("svm", grid, limit=50, sample=50)
    assert points == expand("svm", grid, limit=50, sample=50)
    assert points != expand("svm", grid, limit=50, sample=50, sample_seed=1)
    assert len({tuple(p.values()) for p in points}) == 50
    assert len({p["C"] for p in points}) > 40
    whole = {"C": [1, 2], "degree": [1, 2]}
    assert expand("svm", whole, limit=4, sample=9) == expand("svm", whole, limit=4)


def test_trials_are_ordered_by_seed_by_combination_or_at_random():
    request = experiments.parse({**GOOD, "seeds": [0, 1], "folds": 2})

    def order(name):
        return [(p.params["C"], p.seed, p.repeat) for p in request.points(100, name)]

    assert order("by_seed")[:5] == [(1, 0, 0), (1, 0, 1), (10, 0, 0), (10, 0, 1), (1, 1, 0)]
    assert order("by_combination")[:3] == [(1, 0, 0), (1, 0, 1), (1, 1, 0)]
    assert order("random") == order("random")
    assert order("random") != order("by_seed")
    assert set(order("random")) == set(order("by_combination")) == set(order("by_seed"))


def test_every_model_describes_itself():
    for name in models.names():
        assert models.describe(name)
        for field, schema in models.get(name).hyperparameters.model_fields.items():
            assert schema.description, f"{name}.{field}"
