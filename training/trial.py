"""Running one trial: its data, its model, its record in the store."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from mled.store import Database, StoreError
from mled.store.trials import Trial
from training import models
from training.checkpoints import Checkpoints
from training.datasets import Dataset, Environment
from training.limits import time_limit
from training.session import Session
from training.splits import split

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """What the trials of an experiment have in common.

    Attributes:
        model: its name.
        dataset: what to learn from.
        folds, split_seed: how its rows are split; a trial's repeat is its fold.
        time_limit_s: seconds after which a trial fails; 0 for no limit.
        checkpoints: where unfinished trials are saved.
    """

    model: str
    dataset: Dataset | Environment
    folds: int
    split_seed: int
    time_limit_s: float
    checkpoints: Checkpoints


def run(database: Database, trial_id: int, setting: Setting, is_first: bool = False) -> None:
    """Train and evaluate a trial, recording everything in the store.

    A trial that was saved by an attempt before goes on from there, unless `is_first` says that
    there was none (to ask costs a request in Airflow).

    Raises:
        Exception: whatever training raised; it is recorded with its traceback first.
    """
    saved = None if is_first else setting.checkpoints.read(trial_id)
    trial = Trial(database, trial_id, resume=saved is not None, code=HERE)
    session = Session(trial, setting.checkpoints, saved)
    # Before the trial's clock starts: the first one of a process would pay for the imports.
    _prepare(models.get(setting.model).library)
    try:
        with trial:
            _train(trial, setting, session)
    except StoreError:
        # Its next attempt can go on from the checkpoint, which may be that attempt's already.
        raise
    except Exception:
        session.forget()
        raise
    session.forget()


def _train(trial: Trial, setting: Setting, session: Session) -> None:
    model = models.get(setting.model)
    data = setting.dataset
    if isinstance(data, Dataset):
        data = split(data, setting.folds, setting.split_seed, trial.repeat)
        trial.split(data.record)
    params = model.hyperparameters(**trial.params)
    with time_limit(setting.time_limit_s):
        model.train(params, data, trial.seed, session)


@functools.cache
def _prepare(library: str) -> None:
    """Import a library and keep it to one thread: trials run in parallel; sums stay in order."""
    from threadpoolctl import threadpool_limits

    if library == "torch":
        import torch

        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
    elif library == "scikit-learn":
        import sklearn.pipeline  # noqa: F401
    threadpool_limits(1)
