"""The pipeline, from the store to the published mart."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mled import settings as settings_module
from mled.settings import Settings
from mled.warehouse import dbt
from mled.warehouse.compact import compact
from mled.warehouse.extract import extract
from mled.warehouse.files import exclusive
from mled.warehouse.publish import publish, restore
from mled.warehouse.runs import Recorder, Report

Shown = Callable[[str], contextlib.AbstractContextManager[None]]
"""What shows a stage while it lasts, by its name; see `mled.steps.Steps.step`."""


def _unseen(stage: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


class Run:
    """The stages of one recorded run; each may be called in a process of its own.

    Call them under `files.exclusive`. A stage that raises has recorded its error.
    """

    def __init__(self, settings: Settings, run_id: str, shown: Shown = _unseen):
        self._settings = settings
        self._recorder = Recorder(settings, run_id)
        self._shown = shown

    def begin(self) -> None:
        """Record that the run is under way.

        Raises:
            StoreError: the store cannot be written.
        """
        self._recorder.begin()

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with self._shown(name), self._recorder.stage(name):
            yield

    def extract(self, afresh: bool = False) -> None:
        """Take what changed in the store into a batch; with `afresh`, everything.

        Raises:
            WarehouseError, StoreError: see `mled.warehouse.extract`.
        """
        with self._stage("extract"):
            self._recorder.extracted(extract(self._settings, afresh))
            restore(self._settings)

    def build(self) -> None:
        """Apply the batches to the marts.

        Raises:
            WarehouseError: see `mled.warehouse.dbt`.
        """
        with self._stage("dbt"):
            dbt.build(self._settings)

    def built(self, target: Path) -> None:
        """Record a dbt run that somebody else started, from what it wrote into `target`."""
        seconds, error = dbt.outcome(target)
        self._recorder.took("dbt", seconds, error and f"dbt: {error}")

    def publish(self) -> None:
        """Show the marts to their readers, then keep staging small.

        Raises:
            WarehouseError, OSError: see `mled.warehouse.publish` and `mled.warehouse.compact`.
        """
        with self._stage("publish"):
            self._recorder.published(publish(self._settings))
        with self._stage("compact"):
            compact(self._settings)

    def end(self) -> Report:
        """Record the outcome, and return the whole record."""
        self._recorder.end()
        return self.report()

    def report(self) -> Report:
        """The record as it is now."""
        return self._recorder.report()


def run_etl(
    settings: Settings | None = None, full_refresh: bool = False, shown: Shown = _unseen
) -> Report:
    """Run the whole pipeline in this process.

    Whatever an earlier run left undone, by an error or a kill, this one does. With `full_refresh`
    the marts are built anew from all batches in staging. It is not needed after a change of the
    dbt project: models whose code changed are built anew by themselves.

    Raises:
        WarehouseError: another ETL is at work, or a stage failed.
        StoreError: the store cannot be read or written.
        OSError: the disk is full, for example.
    """
    return _run(settings, shown, anew=full_refresh)


def rebuild(settings: Settings | None = None, shown: Shown = _unseen) -> Report:
    """Run the whole pipeline as if for the first time: read all of the store, build all marts.

    Hyperparameters keep the columns that they have in the published mart. Raises as `run_etl`.
    """
    return _run(settings, shown, anew=True, afresh=True)


def _run(
    settings: Settings | None, shown: Shown, anew: bool = False, afresh: bool = False
) -> Report:
    settings = settings or settings_module.load()
    with exclusive(settings):
        dbt.check_free(settings)
        run = Run(settings, f"manual__{uuid.uuid4()}", shown)
        run.begin()
        try:
            if anew:
                settings.build_file.unlink(missing_ok=True)
            run.extract(afresh)
            run.build()
            run.publish()
        finally:
            report = run.end()
    return report
