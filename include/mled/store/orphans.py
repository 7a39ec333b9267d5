"""Recognising trials whose process is gone."""

from __future__ import annotations

import socket

import psutil
import sqlalchemy as sa

from mled import settings as settings_module
from mled.store.database import Database
from mled.store.schema import ORPHANED, RUNNING, Attempt, Trial
from mled.store.trials import now


def mark_orphans(database: Database, silence_s: float | None = None) -> list[int]:
    """Mark running trials whose process is gone; returns their ids.

    A process is gone when it ran on this host and its number is free or belongs to a younger
    process, or when its heartbeat is older than `silence_s` (`MLED_ORPHAN_SECONDS` by default).
    """
    silence_s = settings_module.load().orphan_seconds if silence_s is None else silence_s
    ended_at, host = now(), socket.gethostname()
    orphans = []
    with database.write() as connection:
        running = connection.execute(
            sa.select(Attempt.trial_id, Attempt.number, Attempt.host, Attempt.pid,
                      Attempt.started_at, Attempt.heartbeat_at)
            .where(Attempt.state == RUNNING)
        ).all()  # fmt: skip
        for row in running:
            silent = (ended_at - row.heartbeat_at) / 1e6
            if row.host == host and not _is_alive(row.pid, row.started_at / 1e6):
                reason = f"its process (number {row.pid} on {row.host}) is gone"
            elif silent > silence_s:
                reason = f"no heartbeat from process {row.pid} on {row.host} for {silent:.0f} s"
            else:
                continue
            connection.execute(
                sa.update(Attempt)
                .where(Attempt.trial_id == row.trial_id, Attempt.number == row.number)
                .values(state=ORPHANED, ended_at=ended_at, error_message=reason)
            )
            connection.execute(
                sa.update(Trial)
                .where(Trial.id == row.trial_id, Trial.attempt == row.number)
                .values(state=ORPHANED, ended_at=ended_at)
            )
            orphans.append(row.trial_id)
    return orphans


def _is_alive(pid: int, since: float) -> bool:
    """Whether process `pid` exists and is older than `since` (seconds UTC)."""
    try:
        # A second of grace: the kernel counts a process's start in ticks.
        return psutil.Process(pid).create_time() <= since + 1
    except psutil.NoSuchProcess:
        return False
