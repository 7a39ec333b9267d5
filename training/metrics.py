"""The metrics that every classifier reports, under the same names."""

from __future__ import annotations

import numpy as np


def classification(truth: np.ndarray, predicted: np.ndarray, prefix: str = "") -> dict[str, float]:
    """Accuracy and macro-averaged F1 of predicted classes, shape (n,), against the truth."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        f"{prefix}accuracy": float(accuracy_score(truth, predicted)),
        f"{prefix}f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
    }
