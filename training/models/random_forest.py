"""Random forest for classification and regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.datasets import CLASSIFICATION, REGRESSION
from training.estimators import fit
from training.models import Hyperparameters, Model
from training.session import Session
from training.splits import Data


class RandomForestHyperparameters(Hyperparameters):
    n_estimators: int = Field(100, ge=1, le=10_000, description="trees")
    max_depth: int | None = Field(None, ge=1, description="levels of a tree; null: no limit")
    max_features: float | Literal["sqrt", "log2"] = Field(
        "sqrt", description="features tried for a division: a share of them, or 'sqrt' or 'log2'"
    )
    min_samples_leaf: int = Field(1, ge=1, description="fewest rows in a leaf")


def train(params: RandomForestHyperparameters, data: Data, seed: int, session: Session) -> None:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if data.task == CLASSIFICATION else RandomForestRegressor
    forest = kind(**params.model_dump(), random_state=seed, n_jobs=1)
    fit(forest, data, session)
    session.log({"nodes": sum(tree.tree_.node_count for tree in forest.estimators_)})


MODEL = Model(
    library="scikit-learn",
    hyperparameters=RandomForestHyperparameters,
    train=train,
    tasks=(CLASSIFICATION, REGRESSION),
)
