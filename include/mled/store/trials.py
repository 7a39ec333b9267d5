"""Running a trial: its attempts, the points it logs, what it leaves.

Points are buffered and written by a background thread; a flush, or the end of the block, is
durable. A process that is killed loses at most the points of the last `MLED_FLUSH_SECONDS`
seconds, and never more than `MLED_FLUSH_POINTS` points a trial.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mled import settings as settings_module
from mled.store import provenance, values
from mled.store.artifacts import keep_file
from mled.store.database import Database
from mled.store.dialects import StoreError
from mled.store.pulse import PULSE
from mled.store.rows import find_or_insert, update_if_changed, upsert
from mled.store.schema import (
    FAILED,
    FINISHED,
    ORPHANED,
    RUNNING,
    Artifact,
    Attempt,
    CodeVersion,
    Environment,
    Hyperparameter,
    Metric,
    Note,
    Split,
    Tag,
)
from mled.store.schema import Experiment as ExperimentRow
from mled.store.schema import Trial as TrialRow
from mled.store.values import InvalidValue, check_name

STEPS = 2**63
"""Steps are whole numbers from 0 up to, but not including, this one."""


class Superseded(StoreError):
    """A newer attempt of the trial has begun; this one may no longer write."""


@dataclass(frozen=True)
class SplitRecord:
    """Which rows were trained on and which evaluated; `digest` is the hash of both lists."""

    digest: str
    method: str
    train_rows: int
    evaluation_rows: int
    shared_rows: int = 0


class Trial:
    """One attempt of a trial: entered, it is running; left, it is finished or failed.

    Attributes:
        id: key of the trial.
        attempt: number of this attempt, from 1; 0 before it is entered.
        params, seed, repeat: what to run, once it is entered.
    """

    def __init__(
        self,
        database: Database,
        id: int,
        *,
        resume: bool = False,
        code: str | Path | None = None,
    ):
        self.database, self.id, self.attempt = database, id, 0
        self.params: dict[str, Any] = {}
        self.seed = self.repeat = 0
        self._resume = resume
        self._code = Path(code) if code else _main_folder()
        self._settings = settings_module.load()
        self.pulse_seconds = min(self._settings.flush_seconds, self._settings.heartbeat_seconds)
        self._names: set[str] = set()
        self._next_step: dict[str, int] = {}
        self._points: dict[tuple[str, int], tuple[float | None, str | None]] = {}
        self._split: SplitRecord | None = None
        self._points_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._failure: BaseException | None = None
        self._open = False

    def __enter__(self) -> Trial:
        """Begin a new attempt.

        Raises:
            StoreError: there is no such trial, or the store cannot be written.
        """
        started_at = now()
        ran_on = _provenance(self.database, self._code)
        with self.database.write() as connection:
            row = connection.execute(
                sa.select(TrialRow).where(TrialRow.id == self.id).with_for_update()
            ).one_or_none()
            if row is None:
                raise StoreError(f"there is no trial {self.id} in the store")
            self.seed, self.repeat, self.attempt = row.seed, row.repeat, row.attempt + 1
            self.params = _read_params(connection, self.id)
            connection.execute(
                sa.update(Attempt)
                .where(Attempt.trial_id == self.id, Attempt.state == RUNNING)
                .values(
                    state=ORPHANED,
                    ended_at=started_at,
                    error_message=f"attempt {self.attempt} began before this one had ended",
                )
            )
            if not self._resume and row.attempt:
                connection.execute(sa.delete(Metric).where(Metric.trial_id == self.id))
            connection.execute(
                sa.insert(Attempt).values(
                    trial_id=self.id,
                    number=self.attempt,
                    state=RUNNING,
                    started_at=started_at,
                    heartbeat_at=started_at,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    **ran_on,
                )
            )
            self._set_state(connection, RUNNING, started_at=started_at, ended_at=None)
            if self._resume:
                latest = sa.select(Metric.name, sa.func.max(Metric.step)).group_by(Metric.name)
                rows = connection.execute(latest.where(Metric.trial_id == self.id))
                self._next_step = {name: step + 1 for name, step in rows}
        self._meter = provenance.Meter()
        self._heartbeat = time.monotonic()
        self._open = True
        PULSE.add(self)
        return self

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        PULSE.discard(self)
        state = FINISHED if error is None else FAILED
        facts = {"state": state, "ended_at": now(), **self._meter.read()}
        if error is not None:
            text = values.keepable("".join(traceback.format_exception(error)))
            message = values.keepable(str(error)) or type(error).__name__
            facts |= {
                "error_type": type(error).__name__,
                "error_message": message[: values.MAX_TEXT],
                "traceback": text[-values.MAX_TEXT :],
            }
        try:
            with self._write_lock:
                self._write(facts)
        finally:
            self._open = False

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record a point of each metric at `step`; without one, at the metric's next step.

        Steps may come in any order; a step that is logged again replaces its value. A value is a
        number (NaN and infinity too), a boolean, text or None.

        Raises:
            InvalidValue: a name, value or step cannot be kept; then none of them is recorded.
            StoreError: an earlier point could not be written; it is kept and tried again.
            Superseded: a newer attempt of the trial has begun.
        """
        if not self._open:
            raise StoreError(f"trial {self.id} is not running: log inside its `with` block")
        if isinstance(self._failure, Superseded):
            raise self._failure
        if self._failure is not None:
            self.flush()
        if self._buffer(metrics, step):
            self.flush()

    def _buffer(self, metrics: Mapping[str, Any], step: int | None) -> bool:
        """Check points and add them to the buffer; whether it is full now."""
        if step is not None and (type(step) is not int or not 0 <= step < STEPS):
            step = _check_step(step)
        new = []
        for name, value in metrics.items():
            if name not in self._names:
                self._names.add(check_name("metric", name))
            at = self._next_step.get(name, 0) if step is None else step
            number, text = (value, None) if type(value) is float else _number(name, value)
            new.append((name, at, (None if number != number else number, text)))
        with self._points_lock:
            for name, at, point in new:
                self._points[name, at] = point
                self._next_step[name] = at + 1
            return len(self._points) >= self._settings.flush_points

    def amend(self, metrics: Mapping[str, Any]) -> None:
        """Add a point of each metric, at its next step, to a trial that has ended.

        Raises:
            InvalidValue: a name or value cannot be kept; then none of them is recorded.
            Superseded: a newer attempt of the trial has begun.
        """
        self._buffer(metrics, None)
        self.flush()

    def flush(self) -> None:
        """Write what is buffered; once it returns, no crash can lose it.

        Raises:
            StoreError: it cannot be written; it stays buffered.
            Superseded: a newer attempt of the trial has begun.
        """
        with self._write_lock:
            self._write()

    def tag(self, name: str, value: Any = True) -> None:
        """Attach a value to the trial: a word, a number, or any JSON; the last one counts.

        Raises:
            InvalidValue: the name or value cannot be kept.
        """
        encoded = values.encode(f"tag {name!r}", value)
        key = {"trial_id": self.id, "name": check_name("tag", name)}
        with self._fenced() as connection:
            upsert(self.database, connection, Tag, key, encoded._asdict())

    def note(self, text: str) -> None:
        """Add a remark to the trial.

        Raises:
            InvalidValue: the text is too long.
        """
        values.encode("note", text)
        with self._fenced() as connection:
            connection.execute(sa.insert(Note).values(trial_id=self.id, text=text))

    def artifact(self, path: str | Path, name: str | None = None) -> Path:
        """Keep a copy of a file, once by its content; returns where it is kept.

        The name (the file's own by default) is the trial's: a second file of that name replaces
        the first.

        Raises:
            InvalidValue: there is no such file, or the name cannot be kept.
            StoreError: the copy cannot be written.
        """
        path = Path(path)
        name = check_name("artifact", name or path.name)
        if not path.is_file():
            raise InvalidValue(f"artifact {name!r}: {path} is no file")
        try:
            kept, digest, size = keep_file(path, self._settings)
        except OSError as error:
            raise StoreError(f"artifact {name!r} cannot be kept: {error}") from error
        with self._fenced() as connection:
            upsert(
                self.database,
                connection,
                Artifact,
                {"trial_id": self.id, "name": name},
                {
                    "path": str(kept.relative_to(self._settings.artifacts)),
                    "size": size,
                    "sha256": digest,
                },
            )
        return kept

    def split(self, split: SplitRecord) -> None:
        """Record which rows of the dataset this trial trained on and was evaluated on.

        It is written together with the next points: a commit of its own would cost a short trial
        a third of its time.
        """
        with self._points_lock:
            self._split = split

    def pulse(self) -> None:
        """Write what is buffered, and a heartbeat when it is due; a failure waits for `log`."""
        due = time.monotonic() - self._heartbeat >= self._settings.heartbeat_seconds
        if not self._points and not due:
            return
        with self._write_lock:
            if not self._open:
                return
            try:
                self._write({"heartbeat_at": now()} if due else None)
            except Exception as error:
                self._failure = error

    @contextmanager
    def _fenced(self) -> Iterator[Connection]:
        """A write transaction that only the trial's newest attempt gets."""
        with self.database.write() as connection:
            row = connection.execute(
                sa.select(TrialRow.attempt, TrialRow.state)
                .where(TrialRow.id == self.id)
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise Superseded(f"trial {self.id} was deleted from the store")
            if row.attempt != self.attempt:
                raise Superseded(
                    f"trial {self.id}: attempt {row.attempt} has begun, so attempt "
                    f"{self.attempt} may no longer write"
                )
            if row.state == ORPHANED:
                # It was silent for too long (a laptop asleep), and is alive after all.
                connection.execute(
                    self._mine(sa.update(Attempt)).values(
                        state=RUNNING, ended_at=None, error_message=None
                    )
                )
                self._set_state(connection, RUNNING, ended_at=None)
            yield connection

    def _write(self, attempt: Mapping[str, Any] | None = None) -> None:
        """Write the buffered points and, in the same transaction, facts about the attempt."""
        with self._points_lock:
            points, self._points = self._points, {}
            split, self._split = self._split, None
        if not points and not attempt and not split:
            return
        try:
            with self._fenced() as connection:
                if split:
                    self._write_split(connection, split)
                if points:
                    rows = [(self.id, *key, *points[key]) for key in sorted(points)]
                    with self.database.ticket(connection) as stamp:
                        self.database.dialect.write_points(connection, rows, stamp)
                if attempt:
                    connection.execute(self._mine(sa.update(Attempt)).values(**attempt))
                    if "state" in attempt:
                        self._set_state(connection, attempt["state"], ended_at=attempt["ended_at"])
        except Superseded as error:
            self._failure = error
            raise
        except BaseException:
            with self._points_lock:
                self._points = points | self._points
                self._split = self._split or split
            raise
        self._failure = None
        if attempt:
            self._heartbeat = time.monotonic()

    def _write_split(self, connection: Connection, split: SplitRecord) -> None:
        dataset_id = connection.execute(
            sa.select(ExperimentRow.dataset_id)
            .join(TrialRow, TrialRow.experiment_id == ExperimentRow.id)
            .where(TrialRow.id == self.id)
        ).scalar_one()
        split_id = find_or_insert(
            self.database,
            connection,
            Split,
            {"dataset_id": dataset_id, **asdict(split)},
            ("dataset_id", "digest"),
        )
        update_if_changed(connection, TrialRow, self.id, {"split_id": split_id})

    def _mine(self, statement):
        return statement.where(Attempt.trial_id == self.id, Attempt.number == self.attempt)

    def _set_state(self, connection: Connection, state: str, **times: int | None) -> None:
        connection.execute(
            sa.update(TrialRow)
            .where(TrialRow.id == self.id)
            .values(state=state, attempt=self.attempt, **times)
        )


def now() -> int:
    return time.time_ns() // 1000


def _main_folder() -> Path:
    import __main__

    return Path(getattr(__main__, "__file__", None) or Path.cwd() / "_").absolute().parent


def _check_step(step: Any) -> int:
    step = values.plain(step)
    if not isinstance(step, int) or isinstance(step, bool):
        raise InvalidValue(f"step {step!r} is {type(step).__name__}; give a whole number from 0")
    if not 0 <= step < STEPS:
        raise InvalidValue(f"step {step} is out of range; give a whole number from 0")
    return step


def _number(name: str, value: Any) -> tuple[float | None, str | None]:
    """A metric value as (number, JSON text for what is no number)."""
    what = f"metric {name!r}"
    kind, number, text = values.encode(what, value)
    if kind == values.NUMBER:
        return (math.nan if number is None else number), None
    if kind == values.INTEGER:
        return number, None
    if kind == values.BOOLEAN:
        return number, json.dumps(bool(number))
    if kind == values.JSON:
        raise InvalidValue(f"{what} is a list or dictionary; keep it as a tag or an artifact")
    return None, json.dumps(text, ensure_ascii=False)


def _read_params(connection: Connection, trial_id: int) -> dict[str, Any]:
    columns = (Hyperparameter.name, Hyperparameter.kind, Hyperparameter.number, Hyperparameter.text)
    rows = connection.execute(sa.select(*columns).where(Hyperparameter.trial_id == trial_id))
    return {name: values.decode(*value) for name, *value in rows}


_provenance_ids: dict[tuple, dict[str, int | None]] = {}


def _provenance(database: Database, code: Path) -> dict[str, int | None]:
    """Ids of the code version and the environment, looked up once a process and store."""
    cache_key = (os.getpid(), str(database.url), code)
    if cache_key not in _provenance_ids:
        version, environment = provenance.code_version(code), provenance.environment()
        key = ("git_commit", "dirty", "diff_sha256")
        with database.write() as connection:
            ids = {
                "code_version_id": version
                and find_or_insert(database, connection, CodeVersion, version, key),
                "environment_id": find_or_insert(
                    database, connection, Environment, environment, ("digest",)
                ),
            }
        _provenance_ids[cache_key] = ids
    return _provenance_ids[cache_key]
