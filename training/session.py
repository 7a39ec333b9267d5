"""What a model is given while it trains: somewhere to report to, and epochs that survive a crash.

for epoch in session.epochs(params.epochs, params, model=model, optimizer=optimizer):
    ...
    session.log({"loss": loss}, step=epoch)
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from mled.store.trials import Trial
from training.checkpoints import Checkpoints
from training.limits import uninterrupted
from training.metrics import is_better_lower

SAVE_SECONDS = 10.0

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """A part of a model that can be saved, as torch's modules and optimizers are."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> object: ...


class Stopping(Protocol):
    """The hyperparameters that say when to stop early (see `training.models.Epochs`)."""

    patience: int
    min_delta: float
    monitor: str


class Session:
    """One run of a model's `train`."""

    def __init__(self, trial: Trial, checkpoints: Checkpoints, saved: bytes | None = None):
        """`saved` is what an earlier attempt of the trial has left in `checkpoints`."""
        self._trial = trial
        self._checkpoints = checkpoints
        self._saved = saved
        self._has_checkpoint = saved is not None
        self._latest: dict[str, Any] = {}

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record a point of each metric at `step`; without one, at the metric's next step.

        Raises:
            InvalidValue: a name, value or step cannot be kept.
            StoreError: the store cannot be written, or a newer attempt of the trial has begun.
        """
        with uninterrupted():
            self._trial.log(metrics, step)
        self._latest.update(metrics)

    def epochs(self, count: int, stopping: Stopping, **parts: Stateful) -> Iterator[int]:
        """The numbers of the epochs to train, from 0 up to `count`.

        Every few seconds the state of `parts` and of torch's random numbers is saved behind an
        epoch; an attempt that begins after a crash goes on from there. The epochs end early when
        the metric `stopping.monitor` has not improved by `min_delta` for `patience` epochs.
        """
        import torch

        first, best, stale = 0, math.inf, 0
        if self._saved is not None:
            state = torch.load(io.BytesIO(self._saved), weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            torch.set_rng_state(state["random"])
            first, best, stale = state["epoch"] + 1, state["best"], state["stale"]
            log.info("trial %d goes on from epoch %d", self._trial.id, first)
        saved_at = time.monotonic()
        for epoch in range(first, count):
            if stopping.patience and stale >= stopping.patience:
                log.info("trial %d stops before epoch %d", self._trial.id, epoch)
                break
            yield epoch
            value = self._score(stopping.monitor)
            # NaN is no improvement.
            best, stale = (value, 0) if value < best - stopping.min_delta else (best, stale + 1)
            if time.monotonic() - saved_at >= SAVE_SECONDS and epoch < count - 1:
                buffer = io.BytesIO()
                torch.save(
                    {
                        "epoch": epoch,
                        "best": best,
                        "stale": stale,
                        "random": torch.get_rng_state(),
                        "parts": {name: part.state_dict() for name, part in parts.items()},
                    },
                    buffer,
                )
                with uninterrupted():
                    # First the points: an attempt that goes on does not log them again.
                    self._trial.flush()
                    self._checkpoints.write(self._trial.id, buffer.getvalue())
                    self._has_checkpoint = True
                saved_at = time.monotonic()

    def forget(self) -> None:
        """Delete what is saved: the trial has ended."""
        if self._has_checkpoint:
            self._checkpoints.delete(self._trial.id)

    def _score(self, metric: str) -> float:
        """The latest value of a metric, as a number of which less is better; inf before any."""
        value = float(self._latest.get(metric, math.inf))
        if value == math.inf:
            return value
        return value if is_better_lower(metric) else -value
