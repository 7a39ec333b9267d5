"""The models: reproducible bit for bit, described, resumable, stopped early, and easy to add."""

import pytest

from mled.store import reading
from training import documentation, models, search
from training.models import actor_critic

# A small grid for each model; one that is missing here fails the test below.
SMALL = {
    "actor_critic": {"grid": {"episodes": [6], "hidden": [8]}, "dataset": "cartpole"},
    "cnn": {"grid": {"epochs": [2], "channels": [2], "dropout": [0.0, 0.5]}, "dataset": "digits"},
    "dqn": {"grid": {"episodes": [6], "hidden": [8], "batch_size": [16]}, "dataset": "cartpole"},
    "gradient_boosting": {"grid": {"max_iter": [3]}},
    "logistic_regression": {"grid": {"l1_ratio": [0, 0.5], "max_iter": [20]}},
    "mlp": {"grid": {"epochs": [3], "hidden": [4], "dropout": [0.0, 0.5]}},
    "random_forest": {"grid": {"n_estimators": [3], "max_features": ["sqrt", 1.0]}},
    "svm": {"grid": {"kernel": ["rbf", "linear"]}},
}

# With these an agent learns to balance the pole for a while, in few seconds.
LEARNING = {
    "dqn": {
        "episodes": [60],
        "learning_rate": [2e-3],
        "epsilon_steps": [800],
        "target_every": [100],
    },
    "actor_critic": {"episodes": [150]},
}


def request(model, **changes):
    return {"experiment": model, "dataset": "iris", "model": model, **SMALL[model], **changes}


def run(wanted):
    """Run a request in the current home; the ids of its trials."""
    ids = [id for shard in search.plan(wanted) for id in shard]
    assert search.run(ids, wanted)["finished"] == len(ids)
    return ids


@pytest.mark.parametrize("model", models.names())
def test_the_same_trials_twice_give_the_same_metrics_bit_for_bit(home, monkeypatch, model):
    runs = []
    for number in (1, 2):
        monkeypatch.setenv("MLED_HOME", str(home / str(number)))
        ids = run(request(model, seeds=[0, 1]))
        frame = reading.curves(ids)
        runs.append({tuple(row[:3]): row[3].hex() for row in frame.itertuples(index=False)})
    assert runs[0] == runs[1]
    assert len(runs[0]) > len(ids)


@pytest.mark.parametrize("model", ["mlp", "cnn", "actor_critic", "dqn", "random_forest"])
def test_another_seed_gives_other_metrics(database, model):
    frame = reading.curves(run(request(model, seeds=[0, 1])))
    by_trial = frame.groupby("trial_id")["value"].agg(tuple)
    assert by_trial.nunique() == len(by_trial)


@pytest.mark.parametrize("model", ["random_forest", "gradient_boosting"])
def test_a_regression_reports_errors(database, model):
    (id,) = run(request(model, dataset="diabetes", grid={}))
    assert {"r2", "mae", "rmse", "train_r2"} <= set(reading.curves([id])["metric"])
    assert search.summarise(model)["objective"] == "r2"


def test_a_curve_has_a_point_for_each_epoch(database):
    (id, _) = run(request("mlp"))
    frame = reading.curves([id], ["loss"])
    assert frame["step"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "exploration", "losses"),
    [
        ("dqn", "epsilon", ["value_loss"]),
        ("actor_critic", "entropy_weight", ["policy_loss", "value_loss", "entropy"]),
    ],
)
def test_an_agent_logs_what_reinforcement_learning_needs(database, model, exploration, losses):
    (id,) = run(request(model, grid={"episodes": [12], "hidden": [8], "evaluate_every": [5]}))
    curves = reading.curves([id]).pivot(index="step", columns="metric", values="value")
    assert len(curves) == 12
    assert (curves["episode_return"] == curves["episode_length"]).all()  # CartPole's reward is 1
    assert (curves["environment_steps"] == curves["episode_length"].cumsum()).all()
    assert curves[exploration].is_monotonic_decreasing
    assert (curves[losses].notna().sum() > 5).all()
    assert curves["evaluation_return"].dropna().index.tolist() == [0, 5, 10, 11]


def test_returns_are_discounted_and_go_on_behind_an_episode_that_was_cut():
    assert actor_critic.returns([1, 2, 3], 0, 0.5).tolist() == [1 + 1 + 0.75, 2 + 1.5, 3]
    assert actor_critic.returns([1, 1], 8, 0.5).tolist() == [1 + 0.5 + 2, 1 + 4]


@pytest.mark.parametrize("model", ["dqn", "actor_critic"])
def test_an_agent_learns(database, model):
    (id,) = run(request(model, grid={**LEARNING[model], "evaluate_every": [20]}))
    played = reading.curves([id], ["evaluation_return"])["value"]
    # Whoever acts at random keeps the pole up for some 20 steps.
    assert played.max() > 60


def test_training_stops_when_the_metric_no_longer_improves(database):
    grid = {"epochs": [50], "hidden": [4], "patience": [3], "min_delta": [10.0]}
    (id,) = run(request("mlp", grid=grid))
    # No epoch improves the first one's loss by 10.
    assert reading.curves([id], ["loss"])["step"].tolist() == [0, 1, 2, 3]


NEAREST = '''
"""Class of the nearest class mean."""

import numpy as np
from pydantic import Field

from training.metrics import classification
from training.models import Hyperparameters, Model


class NearestMeanHyperparameters(Hyperparameters):
    power: float = Field(2.0, gt=0, description="of the distance along each feature")


def train(params, data, seed, session):
    means = np.stack(
        [data.train_x[data.train_y == c].mean(axis=0) for c in range(data.classes)]
    )
    away = np.abs(data.evaluation_x[:, None, :] - means) ** params.power
    session.log(classification(data.evaluation_y, away.sum(axis=2).argmin(axis=1)))


MODEL = Model(library="numpy", hyperparameters=NearestMeanHyperparameters, train=train)
'''


def test_a_new_model_is_one_file(database, add_model):
    add_model("nearest_mean", NEAREST)
    assert "nearest_mean" in models.names()
    assert models.describe("nearest_mean") == "Class of the nearest class mean."
    wanted = {"experiment": "e", "dataset": "iris", "model": "nearest_mean"}
    ids = run({**wanted, "grid": {"power": [1, 2]}})
    assert [row["value"] > 0.8 for row in search.summarise("e", ids)["best"]] == [True, True]


def test_the_documentation_is_what_the_models_say():
    page = documentation.PAGE.read_text()
    assert documentation.renew(page) == page, "run python -m training.documentation"
