"""MLED, the Machine Learning Experiment Database.

import mled

with mled.experiment("study", dataset="digits", model="svm").trial({"C": 1.0}, seed=0) as t:
    t.log({"loss": 0.3, "accuracy": 0.9}, step=0)
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "EpochLog": "mled.capture",
    "DatasetVersion": "mled.store.experiments",
    "InvalidValue": "mled.store.values",
    "ModelKind": "mled.store.experiments",
    "Point": "mled.store.experiments",
    "SplitRecord": "mled.store.trials",
    "StoreError": "mled.store.dialects",
    "Superseded": "mled.store.trials",
    "artifact": "mled.store.reading",
    "curves": "mled.store.reading",
    "experiment": "mled.store.experiments",
    "leaderboard": "mled.store.reading",
    "to_arrow": "mled.store.reading",
    "trials": "mled.store.reading",
    "watch": "mled.capture",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    # Loaded on first use: the installer and Superset read `mled.settings` without SQLAlchemy.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mled' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
