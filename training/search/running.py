"""Running the trials of a shard, one after the other, each committed by itself."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mled import settings as settings_module
from mled.store import Database, connect
from mled.store.orphans import mark_orphans
from mled.store.schema import FAILED, FINISHED, ORPHANED, PENDING, RUNNING, Attempt, Dataset
from mled.store.schema import Experiment as ExperimentRow
from mled.store.schema import Trial as TrialRow
from mled.store.trials import Superseded, Trial, now
from training import experiments, trial
from training.checkpoints import Checkpoints, FileCheckpoints
from training.options import Options

DEATHS = 2
POLL_SECONDS = 1.0
PROGRESS_SECONDS = 1.0

log = logging.getLogger(__name__)


class Abandoned(RuntimeError):
    """Nobody waits for these trials any more; what has ended is safe, the rest is left."""


class ProcessDied(RuntimeError):
    """A trial has ended the process it ran in, more than once."""


def run(
    trial_ids: Sequence[int],
    request: Mapping[str, Any],
    *,
    since: int | None = None,
    until: float | None = None,
    checkpoints: Checkpoints | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    **options: Any,
) -> dict[str, int]:
    """Run trials one after the other; returns how many ended in which way.

    A trial that raises is recorded as failed and the next one is run. A trial that runs in another
    process is waited for. What has ended in this run already (this is a retry) stays as it is;
    a trial that has ended its process `DEATHS` times is recorded as failed.

    Args:
        trial_ids, request, options: as `plan` returned and was given them.
        since: when this run began, microseconds UTC; by default now.
        until: Unix seconds after which no trial is begun.
        checkpoints: where unfinished trials are saved; files in the home folder by default.
        is_wanted: asked before each trial whether to go on.

    Returns:
        Numbers of trials: `finished`, `failed`, `reused` (they had finished before), `superseded`
        (another process took them over), `left` (not begun by `until`).

    Raises:
        InvalidExperiment: the dataset is no longer what the trials were planned for.
        Abandoned: `is_wanted` said no.
        StoreError: the store cannot be written; trials that have ended are safe.
    """
    settings = settings_module.load()
    chosen = Options(**options)
    wanted = experiments.parse(request)
    database = connect(settings)
    since = now() if since is None else since
    _check_version(database, wanted)
    setting = trial.Setting(
        model=wanted.model,
        dataset=wanted.data,
        folds=wanted.folds,
        split_seed=wanted.split_seed,
        time_limit_s=chosen.time_limit_s,
        checkpoints=checkpoints or FileCheckpoints(settings.home / "checkpoints"),
    )
    deaths = _deaths(database, trial_ids, since)
    # What may have ended the process before comes last: nothing waits behind it.
    waiting = deque(sorted(trial_ids, key=lambda id: id in deaths))
    ended = dict.fromkeys(("finished", "failed", "reused", "superseded", "left"), 0)
    progress = _Progress(len(trial_ids))
    running_elsewhere = 0
    while waiting:
        if not is_wanted():
            raise Abandoned(f"{len(waiting)} trials are left to the retry of this task")
        if until is not None and time.time() >= until:
            ended["left"] = len(waiting)
            log.info("the budget is used up: %d trials stay pending", len(waiting))
            break
        id = waiting.popleft()
        state, ended_at = _state(database, id)
        if state == RUNNING:
            mark_orphans(database)
            state, ended_at = _state(database, id)
        if state == RUNNING:
            waiting.append(id)
            running_elsewhere += 1
            if running_elsewhere >= len(waiting):
                log.info("waiting for %d trials that run in another process", len(waiting))
                time.sleep(POLL_SECONDS)
                running_elsewhere = 0
            continue
        running_elsewhere = 0
        in_this_run = ended_at is not None and ended_at >= since
        if state == FINISHED and (chosen.only_missing or in_this_run):
            ended["reused"] += 1
        elif state == FAILED and in_this_run:
            ended["failed"] += 1
        else:
            outcome = _run_one(database, id, setting, state == PENDING, deaths.get(id, 0))
            ended[outcome] += 1
            if outcome == "superseded":
                # Another process runs it: its end is waited for.
                waiting.append(id)
        progress.show(ended, len(waiting))
    return ended


class _Progress:
    """Lines of the log about how far a shard is, at most one a second and one at its end."""

    def __init__(self, total: int):
        self._total = total
        self._began = self._shown = time.monotonic()

    def show(self, ended: Mapping[str, int], left: int) -> None:
        now = time.monotonic()
        if left and now - self._shown < PROGRESS_SECONDS:
            return
        self._shown = now
        ran = ended["finished"] + ended["failed"]
        seconds = max(now - self._began, 1e-9)
        log.info(
            "%d of %d trials done, %d failed, %d reused, %d left; %.3g a second%s",
            self._total - left,
            self._total,
            ended["failed"],
            ended["reused"],
            left,
            ran / seconds,
            f", about {seconds / ran * left:.0f} s left" if ran and left else "",
        )


def _run_one(
    database: Database, id: int, setting: trial.Setting, is_first: bool, deaths: int
) -> str:
    """Run a trial; returns how it ended."""
    try:
        if deaths >= DEATHS:
            with Trial(database, id, code=trial.HERE):
                raise ProcessDied(
                    f"the process of this trial died {deaths} times in this run: it was killed, "
                    "as when memory is short, or its library crashed"
                )
        trial.run(database, id, setting, is_first)
    except Superseded as error:
        log.warning("%s", error)
        return "superseded"
    except Exception:
        if _state(database, id)[0] != FAILED:
            # The store is what failed, not the trial.
            raise
        log.exception("trial %d failed", id)
        return "failed"
    return "finished"


def _check_version(database: Database, wanted: experiments.Experiment) -> None:
    query = (
        sa.select(Dataset.version)
        .join(ExperimentRow, ExperimentRow.dataset_id == Dataset.id)
        .where(ExperimentRow.name == wanted.experiment)
    )
    with database.read() as connection:
        planned = connection.execute(query).scalar_one()
    if planned != wanted.data.version.version:
        raise experiments.InvalidExperiment(
            f"dataset: {wanted.data.version.name!r} has changed since the trials were planned (its "
            f"version was {planned[:12]} and is {wanted.data.version.version[:12]}): bring the "
            "former one back, or give the experiment another name"
        )


def _state(database: Database, trial_id: int) -> tuple[str, int | None]:
    """A trial's state, and when it ended (microseconds UTC)."""
    query = sa.select(TrialRow.state, TrialRow.ended_at).where(TrialRow.id == trial_id)
    with database.read() as connection:
        return tuple(connection.execute(query).one())


def _deaths(database: Database, trial_ids: Sequence[int], since: int) -> dict[int, int]:
    """Trial → how many of its attempts that began in this run were left by their process."""
    mark_orphans(database)
    query = (
        sa.select(Attempt.trial_id, sa.func.count())
        .where(Attempt.state == ORPHANED, Attempt.started_at >= since)
        .group_by(Attempt.trial_id)
    )
    with database.read() as connection:
        found = dict(connection.execute(query).all())
    return {id: found[id] for id in trial_ids if id in found}
