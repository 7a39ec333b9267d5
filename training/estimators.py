"""What the scikit-learn models have in common."""

from __future__ import annotations

from typing import Any

from training.metrics import evaluate
from training.session import Session
from training.splits import Data


def fit(estimator: Any, data: Data, session: Session) -> None:
    """Fit a scikit-learn estimator; report its metrics on both sides of the split."""
    estimator.fit(data.train_x, data.train_y)
    session.log(evaluate(data.task, data.train_y, estimator.predict(data.train_x), "train_"))
    session.log(evaluate(data.task, data.evaluation_y, estimator.predict(data.evaluation_x)))
