"""One line added to a script records what scikit-learn and torch do."""

import pickle

import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import mled

X, TEST_X, y, TEST_Y = train_test_split(*load_wine(return_X_y=True), random_state=0)


@pytest.fixture
def study(database):
    return mled.experiment("study", dataset="wine", model="svm", objective="score")


def test_each_fit_of_a_pipeline_is_a_trial(study):
    model = mled.watch(make_pipeline(StandardScaler(), SVC(C=2.0)), study, seed=3)
    assert model.fit(X, y) is model
    score = model.score(TEST_X, TEST_Y)
    model.set_params(svc__C=0.5).fit(X, y)
    frame = mled.trials("study")
    assert list(frame["params.svc__C"]) == [2.0, 0.5]
    assert list(frame["params.svc"]) == ["SVC", "SVC"]
    assert set(frame.state) == {"finished"}
    assert set(frame.seed) == {3}
    (first, second) = frame.index
    points = mled.curves([first]).set_index("metric").value
    assert points["score"] == score > 0.9
    assert points["fit_seconds"] > 0
    assert points["train_score"] > 0.9
    assert set(mled.curves([second]).metric) == {"fit_seconds", "train_score"}
    assert mled.trials("study", "params.svc__C > 1").index == [first]


def test_clones_and_pickles_are_plain_and_a_search_is_one_trial(study):
    watched = mled.watch(GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=2), study)
    watched.fit(X, y)
    assert len(mled.trials("study")) == 1
    copy = pickle.loads(pickle.dumps(watched))
    assert type(copy) is GridSearchCV
    assert copy.best_params_ == watched.best_params_
    clone(watched).fit(X, y)
    assert len(mled.trials("study")) == 1
    assert isinstance(watched, GridSearchCV)


def test_a_fit_that_fails_is_recorded(study):
    model = mled.watch(SVC(C=-1.0), study)
    with pytest.raises(ValueError, match="C"):
        model.fit(X, y)
    frame = mled.trials("study")
    assert list(frame.state) == ["failed"]
    assert "C" in frame.error_message.iloc[0]


def test_scores_after_each_other_are_steps_and_a_new_attempt_begins_anew(study):
    model = mled.watch(SVC(), study)
    for _ in range(2):
        model.fit(X, y)
        model.score(TEST_X, TEST_Y)
        model.score(X, y)
    (trial,) = mled.trials("study").index
    curve = mled.curves([trial], ["score"])
    assert list(curve.step) == [0, 1]
    assert mled.trials("study").attempt[trial] == 2


def test_a_torch_loop_is_recorded_by_a_callback(study):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    inputs, targets = torch.from_numpy(X).float(), torch.from_numpy(y)
    model = torch.nn.Linear(13, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    with study.trial({"lr": 1e-5}) as trial:
        log_epoch = mled.EpochLog(trial, model, optimizer)
        for epoch in range(4):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            log_epoch(epoch, loss=loss)
    wide = mled.curves([trial.id]).pivot(index="step", columns="metric", values="value")
    assert list(wide.index) == [0, 1, 2, 3]
    assert wide.loss.is_monotonic_decreasing
    assert (wide.gradient_norm > 0).all()
    assert set(wide.learning_rate) == {1e-5}
    assert (wide.epoch_seconds > 0).all()
    assert list(mled.trials("study", "tags.parameters == 42").index) == [trial.id]
