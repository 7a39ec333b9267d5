"""Support vector machine for classification, on standardised features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.estimators import fit
from training.models import Hyperparameters, Model
from training.session import Session
from training.splits import Data


class SvmHyperparameters(Hyperparameters):
    C: float = Field(1.0, gt=0, le=1e6, description="inverse strength of the regularisation")
    kernel: Literal["rbf", "linear", "poly", "sigmoid"] = Field("rbf", description="kernel")
    gamma: float | Literal["scale", "auto"] = Field(
        "scale", description="width of the kernel; 'scale' and 'auto' derive it from the data"
    )
    degree: int = Field(3, ge=1, le=10, description="degree of the poly kernel")


def train(params: SvmHyperparameters, data: Data, seed: int, session: Session) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    model = make_pipeline(StandardScaler(), SVC(**params.model_dump(), random_state=seed))
    fit(model, data, session)
    session.log({"support_vectors": int(model[-1].n_support_.sum())})


MODEL = Model(library="scikit-learn", hyperparameters=SvmHyperparameters, train=train)
