"""Recording with one line added to a script: scikit-learn estimators, and torch training loops."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mled.store.experiments import Experiment
from mled.store.trials import Trial
from mled.store.values import InvalidValue, encode, shorten

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from torch.nn import Module
    from torch.optim import Optimizer


class _Watched:
    """Mixed into the class of one estimator by `watch`."""

    _mled_study: tuple[Experiment, int] | None = None
    _mled_trial: Trial | None = None

    def fit(self, X, y=None, **options):
        if self._mled_study is None:  # a clone, as a search makes them
            return super().fit(X, y, **options)
        study, seed = self._mled_study
        with study.trial(_settings(self), seed=seed) as trial:
            began = time.perf_counter()
            super().fit(X, y, **options)
            trial.log({"fit_seconds": time.perf_counter() - began})
            if hasattr(super(), "score"):
                trial.log({"train_score": super().score(X, y)})
        self._mled_trial = trial
        return self

    def score(self, X, y=None, **options):
        value = super().score(X, y, **options)
        if self._mled_trial is not None:
            self._mled_trial.amend({"score": value})
        return value

    def __reduce_ex__(self, protocol):
        # A pickled model is the plain model: it needs no store, nor this package.
        base = type(self).__mro__[2]
        plain = base.__new__(base)
        plain.__dict__.update(
            {k: v for k, v in self.__dict__.items() if not k.startswith("_mled_")}
        )
        return object.__new__, (base,), plain.__getstate__()


def watch(estimator: BaseEstimator, study: Experiment, seed: int = 0) -> BaseEstimator:
    """Record a scikit-learn estimator: each `fit` is a trial, each later `score` one of its points.

    The hyperparameters are the estimator's own, those of a pipeline's steps included
    (`svc__C`). Metrics: `fit_seconds`, `train_score`, and `score` for each call of `score`. The
    estimator is changed in place and returned; its clones and pickles are plain estimators.
    """
    base = type(estimator)
    estimator.__class__ = type(base.__name__, (_Watched, base), {"__module__": base.__module__})
    estimator._mled_study = (study, seed)
    return estimator


def _settings(estimator: BaseEstimator) -> dict[str, Any]:
    """The parameters of an estimator and its steps, as hyperparameters."""
    settings = {}
    for name, value in estimator.get_params(deep=True).items():
        if hasattr(value, "get_params"):
            value = type(value).__name__
        elif callable(value):
            value = getattr(value, "__qualname__", repr(value))
        try:
            encode(name, value)
        except InvalidValue:
            # Steps of a pipeline, random generators …: their own parameters are listed anyway.
            value = shorten(value, 200)
        settings[name] = value
    return settings


class EpochLog:
    """A callback for a torch training loop: `log_epoch(epoch, loss=loss)`.

    Besides what it is given it records, for each epoch, `epoch_seconds`, the `learning_rate` of
    the optimizer's first group, and the `gradient_norm` (Euclidean, over all parameters that have
    a gradient); and once, as the tag `parameters`, how many the model has.
    """

    def __init__(
        self, trial: Trial, model: Module | None = None, optimizer: Optimizer | None = None
    ):
        self._trial, self._model, self._optimizer = trial, model, optimizer
        self._began = time.perf_counter()
        if model is not None:
            trial.tag("parameters", sum(p.numel() for p in model.parameters()))

    def __call__(self, epoch: int, **metrics: Any) -> None:
        """Record an epoch.

        Raises:
            InvalidValue: a metric or the epoch cannot be kept.
        """
        now = time.perf_counter()
        metrics = {name: _scalar(value) for name, value in metrics.items()}
        metrics["epoch_seconds"], self._began = now - self._began, now
        if self._optimizer is not None:
            metrics["learning_rate"] = float(self._optimizer.param_groups[0]["lr"])
        if self._model is not None:
            squares = [
                p.grad.detach().pow(2).sum().item()
                for p in self._model.parameters()
                if p.grad is not None
            ]
            if squares:
                metrics["gradient_norm"] = sum(squares) ** 0.5
        self._trial.log(metrics, step=epoch)


def _scalar(value: Any) -> Any:
    """A tensor with a gradient as its number; anything else unchanged."""
    return value.detach() if hasattr(value, "detach") else value
