"""Gradient-boosted trees on histograms of the features, for classification and regression."""

from __future__ import annotations

from pydantic import Field

from training.datasets import CLASSIFICATION, REGRESSION
from training.estimators import fit
from training.models import Hyperparameters, Model
from training.session import Session
from training.splits import Data


class GradientBoostingHyperparameters(Hyperparameters):
    learning_rate: float = Field(0.1, gt=0, le=10, description="weight of each tree")
    max_iter: int = Field(100, ge=1, le=10_000, description="rounds of boosting")
    max_leaf_nodes: int = Field(31, ge=2, le=10_000, description="leaves of a tree")
    min_samples_leaf: int = Field(20, ge=1, description="fewest rows in a leaf")
    l2_regularization: float = Field(0.0, ge=0, description="L2 penalty on the leaves")


def train(params: GradientBoostingHyperparameters, data: Data, seed: int, session: Session) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    classified = data.task == CLASSIFICATION
    kind = HistGradientBoostingClassifier if classified else HistGradientBoostingRegressor
    # Its own early stopping would hold rows out of the training.
    fit(kind(**params.model_dump(), random_state=seed, early_stopping=False), data, session)


MODEL = Model(
    library="scikit-learn",
    hyperparameters=GradientBoostingHyperparameters,
    train=train,
    tasks=(CLASSIFICATION, REGRESSION),
)
