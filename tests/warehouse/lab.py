"""A store to fill by hand, and what the mart should say of it, worked out without dbt."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from mled.settings import Settings
from mled.store import connect, values
from mled.store.schema import (
    Artifact,
    Attempt,
    Author,
    CodeVersion,
    Dataset,
    Environment,
    Experiment,
    Hyperparameter,
    MaintenanceRun,
    Metric,
    Model,
    Note,
    Tag,
    Trial,
)

START_US = 1_760_000_000_000_000


def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that tests share, so that dbt parses its project once, as good as new."""
    folder = tmp_path_factory.getbasetemp() / "warehouse-home"
    for name in ("staging", "warehouse"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


class Lab:
    """Writes into the store of `settings`, a transaction for each call."""

    def __init__(self, settings: Settings):
        self.database = connect(settings)
        self._numbers = itertools.count(1)

    def experiment(self, **columns: Any) -> int:
        """An experiment with an author, a dataset and a model of its own."""
        n = next(self._numbers)
        with self.database.write() as connection:

            def add(table: Any, **row: Any) -> int:
                return connection.execute(sa.insert(table).values(row)).inserted_primary_key[0]

            defaults = {
                "name": f"experiment {n}",
                "author_id": add(Author, name=f"author {n}"),
                "dataset_id": add(Dataset, name=f"dataset {n}", version="v1"),
                "model_id": add(Model, name=f"model {n}"),
                "objective": "accuracy",
            }
            return add(Experiment, **defaults | columns)

    def trial(
        self, experiment: int, hyperparameters: Mapping[str, Any] | None = None, **columns: Any
    ) -> int:
        """A trial with one attempt; finished, unless `columns` say otherwise."""
        encoded = values.encode_hyperparameters(hyperparameters or {})
        ended = {"state": "finished", "started_at": START_US, "ended_at": START_US + 5_000_000}
        row = {
            "experiment_id": experiment,
            "identity": values.identity(encoded),
            "seed": next(self._numbers),
            "hyperparameters": values.as_json(encoded),
            "attempt": 1,
        }
        with self.database.write() as connection:
            trial = connection.execute(
                sa.insert(Trial).values(row | ended | columns)
            ).inserted_primary_key[0]
            for name, value in encoded.items():
                connection.execute(
                    sa.insert(Hyperparameter).values(trial_id=trial, name=name, **value._asdict())
                )
            attempt = {"heartbeat_at": START_US, "duration_s": 5.0, "host": "here", "pid": 1}
            connection.execute(
                sa.insert(Attempt).values(trial_id=trial, number=1, **attempt, **ended)
            )
        return trial

    def log(self, trial: int, metric: str, points: Mapping[int, Any]) -> None:
        """Insert or replace points, given as step → value."""
        rows = []
        for step, value in points.items():
            is_number = type(value) in (int, float)
            number = values.encode("a value", value).number
            text = None if is_number else json.dumps(value)
            rows.append((trial, metric, step, number, text))
        with self.database.write() as connection, self.database.ticket(connection) as stamp:
            self.database.dialect.write_points(connection, rows, stamp)

    def retry(self, trial: int) -> None:
        """Another attempt at a trial, on a machine and from a commit that no other has used."""
        n = next(self._numbers)
        times = {"started_at": START_US, "ended_at": START_US + n, "heartbeat_at": START_US}
        with self.database.write() as connection:
            environment = connection.execute(
                sa.insert(Environment).values(
                    digest=str(n),
                    python="3.11",
                    platform="Linux",
                    packages={"torch": f"2.{n}", "numpy": "1"},
                    hardware={"cpu": "Z80", "cores": n, "memory_bytes": 2**40, "gpus": ["A", "B"]},
                )
            ).inserted_primary_key[0]
            code = connection.execute(
                sa.insert(CodeVersion).values(git_commit=f"c{n}", dirty=n % 2 == 0, diff_sha256="")
            ).inserted_primary_key[0]
            number = connection.execute(
                sa.update(Trial)
                .where(Trial.id == trial)
                .values(attempt=Trial.attempt + 1, state="failed", ended_at=START_US + n)
                .returning(Trial.attempt)
            ).scalar_one()
            failed = {
                "state": "failed",
                "duration_s": float(n),
                "cpu_s": n / 2,
                "host": "there",
                "pid": n,
                "environment_id": environment,
                "code_version_id": code,
                "error_type": "ValueError",
                "error_message": f"no {n}",
                "traceback": "Traceback …",
            }
            connection.execute(
                sa.insert(Attempt).values(trial_id=trial, number=number, **failed, **times)
            )

    def tag(self, trial: int, name: str, value: Any) -> None:
        row = {"trial_id": trial, "name": name, **values.encode("a tag", value)._asdict()}
        with self.database.write() as connection:
            connection.execute(
                self.database.dialect.insert(Tag)
                .values(row)
                .on_conflict_do_update(index_elements=["trial_id", "name"], set_=row)
            )

    def note(self, trial: int, text: str) -> None:
        with self.database.write() as connection:
            connection.execute(sa.insert(Note).values(trial_id=trial, text=text))

    def artifact(self, trial: int, name: str, content: str) -> None:
        """Record a file of that content, in the place of one of the same name."""
        row = {"path": f"a/{content}", "size": len(content), "sha256": content}
        with self.database.write() as connection:
            connection.execute(
                self.database.dialect.insert(Artifact)
                .values(trial_id=trial, name=name, **row)
                .on_conflict_do_update(index_elements=["trial_id", "name"], set_=row)
            )

    def maintain(self, **columns: Any) -> int:
        """The record of a maintenance; it has succeeded, unless `columns` say otherwise."""
        done = {"state": "succeeded", "started_at": START_US, "ended_at": START_US + 2_000_000}
        with self.database.write() as connection:
            return connection.execute(
                sa.insert(MaintenanceRun).values(done | columns)
            ).inserted_primary_key[0]

    def update(self, table: Any, row_id: int, **columns: Any) -> None:
        with self.database.write() as connection:
            connection.execute(sa.update(table).where(table.id == row_id).values(**columns))

    def delete(self, table: Any, *conditions: Any) -> None:
        with self.database.write() as connection:
            connection.execute(sa.delete(table).where(*conditions))

    def scribble(self, rng: random.Random) -> None:
        """One random change of anything."""
        with self.database.read() as connection:
            experiments = connection.scalars(sa.select(Experiment.id)).all()
            trials = connection.scalars(sa.select(Trial.id)).all()
        if not experiments or rng.random() < 0.05:
            self.experiment(direction=rng.choice(["maximize", "minimize"]))
        elif not trials or rng.random() < 0.3:
            names = rng.sample(["C", "c", "gamma", f"extra {rng.randrange(20)}"], 2)
            self.trial(rng.choice(experiments), {n: rng.choice([1, 0.5, "x", None]) for n in names})
        else:
            trial, experiment = rng.choice(trials), rng.choice(experiments)
            metric = rng.choice(["accuracy", "loss"])
            points = {s: rng.choice([rng.random(), math.nan]) for s in range(rng.randrange(1, 9))}
            rng.choice(
                [
                    *[lambda: self.log(trial, metric, points)] * 5,
                    lambda: self.delete(
                        Metric, Metric.trial_id == trial, Metric.step == rng.randrange(9)
                    ),
                    lambda: self.delete(Hyperparameter, Hyperparameter.trial_id == trial),
                    lambda: self.delete(Trial, Trial.id == trial),
                    lambda: self.retry(trial),
                    lambda: self.tag(trial, rng.choice("ab"), rng.choice([1, 0.5, "x", None])),
                    lambda: self.delete(Tag, Tag.trial_id == trial, Tag.name == "a"),
                    lambda: self.note(trial, f"seen {rng.random()}"),
                    lambda: self.delete(Note, Note.trial_id == trial),
                    lambda: self.artifact(trial, rng.choice("ab"), str(rng.random())),
                    lambda: self.delete(Artifact, Artifact.trial_id == trial),
                    lambda: self.maintain(orphans=rng.randrange(9)),
                    lambda: self.update(Trial, trial, experiment_id=experiment),
                    lambda: self.update(Experiment, experiment, name=f"named {rng.random()}"),
                    lambda: self.update(Experiment, experiment, objective=metric),
                ]
            )()


def fill(settings: Settings, lab: Lab, rounds: int, seed: int = 1) -> None:
    """Make as many batches of random changes."""
    from mled.warehouse.extract import extract

    rng = random.Random(seed)
    for _ in range(rounds):
        for _ in range(8):
            lab.scribble(rng)
        extract(settings)


def mart(settings: Settings, sql: str) -> list[tuple]:
    """Ask the published mart as its readers do."""
    with duckdb.connect(str(settings.mart.resolve()), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def check(settings: Settings) -> None:
    """The published mart says of the store what the store says itself."""
    truth = Truth(settings)
    _compare(
        settings,
        "metrics_wide",
        "trial_id, metric, step, value, value_text, epoch_us(logged_at), experiment, "
        "author, dataset, dataset_version, model, state, seed, repeat, hyperparameters, "
        "trial_label",
        truth.wide(),
    )
    _compare(
        settings,
        "trials",
        "trial_id, experiment, state, objective_value, objective_step, experiment_rank, "
        "duration_s, host, epoch_us(started_at), total_duration_s, total_cpu_s, traceback, "
        "map_keys(metrics)",
        truth.trials(),
    )
    _compare(
        settings,
        "trial_hyperparameter_metrics",
        "trial_id, hyperparameter, metric, hyperparameter_value, hyperparameter_number, "
        "is_varied, first_value, last_value, min_value, max_value, steps, is_objective, "
        "best_value",
        truth.summary(),
    )
    _compare(
        settings,
        "trial_metrics",
        "trial_id, metric, experiment, trial_label, is_objective, first_value, last_value, "
        "min_value, max_value, best_value, best_step, steps",
        truth.metrics(),
    )
    _compare(
        settings,
        "trial_attempts",
        "trial_id, attempt, experiment, trial_label, is_latest, state, host, cpu_s, error_message",
        truth.attempts(),
    )
    _compare(
        settings,
        "trial_environments",
        "trial_id, attempt, experiment, trial_label, host, python, cores, gpus, packages, "
        "git_commit, is_dirty",
        truth.environments(),
    )
    _compare(
        settings,
        "trial_tags",
        "trial_id, name, experiment, trial_label, kind, value, number",
        truth.tags(),
    )
    _compare(
        settings, "trial_notes", "note_id, trial_id, experiment, trial_label, text", truth.notes()
    )
    _compare(
        settings,
        "trial_artifacts",
        "trial_id, name, experiment, trial_label, path, bytes, sha256",
        truth.artifacts(),
    )
    _compare(
        settings,
        "maintenance_runs",
        "maintenance_run_id, state, orphans, problems, first_problem, duration_s",
        truth.maintenance(),
    )


def _compare(settings: Settings, table: str, columns: str, truth: list[tuple]) -> None:
    found = _counted(mart(settings, f"select {columns} from marts.{table}"))
    expected = _counted(truth)
    missing, extra = expected - found, found - expected
    assert not missing and not extra, (
        f"{table}: {missing.total()} missing, {extra.total()} stale or twice; "
        f"such as {[*missing, *extra][:3]}"
    )


def _counted(rows: list[tuple]) -> Counter:
    """Each row and how often it is there, with NaN equal to itself and unlike None."""
    return Counter(
        tuple("NaN" if v != v else tuple(v) if isinstance(v, list) else v for v in row)
        for row in rows
    )


class Truth:
    """The join of the store's tables, in plain Python."""

    def __init__(self, settings: Settings):
        def rows(connection, table: Any) -> list[Any]:
            return connection.execute(sa.select(table.__table__)).all()

        with connect(settings).read() as connection:
            self._experiments = {e.id: e for e in rows(connection, Experiment)}
            self._authors = {a.id: a for a in rows(connection, Author)}
            self._datasets = {d.id: d for d in rows(connection, Dataset)}
            self._models = {m.id: m for m in rows(connection, Model)}
            self._trials = {t.id: t for t in rows(connection, Trial)}
            self._attempts = {(a.trial_id, a.number): a for a in rows(connection, Attempt)}
            self._environments = {e.id: e for e in rows(connection, Environment)}
            self._code_versions = {c.id: c for c in rows(connection, CodeVersion)}
            self._tags = rows(connection, Tag)
            self._notes = rows(connection, Note)
            self._artifacts = rows(connection, Artifact)
            self._maintenance = rows(connection, MaintenanceRun)
            self._points = rows(connection, Metric)
            self._hyperparameters = defaultdict(list)
            for h in sorted(rows(connection, Hyperparameter), key=lambda h: h.name):
                self._hyperparameters[h.trial_id].append(h)
        self._varied = {
            e: {name for name in self._names(e) if self._is_varied(e, name)}
            for e in self._experiments
        }
        self._series = defaultdict(dict)
        for p in self._points:
            self._series[p.trial_id, p.name][p.step] = _number(p)

    def wide(self) -> list[tuple]:
        result = []
        for p in self._points:
            trial = self._trials[p.trial_id]
            e = self._experiments[trial.experiment_id]
            dataset = self._datasets[e.dataset_id]
            experiment, label = self._called(trial.id)
            result.append(
                (
                    *(trial.id, p.name, p.step, _number(p), p.text, p.created_at, experiment),
                    *(self._authors[e.author_id].name, dataset.name, dataset.version),
                    *(self._models[e.model_id].name, trial.state, trial.seed, trial.repeat),
                    *(label.partition(" ")[2], label),
                )
            )
        return result

    def trials(self) -> list[tuple]:
        best = {t.id: self._best(t) for t in self._trials.values()}
        result = []
        for t in self._trials.values():
            e = self._experiments[t.experiment_id]
            sign = -1 if e.direction == "maximize" else 1
            rivals = [
                sign * best[r.id][0]
                for r in self._trials.values()
                if r.experiment_id == e.id and r.state == "finished" and best[r.id]
            ]
            value, step = best[t.id] or (None, None)
            rank = None
            if t.state == "finished" and value is not None:
                rank = 1 + sum(rival < sign * value for rival in rivals)
            a = self._attempts[t.id, t.attempt]
            attempts = [b for b in self._attempts.values() if b.trial_id == t.id]
            cpu_s = [b.cpu_s for b in attempts if b.cpu_s is not None]
            result.append(
                (
                    *(t.id, e.name, t.state, value, step, rank, a.duration_s, a.host),
                    *(t.started_at, sum(b.duration_s for b in attempts)),
                    *(sum(cpu_s) if cpu_s else None, a.traceback),
                    sorted(name for trial, name in self._series if trial == t.id) or None,
                )
            )
        return result

    def metrics(self) -> list[tuple]:
        result = []
        for (trial_id, metric), series in self._series.items():
            is_objective = metric == self._experiment_of(trial_id).objective
            best = self._best(self._trials[trial_id]) if is_objective else None
            extremes = _extremes(series)
            result.append(
                (
                    *(trial_id, metric, *self._called(trial_id), is_objective),
                    *(*extremes, *(best or (None, None)), len(series)),
                )
            )
        return result

    def attempts(self) -> list[tuple]:
        return [
            (
                *(a.trial_id, a.number, *self._called(a.trial_id)),
                *(a.number == self._trials[a.trial_id].attempt, a.state, a.host, a.cpu_s),
                a.error_message,
            )
            for a in self._attempts.values()
        ]

    def environments(self) -> list[tuple]:
        result = []
        for t in self._trials.values():
            a = self._attempts[t.id, t.attempt]
            facts = [None] * 6
            if a.environment_id:
                e, c = self._environments[a.environment_id], self._code_versions[a.code_version_id]
                hardware = e.hardware["cores"], e.hardware["gpus"]
                facts = [e.python, *hardware, len(e.packages), c.git_commit, c.dirty]
            result.append((t.id, t.attempt, *self._called(t.id), a.host, *facts))
        return result

    def tags(self) -> list[tuple]:
        return [
            (t.trial_id, t.name, *self._called(t.trial_id), t.kind, _text(t), _typed(t))
            for t in self._tags
        ]

    def notes(self) -> list[tuple]:
        return [(n.id, n.trial_id, *self._called(n.trial_id), n.text) for n in self._notes]

    def artifacts(self) -> list[tuple]:
        return [
            (a.trial_id, a.name, *self._called(a.trial_id), a.path, a.size, a.sha256)
            for a in self._artifacts
        ]

    def maintenance(self) -> list[tuple]:
        return [
            (
                *(m.id, m.state, m.orphans),
                *((len(m.problems), m.problems[0]) if m.problems else (None, None)),
                (m.ended_at - m.started_at) / 1e6 if m.ended_at else None,
            )
            for m in self._maintenance
        ]

    def summary(self) -> list[tuple]:
        result = []
        for (trial_id, metric), series in self._series.items():
            first, last, low, high = _extremes(series)
            e = self._experiment_of(trial_id)
            is_objective = metric == e.objective
            best = (high if e.direction == "maximize" else low) if is_objective else None
            for h in self._hyperparameters[trial_id]:
                is_varied = h.name in self._varied[e.id]
                result.append(
                    (
                        *(trial_id, h.name, metric, _text(h), _typed(h), is_varied),
                        *(first, last, low, high, len(series), is_objective, best),
                    )
                )
        return result

    def _experiment_of(self, trial: int) -> Any:
        return self._experiments[self._trials[trial].experiment_id]

    def _called(self, trial: int) -> tuple[str, str]:
        """The name of a trial's experiment, and the trial's label."""
        e = self._experiment_of(trial)
        shown = self._varied[e.id] or self._names(e.id)
        label = ", ".join(
            f"{h.name}={_text(h)}" for h in self._hyperparameters[trial] if h.name in shown
        )
        return e.name, f"#{trial} {label}".strip()

    def _trials_of(self, experiment: int) -> list[int]:
        return [t.id for t in self._trials.values() if t.experiment_id == experiment]

    def _names(self, experiment: int) -> set[str]:
        return {h.name for t in self._trials_of(experiment) for h in self._hyperparameters[t]}

    def _is_varied(self, experiment: int, name: str) -> bool:
        """Whether the trials of an experiment differ in a hyperparameter, or some lack it."""
        values_seen = set()
        for trial in self._trials_of(experiment):
            found = [h for h in self._hyperparameters[trial] if h.name == name]
            kind = found and ("number" if found[0].kind == "integer" else found[0].kind)
            values_seen.add((kind, _text(found[0])) if found else None)
        return len(values_seen) > 1

    def _best(self, trial: Any) -> tuple[float, int] | None:
        """The best value of the trial's objective, and the first step that has it."""
        e = self._experiments[trial.experiment_id]
        series = self._series.get((trial.id, e.objective), {})
        known = [(v, s) for s, v in series.items() if v is not None and not math.isnan(v)]
        if not known:
            return None
        if e.direction == "maximize":
            return max(known, key=lambda pair: (pair[0], -pair[1]))
        return min(known)


def _number(point: Any) -> float | None:
    return math.nan if point.number is None and point.text is None else point.number


def _extremes(series: Mapping[int, float | None]) -> tuple[float | None, ...]:
    """First, last, least and greatest value of a metric, given as step → value."""
    steps = [s for s in sorted(series) if series[s] is not None]
    known = [series[s] for s in steps if not math.isnan(series[s])]
    return (
        *((series[steps[0]], series[steps[-1]]) if steps else (None, None)),
        *((min(known), max(known)) if known else (None, None)),
    )


def _typed(row: Any) -> float | None:
    """The number of a typed value, NaN included."""
    return math.nan if row.kind == "number" and row.number is None else row.number


def _text(row: Any) -> str:
    """A typed value as text."""
    kind, number, text = row.kind, row.number, row.text
    if kind in ("text", "json"):
        return text
    value = values.decode(kind, number, text)
    return repr(value).removesuffix(".0") if kind == "number" else json.dumps(value)
