"""Summing up an experiment: its trials by state, the best, the failures."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mled import settings as settings_module
from mled.store import connect
from mled.store.orphans import mark_orphans
from mled.store.reading import leaderboard
from mled.store.schema import FAILED, FINISHED, STATES, Attempt, Experiment, Trial
from training.search.dashboard import dashboard_url

LEADERS = 10

log = logging.getLogger(__name__)


def summarise(
    name: str, trial_ids: Sequence[int] = (), since: int | None = None
) -> dict[str, Any]:  # fmt: skip
    """Counts by state, the best trials, and the seconds of training of an experiment.

    Returns a dictionary that JSON can hold: `experiment`, `trials` (state → number),
    `trial_seconds`, `objective`, `best` (a list of rows), `failures` (error → number),
    `dashboard` (its address, showing this experiment); of `trial_ids`, how many `failed` and how
    many are `left` to run; and how many trials had finished before `since` (microseconds UTC) and
    were `reused`.
    """
    settings = settings_module.load()
    database = connect(settings)
    mark_orphans(database)
    belongs = (Experiment.name == name, Trial.experiment_id == Experiment.id)
    latest = sa.and_(Attempt.trial_id == Trial.id, Attempt.number == Trial.attempt)
    reused = (Trial.state == FINISHED, Trial.ended_at < (since or 0))
    with database.read() as connection:
        counts = dict(
            connection.execute(
                sa.select(Trial.state, sa.func.count()).where(*belongs).group_by(Trial.state)
            ).all()
        )
        seconds = connection.execute(
            sa.select(sa.func.sum(Attempt.duration_s)).where(*belongs, latest)
        ).scalar_one()
        failures = connection.execute(
            sa.select(Attempt.error_message, sa.func.count())
            .where(*belongs, latest, Attempt.error_message.is_not(None))
            .group_by(Attempt.error_message)
            .order_by(sa.func.count().desc())
            .limit(LEADERS)
        ).all()
        states = connection.execute(
            sa.select(Trial.id, Trial.state).where(*belongs, Trial.state != FINISHED)
        ).all()
        reused_count = connection.execute(
            sa.select(sa.func.count()).select_from(Trial).join(Experiment).where(*belongs, *reused)
        ).scalar_one()
        objective = connection.execute(
            sa.select(Experiment.objective).where(Experiment.name == name)
        ).scalar_one()
    ours = set(trial_ids)
    unfinished = [state for id, state in states if id in ours]
    best = leaderboard(name, n=LEADERS, database=database)
    # A hyperparameter that is the same everywhere says nothing about what is best.
    varying = (c for c in best if c.startswith("params.") and best[c].nunique(dropna=False) > 1)
    fold = ["repeat"] if best["repeat"].nunique() > 1 else []
    shown = ["value", "step", "seed", *fold, *varying]
    summary = {
        "experiment": name,
        "trials": {state: counts[state] for state in STATES if state in counts},
        "failed": unfinished.count(FAILED),
        "left": len(unfinished) - unfinished.count(FAILED),
        "reused": reused_count,
        "trial_seconds": round(seconds or 0.0, 3),
        "objective": objective,
        "best": [
            {key: value if isinstance(value, str) else _finite(value) for key, value in row.items()}
            for row in best[shown].reset_index().to_dict("records")
        ],
        "failures": {message[:200]: count for message, count in failures},
        "dashboard": dashboard_url(settings.superset_page, name),
    }
    log.info(
        "%s\ntrials: %s%s\nbest by %s:\n%s\ndashboard: %s",
        name,
        ", ".join(f"{count} {state}" for state, count in summary["trials"].items()),
        f" ({reused_count} of them before this run; not run again)" if reused_count else "",
        objective,
        best[shown].to_string() if len(best) else "(none has finished with this metric)",
        summary["dashboard"],
    )
    for message, count in summary["failures"].items():
        log.warning("%d failed: %s", count, message)
    return summary


def _finite(value: Any) -> Any:
    """NaN and infinity as text: Airflow's XCom cannot hold them."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
