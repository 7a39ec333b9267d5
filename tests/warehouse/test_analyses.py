"""The analyses say what pandas and scipy say of the same trials."""

from __future__ import annotations

import math
import random

import duckdb
import pandas as pd
import pytest
import scipy.stats
import sqlalchemy as sa
from lab import START_US

from mled.store.schema import Dataset, Experiment, Split, Trial

pytestmark = pytest.mark.usefixtures("untested")


def frame(settings, sql):
    with duckdb.connect(str(settings.mart.resolve()), read_only=True) as connection:
        return connection.execute(sql).df()


@pytest.fixture
def results(lab, etl):
    """Trials of two experiments with ties, gaps, text and odd results; as a frame."""
    rng = random.Random(7)
    rows = []
    for direction in ("maximize", "minimize"):
        name = f"to {direction}"
        experiment = lab.experiment(name=name, direction=direction)
        for number in range(30):
            params = {
                "lr": rng.choice([0.001, 0.01, 0.1, 1.0]),
                "depth": rng.choice([1, 2, 3, 4, 5]),
                "kernel": rng.choice(["rbf", "linear", "1"]),
                "same": 1,
            }
            if number % 5 == 0:
                params["sometimes"] = rng.choice([True, 1, "1", None])
            accuracy = rng.random() + params["depth"] / 5 - math.log10(params["lr"]) / 10
            odd = number in (3, 4, 5)
            points = {0: 0.1 * rng.random(), 1: math.nan if odd else accuracy, 2: rng.random() / 20}
            state = "failed" if number == 9 else "finished"
            trial = lab.trial(experiment, params, state=state)
            if state == "failed":
                continue
            lab.log(trial, "accuracy", points)
            lab.log(trial, "loss", {0: math.inf if number == 11 else rng.random()})
            known = [v for v in points.values() if not math.isnan(v)]
            best = max(known) if direction == "maximize" else min(known)
            rows.append({"experiment": name, "metric": "accuracy", "result": best, **params})
    etl()
    return pd.DataFrame(rows)


@pytest.mark.parametrize("by", ["experiment", None])
def test_correlations(settings, results, by):
    table = "hyperparameter_correlations" + ("" if by else "_overall")
    found = frame(settings, f"select * from marts.{table} where metric = 'accuracy'")
    keys = [by, "hyperparameter"] if by else ["hyperparameter"]
    found = found.set_index(keys)
    groups = results.groupby("experiment") if by else [(None, results)]
    for experiment, group in groups:
        for name in ("lr", "depth"):
            row = found.loc[(experiment, name) if by else name]
            pearson = scipy.stats.pearsonr(group[name], group.result)
            interval = pearson.confidence_interval()
            assert row.trials == len(group)
            assert row.pearson == pytest.approx(pearson.statistic)
            assert (row.pearson_low, row.pearson_high) == pytest.approx(tuple(interval))
            spearman = scipy.stats.spearmanr(group[name], group.result).statistic
            assert row.spearman == pytest.approx(spearman)
        constant = found.loc[(experiment, "same") if by else "same"]
        assert pd.isna(constant.pearson) and pd.isna(constant.spearman)
        assert "kernel" not in found.index.get_level_values("hyperparameter")


def test_impact(settings, results):
    found = frame(settings, "select * from marts.hyperparameter_impact where metric = 'accuracy'")
    assert set(found.loc[found.hyperparameter == "same", "is_varied"]) == {False}
    for name in ("depth", "kernel"):
        expected = results.assign(value=results[name].astype(str)).groupby(["experiment", "value"])
        overall = results.groupby("experiment").result.mean()
        some = found[found.hyperparameter == name].set_index(["experiment", "hyperparameter_value"])
        assert len(some) == len(expected)
        for key, group in expected.result:
            row = some.loc[key]
            low, high = scipy.stats.t.interval(
                0.95, len(group) - 1, loc=group.mean(), scale=scipy.stats.sem(group)
            )
            assert (row.trials, row.mean_result) == (len(group), pytest.approx(group.mean()))
            assert row.stddev_result == pytest.approx(group.std())
            assert (row.mean_low, row.mean_high) == pytest.approx((low, high), rel=1e-4)
            assert row.difference == pytest.approx(group.mean() - overall[key[0]])
    sometimes = found[found.hyperparameter == "sometimes"]
    assert {"true", "1", "null"} >= set(sometimes.hyperparameter_value)


def test_importance(settings, results):
    found = frame(
        settings, "select * from marts.hyperparameter_importance where metric = 'accuracy'"
    ).set_index(["experiment", "hyperparameter"])
    assert "same" not in found.index.get_level_values(1)
    for experiment, group in results.groupby("experiment"):
        for name in ("lr", "depth", "kernel"):
            values = group.groupby(name).result
            between = (values.size() * (values.mean() - group.result.mean()) ** 2).sum()
            total = ((group.result - group.result.mean()) ** 2).sum()
            n, k = len(group), values.ngroups
            expected = (between - (k - 1) * (total - between) / (n - k)) / total
            row = found.loc[experiment, name]
            assert row.explained == pytest.approx(between / total)
            assert row.importance == pytest.approx(max(expected, 0))
        ranks = found.loc[experiment].sort_values("importance", ascending=False).importance_rank
        assert list(ranks) == sorted(ranks)


def test_the_quantile_of_student(settings, results):
    from jinja2 import Environment

    macros = (settings.dbt_project / "macros" / "statistics.sql").read_text()
    source = macros[: macros.index("{% macro comparable_results")]
    sql = Environment().from_string(source + "{{ t_quantile('n') }}").render()
    with duckdb.connect() as connection:
        found = connection.execute(f"select n, {sql} from range(1, 400) r(n)").fetchall()
    for n, quantile in found:
        assert quantile == pytest.approx(scipy.stats.t.ppf(0.975, n), rel=1e-5), n


def test_dataset_audit(settings, lab, etl):
    first = lab.experiment()
    with lab.database.write() as connection:
        dataset, author = connection.execute(
            sa.select(Experiment.dataset_id, Experiment.author_id)
        ).one()
        splits = [
            connection.execute(
                sa.insert(Split).values(
                    dataset_id=dataset,
                    digest=str(shared),
                    method="random",
                    train_rows=80,
                    evaluation_rows=20,
                    shared_rows=shared,
                )
            ).inserted_primary_key[0]
            for shared in (0, 5)
        ]
        second = connection.execute(
            sa.insert(Dataset).values(name="dataset 1", version="v2")
        ).inserted_primary_key[0]
    lab.experiment(dataset_id=dataset)
    lab.experiment(dataset_id=second, author_id=author)
    for split in splits:
        lab.trial(first, split_id=split)
    gone = lab.trial(first)
    lab.delete(Trial, Trial.id == gone)
    etl()
    audit = frame(
        settings, "select * from marts.dataset_audit where dataset = 'dataset 1' order by 4"
    )
    assert list(audit.dataset_version) == ["v1", "v2"]
    assert list(audit.version_number) == [1, 2]
    assert list(audit.experiments) == [2, 1]
    assert list(audit.trials) == [2, 0]
    assert [list(authors) for authors in audit.authors] == [["author 1", "author 2"], ["author 1"]]
    assert list(audit.splits) == [2, 0]
    assert list(audit.has_overlap) == [True, False]
    assert audit.most_shared_share[0] == 0.25
    assert audit.first_used_at[0] == pd.Timestamp(START_US, unit="us")
