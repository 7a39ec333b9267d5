"""What people would run a grid with instead: each peer runs the same work on two processes.

    python -m bench.grid_peers joblib 500 0.05

Prints the seconds from the call to its end as JSON. Only Optuna records its trials.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time

from bench.grid_work import work

PROCESSES = 2


def with_joblib(trials: int, seconds: float) -> None:
    from joblib import Parallel, delayed

    Parallel(n_jobs=PROCESSES)(delayed(work)(seconds) for _ in range(trials))


def with_grid_search_cv(trials: int, seconds: float) -> None:
    import numpy as np
    from sklearn.base import BaseEstimator
    from sklearn.model_selection import GridSearchCV

    class Busy(BaseEstimator):
        def __init__(self, number=0):
            self.number = number

        def fit(self, x, y=None):
            work(seconds)
            return self

        def score(self, x, y=None):
            return 1.0

    rows = np.arange(4)
    search = GridSearchCV(
        Busy(),
        {"number": list(range(trials))},
        cv=[(rows[:2], rows[2:])],
        n_jobs=PROCESSES,
        refit=False,
    )
    search.fit(rows.reshape(-1, 1), rows)


def with_optuna(trials: int, seconds: float) -> None:
    import optuna

    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/optuna.db"
        optuna.create_study(study_name="grid", storage=storage)
        processes = [
            multiprocessing.Process(target=_optimize, args=(storage, trials, seconds))
            for _ in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        study = optuna.load_study(study_name="grid", storage=storage)
        numbers = [trial.params["number"] for trial in study.trials]
        print(json.dumps({"trials": len(numbers), "points": len(set(numbers))}), file=sys.stderr)


def _optimize(storage: str, trials: int, seconds: float) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GridSampler({"number": list(range(trials))})
    study = optuna.load_study(study_name="grid", storage=storage, sampler=sampler)

    def objective(trial) -> float:
        trial.suggest_int("number", 0, trials - 1)
        work(seconds)
        return 1.0

    study.optimize(objective)


PEERS = {"joblib": with_joblib, "GridSearchCV": with_grid_search_cv, "Optuna": with_optuna}

if __name__ == "__main__":
    began = time.perf_counter()
    PEERS[sys.argv[1]](int(sys.argv[2]), float(sys.argv[3]))
    print(json.dumps({"wall_s": time.perf_counter() - began}))
