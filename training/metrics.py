"""The metrics that models report, under the same names whatever the model."""

from __future__ import annotations

import numpy as np

from training.datasets import CLASSIFICATION, REGRESSION, REINFORCEMENT, Task

OBJECTIVES: dict[Task, str] = {
    CLASSIFICATION: "accuracy",
    REGRESSION: "r2",
    REINFORCEMENT: "evaluation_return",
}
"""What ranks the trials of a task when nothing else is asked for."""


def evaluate(
    task: Task, truth: np.ndarray, predicted: np.ndarray, prefix: str = ""
) -> dict[str, float]:
    """Metrics of predictions, shape (n,), against the truth, shape (n,)."""
    found = (classification if task == CLASSIFICATION else regression)(truth, predicted)
    return {prefix + name: value for name, value in found.items()}


def classification(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-averaged F1 of predicted classes."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
    }


def regression(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """R², mean absolute error and root mean squared error of predicted values."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    return {
        "r2": float(r2_score(truth, predicted)),
        "mae": float(mean_absolute_error(truth, predicted)),
        "rmse": float(root_mean_squared_error(truth, predicted)),
    }


def is_better_lower(metric: str) -> bool:
    """Whether less of a metric is better: losses and errors, going by the name."""
    return metric.endswith(("loss", "mae", "rmse", "error"))
