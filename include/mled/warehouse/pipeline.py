"""The pipeline, from the store to the published mart."""

from __future__ import annotations

import uuid
from pathlib import Path

from mled import settings as settings_module
from mled.settings import Settings
from mled.warehouse import dbt
from mled.warehouse.extract import extract
from mled.warehouse.files import exclusive
from mled.warehouse.publish import publish
from mled.warehouse.runs import Recorder, Report


class Run:
    """The stages of one recorded run; each may be called in a process of its own.

    Call them under `files.exclusive`. A stage that raises has recorded its error.
    """

    def __init__(self, settings: Settings, run_id: str):
        self._settings = settings
        self._recorder = Recorder(settings, run_id)

    def begin(self) -> None:
        """Record that the run is under way.

        Raises:
            StoreError: the store cannot be written.
        """
        self._recorder.begin()

    def extract(self) -> None:
        """Take what changed in the store into a batch.

        Raises:
            WarehouseError, StoreError: see `mled.warehouse.extract`.
        """
        with self._recorder.stage("extract"):
            batch = extract(self._settings)
            self._recorder.extracted(batch)

    def build(self, full_refresh: bool = False) -> None:
        """Apply the batches to the marts; with `full_refresh`, all of them to empty ones.

        Raises:
            WarehouseError: see `mled.warehouse.dbt`.
        """
        with self._recorder.stage("dbt"):
            dbt.build(self._settings, *(["--full-refresh"] if full_refresh else []))

    def built(self, target: Path) -> None:
        """Record a dbt run that somebody else started, from what it wrote into `target`."""
        seconds, error = dbt.outcome(target)
        self._recorder.took("dbt", seconds, error and f"dbt: {error}")

    def publish(self) -> None:
        """Show the marts to their readers.

        Raises:
            WarehouseError, OSError: see `mled.warehouse.publish`.
        """
        with self._recorder.stage("publish"):
            self._recorder.published(publish(self._settings))

    def end(self) -> Report:
        """Record the outcome, and return the whole record."""
        self._recorder.end()
        return self.report()

    def report(self) -> Report:
        """The record as it is now."""
        return self._recorder.report()


def run_etl(settings: Settings | None = None, full_refresh: bool = False) -> Report:
    """Run the whole pipeline in this process.

    Whatever an earlier run left undone, by an error or a kill, this one does. With `full_refresh`
    the marts are built anew from all batches in staging, as after a change of the dbt project.

    Raises:
        WarehouseError: another ETL is at work, or a stage failed.
        StoreError: the store cannot be read or written.
        OSError: the disk is full, for example.
    """
    settings = settings or settings_module.load()
    with exclusive(settings):
        run = Run(settings, f"manual__{uuid.uuid4()}")
        run.begin()
        try:
            run.extract()
            run.build(full_refresh)
            run.publish()
        finally:
            report = run.end()
    return report
