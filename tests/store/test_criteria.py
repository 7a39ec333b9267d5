"""Criteria pick the trials that Python would pick, and nothing in them is executed."""

import math

import pytest

import mled
from mled.store.criteria import where

PARAMS = [
    {"lr": 0.001, "kernel": "rbf", "deep": True, "units": 10},
    {"lr": 0.01, "kernel": "linear", "deep": False, "units": 20},
    {"lr": 0.1, "kernel": "it's", "deep": None, "units": 30},
    {"lr": math.nan, "kernel": "rbf", "odd name": 1, "units": 20},
    {"lr": "auto", "kernel": ["a", 1]},
]


@pytest.fixture
def study(database):
    points = [mled.Point(params, seed=seed) for seed, params in enumerate(PARAMS)]
    mled.experiment("study", dataset="d", model="m", points=points)
    return lambda criteria: list(mled.trials("study", criteria).seed)


@pytest.mark.parametrize(
    ("criteria", "seeds"),
    [
        ("params.lr < 0.01", [0]),
        ("params.lr <= 0.01", [0, 1]),
        ("0.001 < params.lr <= 0.1", [1, 2]),
        ("0.01 > params.lr", [0]),
        ('params.kernel == "rbf"', [0, 3]),
        ('params.kernel == "rbf" and params.lr < 1', [0]),
        ('params.kernel == "linear" or params.units == 30', [1, 2]),
        ('not params.kernel == "rbf"', [1, 2, 4]),
        ('params.kernel == "it\'s"', [2]),
        ('params.lr == "auto"', [4]),
        ("params.lr != 0.1", [0, 1, 3, 4]),
        ("params.deep == True", [0]),
        ("params.deep is None", [2]),
        ("params.deep != None", [0, 1]),
        ("params.deep == 1", []),
        ("params.units in [10, 30]", [0, 2]),
        ("params.units not in (10, 30)", [1, 3]),
        ("params.units in []", []),
        ('params["odd name"] == 1', [3]),
        ('params.kernel == ["a", 1]', [4]),
        ('params.kernel > "linear"', [0, 3]),
        ("params.absent == 1", []),
        ("params.absent != 1", []),
        ('state == "pending" and seed >= 3', [3, 4]),
        ("seed in [1, 2] and repeat == 0", [1, 2]),
        ("  seed == 1 ", [1]),
    ],
)
def test_criteria_pick_trials(study, criteria, seeds):
    assert study(criteria) == seeds


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ("params.lr <", "cannot be read"),
        ("__import__('os').system('true')", "is no comparison"),
        ("params.lr < __import__('os').getpid()", "is no value"),
        ("params.lr < (1).__class__", "is no value"),
        ("experiment == 1", "'experiment' is no field; there are params.<name>, tags.<name>, id"),
        ("metrics.loss < 1", "is no field; write params or tags.<name>"),
        ("1 < 2", "'1' is no field"),
        ("params.lr < params.units", "is no value"),
        ("params.lr < [1]", "is no number or text"),
        ("params.lr < True", "has no order"),
        ("seed in 3", "'3' is no list"),
        ("3 in params.lr", "cannot stand right of 'in'"),
        ("params.lr", "is no comparison"),
        ("params.lr = 1", "cannot be read"),
        ("seed == 1; DROP TABLE trial", "cannot be read"),
        ("(" * 500 + "seed == 1" + ")" * 500, "cannot be read|nested"),
        ("not " * 5000 + "seed == 1", "too long|nested"),
        ("", "cannot be read"),
        ("tags.plot[1.5] == 1", "is no field"),
        ("tags[0] == 1", "is no field"),
        ("state.name == 1", "is no field"),
        ("tags.plot.axes == [1]", "is no number or text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_part_that_is_wrong(criteria, message):
    with pytest.raises(mled.InvalidValue, match=message):
        where(criteria)


@pytest.mark.parametrize(
    ("criteria", "seeds"),
    [
        ("tags.plot.axes[0] == 2", [2]),
        ("tags.plot.axes[0] >= 1", [1, 2]),
        ('tags.plot["title"] == "T1"', [1]),
        ('tags.plot.title > "T0"', [1, 2]),
        ("tags.plot.title != 'T1'", [0, 2]),
        ("tags.plot.done == True", [0, 2]),
        ("tags.plot.absent == 1", []),
        ("tags.plot.absent != 1", []),
        ("tags.word.part == 1", []),
        ("tags.plot.axes[0] in [0, 2]", [0, 2]),
    ],
)
def test_parts_of_json_pick_trials(database, criteria, seeds):
    experiment = mled.experiment("json", dataset="d", model="m")
    for seed in range(3):
        with experiment.trial({}, seed=seed) as trial:
            trial.tag("plot", {"axes": [seed, 9], "title": f"T{seed}", "done": seed != 1})
            trial.tag("word", "no JSON")
    assert list(mled.trials("json", criteria).seed) == seeds


def test_tags_pick_trials_and_leaderboards_take_criteria(study):
    experiment = mled.experiment("study", dataset="d", model="m", objective="accuracy")
    for seed, params in enumerate(PARAMS):
        with experiment.trial(params, seed=seed) as trial:
            trial.tag("group", "a" if seed < 2 else "b")
            trial.log({"accuracy": float(seed)})
    assert study('tags.group == "a"') == [0, 1]
    best = mled.leaderboard("study", where='tags.group == "a"')
    assert list(best.value) == [1.0, 0.0]
