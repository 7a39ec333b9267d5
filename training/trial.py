"""Running one trial: its data, its model, its record in the store."""

from __future__ import annotations

from pathlib import Path

from mled.store import Database
from mled.store.trials import Trial
from training import datasets, models

HERE = Path(__file__).parent


def run(database: Database, trial_id: int, model: str, dataset: str) -> None:
    """Train and evaluate a trial, recording everything in the store.

    Raises:
        Exception: whatever training raised; it is recorded with its traceback first.
    """
    with Trial(database, trial_id, code=HERE) as trial:
        _one_thread()
        data = datasets.split(dataset)
        trial.split(data.record)
        kind = models.get(model)
        kind.train(kind.hyperparameters(**trial.params), data, trial.seed, trial.log)


def _one_thread() -> None:
    """Keep numeric libraries to one thread: trials run in parallel, and sums stay in order."""
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
