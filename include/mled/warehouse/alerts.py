"""Telling people that the warehouse needs them: in the log, and wherever else they look."""

from __future__ import annotations

import logging
import time

import sqlalchemy as sa

from mled.settings import Settings, load
from mled.store import connect
from mled.store.schema import EtlRun
from mled.warehouse.runs import RUNNING, SUCCEEDED

MOST_SECONDS = 30 * 60
"""How long a run may take: half of the hour after which the next one begins."""

MOST_AGE_S = 2 * 60 * 60
"""How long ago the last successful run may have ended."""

log = logging.getLogger(__name__)


def send(text: str) -> None:
    """Log an alert as an error, and post it to `MLED_ALERT_URL` as `{"text": …}`.

    An alert that cannot be posted is logged as well; it fails nothing.
    """
    log.error("ALERT: %s", text)
    url = load().alert_url
    if not url:
        return
    import httpx

    try:
        httpx.post(url, json={"text": text}, timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        log.error("the alert could not be posted to %s: %s (see MLED_ALERT_URL)", url, error)


def problem(settings: Settings | None = None, now_us: int | None = None) -> str | None:
    """What is wrong with the pipeline, and what to do; None while all is well.

    That is a run at work for over `MOST_SECONDS`, or a last successful one that ended over
    `MOST_AGE_S` ago. `now_us` is the time in microseconds UTC; that of the day by default.

    Raises:
        StoreError: the store cannot be read.
    """
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    newest = sa.select(EtlRun.error).where(EtlRun.state != RUNNING).order_by(EtlRun.id.desc())
    with connect(settings or load()).read() as connection:
        ended = connection.execute(
            sa.select(sa.func.max(EtlRun.ended_at)).where(EtlRun.state == SUCCEEDED)
        ).scalar()
        first = connection.execute(sa.select(sa.func.min(EtlRun.started_at))).scalar()
        error = connection.execute(newest.limit(1)).scalar()
        running = connection.execute(
            sa.select(EtlRun.run_id, EtlRun.started_at).where(EtlRun.state == RUNNING)
        ).first()
    if running and now_us - running.started_at > MOST_SECONDS * 1_000_000:
        minutes = (now_us - running.started_at) / 60_000_000
        return (
            f"the ETL run {running.run_id} has been at work for {minutes:.0f} minutes, of at most "
            f"{MOST_SECONDS // 60}: see in Airflow which task it is in, or, if it was killed, run "
            "`mled etl`"
        )
    since = ended if ended is not None else first
    if since is None or now_us - since <= MOST_AGE_S * 1_000_000:
        return None
    hours = (now_us - since) / 3_600_000_000
    what = "the last successful ETL ended" if ended is not None else "the first ETL failed"
    cause = (
        f"mend what stopped the last one ({error})" if error else "see that the DAG is not paused"
    )
    return f"{what} {hours:.1f} hours ago: {cause}, and run `mled etl`"
