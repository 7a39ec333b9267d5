"""The pipeline's record of its runs, in the store's table `etl_run`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from mled.settings import Settings
from mled.store import connect
from mled.store.schema import EtlRun
from mled.warehouse.batches import Batch
from mled.warehouse.files import WarehouseError

RUNNING, SUCCEEDED, FAILED = "running", "succeeded", "failed"


def now_us() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run did; the fields are those of `etl_run`, None where it did not get that far."""

    run_id: str
    state: str
    rows_read: int | None
    bytes: int | None
    tables: dict[str, dict[str, int]] | None
    stage_seconds: dict[str, float]
    lag_s: float | None
    mart_version: int | None
    error: str | None

    @property
    def rows_changed(self) -> int:
        """The rows read that are not the pipeline's own records of its runs."""
        tables = self.tables or {}
        return sum(sum(rows.values()) for name, rows in tables.items() if name != "etl_run")


class Recorder:
    """Writes the row of one run. It can be made again, in another process, for the same run."""

    def __init__(self, settings: Settings, run_id: str):
        self.run_id = run_id
        self._database = connect(settings)

    def begin(self) -> None:
        """Record that the run has begun, and that no earlier one is under way any more."""
        insert = self._database.dialect.insert(EtlRun).values(
            run_id=self.run_id, state=RUNNING, started_at=now_us(), stage_seconds={}
        )
        with self._database.write() as connection:
            connection.execute(
                sa.update(EtlRun)
                .where(EtlRun.state == RUNNING, EtlRun.run_id != self.run_id)
                .values(
                    state=FAILED,
                    ended_at=now_us(),
                    error=sa.func.coalesce(
                        EtlRun.error,
                        f"it had not ended when {self.run_id} began: it was killed, "
                        "and what it left undone is done by the runs that follow",
                    ),
                )
            )
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["run_id"],
                    set_={"state": RUNNING, "ended_at": None, "error": None, "mart_version": None},
                )
            )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the seconds of a stage, and the error that ended it."""
        began = time.monotonic()
        error = None
        try:
            yield
        except BaseException as raised:
            error = f"{name}: {str(raised).strip() or type(raised).__name__}"
            raise
        finally:
            self.took(name, time.monotonic() - began, error)

    def took(self, stage: str, seconds: float, error: str | None = None) -> None:
        """Record the seconds of a stage that has ended, and its error."""
        stages = self._row().stage_seconds | {stage: round(seconds, 3)}
        self._update(stage_seconds=stages, error=error)

    def extracted(self, batch: Batch | None) -> None:
        """Record what the run read."""
        if batch is None:
            self._update(rows_read=0, bytes=0, tables={})
            return
        self._update(
            batch_id=batch.batch_id,
            low=batch.low,
            high=batch.high,
            rows_read=batch.rows,
            bytes=batch.bytes,
            tables={
                name: {"inserted": f.inserted, "updated": f.updated, "deleted": f.deleted}
                for name, f in batch.tables.items()
            },
        )

    def published(self, version: int) -> None:
        """Record the version of the mart, and how old its newest row was when it appeared."""
        high = self._row().high
        lag_s = None if high is None else max(now_us() - high, 0) / 1e6
        self._update(mart_version=version, lag_s=lag_s)

    def end(self) -> None:
        """Record the outcome: a success when the mart was published."""
        row = self._row()
        published = row.mart_version is not None and row.error is None
        error = None if published else row.error or "no version was published: a stage was killed"
        self._update(state=SUCCEEDED if published else FAILED, error=error, ended_at=now_us())

    def report(self) -> Report:
        """The record as it is now."""
        row = self._row()
        names = (field.name for field in dataclasses.fields(Report))
        return Report(**{name: getattr(row, name) for name in names})

    def _row(self) -> sa.Row:
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(EtlRun.__table__).where(EtlRun.run_id == self.run_id)
            ).one_or_none()
        if found is None:
            raise WarehouseError(
                f"the ETL run {self.run_id!r} is not in the store's etl_run: "
                "it ended before it could begin; see the error of its first stage"
            )
        return found

    def _update(self, **values) -> None:
        with self._database.write() as connection:
            connection.execute(
                sa.update(EtlRun).where(EtlRun.run_id == self.run_id).values(**values)
            )
