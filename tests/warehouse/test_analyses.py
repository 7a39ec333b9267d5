"""The analyses say what pandas and scipy say of the same trials."""

from __future__ import annotations

import json
import math
import random
from types import SimpleNamespace

import duckdb
import pandas as pd
import pytest
import scipy.stats
import sqlalchemy as sa
from jinja2 import Environment
from lab import START_US, Lab, fresh_home

from mled.settings import load
from mled.store.schema import Dataset, Experiment, Split, Trial
from mled.warehouse.pipeline import run_etl

pytestmark = pytest.mark.usefixtures("untested")


def frame(settings, sql):
    with duckdb.connect(str(settings.mart.resolve()), read_only=True) as connection:
        return connection.execute(sql).df()


def rendered(settings, call):
    """The SQL of one of the macros for statistics."""
    macros = (settings.dbt_project / "macros" / "statistics.sql").read_text()
    names = {
        "ref": "intermediate.{}".format,
        "dbt": SimpleNamespace(escape_single_quotes=lambda text: text.replace("'", "''")),
    }
    return Environment().from_string(f"{macros}{{{{ {call} }}}}", globals=names).render()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store.db"
    home = fresh_home(tmp_path_factory)
    return load({"MLED_HOME": str(home), "MLED_STORE_URL": f"sqlite:///{store}"})


@pytest.fixture(scope="module")
def lab(settings):
    return Lab(settings)


@pytest.fixture(scope="module")
def results(settings, lab, untested):
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
            setting = json.dumps(params, sort_keys=True)
            rows.append({"experiment": name, "result": best, "setting": setting, **params})
    run_etl(settings)
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


def test_results_of_an_experiment(settings, results):
    found = frame(settings, "select * from marts.experiment_metrics where metric = 'accuracy'")
    assert list(found.is_objective) == [True, True]
    for experiment, group in results.groupby("experiment"):
        row = found.set_index("experiment").loc[experiment]
        assert row.trials == len(group)
        assert [row.mean_result, row.stddev_result, row.median_result] == pytest.approx(
            [group.result.mean(), group.result.std(), group.result.median()]
        )
        assert (row.min_result, row.max_result) == (group.result.min(), group.result.max())


def test_experiments_side_by_side(settings, results):
    found = frame(settings, "select * from marts.experiment_pairs where metric = 'accuracy'")
    means = results.groupby(["experiment", "setting"]).result.agg(["size", "mean"])
    expected = means.loc["to maximize"].merge(
        means.loc["to minimize"], on="setting", suffixes=("", "_other")
    )
    assert len(found) == len(expected) > 0
    assert set(found.experiment) == {"to maximize"}

    def rows(table, *columns):
        return sorted(map(tuple, table[list(columns)].round(9).values.tolist()))

    assert rows(found, "trials", "other_trials", "mean_result", "other_mean_result") == rows(
        expected, "size", "size_other", "mean", "mean_other"
    )
    assert list(found.difference) == pytest.approx(
        list(found.other_mean_result - found.mean_result)
    )


def test_trials_that_meet_criteria(settings, results):
    sql = rendered(
        settings, """trials_where({"lr": "<= 0.01", "kernel": "= 'rbf'", "depth": "in (2, 3)"})"""
    )
    found = frame(
        settings,
        f"select hyperparameter_number from marts.trial_hyperparameter_metrics semi join ({sql}) "
        "using (trial_id) where state = 'finished' and metric = 'accuracy' "
        "and hyperparameter = 'lr'",
    )
    fit = results[(results.lr <= 0.01) & (results.kernel == "rbf") & results.depth.isin([2, 3])]
    assert sorted(found.hyperparameter_number) == sorted(fit.lr)
    assert 0 < len(fit) < len(results)


def test_the_quantile_of_student(settings):
    sql = rendered(settings, "t_quantile('n')")
    with duckdb.connect() as connection:
        found = connection.execute(f"select n, {sql} from range(1, 400) r(n)").fetchall()
    for n, quantile in found:
        assert quantile == pytest.approx(scipy.stats.t.ppf(0.975, n), rel=1e-5), n


def test_dataset_audit(settings, lab):
    first = lab.experiment(name="first")
    with lab.database.write() as connection:
        dataset, author = connection.execute(
            sa.select(Experiment.dataset_id, Experiment.author_id).where(Experiment.id == first)
        ).one()
        name = connection.scalar(sa.select(Dataset.name).where(Dataset.id == dataset))
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
            sa.insert(Dataset).values(name=name, version="v2")
        ).inserted_primary_key[0]
    lab.experiment(dataset_id=dataset)
    lab.experiment(dataset_id=second, author_id=author)
    for split in splits:
        lab.trial(first, split_id=split)
    gone = lab.trial(first)
    lab.delete(Trial, Trial.id == gone)
    run_etl(settings)
    audit = frame(
        settings, f"select * from marts.dataset_audit where dataset = '{name}' order by 4"
    )
    assert list(audit.dataset_version) == ["v1", "v2"]
    assert list(audit.version_number) == [1, 2]
    assert list(audit.experiments) == [2, 1]
    assert list(audit.trials) == [2, 0]
    number = int(name.split()[-1])
    both = sorted([f"author {number}", f"author {number + 1}"])
    assert [list(authors) for authors in audit.authors] == [both, [f"author {number}"]]
    assert list(audit.splits) == [2, 0]
    assert list(audit.has_overlap) == [True, False]
    assert audit.most_shared_share[0] == 0.25
    assert audit.first_used_at[0] == pd.Timestamp(START_US, unit="us")
