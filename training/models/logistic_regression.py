"""Logistic regression for classification, on standardised features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.estimators import fit
from training.models import Hyperparameters, Model
from training.session import Session
from training.splits import Data


class LogisticRegressionHyperparameters(Hyperparameters):
    C: float = Field(1.0, gt=0, le=1e6, description="inverse strength of the regularisation")
    l1_ratio: float = Field(
        0.0, ge=0, le=1, description="share of the L1 penalty; what is left is L2"
    )
    class_weight: Literal["balanced"] | None = Field(
        None, description="'balanced' weighs classes by the inverse of their frequency"
    )
    max_iter: int = Field(1000, ge=1, le=100_000, description="most iterations of the solver")


def train(
    params: LogisticRegressionHyperparameters, data: Data, seed: int, session: Session
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # lbfgs is the fastest of the solvers, but knows no L1 penalty.
    solver = "saga" if params.l1_ratio else "lbfgs"
    classifier = LogisticRegression(**params.model_dump(), solver=solver, random_state=seed)
    model = make_pipeline(StandardScaler(), classifier)
    fit(model, data, session)
    session.log({"iterations": int(classifier.n_iter_.max())})


MODEL = Model(
    library="scikit-learn", hyperparameters=LogisticRegressionHyperparameters, train=train
)
