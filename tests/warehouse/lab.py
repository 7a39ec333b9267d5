"""A store to fill by hand, and what the mart should say of it, worked out without dbt."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import duckdb
import sqlalchemy as sa

from mled.settings import Settings
from mled.store import connect, values
from mled.store.schema import (
    Attempt,
    Author,
    Dataset,
    Experiment,
    Hyperparameter,
    Metric,
    Model,
    Trial,
)

START_US = 1_760_000_000_000_000


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
                    lambda: self.update(Trial, trial, experiment_id=experiment),
                    lambda: self.update(Experiment, experiment, name=f"named {rng.random()}"),
                    lambda: self.update(Experiment, experiment, objective=metric),
                ]
            )()


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
        "duration_s, host, epoch_us(started_at)",
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
    return Counter(tuple("NaN" if v != v else v for v in row) for row in rows)


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
            shown = self._varied[e.id] or self._names(e.id)
            label = ", ".join(
                f"{h.name}={_text(h)}" for h in self._hyperparameters[trial.id] if h.name in shown
            )
            result.append(
                (
                    *(trial.id, p.name, p.step, _number(p), p.text, p.created_at, e.name),
                    *(self._authors[e.author_id].name, dataset.name, dataset.version),
                    *(self._models[e.model_id].name, trial.state, trial.seed, trial.repeat),
                    *(label, f"#{trial.id} {label}".strip()),
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
            result.append(
                (t.id, e.name, t.state, value, step, rank, a.duration_s, a.host, t.started_at)
            )
        return result

    def summary(self) -> list[tuple]:
        result = []
        for (trial_id, metric), series in self._series.items():
            steps = [s for s in sorted(series) if series[s] is not None]
            known = [series[s] for s in steps if not math.isnan(series[s])]
            first, last = (series[steps[0]], series[steps[-1]]) if steps else (None, None)
            low, high = (min(known), max(known)) if known else (None, None)
            e = self._experiments[self._trials[trial_id].experiment_id]
            is_objective = metric == e.objective
            best = (high if e.direction == "maximize" else low) if is_objective else None
            for h in self._hyperparameters[trial_id]:
                is_varied = h.name in self._varied[e.id]
                number = math.nan if h.kind == "number" and h.number is None else h.number
                result.append(
                    (
                        *(trial_id, h.name, metric, _text(h), number, is_varied),
                        *(first, last, low, high, len(series), is_objective, best),
                    )
                )
        return result

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


def _text(hyperparameter: Any) -> str:
    kind, number, text = hyperparameter.kind, hyperparameter.number, hyperparameter.text
    if kind in ("text", "json"):
        return text
    value = values.decode(kind, number, text)
    return repr(value).removesuffix(".0") if kind == "number" else json.dumps(value)
